"""Verdicts that the final scores make unlikely: what a person should check first.

How well a whole essay's verdicts fit is `fit_statistics`; judges against themselves and each other
is `consistency`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True)
class UnexpectedVerdict:
    """A verdict that the final scores make unlikely.

    Attributes:
        comparison: The row of `comparisons`.
        probability: Of the winner winning, by the scores of both.
    """

    comparison: Row
    probability: float


def unexpected_verdicts(
    verdicts: Iterable[Row], scores: Mapping[str, float], *, below: float
) -> list[UnexpectedVerdict]:
    """Return the verdicts whose winner had a probability under `below`, least likely first.

    Position effects are left aside; ties are never unexpected here.
    """
    found = [
        UnexpectedVerdict(
            row, 1 / (1 + math.exp(scores[row["loser_id"]] - scores[row["winner_id"]]))
        )
        for row in verdicts
        if row["winner"] != "tie"
    ]
    return sorted(
        (surprise for surprise in found if surprise.probability < below),
        key=lambda surprise: (surprise.probability, surprise.comparison["sequence"]),
    )
