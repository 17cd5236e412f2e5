"""The grades of a batch that has ended, or the reason why there are none."""

from collections.abc import Iterator
from typing import Any, Self

import dagster as dg
from pydantic import Field, model_validator

from assets.automation.metadata import history_and_columns, links_to, table
from assets.automation.partitions import (
    OWNERS,
    STORED,
    batch_step,
    batches,
    errors_as_dagster_knows_them,
)
from cj_pipeline.intake.settings import BatchSettings
from cj_pipeline.operations.regrade import GRADED_BY, regrade
from cj_pipeline.queries.batch_record import load_batch, refuse_rejected
from cj_pipeline.steps.describe_scale import describe_scale
from cj_pipeline.steps.project import project
from resources.runtime_resource import RuntimeResource


def _description(key: str) -> str:
    """Return the description of a grading key of `batch.yaml`."""
    return f"With `again`, from now on. {BatchSettings.model_fields[key].description}"


class GradingRequest(dg.Config):
    """How grades are requested; regrading never calls a judge or costs anything."""

    again: bool = Field(False, description="Regrade what has been graded, as a new revision.")
    scale: str = Field("", description="With `again`: another grade scale from now on, by name.")
    own_scale: str = Field(
        "", description="With `again`: a grade scale of the batch's own from now on, as YAML."
    )
    anchor_grades: dict[str, str] = Field(
        {}, description="With `again`: anchors' grades put right, for instance {anchor-3: B}."
    )
    despite: list[str] = Field(
        [], description="With `again`: assertions of the batch's own that need not hold any more."
    )
    use_priors: bool | None = Field(None, description=_description("use_priors"))
    min_anchor_grades: int | None = Field(None, description=_description("min_anchor_grades"))
    min_anchor_separation_z: float | None = Field(
        None, description=_description("min_anchor_separation_z")
    )
    max_anchor_disagreement: float | None = Field(
        None, description=_description("max_anchor_disagreement")
    )
    max_extrapolated_share: float | None = Field(
        None, description=_description("max_extrapolated_share")
    )
    max_inversion_p: float | None = Field(None, description=_description("max_inversion_p"))
    link_to: list[str] | None = Field(
        None, description=_description("link_to") + " An empty list takes it off their scale again."
    )
    scaled_scores: dict[str, float] | None = Field(None, description=_description("scaled_scores"))

    @property
    def settings(self) -> dict[str, Any]:
        """The keys of `batch.yaml` that were given."""
        given = {key: getattr(self, key) for key in GRADED_BY}
        return {key: value for key, value in given.items() if value is not None}

    @model_validator(mode="after")
    def _changes_only_what_is_graded_again(self) -> Self:
        """What was requested must not be dropped in silence."""
        given = {key: getattr(self, key) for key in ("scale", "own_scale", "anchor_grades")}
        given_keys = [key for key, value in (given | {"despite": self.despite}).items() if value]
        given_keys += self.settings
        if given_keys and not self.again:
            msg = f"take effect only with `again: true`: {', '.join(given_keys)}"
            raise ValueError(msg)
        return self


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
    context: dg.AssetExecutionContext, config: GradingRequest, engine: RuntimeResource
) -> Iterator[dg.MaterializeResult[None]]:
    """A grade with a probability for each step of the scale; nothing before the batch has ended."""
    connected, batch_id = engine.open(), context.partition_key
    with errors_as_dagster_knows_them(), connected.store.read() as db:
        refuse_rejected(db, batch_id)
        has_ended = load_batch(db, batch_id).has_ended
    if not has_ended:
        context.log.info(f"Batch {batch_id} goes on: no grades yet.")
        return
    with batch_step(connected, batch_id, "grade_projections"):
        projected = (
            regrade(
                connected,
                batch_id,
                scale=config.scale or None,
                own_scale=config.own_scale.encode() or None,
                anchor_grades=config.anchor_grades,
                settings=config.settings,
                despite=config.despite,
            )
            if config.again
            else project(connected, batch_id)
        )
        # The grades are stored by now: nothing waits for the scale's description.
        describe_scale(connected, batch_id)
    history, columns = history_and_columns(connected, batch_id, "grade_projections")
    metadata: dict[str, Any] = {
        "statement": projected.statement,
        "is_graded": projected.is_graded,
        "scale": history.scale or "none",
        "revision": projected.revision,
        "is_simulated": history.is_simulated,
    }
    metadata |= links_to(connected, batch_id, "live_page", "report")
    if history.is_graded:
        metadata |= {
            "grades": table(
                sorted(history.projections, key=lambda row: -row["expected_grade"]),
                ("essay_id", "fine_grade", "confidence", "expected_grade", "is_anchor"),
            ),
            "boundaries": table(
                history.boundaries, ("below", "above", "boundary", "lower", "upper")
            ),
        }
    if history.links:
        metadata["anchor_drifts"] = table(
            history.drifts,
            ("essay_id", "earlier_score", "later_score", "drift", "standard_error", "is_drifted"),
        )
    if history.grading is not None and history.grading["anchor_check"]:
        metadata["anchor_check"] = dg.MetadataValue.json(dict(history.grading["anchor_check"]))
    metadata |= {
        "scale_statistics": dg.MetadataValue.json(dict(history.statistics)),
        "dagster/partition_row_count": len(history.projections),
        "dagster/column_schema": columns,
    }
    yield dg.MaterializeResult(metadata=metadata)
