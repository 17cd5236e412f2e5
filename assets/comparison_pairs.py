"""The comparisons of a batch's next wave, planned and not yet sent."""

from collections import Counter

import dagster as dg

from assets.batch_partitions import OWNERS, STORED, batches, errors_as_dagster_knows_them
from cj_pipeline.steps import plan_wave
from resources.engine_resource import EngineResource


@dg.asset(
    deps=["essays"],
    partitions_def=batches,
    group_name="judging",
    kinds=STORED,
    owners=OWNERS,
    tags={"paid": "no"},
)
def comparison_pairs(
    context: dg.AssetExecutionContext, engine: EngineResource
) -> dg.MaterializeResult:
    """Who is compared with whom in this wave, who is shown first, and why."""
    with errors_as_dagster_knows_them():
        planned = plan_wave(engine.open(), context.partition_key)
    roles = Counter(comparison.role.value for comparison in planned.comparisons)
    return dg.MaterializeResult(
        metadata={
            "wave": planned.wave,
            "dagster/partition_row_count": len(planned.comparisons),
            "roles": dict(roles),
        }
    )
