"""The pairs that people judge beside a batch's models become rows of `judging_tasks`.

Nothing waits for them unless the batch says so. Handing them out is `people`.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cj_pipeline.batch.comparisons import PEOPLE_FROM
from cj_pipeline.judging.judges import Judge
from cj_pipeline.pairing.people_pairs import (
    JudgedByModels,
    Pair,
    Telling,
    drawn,
    most_telling,
    n_due,
)
from cj_pipeline.queries.batch_record import BatchRecord
from cj_pipeline.queries.comparison_graph import provisional_grades
from cj_pipeline.queries.scale import fit_scale
from cj_pipeline.store.session import Session

if TYPE_CHECKING:
    from cj_pipeline.scale.bradley_terry import Scale

IMPORTED = "imported"
"""The name of the judge that verdicts made elsewhere are kept under; nothing is planned for it."""


def plan_people(db: Session, record: BatchRecord, now: datetime) -> int:
    """Plan what people are to judge by the pairs there are now; return how many pairs are new.

    Called again it plans nothing twice: a random draw is fixed by the batch and the number of its
    pairs, and targeted pairs only fill up to what is due.
    """
    judges = [judge for judge in record.people if judge.name != IMPORTED]
    if not judges:
        return 0
    judged = _pairs_of_models(db, record)
    n_new = 0
    for judge in judges:
        rows = _new_tasks(db, record, judge, judged)
        db.insert("judging_tasks", [row | {"planned_at": now} for row in rows])
        n_new += len(rows)
    return n_new


def task_row(
    record: BatchRecord, judge_id: str, pair: Pair, *, part: str, reason: str, place: int
) -> dict[str, Any]:
    """Return a row of `judging_tasks`; its id follows from what it is."""
    key = "\0".join((record.batch_id, judge_id, part, str(place), *pair))
    return {
        "task_id": hashlib.sha256(key.encode()).hexdigest()[:20],
        "batch_id": record.batch_id,
        "judge_id": judge_id,
        "essay_a": pair[0],
        "essay_b": pair[1],
        "part": part,
        "probability": None,
        "reason": reason,
        "expected_gain": None,
        "place": place,
    }


def _new_tasks(
    db: Session, record: BatchRecord, judge: Judge, judged: Mapping[Pair, tuple[str, ...]]
) -> list[dict[str, Any]]:
    rules, pairs = record.settings.people, list(judged)
    known = db.rows(
        "SELECT essay_a, essay_b, part, place FROM judging_tasks"
        " WHERE batch_id = ? AND judge_id = ? AND part IN ('random', 'second', 'targeted')",
        [record.batch_id, judge.judge_id],
    )
    place = max((row["place"] for row in known), default=0)
    taken = {(row["essay_a"], row["essay_b"]) for row in known}
    old_random = {(r["essay_a"], r["essay_b"]) for r in known if r["part"] == "random"}
    rows: list[dict[str, Any]] = []
    rate, start = rules.share * rules.random_part, _start(record, judge)
    chosen = [pairs[i] for i in drawn(rate, len(pairs), start)]
    seconds = {chosen[i] for i in drawn(rules.second_part, len(chosen), _start(record, judge, 1))}
    for pair in chosen:
        if pair in old_random:
            continue
        place += 1
        row = task_row(
            record, judge.judge_id, pair, part="random", reason="drawn at random", place=place
        )
        rows.append(row | {"probability": rate})
        if pair in seconds:
            place += 1
            reason = "a second person on a pair drawn at random"
            second = task_row(
                record, judge.judge_id, pair, part="second", reason=reason, place=place
            )
            rows.append(second | {"probability": rate * rules.second_part})
    taken |= {(row["essay_a"], row["essay_b"]) for row in rows}
    n_targeted = n_due(rules.share, len(pairs)) - len(known) - len(rows)
    if n_targeted > 0:
        rows += [
            task_row(
                record,
                judge.judge_id,
                each.pair,
                part="targeted",
                reason=each.why,
                place=place + number,
            )
            | {"expected_gain": each.gain}
            for number, each in enumerate(
                _most_telling(db, record, judged, taken, n_targeted), start=1
            )
        ]
    return rows


def _most_telling(
    db: Session,
    record: BatchRecord,
    judged: Mapping[Pair, tuple[str, ...]],
    taken: set[Pair],
    n: int,
) -> list[Telling]:
    scale = fit_scale(db, record) if any(judged.values()) else None
    if scale is None:
        return []
    score = dict(zip(scale.essay_ids, scale.scores.tolist(), strict=True))
    near = _near_boundaries(record, scale)
    open_pairs = [
        JudgedByModels(
            pair,
            winners,
            1 / (1 + math.exp(score[pair[1]] - score[pair[0]])),
            tuple(near[essay] for essay in pair if essay in near),
        )
        for pair, winners in judged.items()
        if winners and pair not in taken
    ]
    return most_telling(open_pairs, n)


def _near_boundaries(record: BatchRecord, scale: Scale) -> dict[str, float]:
    """Return each student's probability of lying above the boundary nearest to its score."""
    grades = provisional_grades(record, scale)
    if grades is None or not grades.boundaries:
        return {}
    found = {}
    for i, essay_id in enumerate(scale.essay_ids):
        if essay_id in record.anchor_grades:
            continue
        score, error = float(scale.scores[i]), max(float(scale.standard_errors[i]), 1e-6)
        nearest = min((b.position for b in grades.boundaries), key=lambda b: abs(score - b))
        found[essay_id] = 0.5 * (1 + math.erf((score - nearest) / (error * math.sqrt(2))))
    return found


def _pairs_of_models(db: Session, record: BatchRecord) -> dict[Pair, tuple[str, ...]]:
    """Return every pair given to models in the order chosen, and the winners named so far."""
    rows = db.rows(
        "SELECT p.essay_a, p.essay_b, c.winner, c.winner_id FROM comparison_pairs p"
        " LEFT JOIN comparisons c ON c.comparison_id = p.comparison_id AND c.status = 'succeeded'"
        " WHERE p.batch_id = ? AND p.sequence < ? ORDER BY p.sequence",
        [record.batch_id, PEOPLE_FROM],
    )
    winners: dict[Pair, list[str]] = defaultdict(list)
    for row in rows:
        one, other = sorted((row["essay_a"], row["essay_b"]))
        named = winners[one, other]
        if row["winner"] is not None:
            named.append("tie" if row["winner"] == "tie" else row["winner_id"])
    return {pair: tuple(named) for pair, named in winners.items()}


def _start(record: BatchRecord, judge: Judge, number: int = 0) -> float:
    """Return a uniform number on [0, 1) that belongs to a batch and a judge."""
    key = f"{record.fence_secret}:{judge.judge_id}:people:{number}"
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:6]) / 2**48
