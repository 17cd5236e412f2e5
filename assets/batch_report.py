"""The report of a batch, for people; and the copy of the store analysts read."""

import dagster as dg

from assets.batch_partitions import OWNERS, batches, errors_as_dagster_knows_them
from assets.pictures import picture
from cj_pipeline.steps import publish_report
from resources.engine_resource import EngineResource


@dg.asset(
    deps=["run_artefact"],
    partitions_def=batches,
    group_name="outputs",
    kinds={"html"},
    owners=OWNERS,
    tags={"paid": "no"},
)
def batch_report(context: dg.AssetExecutionContext, engine: EngineResource) -> dg.MaterializeResult:
    """One page that tells a person what the batch came to, and how sure we are."""
    connected = engine.open()
    with errors_as_dagster_knows_them():
        written = publish_report(connected, context.partition_key)
    return dg.MaterializeResult(
        metadata={
            "report": dg.MetadataValue.url(written.path.as_uri()),
            "sha256": written.sha256,
            "n_bytes": written.n_bytes,
            "cost_per_wave": picture(connected, context.partition_key, "cost_plot"),
        }
    )
