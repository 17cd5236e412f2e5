"""The adaptive strategy: the wave that lessens the expected loss most.

A wave is chosen pair by pair. Each pair's gain is how much its verdict is expected to lessen the
loss (see `loss`), given that the pairs chosen before it will be answered too, so that a
wave does not buy the same information several times. Essays new to the scale are joined to it
first. While the graph has no scores, `fixed_design` and `balanced` choose.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cj_pipeline.arrays import Floats, Ints
from cj_pipeline.batch.comparisons import Role
from cj_pipeline.pairing.candidates import candidate_pairs
from cj_pipeline.pairing.comparison_graph import ComparisonGraph, PairChoice, Parts
from cj_pipeline.pairing.position_repair import SwapRules
from cj_pipeline.pairing.posterior import approximate_posterior
from cj_pipeline.pairing.shrinkage import shrunk


@dataclass(frozen=True)
class _Evenness:
    """How alike essays take part.

    Attributes:
        over_share: How much oftener than its even share an essay may come in one wave.
        stray: How far an essay's number of comparisons may stray from the mean, as a share of it.
    """

    over_share: int
    stray: float


_FOR_RANKS = _Evenness(over_share=4, stray=0.5)
_FOR_SCORES = _Evenness(over_share=2, stray=0.25)
"""Where each score counts by itself: with anchors, which make grades of scores, and for new essays
in an old scale. An essay far out gains the order little and would be placed by few comparisons."""
_STRAY_AT_LEAST = 2
"""Comparisons, for early waves."""


def most_informative_pairs(
    graph: ComparisonGraph, size: int, rng: np.random.Generator, *, may_repeat: bool = False
) -> list[PairChoice]:
    """Return at most `size` pairs, greatest expected gain first; fewer when pairs run out.

    Args:
        graph: With scores, and with either their covariance or their information.
        size: Pairs wanted.
        rng: Draws candidates and sketches in large batches.
        may_repeat: Whether a pair already shown is a candidate.

    References:
        Chaloner and Verdinelli (1995), doi:10.1214/ss/1177009939, for designs that lessen an
        expected loss; Sherman and Morrison (1950), doi:10.1214/aoms/1177729893, for the update.
    """
    return most_informative_wave(graph, size, rng, may_repeat=may_repeat)[0]


def most_informative_wave(
    graph: ComparisonGraph, size: int, rng: np.random.Generator, *, may_repeat: bool
) -> tuple[list[PairChoice], SwapRules]:
    """Return the same pairs, and what may replace one at little loss of gain."""
    wave = _Wave(shrunk(graph), size, rng, may_repeat=may_repeat)
    is_for_sides = graph.boundaries or graph.n_above is not None
    role = Role.BOUNDARY if is_for_sides else Role.INFORMATIVE
    chosen: list[PairChoice] = []
    while len(chosen) < size and (k := wave.best()) is not None:
        one, other, gain = wave.take(k)
        chosen.append(PairChoice(one, other, role, gain))
    return chosen, wave.exchange(chosen)


class _Wave:
    """The candidates of a wave while it is being chosen, and what each would gain."""

    def __init__(
        self, graph: ComparisonGraph, size: int, rng: np.random.Generator, *, may_repeat: bool
    ) -> None:
        assert graph.scores is not None  # noqa: S101
        self._first, self._second = candidate_pairs(graph, rng, may_repeat=may_repeat)
        self._posterior = approximate_posterior(graph, rng)
        self._variances = self._posterior.variances(self._first, self._second)
        self._losses = self._posterior.losses(self._first, self._second)
        self._information = expected_information(
            graph.scores[self._first] - graph.scores[self._second], self._variances
        )
        self._is_open = np.ones(len(self._first), dtype=bool)
        self._n_open = len(self._first)
        self._everyone = np.arange(graph.n_essays)
        self._candidates_of = (
            _candidates_of(self._first, self._second, graph.n_essays)
            if self._posterior.is_local
            else None
        )
        self._parts = Parts(graph)
        self._room, self._owed = _room_and_owed(graph, size)
        self._must_come = self._owed.copy()
        self._gains = np.full(len(self._first), -np.inf)
        self._greatest = _Greatest(self._gains)
        self._weigh(self._everything)

    @property
    def _everything(self) -> slice:
        return slice(None)

    def best(self) -> int | None:
        """Return the candidate to take next; None when none is left.

        Essays that would be left behind come first. When only pairs are left of essays that have
        had their most, each may have one more.
        """
        while self._n_open:
            if self._owed.any():
                owed = (self._owed[self._first] > 0) | (self._owed[self._second] > 0)
                k = int(np.argmax(np.where(owed, self._gains, -np.inf)))
                is_found = owed[k] and np.isfinite(self._gains[k])
            else:
                k = self._greatest.at()
                is_found = np.isfinite(self._gains[k])
            if is_found:
                return k
            if self._owed.any():
                self._owed[:] = 0
            else:
                self._room += 1
                self._weigh(self._everything)
        return None

    def take(self, k: int) -> tuple[int, int, float]:
        """Add a candidate to the wave; return its essays and its gain."""
        one, other, gain = int(self._first[k]), int(self._second[k]), float(self._gains[k])
        self._is_open[k] = False
        self._n_open -= 1
        self._room[[one, other]] -= 1
        self._owed[[one, other]] = np.maximum(self._owed[[one, other]] - 1, 0)

        weight = self._information[k] / (1 + self._information[k] * self._variances[k])
        if self._candidates_of is None:
            rows: slice | Ints = self._everything
            effect = self._posterior.effect(one, other, self._everyone)
            scores = effect.scores[self._first] - effect.scores[self._second]
            loss_effects = effect.loss_effects[self._first] - effect.loss_effects[self._second]
        else:
            rows = np.concatenate([self._candidates_of[one], self._candidates_of[other]])
            effect = self._posterior.effect(one, other, self._first[rows])
            there = self._posterior.effect(one, other, self._second[rows])
            scores, loss_effects = (
                effect.scores - there.scores,
                effect.loss_effects - there.loss_effects,
            )
        self._variances[rows] = np.maximum(self._variances[rows] - weight * scores**2, 1e-12)
        self._losses[rows] += weight * scores * (weight * effect.loss * scores - 2 * loss_effects)
        self._posterior.update(one, other, weight)
        if self._parts.n_parts > 1:
            # A pair that joins two parts opens or closes pairs anywhere.
            self._parts.join(one, other)
            rows = self._everything
        self._weigh(rows)
        return one, other, gain

    def exchange(self, chosen: Sequence[PairChoice]) -> SwapRules:
        """Return which swaps a chosen wave allows, by the candidates that are still open."""
        ends = [end for choice in chosen for end in (choice.one, choice.other)]
        times = np.bincount(ends, minlength=len(self._everyone))
        return SwapRules(self._must_come, times + self._room, self._pair_gains)

    def _pair_gains(self, essay: int) -> Floats:
        if self._candidates_of is None:
            rows = np.flatnonzero((self._first == essay) | (self._second == essay))
        else:
            rows = self._candidates_of[essay]
        gains = np.full(len(self._everyone), -np.inf)
        rows = rows[self._is_open[rows]]
        gains[self._first[rows] + self._second[rows] - essay] = self._expected_gains(rows)
        return gains

    def _weigh(self, rows: slice | Ints) -> None:
        """Recompute the gains of these candidates; those that may not come have none."""
        may_come = (
            self._is_open[rows]
            & (self._room[self._first[rows]] > 0)
            & (self._room[self._second[rows]] > 0)
        )
        if self._parts.n_parts > 1:
            labels = self._parts.labels
            may_come &= labels[self._first[rows]] != labels[self._second[rows]]
        self._gains[rows] = np.where(may_come, self._expected_gains(rows), -np.inf)
        self._greatest.refresh(rows)

    def _expected_gains(self, rows: slice | Ints) -> Floats:
        information = self._information[rows]
        losses = np.maximum(self._losses[rows], 0)
        gains: Floats = information * losses / (1 + information * self._variances[rows])
        return gains


class _Greatest:
    """Where the greatest of many values is, while few of them change at a time.

    The greatest of each block is known, until all values change at once.
    """

    def __init__(self, values: Floats) -> None:
        self._values = values
        self._size = max(1, math.isqrt(len(values)))
        self._starts = np.arange(0, len(values), self._size)
        self._at: Ints | None = None

    def at(self) -> int:
        """Return the first place of the greatest value."""
        if self._at is None:
            return int(np.argmax(self._values))
        return int(self._at[np.argmax(self._values[self._at])])

    def refresh(self, rows: slice | Ints) -> None:
        """Take note that the values in these places, or all of them, have changed."""
        if isinstance(rows, slice):
            self._at = None
            return
        changed: Iterable[int] = range(len(self._starts))
        if self._at is None:
            self._at = self._starts.copy()
        else:
            blocks = rows // self._size
            at = self._at[blocks]
            matters = (at == rows) | (self._values[rows] >= self._values[at])
            changed = set(blocks[matters].tolist())
        for block in changed:
            start = self._starts[block]
            self._at[block] = start + np.argmax(self._values[start : start + self._size])


def _room_and_owed(graph: ComparisonGraph, size: int) -> tuple[Ints, Ints]:
    """Return how often each essay may come in the wave, and how often it must.

    Essays that an earlier scale has placed come as often as they are of use to the others.
    """
    is_new = ~graph.is_known
    so_far = graph.n_comparisons
    # Against essays that are known a pair is one new essay's, else two essays'.
    to_come = size * (1 if graph.known_ids else 2)
    n_new = max(int(is_new.sum()), 1)
    mean = (int(so_far[is_new].sum()) + to_come) / n_new
    is_for_scores = graph.anchor_ids or graph.known_ids or graph.boundaries
    evenness = _FOR_SCORES if is_for_scores else _FOR_RANKS
    uneven = max(_STRAY_AT_LEAST, int(evenness.stray * mean))
    most_in_wave = -(-to_come // n_new) + evenness.over_share
    room = np.minimum(most_in_wave, int(np.ceil(mean)) + uneven - so_far)
    owed = np.maximum(0, int(mean) - uneven - so_far)
    room = np.where(graph.is_known, size, np.maximum(room, owed))
    return room, np.where(graph.is_known, 0, owed)


def expected_information(differences: Floats, variances: Floats) -> Floats:
    """Return the information a verdict is expected to give about each difference.

    That is P(A) P(B), averaged over what is still unknown of the difference by the usual probit
    approximation (MacKay 1992, doi:10.1162/neco.1992.4.5.720).
    """
    shrunk = differences / np.sqrt(1 + np.pi * variances / 8)
    information: Floats = (0.25 - 0.25 * np.tanh(0.5 * shrunk) ** 2) / np.sqrt(
        1 + np.pi * variances / 8
    )
    return information


def _candidates_of(first: Ints, second: Ints, n: int) -> list[Ints]:
    """Return for each essay the candidates it is in."""
    essays = np.concatenate([first, second])
    order = np.argsort(essays, kind="stable")
    starts = np.searchsorted(essays[order], np.arange(n + 1))
    return [order[starts[i] : starts[i + 1]] % len(first) for i in range(n)]
