"""Which essay is shown first: as even as the pairs allow."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cj_pipeline.pairing.comparison_graph import ComparisonGraph
from cj_pipeline.pairing.positions import in_fair_order

IDS = tuple("abcdef")


def squared_imbalances(imbalance: np.ndarray, pairs: list[tuple[int, int]]) -> int:
    after = imbalance.copy()
    for first, second in pairs:
        after[first] += 1
        after[second] -= 1
    return int(after @ after)


@given(
    shown=st.lists(st.sampled_from(list(itertools.permutations(range(6), 2))), max_size=8),
    pairs=st.lists(
        st.sampled_from(list(itertools.combinations(range(6), 2))), max_size=7, unique=True
    ),
    seed=st.integers(0, 100),
)
@settings(max_examples=150)
def test_no_other_orders_would_leave_the_essays_more_even(
    shown: list[tuple[int, int]], pairs: list[tuple[int, int]], seed: int
) -> None:
    """Checked against every way of turning the pairs that may still be turned."""
    graph = ComparisonGraph(IDS, frozenset(), tuple((IDS[a], IDS[b]) for a, b in shown))
    seen = {frozenset(pair) for pair in shown}

    ordered = in_fair_order(graph, pairs, np.random.default_rng(seed))

    fixed = [pair for pair in ordered if frozenset(pair) in seen]
    free = [pair for pair in pairs if frozenset(pair) not in seen]
    every_way = itertools.product(*[[(a, b), (b, a)] for a, b in free])
    best = min(squared_imbalances(graph.imbalance, [*fixed, *way]) for way in every_way)
    assert squared_imbalances(graph.imbalance, list(ordered)) == best
    assert [frozenset(pair) for pair in ordered] == [frozenset(pair) for pair in pairs]


def test_essays_with_even_numbers_of_comparisons_are_shown_first_half_the_time() -> None:
    """Where every essay has an even number, the pairs form circuits that can be walked around."""
    graph = ComparisonGraph(IDS, frozenset(), ())
    pairs = [(0, 1), (1, 2), (2, 0), (3, 4), (4, 5), (5, 3), (0, 3), (3, 1), (1, 4), (4, 0)]

    ordered = in_fair_order(graph, pairs, np.random.default_rng(0))

    assert squared_imbalances(graph.imbalance, list(ordered)) == 0


def test_a_pair_seen_twice_in_one_order_is_turned() -> None:
    """An order that failed for good leaves its pair uneven; the next showing mends that."""
    graph = ComparisonGraph(IDS, frozenset(), (("a", "b"), ("b", "a"), ("a", "b")))

    ordered = in_fair_order(graph, [(0, 1)], np.random.default_rng(0))

    assert ordered == ((1, 0),)
