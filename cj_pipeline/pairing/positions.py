"""Which essay of a pair is shown first, so that no essay gains from a judge's liking for a place.

Which pairs are judged is decided before, by `waves`; what was shown is checked by
`position_balance`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

import numpy as np

from cj_pipeline.arrays import Ints
from cj_pipeline.pairing.comparison_graph import ComparisonGraph, IndexPair


def in_fair_order(
    graph: ComparisonGraph, pairs: Sequence[IndexPair], rng: np.random.Generator
) -> tuple[IndexPair, ...]:
    """Return each pair as (shown first, shown second), leaving every essay as even as can be.

    A pair seen before takes the order it was seen in less often, or else the one it was not seen
    in last. The other pairs are turned so that the sum of the essays' squared A - B, over all that
    was ever shown, is the least these pairs allow (which also makes the largest least). With even
    numbers of comparisons and nothing shown before, that is zero for every essay: an Eulerian
    orientation. What is left open is decided by coin.
    """
    imbalance = graph.imbalance.copy()
    fixed = next_orders(graph)
    ordered: list[IndexPair] = [(0, 0)] * len(pairs)
    free: list[int] = []
    for k, (one, other) in enumerate(pairs):
        order = fixed.get((min(one, other), max(one, other)))
        if order is None:
            free.append(k)
            continue
        ordered[k] = order
        imbalance[ordered[k][0]] += 1
        imbalance[ordered[k][1]] -= 1
    for k, coin in zip(free, rng.random(len(free)) < 0.5, strict=True):
        one, other = pairs[k]
        if imbalance[one] > imbalance[other] or (imbalance[one] == imbalance[other] and coin):
            one, other = other, one
        ordered[k] = (one, other)
        imbalance[one] += 1
        imbalance[other] -= 1
    _even_out(ordered, free, imbalance)
    return tuple(ordered)


def next_orders(graph: ComparisonGraph) -> dict[IndexPair, IndexPair]:
    """Return for each pair already shown (lower index first) the order it is to be shown in next.

    That is the order seen less often; after both equally often, the one not seen last.
    """
    seen: Counter[IndexPair] = Counter()
    last: dict[IndexPair, IndexPair] = {}
    for a, b in graph.shown_indices.tolist():
        seen[a, b] += 1
        last[min(a, b), max(a, b)] = (a, b)
    return {
        pair: (a, b) if seen[a, b] < seen.get((b, a), 0) else (b, a)
        for pair, (a, b) in last.items()
    }


def _even_out(ordered: list[IndexPair], free: Sequence[int], imbalance: Ints) -> None:
    """Reverse chains of free pairs until no chain can make the essays' imbalances more even.

    Reversing a chain from one essay to another takes 2 from the first one's imbalance and adds
    2 to the last one's. A separable convex sum over such chains has no local optimum that is not
    the global one, so where no single chain helps nothing does.
    """
    leaving: list[dict[int, int]] = [{} for _ in range(len(imbalance))]
    for k in free:
        leaving[ordered[k][0]][k] = ordered[k][1]
    improved = True
    while improved:
        improved = False
        for start in np.flatnonzero(imbalance > imbalance.min() + 2).tolist():
            while (chain := _improving_chain(leaving, imbalance, start)) is not None:
                for k in chain:
                    a, b = ordered[k]
                    ordered[k] = (b, a)
                    del leaving[a][k]
                    leaving[b][k] = a
                imbalance[start] -= 2
                imbalance[ordered[chain[-1]][0]] += 2
                improved = True


def _improving_chain(
    leaving: list[dict[int, int]], imbalance: Ints, start: int
) -> list[int] | None:
    """Return pairs that lead from `start` to an essay at least 3 below it; None if none do."""
    reached_by: dict[int, tuple[int, int]] = {start: (-1, -1)}
    queue = deque([start])
    while queue:
        here = queue.popleft()
        if imbalance[start] - imbalance[here] > 2:
            chain = []
            while here != start:
                k, here = reached_by[here]
                chain.append(k)
            return chain[::-1]
        for k, there in leaving[here].items():
            if there not in reached_by:
                reached_by[there] = (k, here)
                queue.append(there)
    return None


POSITIONAL_SKEW_BAND = 0.2
"""The most |A - B| / (A + B) of an essay; which `position_repair` respects."""
