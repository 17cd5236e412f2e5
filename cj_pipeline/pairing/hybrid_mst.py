"""Pairs along the spanning tree of greatest expected information gain: Hybrid-MST.

References:
    Li et al. (2018), Hybrid-MST: a hybrid active sampling strategy for pairwise preference
    aggregation, NeurIPS 31, arXiv:1810.08851.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cj_pipeline.arrays import Floats
from cj_pipeline.batch.comparisons import Role
from cj_pipeline.pairing.candidates import candidate_pairs, information_gain
from cj_pipeline.pairing.comparison_graph import ComparisonGraph, PairChoice
from cj_pipeline.pairing.posterior import approximate_posterior


def joint_gains(graph: ComparisonGraph, rng: np.random.Generator) -> Callable[[int], Floats]:
    """Return a function from one essay to its pairs' gains with all others; shape (n_essays,)."""
    assert graph.scores is not None  # noqa: S101
    scores, posterior = graph.scores, approximate_posterior(graph, rng)
    everyone = np.arange(graph.n_essays)

    def pair_gains(essay: int) -> Floats:
        variances = posterior.variances(np.full_like(everyone, essay), everyone)
        return information_gain(scores - scores[essay], variances)

    return pair_gains


def hybrid_mst_pairs(
    graph: ComparisonGraph, size: int, rng: np.random.Generator, *, may_repeat: bool = False
) -> list[PairChoice]:
    """Return at most `size` pairs and their gain in nats: tree after tree, best pairs first.

    A tree reaches every essay, so that a wave of n - 1 pairs neglects none.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import minimum_spanning_tree

    assert graph.scores is not None  # noqa: S101
    n = graph.n_essays
    first, second = candidate_pairs(graph, rng, may_repeat=may_repeat)
    variances = approximate_posterior(graph, rng).variances(first, second)
    gains = information_gain(graph.scores[first] - graph.scores[second], variances)
    gain_of = dict(zip((first * n + second).tolist(), gains.tolist(), strict=True))
    chosen: list[PairChoice] = []
    while len(chosen) < size and len(first):
        # Weights must be positive, or the sparse matrix takes them for absent pairs.
        tree = minimum_spanning_tree(csr_array((1 + 1 / (gains + 1e-9), (first, second)), (n, n)))
        low, high = (np.asarray(ends, dtype=np.int64) for ends in tree.nonzero())
        keys = low * n + high
        best = sorted(keys.tolist(), key=lambda key: -gain_of[key])[: size - len(chosen)]
        chosen += [PairChoice(key // n, key % n, Role.INFORMATIVE, gain_of[key]) for key in best]
        is_left = ~np.isin(first * n + second, keys)
        first, second, gains = first[is_left], second[is_left], gains[is_left]
    return chosen
