"""Whether judges agree with themselves and with each other, verdict by verdict.

With themselves: when sides are swapped, when a pair comes back, and round triples of essays.

How judges fit the common scale is `fit_statistics`; scales of single judges are `panel`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.scale.tallies import Verdicts, as_verdicts, sums_by


@dataclass(frozen=True)
class Share:
    """A share of cases, with its 95 % interval (Wilson 1927, doi:10.2307/2276774).

    Attributes:
        n: Cases.
        share: Of them, between 0 and 1; not a number where there are none.
        lower: Lower end of the interval.
        upper: Upper end.
    """

    n: int
    share: float
    lower: float
    upper: float


@dataclass(frozen=True)
class JudgeConsistency:
    """What one judge's verdicts say about the judge.

    Attributes:
        n_verdicts: How many there are.
        first_wins: Share of verdicts other than ties that went to the essay shown first. An even
            design makes that position bias; by the model it is the scale's `position_effects`.
        swap_agreement: Of pairs judged in both orders, the share in which the same essay won (or
            both were ties).
        repeat_agreement: Of pairs judged again in the same order, the share alike.
    """

    n_verdicts: int
    first_wins: Share
    swap_agreement: Share
    repeat_agreement: Share


@dataclass(frozen=True)
class Transitivity:
    """How often three essays beat each other in a ring.

    Attributes:
        n_triples: Triples of essays all judged against each other, by a majority each way.
        n_circular: Of those, rings: a beat b, b beat c, c beat a.
        share: Circular ones; 0.25 where winners are tossed for.
    """

    n_triples: int
    n_circular: int
    share: float


def share_of(n_yes: float, n: int) -> Share:
    """Return a share and its Wilson interval."""
    if n == 0:
        return Share(0, float("nan"), 0.0, 1.0)
    z = 1.959964
    p = n_yes / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)))
    return Share(n, p, max(middle - half, 0.0), min(middle + half, 1.0))


def judge_consistency(
    essay_ids: Sequence[str], judged: Sequence[JudgedPair]
) -> dict[str, JudgeConsistency]:
    """Return what each judge's verdicts say about the judge."""
    verdicts = as_verdicts(essay_ids, judged)
    found = {}
    for number, judge_id in enumerate(verdicts.judge_ids):
        own = verdicts.pick(verdicts.judge == number)
        clear = own.half_wins != 1
        swapped, repeated = _agreements(own)
        found[judge_id] = JudgeConsistency(
            n_verdicts=len(own.first),
            first_wins=share_of(float(np.sum(own.half_wins[clear] == 2)), int(clear.sum())),
            swap_agreement=swapped,
            repeat_agreement=repeated,
        )
    return found


def agreement_between_judges(
    essay_ids: Sequence[str], judged: Sequence[JudgedPair]
) -> dict[tuple[str, str], Share]:
    """Return for each two judges the share of pairs both judged on which their majorities agree.

    A pair on which a judge is split evenly, or tied, agrees only with another such.
    """
    verdicts = as_verdicts(essay_ids, judged)
    leanings = [
        _majorities(verdicts.pick(verdicts.judge == number))
        for number in range(len(verdicts.judge_ids))
    ]
    shares = {}
    for i, one in enumerate(verdicts.judge_ids):
        for j in range(i + 1, len(verdicts.judge_ids)):
            both = leanings[i].keys() & leanings[j].keys()
            same = sum(leanings[i][pair] == leanings[j][pair] for pair in both)
            shares[one, verdicts.judge_ids[j]] = share_of(same, len(both))
    return shares


def transitivity(essay_ids: Sequence[str], judged: Sequence[JudgedPair]) -> Transitivity:
    """Return how many triples are circular, over the majorities of all verdicts.

    References:
        Kendall and Babington Smith (1940), doi:10.2307/2332613.
    """
    verdicts = as_verdicts(essay_ids, judged)
    n = len(verdicts.essay_ids)
    beaten = np.zeros((n, n))
    for (first, second), majority in _majorities(verdicts).items():
        if majority > 0:
            beaten[first, second] = 1
        elif majority < 0:
            beaten[second, first] = 1
    met = beaten + beaten.T
    n_triples = round(float(np.trace(met @ met @ met)) / 6)
    n_circular = round(float(np.trace(beaten @ beaten @ beaten)) / 3)
    return Transitivity(n_triples, n_circular, n_circular / n_triples if n_triples else 0.0)


def _agreements(own: Verdicts) -> tuple[Share, Share]:
    """Return agreement over pairs seen in both orders, and over those seen again in one order."""
    n = len(own.essay_ids)
    by_order: dict[int, list[int]] = {}
    shown = (own.first * n + own.second).tolist()
    for key, majority in zip(shown, (own.half_wins - 1).tolist(), strict=True):
        by_order.setdefault(key, []).append(majority)
    repeated = [won for won in by_order.values() if len(won) > 1]
    same = sum(len(set(won)) == 1 for won in repeated)
    swapped = 0
    agreed = 0
    for key, won in by_order.items():
        first, second = divmod(key, n)
        back = by_order.get(second * n + first)
        if first < second and back is not None:
            swapped += 1
            agreed += np.sign(sum(won)) == -np.sign(sum(back))
    return share_of(int(agreed), swapped), share_of(same, len(repeated))


def _majorities(verdicts: Verdicts) -> dict[tuple[int, int], int]:
    """Return per pair (lower index first) the sign of its majority; 0 where it is even."""
    n = len(verdicts.essay_ids)
    low = np.minimum(verdicts.first, verdicts.second)
    high = np.maximum(verdicts.first, verdicts.second)
    signed = np.where(verdicts.first < verdicts.second, 1, -1) * (verdicts.half_wins - 1)
    pairs, index = np.unique(low * n + high, return_inverse=True)
    majority = np.sign(sums_by(index, signed.astype(np.float64), len(pairs))).astype(int)
    return {
        divmod(pair, n): sign for pair, sign in zip(pairs.tolist(), majority.tolist(), strict=True)
    }
