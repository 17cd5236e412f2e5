"""What happens to a batch after a wave, and why."""

import dagster as dg

from assets.batch_partitions import OWNERS, STORED, batches, errors_as_dagster_knows_them
from assets.pictures import picture
from cj_pipeline.steps import decide
from resources.engine_resource import EngineResource


@dg.asset(
    deps=["essay_scores"],
    partitions_def=batches,
    group_name="scaling",
    kinds=STORED,
    owners=OWNERS,
    tags={"paid": "no"},
)
def wave_decision(
    context: dg.AssetExecutionContext, engine: EngineResource
) -> dg.MaterializeResult:
    """Wait, ask more, resample, or end with a stated reason."""
    connected = engine.open()
    with errors_as_dagster_knows_them():
        decided = decide(connected, context.partition_key)
    progress = decided.progress
    return dg.MaterializeResult(
        metadata={
            "wave": decided.wave,
            "decision": decided.decision.value,
            "reason": decided.reason.value if decided.reason else "",
            "submitted": progress.submitted,
            "completed": progress.completed,
            "failed": progress.failed,
            "completion_denominator": decided.completion_denominator,
            "details": dg.MetadataValue.json(decided.details),
            "convergence": picture(connected, context.partition_key, "convergence_plot"),
            "fairness": picture(connected, context.partition_key, "fairness_plot"),
        }
    )
