"""One wave that has to be good as it is."""

from __future__ import annotations

import numpy as np
import pytest

from cj_pipeline.pairing.balanced import new_pairs
from cj_pipeline.pairing.comparison_graph import ComparisonGraph, PairChoice
from cj_pipeline.pairing.fixed_design import fixed_design, mean_variance, spectral_gap


def as_array(choices: list[PairChoice]) -> np.ndarray:
    return np.array([(choice.one, choice.other) for choice in choices])


def fresh_graph(n_essays: int, n_anchors: int = 0) -> ComparisonGraph:
    ids = tuple(f"essay-{i:03d}" for i in range(n_essays))
    return ComparisonGraph(ids, frozenset(ids[:n_anchors]), ())


@pytest.mark.parametrize("per_essay", [4, 6, 10])
def test_fixed_designs_hang_together_better_than_balanced_random_ones(per_essay: int) -> None:
    """Random graphs leave essays that are reached only by detours; switching partners mends it."""
    graph = fresh_graph(24)
    size = 24 * per_essay // 2
    fixed = [as_array(fixed_design(graph, size, np.random.default_rng(s))) for s in range(5)]

    random = [as_array(new_pairs(graph, size, np.random.default_rng(s))) for s in range(5)]

    assert max(mean_variance(24, p) for p in fixed) < min(mean_variance(24, p) for p in random)
    assert np.mean([spectral_gap(24, p) for p in fixed]) > 1.1 * np.mean(
        [spectral_gap(24, p) for p in random]
    )


def test_a_fixed_design_sees_every_essay_alike_and_no_pair_twice() -> None:
    """Switching partners must not cost what the balanced design promised."""
    pairs = as_array(fixed_design(fresh_graph(25), 100, np.random.default_rng(0)))

    assert np.bincount(pairs.ravel()).tolist() == [8] * 25
    assert len({frozenset(pair) for pair in pairs.tolist()}) == 100


def test_anchors_are_spread_over_students() -> None:
    """Which of two anchors is better is known; what counts is where the students lie."""
    pairs = as_array(fixed_design(fresh_graph(24, n_anchors=6), 60, np.random.default_rng(0)))

    assert sum(max(pair) < 6 for pair in pairs.tolist()) == 0


def test_a_complete_round_robin_has_the_variance_that_theory_gives() -> None:
    """Every essay met every other once: variance (n - 1) / n^2 in units of one verdict's."""
    every_pair = np.column_stack(np.triu_indices(10, k=1))

    assert mean_variance(10, every_pair) == pytest.approx(9 / 100)
    assert spectral_gap(10, every_pair) == pytest.approx(10)
