"""The comparisons of a batch's next wave, planned and not yet sent."""

from collections import Counter

import dagster as dg

from assets.automation.metadata import history_and_columns, table
from assets.automation.partitions import OWNERS, STORED, batch_step, batches
from cj_pipeline.outputs.feedback import why_requested
from cj_pipeline.steps.plan_wave import plan_wave
from resources.runtime_resource import RuntimeResource


@dg.asset(
    deps=["essays"],
    partitions_def=batches,
    group_name="judging",
    kinds=STORED,
    owners=OWNERS,
    tags={"paid": "no"},
)
def comparison_pairs(
    context: dg.AssetExecutionContext, engine: RuntimeResource
) -> dg.MaterializeResult[None]:
    """Who is compared with whom in this wave, who is shown first, and why."""
    connected = engine.open()
    with batch_step(connected, context.partition_key, "comparison_pairs"):
        planned = plan_wave(connected, context.partition_key)
    history, columns = history_and_columns(connected, context.partition_key, "comparison_pairs")
    strategy = history.settings["strategy"]
    wave = [
        {**row, "asked": why_requested(row["role"], row["expected_gain"], strategy)}
        for row in history.pairs
        if row["wave"] == planned.wave
    ]
    return dg.MaterializeResult(
        metadata={
            "wave": planned.wave,
            "n_comparisons": len(wave),
            "dagster/partition_row_count": len(history.pairs),
            "dagster/column_schema": columns,
            "roles": dict(Counter(row["role"] for row in wave)),
            "asked_of": dict(Counter(history.judge_by_id[row["judge_id"]]["name"] for row in wave)),
            "pairs": table(
                wave, ("sequence", "essay_a", "essay_b", "role", "expected_gain", "asked")
            ),
        }
    )
