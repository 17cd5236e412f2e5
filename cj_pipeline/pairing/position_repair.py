"""Pairs handed from essay to essay, so that none is seen much oftener in one place than the other.

However a wave's pairs are turned (`positions`), an essay that leans to one side already and comes
an odd number of times may be left leaning by two, which is much where it was seen seldom. Then
another pair is asked instead of one of the wave's: one of the essay's own goes to an essay that
does not lean that way, or such an essay's comes to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cj_pipeline.arrays import Bools, Floats, Ints
from cj_pipeline.pairing.comparison_graph import ComparisonGraph, IndexPair, PairChoice, Parts
from cj_pipeline.pairing.positions import POSITIONAL_SKEW_BAND

_LEAST_MENDED = 2
"""An essay seen an odd number of times leans by one, whatever is done."""


@dataclass(frozen=True)
class SwapRules:
    """What a strategy lets essays hand on.

    Attributes:
        least: How often each essay must come in the wave; shape (n_essays,).
        most: How often it may.
        gains_beside: From an essay, what asking it with each other one would gain; shape
            (n_essays,), the caller's to write in; minus infinity where the two may not meet.
        tells_gain: Whether that is an expected gain to keep with a pair.
    """

    least: Ints
    most: Ints
    gains_beside: Callable[[int], Floats]
    tells_gain: bool = True


def repair_positions(
    net: ComparisonGraph,
    chosen: Sequence[PairChoice],
    pairs: Sequence[IndexPair],
    exchange: SwapRules,
) -> tuple[list[PairChoice], tuple[IndexPair, ...]]:
    """Return a wave with as few pairs handed on as leave no essay leaning beyond the band.

    While the net is in parts nothing is handed on: each pair is needed where it is.

    Args:
        net: Before the wave.
        chosen: The wave.
        pairs: The same as (shown first, shown second).
        exchange: What may be asked instead; never a pair already shown, nor two known essays.
    """
    wave = _Wave(net, chosen, pairs, exchange)
    leaning = wave.leaning()
    if leaning and Parts(net).n_parts == 1:
        for essay in leaning:
            while wave.leans_too_far(essay) and wave.relieve(essay):
                pass
    return wave.chosen, tuple((first, second) for first, second in wave.shown.tolist())


@dataclass(frozen=True)
class _Way:
    """One way to hand a pair on.

    Attributes:
        worth: The gain of the pair asked instead, less that of the one given up.
        pair: Which of the wave's.
        side: Where in it the essays change places: 0 for the one shown first.
        taker: The essay that comes in.
        gain: Of the pair asked instead.
    """

    worth: float
    pair: int
    side: int
    taker: int
    gain: float


class _Wave:
    """A wave in a fair order, while its pairs are handed on."""

    def __init__(
        self,
        net: ComparisonGraph,
        chosen: Sequence[PairChoice],
        pairs: Sequence[IndexPair],
        exchange: SwapRules,
    ) -> None:
        self.chosen = list(chosen)
        self.shown: Ints = np.array(pairs, dtype=np.int64).reshape(len(pairs), 2)
        self._exchange, self._net, n = exchange, net, net.n_essays
        first, second = self.shown.T
        self._lean: Ints = (
            net.lean + np.bincount(first, minlength=n) - np.bincount(second, minlength=n)
        )
        self._times: Ints = np.bincount(self.shown.ravel(), minlength=n)
        self._given_up: Floats = np.array([choice.expected_gain or 0.0 for choice in chosen])

    def leaning(self) -> list[int]:
        """Return the essays that lean too far, those that lean furthest first."""
        order = np.argsort(-np.abs(self._lean), kind="stable").tolist()
        return [essay for essay in order if self.leans_too_far(essay)]

    def leans_too_far(self, essay: int) -> bool:
        """Return whether an essay leans more than it has to, and more than is fair."""
        lean = abs(int(self._lean[essay]))
        seen = int(self._net.n_comparisons[essay] + self._times[essay])
        return lean >= _LEAST_MENDED and lean > POSITIONAL_SKEW_BAND * seen

    def relieve(self, essay: int) -> bool:
        """Ask the pair that lets an essay lean less and costs the least gain; False without one."""
        side = int(self._lean[essay] < 0)
        found = [*self._given_away(essay, side), *self._taken_over(essay, 1 - side)]
        if not found:
            return False
        best = max(found, key=lambda way: way.worth)
        k, side, taker, gain = best.pair, best.side, best.taker, best.gain
        giver, partner = self.shown[k, side].item(), self.shown[k, 1 - side].item()
        self.shown[k, side] = taker
        turn = 1 - 2 * side
        self._lean[[giver, taker]] += (-turn, turn)
        self._times[[giver, taker]] += (-1, 1)
        self._given_up[k] = gain
        self.chosen[k] = replace(
            self.chosen[k],
            one=min(partner, taker),
            other=max(partner, taker),
            expected_gain=gain if self._exchange.tells_gain else None,
        )
        return True

    def _given_away(self, essay: int, side: int) -> list[_Way]:
        """Return each way the essay may give up a pair on a side it has too much of."""
        if self._times[essay] <= self._exchange.least[essay]:
            return []
        may_take = self._leans_away(side) & (self._times < self._exchange.most)
        ways = []
        for k in np.flatnonzero(self.shown[:, side] == essay).tolist():
            gains = np.where(may_take, self._gains_beside(self.shown[k, 1 - side].item()), -np.inf)
            taker = int(np.argmax(gains))
            if np.isfinite(gains[taker]):
                gain = float(gains[taker])
                ways.append(_Way(gain - float(self._given_up[k]), k, side, taker, gain))
        return ways

    def _taken_over(self, essay: int, side: int) -> list[_Way]:
        """Return the best way for the essay to take a pair over on a side it has too little of."""
        if not len(self.shown) or self._times[essay] >= self._exchange.most[essay]:
            return []
        # Who gives stands on that side, and would rather not.
        may_give = self._leans_away(1 - side) & (self._times > self._exchange.least)
        gains = self._gains_beside(essay)[self.shown[:, 1 - side]]
        worth = np.where(may_give[self.shown[:, side]], gains - self._given_up, -np.inf)
        k = int(np.argmax(worth))
        if not np.isfinite(worth[k]):
            return []
        return [_Way(float(worth[k]), k, side, essay, float(gains[k]))]

    def _leans_away(self, side: int) -> Bools:
        """Return which essays may stand on a side once more without leaning to it by two."""
        return self._lean <= 0 if side == 0 else self._lean >= 0

    def _gains_beside(self, essay: int) -> Floats:
        gains = self._exchange.gains_beside(essay)
        beside = self.shown[(self.shown == essay).any(axis=1)]
        gains[beside.ravel()] = -np.inf
        gains[list(self._net.partners[essay])] = -np.inf
        gains[essay] = -np.inf
        if self._net.is_known[essay]:
            gains[self._net.is_known] = -np.inf
        return gains
