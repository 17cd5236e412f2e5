"""The comparisons of a batch's next wave, planned and not yet sent."""

from collections import Counter
from typing import Any

import dagster as dg

from assets.automation.metadata import history_and_columns, table
from assets.automation.partitions import OWNERS, STORED, batch_step, batches
from cj_pipeline.outputs.feedback import why_requested
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.plan_wave import PlannedWave, plan_wave
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
    return dg.MaterializeResult(metadata=pairs_metadata(connected, context.partition_key, planned))


def pairs_metadata(runtime: Runtime, batch_id: str, planned: PlannedWave) -> dict[str, Any]:
    """Return what the page of a wave's pairs shows."""
    history, columns = history_and_columns(runtime, batch_id, "comparison_pairs")
    strategy = history.settings["strategy"]
    wave = [
        {**row, "asked": why_requested(row["role"], row["expected_gain"], strategy)}
        for row in history.pairs
        if row["wave"] == planned.wave
    ]
    return {
        "wave": planned.wave,
        "n_comparisons": len(wave),
        "dagster/partition_row_count": len(history.pairs),
        "dagster/column_schema": columns,
        "roles": dict(Counter(row["role"] for row in wave)),
        "asked_of": dict(Counter(history.judge_by_id[row["judge_id"]]["name"] for row in wave)),
        "pairs": table(wave, ("sequence", "essay_a", "essay_b", "role", "expected_gain", "asked")),
    }
