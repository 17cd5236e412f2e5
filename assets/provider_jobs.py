"""The provider jobs of a batch's wave, each recorded before it was sent."""

from typing import Any

import dagster as dg

from assets.automation.metadata import (
    costs_by_judge,
    history_and_columns,
    progress_in_run_log,
    progress_metadata,
    table,
)
from assets.automation.partitions import OWNERS, STORED, batch_step, batches
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.submit_wave import Submitted, submit_wave
from resources.runtime_resource import RuntimeResource


@dg.asset(
    deps=["comparison_pairs"],
    partitions_def=batches,
    group_name="judging",
    kinds=STORED,
    owners=OWNERS,
    tags={"paid": "yes"},
)
def provider_jobs(
    context: dg.AssetExecutionContext, engine: RuntimeResource
) -> dg.MaterializeResult[None]:
    """What was handed to the judges' providers; running this again sends nothing twice."""
    connected = engine.open()
    with (
        batch_step(connected, context.partition_key, "provider_jobs"),
        progress_in_run_log(context, connected),
    ):
        sent = submit_wave(connected, context.partition_key)
    return dg.MaterializeResult(metadata=jobs_metadata(connected, context.partition_key, sent))


def jobs_metadata(runtime: Runtime, batch_id: str, sent: Submitted) -> dict[str, Any]:
    """Return what the page of a wave's provider jobs shows."""
    history, columns = history_and_columns(runtime, batch_id, "provider_jobs")
    return progress_metadata(runtime, batch_id) | {
        "n_jobs_sent": sent.n_sent,
        "n_jobs_adopted": sent.n_adopted,
        "n_requests": sent.n_requests,
        "reserved_usd": sent.reserved_usd,
        "refused_for_spend_cap": sent.refused_for_spend_cap,
        "dagster/partition_row_count": len(history.jobs),
        "dagster/column_schema": columns,
        "jobs": table(
            history.jobs[::-1],
            ("wave", "provider", "model", "state", "n_requests", "provider_job_id", "error"),
        ),
        "costs": costs_by_judge(history),
    }
