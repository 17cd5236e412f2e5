"""What people and models decided on the same pairs, over one batch or several."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cj_pipeline.diagnostics.human_agreement import Agreement, agreement
from cj_pipeline.store.session import Session

Pair = tuple[str, str, str]
"""A batch and two of its essays, in the order of their names."""


@dataclass(frozen=True)
class JudgeAgreement:
    """How people agree with one model, or with each other.

    Attributes:
        judge: The model's judge; `people` for people with each other.
        judge_id: Likewise.
        drawn: On pairs drawn at random: unbiased.
        all_pairs: On every pair that both judged; those picked for doubt make it look worse.
    """

    judge: str
    judge_id: str
    drawn: Agreement
    all_pairs: Agreement


@dataclass(frozen=True)
class Differing:
    """A pair on which people and a model named different winners.

    Attributes:
        batch_id: The batch.
        judge: The model's.
        by_people: The essay that people named.
        by_model: The one the model named.
        apart: How far the model's essay lies above the other by all verdicts, in logits: the
            larger, the more the verdict of people goes against the scale.
    """

    batch_id: str
    judge: str
    by_people: str
    by_model: str
    apart: float


def human_agreement(
    db: Session, batch_ids: Sequence[str]
) -> tuple[list[JudgeAgreement], list[Differing]]:
    """Return how people agree with each model, and where they differ most, pooled over batches."""
    people, drawn = _of_people(db, batch_ids)
    models, names = _of_models(db, batch_ids)
    settled = {pair: w for pair, named in people.items() if (w := _majority(named)) is not None}
    found = []
    for judge_id, verdicts in sorted(models.items(), key=lambda item: names[item[0]]):
        shared = sorted(pair for pair in verdicts if pair in settled)
        at_random = [pair for pair in shared if pair in drawn]
        found.append(
            JudgeAgreement(
                names[judge_id],
                judge_id,
                *(_agree(settled, verdicts, pairs) for pairs in (at_random, shared)),
            )
        )
    found.append(_each_other(people, drawn))
    return found, _differing(db, batch_ids, settled, models, names)


def _agree(one: Mapping[Pair, str], other: Mapping[Pair, str], pairs: Sequence[Pair]) -> Agreement:
    return agreement(
        [one[pair] == pair[1] for pair in pairs], [other[pair] == pair[1] for pair in pairs]
    )


def _each_other(people: Mapping[Pair, list[str]], drawn: set[Pair]) -> JudgeAgreement:
    """Return how the first two persons on a pair agree, where two judged it."""
    twice = {pair: named for pair, named in people.items() if len(named) > 1}
    first = {pair: named[0] for pair, named in twice.items()}
    second = {pair: named[1] for pair, named in twice.items()}
    shared = sorted(twice)
    at_random = [pair for pair in shared if pair in drawn]
    return JudgeAgreement(
        "people", "people", *(_agree(first, second, pairs) for pairs in (at_random, shared))
    )


def _of_people(db: Session, batch_ids: Sequence[str]) -> tuple[dict[Pair, list[str]], set[Pair]]:
    rows = db.rows(
        "SELECT batch_id, essay_a, essay_b, winner_id, part FROM v_human_verdicts"
        " WHERE batch_id IN (SELECT unnest(?)) AND comparison_id IS NOT NULL"
        " AND withdrawn_at IS NULL AND NOT is_replaced AND winner <> 'tie'"
        " ORDER BY batch_id, number",
        [list(batch_ids)],
    )
    named: dict[Pair, list[str]] = defaultdict(list)
    drawn: set[Pair] = set()
    for row in rows:
        pair = _pair(row["batch_id"], row["essay_a"], row["essay_b"])
        named[pair].append(row["winner_id"])
        if row["part"] in {"random", "second"}:
            drawn.add(pair)
    return dict(named), drawn


def _of_models(
    db: Session, batch_ids: Sequence[str]
) -> tuple[dict[str, dict[Pair, str]], dict[str, str]]:
    rows = db.rows(
        "SELECT c.batch_id, c.judge_id, j.name, c.essay_a, c.essay_b, c.winner_id"
        " FROM comparisons c JOIN judges j USING (batch_id, judge_id)"
        " WHERE c.batch_id IN (SELECT unnest(?)) AND c.status = 'succeeded' AND c.winner <> 'tie'"
        " AND j.provider <> 'human' ORDER BY c.batch_id, c.sequence",
        [list(batch_ids)],
    )
    named: dict[str, dict[Pair, list[str]]] = defaultdict(lambda: defaultdict(list))
    names: dict[str, str] = {}
    for row in rows:
        names[row["judge_id"]] = row["name"]
        pair = _pair(row["batch_id"], row["essay_a"], row["essay_b"])
        named[row["judge_id"]][pair].append(row["winner_id"])
    settled = {
        judge_id: {pair: w for pair, all_of in pairs.items() if (w := _majority(all_of))}
        for judge_id, pairs in named.items()
    }
    return settled, names


def _differing(
    db: Session,
    batch_ids: Sequence[str],
    people: Mapping[Pair, str],
    models: Mapping[str, Mapping[Pair, str]],
    names: Mapping[str, str],
) -> list[Differing]:
    scores = {
        (row["batch_id"], row["essay_id"]): float(row["score"])
        for row in db.rows(
            "SELECT batch_id, essay_id, score FROM v_scores WHERE batch_id IN (SELECT unnest(?))",
            [list(batch_ids)],
        )
    }
    found = [
        Differing(
            pair[0],
            names[judge_id],
            people[pair],
            winner,
            scores.get((pair[0], winner), 0.0) - scores.get((pair[0], people[pair]), 0.0),
        )
        for judge_id, verdicts in models.items()
        for pair, winner in verdicts.items()
        if pair in people and people[pair] != winner
    ]
    return sorted(found, key=lambda each: (-each.apart, each.batch_id, each.by_people))


def _pair(batch_id: str, one: str, other: str) -> Pair:
    return (batch_id, one, other) if one < other else (batch_id, other, one)


def _majority(named: Sequence[str]) -> str | None:
    """Return the winner most verdicts named; None where they are split evenly."""
    counts = {winner: named.count(winner) for winner in set(named)}
    most = max(counts.values(), default=0)
    best = [winner for winner, n in counts.items() if n == most]
    return best[0] if len(best) == 1 else None
