"""Which essay of a pair is shown first, so that no essay gains from a judge's liking for a place.

Which pairs are asked is decided before, by `waves`; looking back at what was shown is `fairness`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

import numpy as np

from cj_pipeline.arrays import Ints
from cj_pipeline.pairing.comparison_graph import ComparisonGraph, IndexPair


def in_fair_order(
    net: ComparisonGraph, pairs: Sequence[IndexPair], rng: np.random.Generator
) -> tuple[IndexPair, ...]:
    """Return each pair as (shown first, shown second), leaving every essay as even as can be.

    A pair seen before takes the order it was seen in less often, or else the one it was not seen
    in last. The other pairs are turned so that the sum of the essays' squared A - B, over all that
    was ever shown, is the least these pairs allow (which also makes the largest least). With even
    numbers of comparisons and nothing shown before, that is zero for every essay: an Eulerian
    orientation. What is left open is decided by coin.
    """
    lean = net.lean.copy()
    fixed = next_orders(net)
    ordered: list[IndexPair] = [(0, 0)] * len(pairs)
    free: list[int] = []
    for k, (one, other) in enumerate(pairs):
        order = fixed.get((min(one, other), max(one, other)))
        if order is None:
            free.append(k)
            continue
        ordered[k] = order
        lean[ordered[k][0]] += 1
        lean[ordered[k][1]] -= 1
    for k, coin in zip(free, rng.random(len(free)) < 0.5, strict=True):
        one, other = pairs[k]
        if lean[one] > lean[other] or (lean[one] == lean[other] and coin):
            one, other = other, one
        ordered[k] = (one, other)
        lean[one] += 1
        lean[other] -= 1
    _even_out(ordered, free, lean)
    return tuple(ordered)


def next_orders(net: ComparisonGraph) -> dict[IndexPair, IndexPair]:
    """Return for each pair already shown (lower index first) the order it is to be shown in next.

    That is the order seen less often; after both equally often, the one not seen last.
    """
    seen: Counter[IndexPair] = Counter()
    last: dict[IndexPair, IndexPair] = {}
    for a, b in net.shown_indices.tolist():
        seen[a, b] += 1
        last[min(a, b), max(a, b)] = (a, b)
    return {
        pair: (a, b) if seen[a, b] < seen.get((b, a), 0) else (b, a)
        for pair, (a, b) in last.items()
    }


def _even_out(ordered: list[IndexPair], free: Sequence[int], lean: Ints) -> None:
    """Turn chains of free pairs until no chain can make the essays' leans more even.

    Turning a chain that runs from one essay to another takes 2 from the first one's lean and adds
    2 to the last one's. A separable convex sum over such chains has no local optimum that is not
    the global one, so where no single chain helps nothing does.
    """
    leaving: list[dict[int, int]] = [{} for _ in range(len(lean))]
    for k in free:
        leaving[ordered[k][0]][k] = ordered[k][1]
    improved = True
    while improved:
        improved = False
        for start in np.flatnonzero(lean > lean.min() + 2).tolist():
            while (chain := _improving_chain(leaving, lean, start)) is not None:
                for k in chain:
                    a, b = ordered[k]
                    ordered[k] = (b, a)
                    del leaving[a][k]
                    leaving[b][k] = a
                lean[start] -= 2
                lean[ordered[chain[-1]][0]] += 2
                improved = True


def _improving_chain(leaving: list[dict[int, int]], lean: Ints, start: int) -> list[int] | None:
    """Return pairs that lead from `start` to an essay at least 3 below it; None if none do."""
    reached_by: dict[int, tuple[int, int]] = {start: (-1, -1)}
    queue = deque([start])
    while queue:
        here = queue.popleft()
        if lean[start] - lean[here] > 2:
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
"""The most |A - B| / (A + B) of an essay; what `pairing.handing_on` keeps to."""
