"""Pairs that join the essays into one graph and show each equally often, whatever the scores.

This is coverage, random pairing and resampling; strategies that use scores begin with it while
the graph is in parts. Which essay is shown first is decided afterwards, by `positions`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from cj_pipeline.arrays import Bools, Floats, Ints
from cj_pipeline.batch.comparisons import Role
from cj_pipeline.pairing.comparison_graph import ComparisonGraph, IndexPair, PairChoice, Parts
from cj_pipeline.pairing.positions import next_orders


def new_pairs(
    graph: ComparisonGraph, size: int, rng: np.random.Generator, *, role: Role = Role.COVERAGE
) -> list[PairChoice]:
    """Return at most `size` pairs never shown, fewer only when none is left.

    While the graph is in parts every pair joins two of them, so it is connected after the fewest
    pairs possible; parts with an anchor meet parts without. The essay seen least always comes next.
    Where there are initial scores (`graph.expected`) it meets one close to it, as that verdict
    shows more.

    Args:
        graph: What was shown so far.
        size: Pairs wanted.
        rng: Decides between equals.
        role: Of the pairs that are not bridges; `RANDOM` leaves partners of equal standing to
            chance, `COVERAGE` prefers those that were shown on the other side more often.
    """
    seen = _Participation(graph, rng)
    met = [set(partners) for partners in graph.partners]
    parts = Parts(graph)
    rank = None if graph.expected is None else _mid_ranks(graph.expected)
    chosen: list[PairChoice] = []
    while len(chosen) < size and (one := seen.least_seen()) is not None:
        cost = seen.partner_cost(one, heed_imbalance=role is Role.COVERAGE)
        if rank is not None:
            cost += _FAR_APART * np.abs(rank - rank[one]) / graph.n_essays
        if parts.n_parts > 1:
            mine = parts.labels[one]
            cost[parts.has_anchor[parts.labels] == parts.has_anchor[mine]] += _NO_NEW_ANCHOR
            cost[parts.labels == mine] = np.inf
        else:
            cost[list(met[one])] = np.inf
        other = int(np.argmin(cost))
        if not np.isfinite(cost[other]):
            seen.close(one)
            continue
        bridges = parts.sizes[parts.labels[[one, other]]].min() > 1 and (
            parts.labels[one] != parts.labels[other]
        )
        chosen.append(PairChoice(one, other, Role.BRIDGE if bridges else role))
        met[one].add(other)
        met[other].add(one)
        parts.join(one, other)
        # The order that evens the two out; `positions` has the last word.
        seen.add(*sorted((one, other), key=lambda i: seen.imbalance[i]))
    # After unequal waves the essay seen least came first anyway; only a round's end is evened out
    # here.
    may_even_out = parts.n_parts == 1 and np.ptp(graph.n_comparisons) <= 2
    return _evened_out(graph, chosen, met) if may_even_out else chosen


def _mid_ranks(values: Floats) -> Floats:
    """Return ranks from 0, equals sharing the middle of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    middles: Floats = np.cumsum(counts) - (counts + 1) / 2
    return middles[place]


def _evened_out(
    graph: ComparisonGraph, chosen: list[PairChoice], met: list[set[int]]
) -> list[PairChoice]:
    """Return the pairs after handing some on, from essays seen twice oftener to those left behind.

    The last essays of a round may have met already, so that one of them stays behind.
    """
    count = graph.n_comparisons + np.bincount(
        [i for choice in chosen for i in (choice.one, choice.other)], minlength=graph.n_essays
    )
    while np.ptp(count) > 1:
        for k, choice in enumerate(chosen):
            handed_on = _swapped(choice, count, met)
            if handed_on is None:
                continue
            others = [*chosen[:k], handed_on, *chosen[k + 1 :]]
            ids = graph.essay_ids
            shown = graph.shown + tuple((ids[c.one], ids[c.other]) for c in others)
            if Parts(replace(graph, shown=shown)).n_parts > 1:
                continue
            count[[choice.one, choice.other]] -= 1
            count[[handed_on.one, handed_on.other]] += 1
            met[choice.one].discard(choice.other)
            met[choice.other].discard(choice.one)
            met[handed_on.one].add(handed_on.other)
            met[handed_on.other].add(handed_on.one)
            chosen = others
            break
        else:
            break
    return chosen


