"""Which of the pairs that models judge are shown to people as well.

One part is drawn at random, so that what it says of models is unbiased; each pair's probability is
known. The rest are pairs on which a person's verdict tells most. Which order a pair is shown in is
settled when it is handed out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Pair = tuple[str, str]
Why = Literal["judges disagree", "unexpected verdict", "near a boundary"]

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Telling:
    """What a person's verdict on a pair would tell.

    Attributes:
        pair: The two essays, in no order.
        gain: From 0 to 1.
        why: What most of it comes from.
    """

    pair: Pair
    gain: float
    why: Why


@dataclass(frozen=True)
class JudgedByModels:
    """A pair as models have judged it.

    Attributes:
        pair: The two essays, in no order.
        winners: The essay each verdict named, or `tie`.
        p_first: The probability, by the scale, that the pair's first essay wins.
        p_above: For each essay that may get either of two grades, the probability that it lies
            above the boundary next to it; empty where there are no grades.
    """

    pair: Pair
    winners: tuple[str, ...]
    p_first: float
    p_above: tuple[float, ...] = ()


def drawn(rate: float, n_pairs: int, start: float) -> list[int]:
    """Return which of `n_pairs` pairs are drawn, by number from 0, each with probability `rate`.

    Systematic sampling with a random start: the number drawn is known in advance, and a longer
    list draws the same of its first pairs.

    Args:
        rate: From 0 to 1.
        n_pairs: In the order in which they were chosen.
        start: Uniform on [0, 1); a batch keeps its own.
    """
    return [
        i
        for i in range(n_pairs)
        if math.floor((i + 1) * rate + start) > math.floor(i * rate + start)
    ]


def n_due(share: float, n_pairs: int) -> int:
    """Return how many verdicts people owe for so many pairs; half a verdict is one."""
    return math.floor(share * n_pairs + 0.5 + _ROUNDING)


def telling(pair: JudgedByModels) -> Telling:
    """Return what a person's verdict on a pair would tell, and why."""
    gains: dict[Why, float] = {
        "judges disagree": _disagreement(pair.winners),
        "unexpected verdict": _surprise(pair),
        "near a boundary": max((4 * p * (1 - p) for p in pair.p_above), default=0.0),
    }
    why = max(gains, key=lambda name: gains[name])
    # What two reasons have in common is counted once.
    missed = math.prod(1 - gain for gain in gains.values())
    return Telling(pair.pair, 1 - missed, why)


def most_telling(pairs: Sequence[JudgedByModels], n: int) -> list[Telling]:
    """Return the `n` pairs on which a person's verdict tells most, best first.

    An essay is in at most one of them while there are others, so that the verdicts are spread.
    """
    left = sorted((telling(pair) for pair in pairs), key=lambda t: (-t.gain, t.pair))
    chosen: list[Telling] = []
    while left and len(chosen) < n:
        used: set[str] = set()
        later = []
        for each in left:
            if len(chosen) < n and not used & set(each.pair):
                chosen.append(each)
                used |= set(each.pair)
            else:
                later.append(each)
        left = later
    return chosen


def _disagreement(winners: Sequence[str]) -> float:
    """Return twice the share that disagrees with the majority: 1 where judges are split."""
    if len(winners) < 2:
        return 0.0
    most = max(winners.count(winner) for winner in set(winners))
    return 2 * (1 - most / len(winners))


def _surprise(pair: JudgedByModels) -> float:
    """Return how improbable the least expected verdict was, beyond even odds."""
    first, second = pair.pair
    p_of = {first: pair.p_first, second: 1 - pair.p_first}
    worst = min((p_of[winner] for winner in pair.winners if winner in p_of), default=0.5)
    return max(0.0, 1 - 2 * worst)
