"""What choosing the next pairs goes by: the net of a batch as the store has it now."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cj_pipeline.grading import grade_by
from cj_pipeline.head_start import expected_from_order
from cj_pipeline.pairing_net import Net
from cj_pipeline.steps.records import BatchRecord
from cj_pipeline.store import Session

if TYPE_CHECKING:
    from cj_pipeline.bradley_terry import Scale
    from cj_pipeline.projection import GradeProjections


@dataclass(frozen=True)
class NetSoFar:
    """The net, and how many comparisons were asked in all.

    Attributes:
        net: Without scores; `with_scores` adds them.
        n_asked: Comparisons of every judge, failed ones included.
        n_resampled: Of these, those asked in a pass over pairs already covered.
    """

    net: Net
    n_asked: int = 0
    n_resampled: int = 0


def net_so_far(db: Session, record: BatchRecord) -> NetSoFar:
    """Return the net of what was asked and has not failed for good."""
    rows = db.rows(
        "SELECT p.essay_a, p.essay_b, p.judge_id, p.resampling_pass, c.status"
        " FROM comparison_pairs p LEFT JOIN comparisons c USING (comparison_id)"
        " WHERE p.batch_id = ? ORDER BY p.sequence",
        [record.batch_id],
    )
    # A panel's judges are asked the same pairs, so the first judge's tell what was shown.
    first = record.judges[0].judge_id
    shown = tuple(
        (r["essay_a"], r["essay_b"])
        for r in rows
        if r["judge_id"] == first and r["status"] != "failed"
    )
    n_resampled = sum(r["resampling_pass"] > 0 for r in rows)
    return NetSoFar(replace(empty_net(record), shown=shown), len(rows), n_resampled)


def empty_net(record: BatchRecord) -> Net:
    """Return a batch's net before anything was asked."""
    order = record.settings.rough_order
    return Net(
        record.essay_ids,
        frozenset(record.anchor_grades),
        (),
        expected=expected_from_order(record.essay_ids, order) if order else None,
    )


def with_scores(net: Net, record: BatchRecord, scale: Scale) -> Net:
    """Return the net with the scale, and with boundaries where grades are the goal."""
    boundaries: tuple[float, ...] = ()
    if record.settings.goal == "grades" and (projections := grades_so_far(record, scale)):
        boundaries = tuple(boundary.position for boundary in projections.boundaries)
    return replace(net, scores=scale.scores, information=scale.information, boundaries=boundaries)


def grades_so_far(record: BatchRecord, scale: Scale) -> GradeProjections | None:
    """Return the grades if the batch ended now; None where it names no scale or has no anchors."""
    terms = record.grading_terms
    if terms is None or not record.anchor_grades:
        return None
    return grade_by(terms, scale, record.anchor_grades)
