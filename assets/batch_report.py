"""The report of a batch, for people; and the copy of the store analysts read."""

from typing import Any

import dagster as dg

from assets.automation.metadata import MAX_CELL, costs_by_judge, history_of, links_to
from assets.automation.partitions import OWNERS, batch_step, batches
from cj_pipeline.outputs.artefact import artefact_name
from cj_pipeline.steps.publish import publish_report
from cj_pipeline.text import excerpt
from resources.runtime_resource import RuntimeResource


@dg.asset(
    deps=["run_artefact"],
    partitions_def=batches,
    group_name="outputs",
    kinds={"html"},
    owners=OWNERS,
    tags={"paid": "no"},
)
def batch_report(
    context: dg.AssetExecutionContext, engine: RuntimeResource
) -> dg.MaterializeResult[None]:
    """One page that shows a person what the batch came to, and how sure we are."""
    connected, batch_id = engine.open(), context.partition_key
    with batch_step(connected, batch_id, "batch_report"):
        written = publish_report(connected, batch_id)
    history = history_of(connected, batch_id)
    metadata: dict[str, Any] = {
        "report": dg.MetadataValue.path(str(written.path)),
        "artefact": dg.MetadataValue.path(
            str(written.path.with_name(artefact_name(history.batch["runner_mode"])))
        ),
        "sha256": written.sha256,
        "n_bytes": written.n_bytes,
        "state": history.batch["state"],
        "end_reason": history.batch["end_reason"],
        "hindered_by": excerpt(history.hindered_by, MAX_CELL),
        "grading": history.grading["statement"] if history.grading else "not graded",
        "cost_usd": sum(job["billed_usd"] or 0.0 for job in history.jobs),
        "costs": costs_by_judge(history),
    }
    if connected.store.published_path is not None:
        metadata["published_copy"] = dg.MetadataValue.path(str(connected.store.published_path))
    metadata |= links_to(connected, batch_id, "live_page", "report", "artefact")
    return dg.MaterializeResult(metadata=metadata)
