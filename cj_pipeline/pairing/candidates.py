"""The pairs a strategy that uses scores chooses from: all of few essays, some of many."""

from __future__ import annotations

import numpy as np

from cj_pipeline.arrays import Floats, Ints
from cj_pipeline.pairing.comparison_graph import ComparisonGraph

_ALL_PAIRS_UP_TO = 200
"""Essays of which every pair is a candidate."""
_PARTNERS = 48
"""Candidates per essay beyond that, near ones and, ever more sparsely, distant ones."""


def candidate_pairs(
    graph: ComparisonGraph, rng: np.random.Generator, *, may_repeat: bool
) -> tuple[Ints, Ints]:
    """Return the pairs to choose from, by index, the lower one first.

    Args:
        graph: With scores.
        rng: Draws which distant partners are candidates in a large batch.
        may_repeat: Whether a pair already shown is a candidate.
    """
    n = graph.n_essays
    if n <= _ALL_PAIRS_UP_TO:
        first, second = np.triu_indices(n, k=1)
    else:
        assert graph.scores is not None  # noqa: S101
        order = np.argsort(graph.scores, kind="stable")
        # Distances in rank from 1 to n/2, evenly spread in their logarithm.
        steps = np.exp(rng.random((n, _PARTNERS // 2)) * np.log(n / 2)).astype(np.int64)
        place = np.arange(n)[:, None]
        is_inside = place + steps < n
        low = np.broadcast_to(place, steps.shape)[is_inside]
        high = (place + steps)[is_inside]
        ends = np.sort(np.column_stack([order[low], order[high]]), axis=1)
        first, second = np.divmod(np.unique(ends[:, 0] * n + ends[:, 1]), n)
    if graph.known_ids:
        is_worth_asking = ~(graph.is_known[first] & graph.is_known[second])
        first, second = first[is_worth_asking], second[is_worth_asking]
    if not may_repeat and len(graph.shown):
        ends = np.sort(graph.shown_indices, axis=1)
        is_new = ~np.isin(first * n + second, ends[:, 0] * n + ends[:, 1])
        first, second = first[is_new], second[is_new]
    return first, second


_NODES = 15


def information_gain(differences: Floats, variances: Floats) -> Floats:
    """Return the mutual information of each verdict and its pair's difference.

    Args:
        differences: Expected, in logits; shape (n_pairs,).
        variances: Of the differences, which are taken as normal.

    References:
        Lindley (1956), doi:10.1214/aoms/1177728069.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    weights = weights / weights.sum()
    spread = np.sqrt(variances)
    mean_probability = np.zeros_like(differences)
    mean_entropy = np.zeros_like(differences)
    for node, weight in zip(nodes, weights, strict=True):
        probability = 0.5 + 0.5 * np.tanh(0.5 * (differences + node * spread))
        mean_probability += weight * probability
        mean_entropy += weight * _entropy(probability)
    gain: Floats = _entropy(mean_probability) - mean_entropy
    return np.maximum(gain, 0.0)


def _entropy(probability: Floats) -> Floats:
    inside = np.clip(probability, 1e-12, 1 - 1e-12)
    entropy: Floats = -inside * np.log(inside) - (1 - inside) * np.log1p(-inside)
    return entropy
