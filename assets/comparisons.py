"""The verdicts of a batch, from the callbacks of its ended provider jobs."""

import dagster as dg

from assets.automation.metadata import (
    costs_by_judge,
    history_and_columns,
    progress_in_run_log,
    progress_metadata,
    table,
)
from assets.automation.partitions import OWNERS, STORED, batch_step, batches
from cj_pipeline.steps.collect_wave import collect_wave, raise_if_held
from resources.runtime_resource import RuntimeResource


@dg.asset(
    deps=["provider_jobs"],
    partitions_def=batches,
    group_name="judging",
    kinds=STORED,
    owners=OWNERS,
    tags={"paid": "no"},
)
def comparisons(
    context: dg.AssetExecutionContext, engine: RuntimeResource
) -> dg.MaterializeResult[None]:
    """What each judge decided on each pair, or how the comparison failed for good."""
    connected = engine.open()
    with (
        batch_step(connected, context.partition_key, "comparisons"),
        progress_in_run_log(context, connected, since_submission=True),
    ):
        collected = collect_wave(connected, context.partition_key)
        raise_if_held(connected, context.partition_key)
    history, columns = history_and_columns(connected, context.partition_key, "comparisons")
    return dg.MaterializeResult(
        metadata=progress_metadata(connected, context.partition_key)
        | {
            "n_jobs": collected.n_jobs,
            "n_requested": collected.n_requested,
            "outcomes": {outcome.value: n for outcome, n in collected.outcomes.items()},
            "cost_usd": collected.billed_usd,
            "cost_usd_so_far": sum(job["billed_usd"] or 0.0 for job in history.jobs),
            "costs": costs_by_judge(history),
            "n_verdicts": len(history.succeeded),
            "n_failed": len(history.failed),
            "dagster/partition_row_count": len(history.comparisons),
            "dagster/column_schema": columns,
            "latest": table(
                history.comparisons[::-1],
                ("wave", "essay_a", "essay_b", "winner", "confidence", "justification"),
            ),
        }
    )
