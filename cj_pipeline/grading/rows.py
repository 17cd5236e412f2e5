"""Grades as rows of the store, so that whoever writes them and whoever checks them agree."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cj_pipeline.grading.linked_scale import LinkedScale
    from cj_pipeline.grading.projection import GradeProjections


def grading_rows(
    projections: GradeProjections,
    grading: Mapping[str, Any],
    projected_at: datetime,
    anchor_ids: Collection[str] = (),
) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of `grade_projections` and `grade_boundaries` for a grading.

    Args:
        projections: With grades.
        grading: The `batch_id` and the `revision`.
        projected_at: When.
        anchor_ids: The batch's anchors, those that drifted among them.
    """
    key = {**grading, "scale": projections.scale.name}
    anchors = {anchor.essay_id for anchor in projections.anchor_check.anchors} | set(anchor_ids)
    return {
        "grade_projections": [
            {
                **key,
                "essay_id": essay_id,
                "grade": projections.most_probable[i],
                "fine_grade": projections.fine_grades[i],
                "expected_grade": float(projections.expected_grade[i]),
                "confidence": float(projections.confidence[i]),
                "probabilities": {
                    grade: float(p)
                    for grade, p in zip(
                        projections.grades, projections.probabilities[i], strict=True
                    )
                },
                "placed_score": float(projections.placed_scores[i]),
                "primary_anchor_id": projections.primary_anchor_ids[i],
                "is_extrapolated": bool(projections.extrapolated[i]),
                "is_anchor": essay_id in anchors,
                "projected_at": projected_at,
            }
            for i, essay_id in enumerate(projections.essay_ids)
        ],
        "grade_boundaries": [
            {
                **key,
                "position": position,
                "below": boundary.below,
                "above": boundary.above,
                "boundary": float(boundary.position),
                "standard_error": float(boundary.standard_error),
                "lower": float(boundary.lower),
                "upper": float(boundary.upper),
            }
            for position, boundary in enumerate(projections.boundaries, start=1)
        ],
    }


def link_rows(
    chain: LinkedScale, essay_ids: Sequence[str], grading: Mapping[str, Any], linked_at: datetime
) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of `batch_links`, `anchor_drifts` and `linked_scores` for a grading.

    Args:
        chain: The batch amid the others.
        essay_ids: The batch's own.
        grading: The `batch_id` and the `revision`.
        linked_at: When.
    """
    place = {essay: i for i, essay in enumerate(chain.essay_ids)}
    return {
        "batch_links": [
            {
                **grading,
                "position": position,
                "placed_batch_id": link.placed,
                "onto_batch_id": link.onto[0],
                "n_shared": len(link.result.drifts),
                "n_tying": sum(not drift.is_drifted for drift in link.result.drifts),
                "shift": link.result.shift,
                "shift_standard_error": link.result.shift_standard_error,
                "unit_ratio": link.result.unit_ratio,
                "unit_ratio_error": link.result.unit_ratio_error,
                "statement": link.result.statement,
                "linked_at": linked_at,
            }
            for position, link in enumerate(chain.links, start=1)
        ],
        "anchor_drifts": [
            {
                **grading,
                "position": position,
                "essay_id": drift.essay_id,
                "earlier_score": drift.earlier,
                "later_score": drift.later,
                "drift": drift.drift,
                "standard_error": drift.standard_error,
                "is_drifted": drift.is_drifted,
            }
            for position, link in enumerate(chain.links, start=1)
            for drift in link.result.drifts
        ],
        "linked_scores": [
            {
                **grading,
                "essay_id": essay,
                "scale_batch_id": chain.links[0].onto[0],
                "score": float(chain.scores[place[essay]] + chain.shift),
                "standard_error": float(chain.standard_errors[place[essay]]),
            }
            for essay in essay_ids
        ],
    }
