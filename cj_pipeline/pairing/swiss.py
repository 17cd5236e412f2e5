"""The Swiss strategy: neighbours in the order by score meet, as in a chess tournament.

References:
    Pollitt (2012), doi:10.1080/0969594X.2012.665354, brought it to comparative judgement.
"""

from __future__ import annotations

import numpy as np

from cj_pipeline.batch.comparisons import Role
from cj_pipeline.pairing.comparison_graph import ComparisonGraph, IndexPair, PairChoice


def swiss_pairs(
    graph: ComparisonGraph, size: int, rng: np.random.Generator, *, may_repeat: bool = False
) -> list[PairChoice]:
    """Return at most `size` pairs: round by round, each essay meets the next it has not met.

    Args:
        graph: With scores.
        size: Pairs wanted.
        rng: Decides between equal scores.
        may_repeat: Whether essays that met before may meet again.
    """
    assert graph.scores is not None  # noqa: S101
    met = [set() if may_repeat else set(partners) for partners in graph.partners]
    chosen: list[PairChoice] = []
    while len(chosen) < size:
        order = np.lexsort((rng.random(graph.n_essays), graph.scores)).tolist()
        pairs = _round(order, met)
        if not pairs:
            break
        chosen += [PairChoice(one, other, Role.INFORMATIVE) for one, other in pairs]
    return chosen[:size]


def _round(order: list[int], met: list[set[int]]) -> list[IndexPair]:
    """Return one round of pairs, each essay at most once, and count them as met."""
    waiting = order[::-1]
    pairs = []
    while waiting:
        one = waiting.pop()
        for back, other in enumerate(reversed(waiting), start=1):
            if other not in met[one]:
                del waiting[-back]
                met[one].add(other)
                met[other].add(one)
                pairs.append((one, other))
                break
    return pairs
