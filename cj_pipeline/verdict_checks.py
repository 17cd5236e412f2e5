"""Verdicts seen against each other and against the scores: agreement, consistency, surprises.

Whether positions were fair is `fairness`; how well the scale separates essays is `reliability`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from cj_pipeline.batch_history import Row

_POINTS = {"A": 1.0, "tie": 0.5, "B": 0.0}


@dataclass(frozen=True)
class Agreement:
    """How often two verdicts on one pair said the same, out of `n` times two were compared."""

    n: int
    n_alike: int

    @property
    def share(self) -> float | None:
        """None where nothing was compared."""
        return self.n_alike / self.n if self.n else None


@dataclass(frozen=True)
class Surprise:
    """A verdict that the final scores make unlikely.

    Attributes:
        comparison: The row of `comparisons`.
        probability: Of the winner winning, by the scores of both.
    """

    comparison: Row
    probability: float


@dataclass(frozen=True)
class Fit:
    """How well one essay's verdicts go with the scores: mean squares, 1 when as expected.

    Attributes:
        n: Verdicts on the essay.
        infit: Weighted by information: about verdicts between neighbours.
        outfit: Unweighted: about verdicts that should have been clear.
    """

    n: int
    infit: float
    outfit: float


def self_agreement(verdicts: Iterable[Row], *, reversed_order: bool) -> dict[str, Agreement]:
    """Return, by judge, how often it said the same of a pair when it was asked again.

    Args:
        verdicts: Comparisons that have a verdict.
        reversed_order: Whether to compare verdicts given in opposite orders, or in the same.
    """
    by_pair: dict[tuple[str, frozenset[str]], list[Row]] = defaultdict(list)
    for row in verdicts:
        by_pair[row["judge_id"], frozenset((row["essay_a"], row["essay_b"]))].append(row)
    counts: dict[str, list[bool]] = defaultdict(list)
    for (judge_id, _), rows in by_pair.items():
        for one, other in combinations(rows, 2):
            if (one["essay_a"] != other["essay_a"]) == reversed_order:
                counts[judge_id].append(one["winner_id"] == other["winner_id"])
    return {judge: Agreement(len(alike), sum(alike)) for judge, alike in counts.items()}


def judges_agreement(verdicts: Iterable[Row]) -> dict[tuple[str, str], Agreement]:
    """Return, for every two judges, how often they said the same of a pair both were asked."""
    by_pair: dict[frozenset[str], list[Row]] = defaultdict(list)
    for row in verdicts:
        by_pair[frozenset((row["essay_a"], row["essay_b"]))].append(row)
    counts: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for rows in by_pair.values():
        for one, other in combinations(sorted(rows, key=lambda row: row["judge_id"]), 2):
            if one["judge_id"] != other["judge_id"]:
                alike = one["winner_id"] == other["winner_id"]
                counts[one["judge_id"], other["judge_id"]].append(alike)
    return {judges: Agreement(len(alike), sum(alike)) for judges, alike in counts.items()}


def surprises(
    verdicts: Iterable[Row], scores: Mapping[str, float], *, below: float
) -> list[Surprise]:
    """Return the verdicts whose winner had a probability under `below`, least likely first.

    Position effects are left aside; ties surprise nobody here.
    """
    found = [
        Surprise(row, _p_first_beats(scores[row["winner_id"]], scores[row["loser_id"]]))
        for row in verdicts
        if row["winner"] != "tie"
    ]
    return sorted(
        (surprise for surprise in found if surprise.probability < below),
        key=lambda surprise: (surprise.probability, surprise.comparison["sequence"]),
    )


def essay_fits(verdicts: Sequence[Row], scores: Mapping[str, float]) -> dict[str, Fit]:
    """Return each judged essay's infit and outfit.

    References:
        Wright and Masters (1982), Rating Scale Analysis, ch. 5; Pollitt (2012),
        doi:10.1080/0969594X.2012.665354 uses them to find misfitting essays and judges.
    """
    squares: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in verdicts:
        p = _p_first_beats(scores[row["essay_a"]], scores[row["essay_b"]])
        variance = p * (1 - p)
        square = (_POINTS[row["winner"]] - p) ** 2
        for essay_id in (row["essay_a"], row["essay_b"]):
            squares[essay_id].append((square, variance))
    return {
        essay_id: Fit(
            n=len(pairs),
            infit=sum(s for s, _ in pairs) / sum(v for _, v in pairs),
            outfit=sum(s / v for s, v in pairs) / len(pairs),
        )
        for essay_id, pairs in sorted(squares.items())
    }


def _p_first_beats(first: float, second: float) -> float:
    return 1 / (1 + math.exp(second - first))
