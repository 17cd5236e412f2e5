"""What choosing the next pairs goes by: the net of a batch as the store has it now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cj_pipeline.grading import grade_by
from cj_pipeline.head_start import (
    expected_from_earlier,
    expected_from_order,
    expected_from_texts,
)
from cj_pipeline.pairing.net import Floats, Net
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
        shares: Of how many of the next pairs each judge is asked; None: as the settings say.
    """

    net: Net
    n_asked: tuple[int, ...]
    n_pairs: int = 0
    n_resampled: int = 0
    shares: tuple[float, ...] | None = None


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
        net=replace(empty_net(record, guessed_scores(db, record)), shown=shown),
        n_asked=tuple(n_asked[judge.judge_id] for judge in record.judges),
        n_pairs=len(chosen),
        n_resampled=sum(pair[0]["resampling_pass"] > 0 for pair in chosen),
    )


def empty_net(record: BatchRecord, expected: Floats | None = None) -> Net:
    """Return a batch's net before anything was asked.

    Args:
        record: The batch.
        expected: A guess of the scores other than a rough order.
    """
    if record.settings.rough_order:
        expected = expected_from_order(record.essay_ids, record.settings.rough_order)
    return Net(record.essay_ids, frozenset(record.anchor_grades), (), expected=expected)


def guessed_scores(db: Session, record: BatchRecord) -> Floats | None:
    """Return what the batch's head start guesses of its scores; None without one.

    An essay's earlier score is that of the same text, else of the same id.
    """
    head_start = record.settings.head_start
    if head_start is None:
        return None
    essays = db.rows(
        "SELECT text, sha256(text) AS digest FROM essays WHERE batch_id = ? ORDER BY position",
        [record.batch_id],
    )
    if head_start == "texts":
        return expected_from_texts([row["text"] for row in essays])
    digests = [row["digest"] for row in essays]
    return earlier_guess(db, head_start.batch, record.essay_ids, digests)


def earlier_guess(
    db: Session, earlier: str, essay_ids: Sequence[str], digests: Sequence[str]
) -> Floats:
    """Return what the last scores of an earlier batch say of these essays.

    Args:
        db: A look at the store.
        earlier: The earlier batch.
        essay_ids: Of the batch to guess for.
        digests: SHA-256 of their texts.
    """
    rows = db.rows(
        "SELECT s.essay_id, s.score, sha256(e.text) AS digest"
        " FROM v_scores s JOIN essays e USING (batch_id, essay_id) WHERE s.batch_id = ?",
        [earlier],
    )
    by_text = {row["digest"]: row["score"] for row in rows}
    by_id = {row["essay_id"]: row["score"] for row in rows}
    known = {
        essay_id: by_text.get(digest, by_id.get(essay_id))
        for essay_id, digest in zip(essay_ids, digests, strict=True)
    }
    return expected_from_earlier(essay_ids, {k: v for k, v in known.items() if v is not None})


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
