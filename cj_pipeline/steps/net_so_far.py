"""What choosing the next pairs goes by: the net of a batch as the store has it now."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cj_pipeline.grading import grade_by
from cj_pipeline.head_start import expected_from_order
from cj_pipeline.pairing_net import Net
from cj_pipeline.panel_shares import pairs_as_chosen
from cj_pipeline.steps.records import BatchRecord
from cj_pipeline.store import Session

if TYPE_CHECKING:
    from cj_pipeline.bradley_terry import Scale
    from cj_pipeline.projection import GradeProjections


_SPREAD_UP_TO = 2_000
"""Essays whose spread is estimated for choosing pairs; beyond, the scores tell it well enough."""


@dataclass(frozen=True)
class NetSoFar:
    """The net, and how much was asked of whom.

    Attributes:
        net: Without scores; `with_scores` adds them.
        n_asked: Comparisons of each judge, in the batch's order of judges, failed ones included.
        n_pairs: Pairs chosen, each counted once however many judges were asked about it.
        n_resampled: Of these, those chosen in a pass over pairs already covered.
    """

    net: Net
    n_asked: tuple[int, ...]
    n_pairs: int = 0
    n_resampled: int = 0


def net_so_far(db: Session, record: BatchRecord) -> NetSoFar:
    """Return the net of what was asked and has not failed for good."""
    rows = db.rows(
        "SELECT p.essay_a, p.essay_b, p.judge_id, p.resampling_pass, c.status"
        " FROM comparison_pairs p LEFT JOIN comparisons c USING (comparison_id)"
        " WHERE p.batch_id = ? ORDER BY p.sequence",
        [record.batch_id],
    )
    asked = [(r["essay_a"], r["essay_b"], r["judge_id"]) for r in rows]
    chosen = [[rows[position] for position in pair] for pair in pairs_as_chosen(asked)]
    shown = tuple(
        (pair[0]["essay_a"], pair[0]["essay_b"])
        for pair in chosen
        if any(row["status"] != "failed" for row in pair)
    )
    n_asked = Counter(row["judge_id"] for row in rows)
    return NetSoFar(
        net=replace(empty_net(record), shown=shown),
        n_asked=tuple(n_asked[judge.judge_id] for judge in record.judges),
        n_pairs=len(chosen),
        n_resampled=sum(pair[0]["resampling_pass"] > 0 for pair in chosen),
    )


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
    from cj_pipeline.likely_spread import likely_spread

    boundaries: tuple[float, ...] = ()
    if record.settings.goal == "grades" and (projections := grades_so_far(record, scale)):
        boundaries = tuple(boundary.position for boundary in projections.boundaries)
    return replace(
        net,
        scores=scale.scores,
        information=scale.information,
        spread=likely_spread(scale).logits if net.n_essays <= _SPREAD_UP_TO else None,
        boundaries=boundaries,
    )


def grades_so_far(record: BatchRecord, scale: Scale) -> GradeProjections | None:
    """Return the grades if the batch ended now; None where it names no scale or has no anchors."""
    terms = record.grading_terms
    if terms is None or not record.anchor_grades:
        return None
    return grade_by(terms, scale, record.anchor_grades)
