"""The best wave when nothing can be learnt on the way: one request file, all comparisons at once.

Without scores every pair is expected to be as informative as any other. So what counts is the
graph's shape: how small it makes the variance of the differences between essays. Once there are
scores, `adaptive` does better.
"""

from __future__ import annotations

import numpy as np

from cj_pipeline.arrays import Floats
from cj_pipeline.batch.comparisons import Role
from cj_pipeline.pairing.balanced import new_pairs
from cj_pipeline.pairing.comparison_graph import ComparisonGraph, IndexPair, PairChoice

_IMPROVED_UP_TO = 300
"""Essays for which switching pairs pays; larger random regular graphs are close to the
best there is (Friedman 2008, arXiv:cs/0405020)."""
_TRIALS_PER_PAIR = 40
_ANCHORS_TOGETHER = 0.1
"""What a pair of two anchors costs, as a share of the mean pair's value: their order is known."""


def fixed_design(graph: ComparisonGraph, size: int, rng: np.random.Generator) -> list[PairChoice]:
    """Return at most `size` new pairs: connected, essays shown alike, differences' variances small.

    Two pairs at a time exchange partners, which leaves every essay's number of comparisons as it
    is, as long as that lessens the mean variance of the differences (the graph's Kirchhoff index:
    A-optimality).

    References:
        Bailey and Cameron (2009), arXiv:0709.2578, on which graphs are A-optimal.
    """
    chosen = new_pairs(graph, size, rng)
    if graph.n_essays > _IMPROVED_UP_TO or len(chosen) < graph.n_essays:
        return chosen
    pairs = [(choice.one, choice.other) for choice in chosen]
    improved = _switched(graph, pairs, rng)
    return [PairChoice(one, other, Role.COVERAGE) for one, other in improved]


def mean_variance(n_essays: int, pairs: Floats) -> float:
    """Return the mean variance of the essays' scores, for verdicts of information one each.

    Args:
        n_essays: In the graph, which has to be connected.
        pairs: Index pairs; shape (n_pairs, 2).
    """
    inverse = np.linalg.inv(_laplacian(n_essays, pairs) + 1 / n_essays)
    return float((np.trace(inverse) - 1) / n_essays)


def spectral_gap(n_essays: int, pairs: Floats) -> float:
    """Return the graph's algebraic connectivity: 0 in parts, larger the better it hangs together.

    References:
        Fiedler (1973), doi:10.21136/CMJ.1973.101168.
    """
    return float(np.linalg.eigvalsh(_laplacian(n_essays, pairs))[1])


def _laplacian(n_essays: int, pairs: Floats) -> Floats:
    ends = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    laplacian = np.zeros((n_essays, n_essays))
    np.add.at(laplacian, (ends[:, 0], ends[:, 1]), -1.0)
    np.add.at(laplacian, (ends[:, 1], ends[:, 0]), -1.0)
    laplacian[np.diag_indices(n_essays)] = -laplacian.sum(axis=1)
    return laplacian


def _switched(
    graph: ComparisonGraph, pairs: list[IndexPair], rng: np.random.Generator
) -> list[IndexPair]:
    n = graph.n_essays
    taken = {(min(p), max(p)) for p in [*graph.shown_indices.tolist(), *pairs]}
    every = np.array([*graph.shown_indices.tolist(), *pairs])
    inverse = np.linalg.inv(_laplacian(n, every) + 1 / n)
    dear = _ANCHORS_TOGETHER * np.trace(inverse) / len(pairs)
    trials = rng.integers(len(pairs), size=(_TRIALS_PER_PAIR * len(pairs), 2)).tolist()
    signs = np.array([-1.0, -1.0, 1.0, 1.0])
    for k, m in trials:
        (a, b), (c, d) = pairs[k], pairs[m]
        new = [(min(a, c), max(a, c)), (min(b, d), max(b, d))]
        if len({a, b, c, d}) < 4 or taken.intersection(new):
            continue
        ends = np.array([(a, b), (c, d), *new])
        reach = inverse[:, ends[:, 0]] - inverse[:, ends[:, 1]]
        inner = np.diag(signs) + reach[ends[:, 0]] - reach[ends[:, 1]]
        if np.linalg.det(inner) < 1e-9:
            continue  # the switch would leave the graph in parts
        solved = np.linalg.solve(inner, reach.T)
        together = graph.is_anchor[ends].all(axis=1) @ signs
        if np.sum(solved.T * reach) - dear * together <= 1e-12:
            continue
        inverse -= reach @ solved
        taken -= {(min(a, b), max(a, b)), (min(c, d), max(c, d))}
        taken.update(new)
        pairs[k], pairs[m] = new
    return pairs
