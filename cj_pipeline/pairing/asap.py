"""Pairs by expected information gain, essays taken as independent: ASAP's idea, in waves.

References:
    Mikhailiuk et al. (2020), arXiv:2004.05691. The original chooses the single best pair from
    marginal posteriors found by message passing; here they come from the fit.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cj_pipeline.arrays import Floats
from cj_pipeline.batch.comparisons import Role
from cj_pipeline.pairing.candidates import candidate_pairs, information_gain
from cj_pipeline.pairing.comparison_graph import ComparisonGraph, PairChoice
from cj_pipeline.pairing.posterior import score_variances


def independent_gains(graph: ComparisonGraph, rng: np.random.Generator) -> Callable[[int], Floats]:
    """Return a function from one essay to its pairs' gains with all others; shape (n_essays,)."""
    assert graph.scores is not None  # noqa: S101
    scores, variances = graph.scores, score_variances(graph, rng)
    return lambda essay: information_gain(scores - scores[essay], variances + variances[essay])


def asap_pairs(
    graph: ComparisonGraph, size: int, rng: np.random.Generator, *, may_repeat: bool = False
) -> list[PairChoice]:
    """Return at most `size` pairs and their gain in nats, the greatest gains first.

    An essay comes at most its even share of times, and once more only where pairs run out: the
    gains ignore what the rest of the wave will show.
    """
    assert graph.scores is not None  # noqa: S101
    first, second = candidate_pairs(graph, rng, may_repeat=may_repeat)
    variances = score_variances(graph, rng)
    gains = information_gain(
        graph.scores[first] - graph.scores[second], variances[first] + variances[second]
    )
    order = np.argsort(-gains, kind="stable")
    used = np.zeros(graph.n_essays, dtype=np.int64)
    chosen: list[PairChoice] = []
    cap = -(-2 * size // graph.n_essays)
    while len(chosen) < size and len(order):
        left = []
        for k in order:
            i, j = int(first[k]), int(second[k])
            if len(chosen) < size and used[i] < cap and used[j] < cap:
                used[[i, j]] += 1
                chosen.append(PairChoice(i, j, Role.INFORMATIVE, float(gains[k])))
            else:
                left.append(k)
        order = np.array(left, dtype=np.int64)
        cap += 1
    return chosen
