"""Where each essay of a batch stands after a wave."""

import dagster as dg

from assets.batch_partitions import OWNERS, STORED, batches, errors_as_dagster_knows_them
from assets.pictures import picture
from cj_pipeline.steps import fit
from resources.engine_resource import EngineResource


@dg.asset(
    deps=["comparisons"],
    partitions_def=batches,
    group_name="scaling",
    kinds=STORED,
    owners=OWNERS,
    tags={"paid": "no"},
)
def essay_scores(context: dg.AssetExecutionContext, engine: EngineResource) -> dg.MaterializeResult:
    """Where each essay in the batch stands, in logits, with its standard error."""
    connected = engine.open()
    with errors_as_dagster_knows_them():
        fitted = fit(connected, context.partition_key)
    metadata: dict[str, object] = {"wave": fitted.wave, "n_comparisons": fitted.n_comparisons}
    if fitted.scale is None:
        metadata["no_scale_because"] = fitted.problem or ""
    else:
        metadata |= {
            "dagster/partition_row_count": len(fitted.scale.essay_ids),
            "mean_standard_error": float(fitted.scale.standard_errors.mean()),
            "max_standard_error": float(fitted.scale.standard_errors.max()),
            "scores": picture(connected, context.partition_key, "score_plot"),
        }
    return dg.MaterializeResult(metadata=metadata)
