"""Swaps that keep an essay from being shown much oftener in one position than in the other.

However a wave's pairs are ordered (`positions`), an essay that is out of balance already and comes
an odd number of times may end up out of balance by two, which is much where it was shown seldom.
Then one pair of the wave is swapped for another: one of the essay's own goes to an essay that is
not out of balance that way, or such an essay's comes to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cj_pipeline.arrays import Bools, Floats, Ints
from cj_pipeline.pairing.comparison_graph import ComparisonGraph, IndexPair, PairChoice, Parts
from cj_pipeline.pairing.positions import POSITIONAL_SKEW_BAND

_LEAST_REPAIRED = 2
"""An essay shown an odd number of times is out of balance by one in any case."""


@dataclass(frozen=True)
class SwapRules:
    """Which swaps a strategy allows.

    Attributes:
        least: How often each essay must come in the wave; shape (n_essays,).
        most: How often it may.
        pair_gains: From an essay, what a pair of it with each other one would gain; shape
            (n_essays,), the caller's to write in; minus infinity where the two may not meet.
        has_gain: Whether that is an expected gain to store with a pair.
    """

    least: Ints
    most: Ints
    pair_gains: Callable[[int], Floats]
    has_gain: bool = True


def repair_positions(
    graph: ComparisonGraph,
    chosen: Sequence[PairChoice],
    pairs: Sequence[IndexPair],
    swaps: SwapRules,
) -> tuple[list[PairChoice], tuple[IndexPair, ...]]:
    """Return a wave with as few swaps as leave no essay's imbalance beyond the band.

    While the graph is in parts nothing is swapped: each pair is needed where it is.

    Args:
        graph: Before the wave.
        chosen: The wave.
        pairs: The same as (shown first, shown second).
        swaps: What may be judged instead; never a pair already shown, nor two known essays.
    """
    wave = _Wave(graph, chosen, pairs, swaps)
    imbalanced = wave.imbalanced()
    if imbalanced and Parts(graph).n_parts == 1:
        for essay in imbalanced:
            while wave.exceeds_band(essay) and wave.relieve(essay):
                pass
    return wave.chosen, tuple((first, second) for first, second in wave.shown.tolist())


@dataclass(frozen=True)
class _Swap:
    """One way to swap a pair for another.

    Attributes:
        net_gain: The gain of the new pair, less that of the one it replaces.
        pair: Which of the wave's.
        side: Where in it the essays change places: 0 for the one shown first.
        taker: The essay that comes in.
        gain: Of the new pair.
    """

    net_gain: float
    pair: int
    side: int
    taker: int
    gain: float


class _Wave:
    """A wave in a fair order, while its pairs are swapped."""

    def __init__(
        self,
        graph: ComparisonGraph,
        chosen: Sequence[PairChoice],
        pairs: Sequence[IndexPair],
        swaps: SwapRules,
    ) -> None:
        self.chosen = list(chosen)
        self.shown: Ints = np.array(pairs, dtype=np.int64).reshape(len(pairs), 2)
        self._swaps, self._net, n = swaps, graph, graph.n_essays
        first, second = self.shown.T
        self._imbalance: Ints = (
            graph.imbalance + np.bincount(first, minlength=n) - np.bincount(second, minlength=n)
        )
        self._times: Ints = np.bincount(self.shown.ravel(), minlength=n)
        self._replaced_gains: Floats = np.array([choice.expected_gain or 0.0 for choice in chosen])

    def imbalanced(self) -> list[int]:
        """Return the essays whose imbalance exceeds the band, the largest first."""
        order = np.argsort(-np.abs(self._imbalance), kind="stable").tolist()
        return [essay for essay in order if self.exceeds_band(essay)]

    def exceeds_band(self, essay: int) -> bool:
        """Return whether an essay's imbalance is more than it has to be, and beyond the band."""
        imbalance = abs(int(self._imbalance[essay]))
        seen = int(self._net.n_comparisons[essay] + self._times[essay])
        return imbalance >= _LEAST_REPAIRED and imbalance > POSITIONAL_SKEW_BAND * seen

    def relieve(self, essay: int) -> bool:
        """Make the swap that lessens an essay's imbalance at least cost; False without one."""
        side = int(self._imbalance[essay] < 0)
        found = [*self._ways_to_give(essay, side), *self._ways_to_take(essay, 1 - side)]
        if not found:
            return False
        best = max(found, key=lambda way: way.net_gain)
        k, side, taker, gain = best.pair, best.side, best.taker, best.gain
        giver, partner = self.shown[k, side].item(), self.shown[k, 1 - side].item()
        self.shown[k, side] = taker
        change = 1 - 2 * side
        self._imbalance[[giver, taker]] += (-change, change)
        self._times[[giver, taker]] += (-1, 1)
        self._replaced_gains[k] = gain
        self.chosen[k] = replace(
            self.chosen[k],
            one=min(partner, taker),
            other=max(partner, taker),
            expected_gain=gain if self._swaps.has_gain else None,
        )
        return True

    def _ways_to_give(self, essay: int, side: int) -> list[_Swap]:
        """Return each way the essay may give up a pair on a side it has too much of."""
        if self._times[essay] <= self._swaps.least[essay]:
            return []
        may_take = self._may_take_side(side) & (self._times < self._swaps.most)
        ways = []
        for k in np.flatnonzero(self.shown[:, side] == essay).tolist():
            gains = np.where(may_take, self._pair_gains(self.shown[k, 1 - side].item()), -np.inf)
            taker = int(np.argmax(gains))
            if np.isfinite(gains[taker]):
                gain = float(gains[taker])
                ways.append(_Swap(gain - float(self._replaced_gains[k]), k, side, taker, gain))
        return ways

    def _ways_to_take(self, essay: int, side: int) -> list[_Swap]:
        """Return the best way for the essay to take a pair over on a side it has too little of."""
        if not len(self.shown) or self._times[essay] >= self._swaps.most[essay]:
            return []
        # The giver is on that side, and is not better off there.
        may_give = self._may_take_side(1 - side) & (self._times > self._swaps.least)
        gains = self._pair_gains(essay)[self.shown[:, 1 - side]]
        net_gain = np.where(may_give[self.shown[:, side]], gains - self._replaced_gains, -np.inf)
        k = int(np.argmax(net_gain))
        if not np.isfinite(net_gain[k]):
            return []
        return [_Swap(float(net_gain[k]), k, side, essay, float(gains[k]))]

    def _may_take_side(self, side: int) -> Bools:
        """Return which essays may be on a side again without an imbalance of two towards it."""
        return self._imbalance <= 0 if side == 0 else self._imbalance >= 0

    def _pair_gains(self, essay: int) -> Floats:
        gains = self._swaps.pair_gains(essay)
        adjacent = self.shown[(self.shown == essay).any(axis=1)]
        gains[adjacent.ravel()] = -np.inf
        gains[list(self._net.partners[essay])] = -np.inf
        gains[essay] = -np.inf
        if self._net.is_known[essay]:
            gains[self._net.is_known] = -np.inf
        return gains
