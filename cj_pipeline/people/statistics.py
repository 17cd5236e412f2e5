"""How careful each person judges: for whoever runs the batch, and nobody else.

Infit is held against the band it would have for a careful judge of this person's own pairs: a
fixed limit flags careful judges of few pairs, and misses careless ones of many.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from cj_pipeline.arrays import Floats
from cj_pipeline.queries.batch_record import BatchRecord
from cj_pipeline.store.session import Session

N_SIMULATED = 4_000
"""Careful judges of the same pairs, for the band; its 99 % limits are then sure to a tenth."""
LEAST_VERDICTS = 10
"""Below this nothing is remarked: too little is known of a person."""
FAST_SHARE = 0.3
"""Of the batch's median time; a person whose median is below it is remarked."""
SEED = 20


@dataclass(frozen=True)
class PersonStatistics:
    """What is known of one person's judging.

    Attributes:
        person: Who.
        n_verdicts: Those that count.
        n_skips: Pairs skipped.
        median_s: Of active time, in seconds; None where none is known.
        share_first: The share of verdicts for the text shown first, from 0 to 1.
        n_repeats: Own pairs judged again.
        n_alike: Of these, with the same winner.
        infit: Against the scale of all verdicts; None without a scale.
        infit_limit: What 99 % of careful judges of the same pairs stay under.
        remarks: What may need a word, in words.
    """

    person: str
    n_verdicts: int
    n_skips: int
    median_s: float | None
    share_first: float | None
    n_repeats: int
    n_alike: int
    infit: float | None
    infit_limit: float | None
    remarks: tuple[str, ...]

    @property
    def cells(self) -> tuple[str, ...]:
        """The same as a row for people."""

        def number(value: float | None, form: str) -> str:
            return "-" if value is None else format(value, form)

        return (
            self.person,
            str(self.n_verdicts),
            str(self.n_skips),
            number(self.median_s, ".0f"),
            number(self.share_first, ".0%"),
            f"{self.n_alike} of {self.n_repeats}",
            number(self.infit, ".2f"),
            f"up to {self.infit_limit:.2f}" if self.infit_limit is not None else "-",
            "; ".join(self.remarks),
        )


def infit_of(p: Floats, won: Floats) -> float:
    """Return infit: squared residuals over their variances.

    Args:
        p: The probability that the text shown first wins, by verdict.
        won: 1 where it did, 0 where it did not, .5 for a tie.
    """
    return float(((won - p) ** 2).sum() / np.maximum((p * (1 - p)).sum(), 1e-12))


def infit_limit(p: Floats, *, share: float = 0.99, seed: int = SEED) -> float:
    """Return what that share of careful judges of these pairs stays under, by simulation."""
    draws = np.random.default_rng(seed).random((N_SIMULATED, len(p))) < p
    infits = ((draws - p) ** 2).sum(axis=1) / np.maximum((p * (1 - p)).sum(), 1e-12)
    return float(np.quantile(infits, share))


def person_statistics(db: Session, record: BatchRecord) -> list[PersonStatistics]:
    """Return what is known of each person who judged in a batch, imported ones included."""
    answers = db.rows(
        """
        SELECT h.person, h.kind, h.winner, h.essay_a, h.essay_b, h.active_s, h.answer_id,
               h.assignment_id, h.comparison_id, s.repeats
        FROM human_answers h LEFT JOIN judging_assignments s USING (assignment_id)
        ANTI JOIN withdrawn_answers w ON w.answer_id = h.answer_id
        WHERE h.batch_id = ?
          AND NOT EXISTS (FROM human_answers later WHERE later.replaces = h.answer_id)
        ORDER BY h.number
        """,
        [record.batch_id],
    )
    scored = db.rows("SELECT essay_id, score FROM v_scores WHERE batch_id = ?", [record.batch_id])
    scores = {row["essay_id"]: float(row["score"]) for row in scored}
    times = [row["active_s"] for row in answers if row["active_s"] and row["kind"] == "verdict"]
    usual_s = median(times) if times else None
    persons = sorted({row["person"] for row in answers})
    return [
        _of_person(person, [r for r in answers if r["person"] == person], scores, usual_s)
        for person in persons
    ]


def _of_person(
    person: str, rows: Sequence[dict[str, object]], scores: dict[str, float], usual_s: float | None
) -> PersonStatistics:
    verdicts = [r for r in rows if r["kind"] == "verdict" and r["comparison_id"] is not None]
    of_assignment = {r["assignment_id"]: r for r in rows if r["kind"] == "verdict"}
    pairs = [
        (r, of_assignment[r["repeats"]])
        for r in of_assignment.values()
        if r["repeats"] is not None and r["repeats"] in of_assignment
    ]
    n_alike = sum(_winner_id(again) == _winner_id(first) for again, first in pairs)
    times = [float(str(r["active_s"])) for r in verdicts if r["active_s"]]
    won = np.array([{"A": 1.0, "B": 0.0, "tie": 0.5}[str(r["winner"])] for r in verdicts])
    infit = limit = None
    if verdicts and all(str(r["essay_a"]) in scores for r in verdicts):
        apart = np.array([scores[str(r["essay_a"])] - scores[str(r["essay_b"])] for r in verdicts])
        p = 1 / (1 + np.exp(-apart))
        infit, limit = infit_of(p, won), infit_limit(p)
    found = PersonStatistics(
        person=person,
        n_verdicts=len(verdicts),
        n_skips=sum(r["kind"] == "skip" for r in rows),
        median_s=median(times) if times else None,
        share_first=float(won.mean()) if len(won) else None,
        n_repeats=len(pairs),
        n_alike=n_alike,
        infit=infit,
        infit_limit=limit,
        remarks=(),
    )
    return PersonStatistics(**{**vars(found), "remarks": tuple(_remarks(found, usual_s))})


def _remarks(found: PersonStatistics, usual_s: float | None) -> list[str]:
    if found.n_verdicts < LEAST_VERDICTS:
        return []
    remarks = []
    if (
        found.infit is not None
        and found.infit_limit is not None
        and found.infit > found.infit_limit
    ):
        remarks.append("disagrees with the scale more than a careful judge would")
    if found.median_s is not None and usual_s and found.median_s < FAST_SHARE * usual_s:
        remarks.append(f"much faster than the others, whose median is {usual_s:.0f} s")
    if found.share_first is not None:
        # 2.58 standard errors of a share: beyond that in one careful judge of a hundred.
        beyond = 2.58 * math.sqrt(0.25 / found.n_verdicts)
        if abs(found.share_first - 0.5) > beyond:
            remarks.append(f"chose the first text in {found.share_first:.0%}")
    if found.n_repeats >= 3 and found.n_alike < found.n_repeats / 2:
        remarks.append(f"{found.n_alike} of {found.n_repeats} repeated pairs were judged alike")
    return remarks


def _winner_id(row: dict[str, object]) -> object:
    return {"A": row["essay_a"], "B": row["essay_b"]}.get(str(row["winner"]), "tie")
