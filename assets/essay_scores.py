"""The place of each essay of a batch on the scale after a wave."""

from typing import Any

import dagster as dg

from assets.automation.metadata import history_and_columns, table
from assets.automation.partitions import OWNERS, STORED, batch_step, batches
from cj_pipeline.steps.fit import fit
from resources.runtime_resource import RuntimeResource


@dg.asset(
    deps=["comparisons"],
    partitions_def=batches,
    group_name="scaling",
    kinds=STORED,
    owners=OWNERS,
    tags={"paid": "no"},
)
def essay_scores(
    context: dg.AssetExecutionContext, engine: RuntimeResource
) -> dg.MaterializeResult[None]:
    """Each essay's place on the scale, in logits, with its standard error."""
    connected = engine.open()
    with batch_step(connected, context.partition_key, "essay_scores"):
        fitted = fit(connected, context.partition_key)
    history, columns = history_and_columns(connected, context.partition_key, "essay_scores")
    metadata: dict[str, Any] = {
        "wave": fitted.wave,
        "n_comparisons": fitted.n_comparisons,
        "dagster/partition_row_count": len(history.scores),
        "dagster/column_schema": columns,
    }
    if fitted.scale is None:
        metadata["no_scale_because"] = fitted.problem or ""
    else:
        metadata |= {
            "mean_standard_error": float(fitted.scale.standard_errors.mean()),
            "max_standard_error": float(fitted.scale.standard_errors.max()),
            "notes": list(fitted.scale.notes),
            "ranking": table(
                history.last_scores,
                ("rank", "essay_id", "score", "standard_error", "n_comparisons", "n_wins"),
            ),
        }
    return dg.MaterializeResult(metadata=metadata)
