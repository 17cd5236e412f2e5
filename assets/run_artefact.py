"""The artefact of a batch: what was given, requested and found, in one checked file."""

import dagster as dg

from assets.automation.partitions import OWNERS, batch_step, batches
from cj_pipeline.steps.publish import publish_artefact
from resources.runtime_resource import RuntimeResource


@dg.asset(
    deps=["grade_projections"],
    partitions_def=batches,
    group_name="outputs",
    kinds={"json"},
    owners=OWNERS,
    tags={"paid": "no"},
)
def run_artefact(
    context: dg.AssetExecutionContext, engine: RuntimeResource
) -> dg.MaterializeResult[None]:
    """The batch as one JSON file, valid against its contract, with every checksum."""
    with batch_step(engine.open(), context.partition_key, "run_artefact"):
        written = publish_artefact(engine.open(), context.partition_key)
    return dg.MaterializeResult(
        metadata={
            "path": dg.MetadataValue.path(str(written.path)),
            "sha256": written.sha256,
            "n_bytes": written.n_bytes,
        }
    )
