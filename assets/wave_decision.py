"""What happens to a batch after a wave, and why."""

from typing import Any

import dagster as dg
from pydantic import Field

from assets.automation.metadata import (
    history_and_columns,
    links_to,
    progress_in_run_log,
    progress_metadata,
    table,
)
from assets.automation.partitions import OWNERS, STORED, batch_step, batches
from cj_pipeline.outputs.report_forecast import forecast_metadata
from cj_pipeline.steps.decide import decide
from cj_pipeline.steps.watchdog import end_stalled
from resources.runtime_resource import RuntimeResource


class DecisionRequest(dg.Config):
    """How a decision is requested."""

    end_if_stalled: bool = Field(
        False, description="End a batch in which nothing has changed for longer than it allows."
    )


@dg.asset(
    deps=["essay_scores"],
    partitions_def=batches,
    group_name="scaling",
    kinds=STORED,
    owners=OWNERS,
    tags={"paid": "no"},
)
def wave_decision(
    context: dg.AssetExecutionContext, config: DecisionRequest, engine: RuntimeResource
) -> dg.MaterializeResult[None]:
    """Wait, request more, resample, or end with a stated reason."""
    connected, batch_id = engine.open(), context.partition_key
    with batch_step(connected, batch_id, "wave_decision"), progress_in_run_log(context, connected):
        step = end_stalled if config.end_if_stalled else decide
        decided = step(connected, batch_id)
    history, columns = history_and_columns(connected, batch_id, "wave_decisions")
    progress = decided.progress
    metadata: dict[str, Any] = progress_metadata(connected, batch_id) | {
        "wave": decided.wave,
        "decision": decided.decision.value,
        "reason": decided.reason.value if decided.reason else "",
        "state": history.batch["state"],
        "submitted": progress.submitted,
        "completed": progress.completed,
        "failed": progress.failed,
        "pending": progress.pending,
        "completion_denominator": decided.completion_denominator,
        "details": dg.MetadataValue.json(decided.details),
        "dagster/partition_row_count": len(history.decisions),
        "dagster/column_schema": columns,
        "decisions": table(
            [vars(each) for each in history.decisions],
            ("wave", "decision", "reason", "completed", "max_score_change"),
        ),
    }
    metadata |= forecast_metadata(history)
    metadata |= links_to(connected, batch_id, "live_page")
    return dg.MaterializeResult(metadata=metadata)
