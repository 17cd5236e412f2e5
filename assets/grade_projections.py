"""The grades of a batch that has ended well, or the reason why there are none."""

from collections.abc import Iterator

import dagster as dg

from assets.batch_partitions import OWNERS, STORED, batches, errors_as_dagster_knows_them
from assets.pictures import picture
from cj_pipeline.steps import project
from cj_pipeline.steps.records import load_batch
from resources.engine_resource import EngineResource


@dg.asset(
    deps=["wave_decision"],
    partitions_def=batches,
    group_name="grading",
    kinds=STORED,
    owners=OWNERS,
    tags={"paid": "no"},
    output_required=False,
)
def grade_projections(
    context: dg.AssetExecutionContext, engine: EngineResource
) -> Iterator[dg.MaterializeResult]:
    """A grade with a probability for each step of the scale; nothing before the batch has ended."""
    connected, batch_id = engine.open(), context.partition_key
    with connected.store.read() as db:
        has_ended = load_batch(db, batch_id).has_ended
    if not has_ended:
        context.log.info("Batch %s goes on: no grades yet.", batch_id)
        return
    with errors_as_dagster_knows_them():
        projected = project(connected, batch_id)
    metadata: dict[str, object] = {
        "is_graded": projected.is_graded,
        "statement": projected.statement,
        "revision": projected.revision,
    }
    if projected.projections is not None and projected.is_graded:
        metadata |= {
            "dagster/partition_row_count": len(projected.projections.essay_ids),
            "scale": projected.projections.scale.name,
            "grades": picture(connected, batch_id, "score_plot"),
        }
    yield dg.MaterializeResult(metadata=metadata)
