"""The verdicts of a batch, from the callbacks of its ended provider jobs."""

import dagster as dg

from assets.batch_partitions import OWNERS, STORED, batches, errors_as_dagster_knows_them
from cj_pipeline.steps import collect_wave
from resources.engine_resource import EngineResource


@dg.asset(
    deps=["provider_jobs"],
    partitions_def=batches,
    group_name="judging",
    kinds=STORED,
    owners=OWNERS,
    tags={"paid": "no"},
    pool="providers",
)
def comparisons(context: dg.AssetExecutionContext, engine: EngineResource) -> dg.MaterializeResult:
    """What each judge decided on each pair, or how the comparison failed for good."""
    with errors_as_dagster_knows_them():
        collected = collect_wave(engine.open(), context.partition_key)
    return dg.MaterializeResult(
        metadata={
            "n_jobs": collected.n_jobs,
            "dagster/partition_row_count": collected.n_requested,
            "outcomes": {outcome.value: n for outcome, n in collected.outcomes.items()},
            "cost_usd": collected.billed_usd,
        }
    )