def _swapped(choice: PairChoice, count: Ints, met: list[set[int]]) -> PairChoice | None:
    """Return the pair with an essay seen least in place of one seen at least twice oftener."""
    for over, stays in ((choice.one, choice.other), (choice.other, choice.one)):
        if count[over] < count.min() + 2:
            continue
        for under in np.flatnonzero(count == count.min()).tolist():
            if under != stays and stays not in met[under]:
                return PairChoice(under, stays, choice.role)
    return None


def repeated_pairs(graph: ComparisonGraph, size: int, rng: np.random.Generator) -> list[PairChoice]:
    """Return at most `size` pairs already shown: those shown least often, essays seen alike.

    No pair comes twice in one wave. Between equals, the pair comes first whose next order (see
    `positions.next_orders`) evens its essays out.
    """
    times: Counter[IndexPair] = Counter()
    for a, b in graph.shown_indices.tolist():
        times[min(a, b), max(a, b)] += 1
    orders = next_orders(graph)
    seen = _Participation(graph, rng)
    chosen: list[PairChoice] = []
    for level in sorted(set(times.values())):
        # For each essay: with whom it may meet again, and whether it is shown first then.
        left: list[dict[int, bool]] = [{} for _ in graph.essay_ids]
        for pair, count in times.items():
            if count == level:
                first, second = orders[pair]
                left[first][second] = True
                left[second][first] = False
        seen.reopen()
        while len(chosen) < size and (one := seen.least_seen()) is not None:
            if not left[one]:
                seen.close(one)
                continue
            other = seen.best_again(one, left[one])
            first, second = (one, other) if left[one].pop(other) else (other, one)
            del left[other][one]
            chosen.append(PairChoice(one, other, Role.RESAMPLE))
            seen.add(first, second)
    return chosen


_ONCE_MORE_SEEN = 64.0
_NO_NEW_ANCHOR = 8.0
_MOST_IMBALANCE = 6.0
_FAR_APART = 40.0


class _Participation:
    """How often each essay was seen, and on which side, while a wave is being chosen."""

    def __init__(self, graph: ComparisonGraph, rng: np.random.Generator) -> None:
        self.imbalance: Ints = graph.imbalance.copy()
        self._count: Ints = graph.n_comparisons.copy()
        self._coin: Floats = rng.random(graph.n_essays)
        self._rng = rng
        self._is_open: Bools = np.ones(graph.n_essays, dtype=bool)

    def least_seen(self) -> int | None:
        """Return the essay to pair next; None when every essay has been closed."""
        waiting = np.where(self._is_open, self._count + self._coin, np.inf)
        one = int(np.argmin(waiting))
        return one if np.isfinite(waiting[one]) else None

    def partner_cost(self, one: int, *, heed_imbalance: bool) -> Floats:
        """Return what each partner would cost in evenness; infinite for the essay itself."""
        cost = _ONCE_MORE_SEEN * self._count + self._rng.random(len(self._count))
        if heed_imbalance:
            cost += np.minimum(2.0 * np.abs(self.imbalance + self.imbalance[one]), _MOST_IMBALANCE)
        cost[one] = np.inf
        return cost

    def best_again(self, one: int, partners: Mapping[int, bool]) -> int:
        """Return the partner to meet again next; True means that `one` is shown first."""
        candidates = np.fromiter(partners, dtype=np.int64)
        change = np.where(np.fromiter(partners.values(), dtype=bool), 1, -1)
        left_over = np.abs(self.imbalance[one] + change) + np.abs(
            self.imbalance[candidates] - change
        )
        cost = self.partner_cost(one, heed_imbalance=False)[candidates]
        return int(candidates[np.argmin(cost + np.minimum(2.0 * left_over, _MOST_IMBALANCE))])

    def add(self, first: int, second: int) -> None:
        """Count a pair in the order it is, at least provisionally, shown."""
        self._count[[first, second]] += 1
        self.imbalance[first] += 1
        self.imbalance[second] -= 1

    def close(self, one: int) -> None:
        """Leave an essay out because it has no partner left."""
        self._is_open[one] = False

    def reopen(self) -> None:
        """Let every essay take part again."""
        self._is_open[:] = True
