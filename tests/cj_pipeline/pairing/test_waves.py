"""What every wave must satisfy, whatever the strategy, and the numbers that must come out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cj_pipeline.batch.comparisons import ChosenPair, JudgedPair, Role, max_possible_pairs
from cj_pipeline.batch.options import Strategy
from cj_pipeline.pairing.comparison_graph import ComparisonGraph, Parts
from cj_pipeline.pairing.waves import choose_wave, choose_wave_in_parts, positional_skew
from cj_pipeline.scale.bradley_terry import fit_bradley_terry

STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)


def fresh_graph(n_essays: int, n_anchors: int = 0) -> ComparisonGraph:
    ids = tuple(f"essay-{i:03d}" for i in range(n_essays))
    return ComparisonGraph(ids, frozenset(ids[:n_anchors]), ())


def with_wave(graph: ComparisonGraph, wave: Iterable[ChosenPair]) -> ComparisonGraph:
    return replace(graph, shown=graph.shown + tuple((pair.essay_a, pair.essay_b) for pair in wave))


def after_waves(
    graph: ComparisonGraph,
    sizes: Iterable[int],
    *,
    strategy: Strategy = "coverage",
    seed: int = 0,
    resampling: bool = False,
) -> ComparisonGraph:
    for number, size in enumerate(sizes):
        wave = choose_wave(
            graph, strategy=strategy, size=size, seed=seed + 1000 * number, resampling=resampling
        )
        graph = with_wave(graph, wave)
    return graph


def unordered(graph: ComparisonGraph) -> list[frozenset[str]]:
    return [frozenset(pair) for pair in graph.shown]


@given(
    n_essays=st.integers(2, 14),
    sizes=st.lists(st.integers(1, 12), max_size=6),
    strategy=st.sampled_from(STRATEGIES),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60)
def test_no_pair_is_repeated_before_all_are_covered(
    n_essays: int, sizes: list[int], strategy: Strategy, seed: int
) -> None:
    """A repeated pair costs as much as a new one, and a wave is only short when none is left."""
    graph = after_waves(fresh_graph(n_essays), sizes, strategy=strategy, seed=seed)

    assert len(set(unordered(graph))) == len(graph.shown)
    assert all(a != b for a, b in graph.shown)
    assert len(graph.shown) == min(sum(sizes), max_possible_pairs(n_essays))


@given(
    n_essays=st.integers(2, 20),
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=8),
    strategy=st.sampled_from(STRATEGIES),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60)
def test_the_essays_are_one_net_after_the_fewest_pairs_possible(
    n_essays: int, sizes: list[int], strategy: Strategy, seed: int
) -> None:
    """Until there is one graph there is no common scale, so each pair has to join two parts."""
    graph = after_waves(fresh_graph(n_essays, 2), sizes, strategy=strategy, seed=seed)

    assert Parts(graph).n_parts == max(1, n_essays - len(graph.shown))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_same_seed_gives_the_same_wave(strategy: Strategy) -> None:
    """A step that is repeated after a crash has to plan what it planned before."""
    graph = after_waves(fresh_graph(12), [6], strategy=strategy)

    first = choose_wave(graph, strategy=strategy, size=6, seed=5)
    second = choose_wave(graph, strategy=strategy, size=6, seed=5)

    assert first == second


@pytest.mark.parametrize("strategy", ["coverage", "random"])
def test_another_seed_gives_another_wave(strategy: Strategy) -> None:
    """Equals are decided by coin, not by the order in which a folder lists them."""
    graph = fresh_graph(12)

    waves = {choose_wave(graph, strategy=strategy, size=6, seed=seed) for seed in range(5)}

    assert len(waves) == 5


@pytest.mark.parametrize("n_essays", [7, 23, 24, 31])
def test_coverage_lets_essays_take_part_alike_after_every_wave(n_essays: int) -> None:
    """An essay seen less often than others would be placed less surely."""
    graph = fresh_graph(n_essays)
    ranges = []
    for number in range(n_essays):
        wave = choose_wave(graph, strategy="coverage", size=n_essays // 2, seed=number)
        graph = with_wave(graph, wave)
        ranges.append(np.ptp(graph.n_comparisons))

    assert max(ranges) <= 2
    assert max(ranges[:3]) <= 1


@pytest.mark.parametrize("n_essays", [7, 24, 120])
def test_coverage_keeps_every_essay_even_between_the_two_places(n_essays: int) -> None:
    """A judge's liking for the first position then cancels for each essay."""
    graph = fresh_graph(n_essays)
    imbalances = []
    for number in range(n_essays // 2):
        wave = choose_wave(graph, strategy="coverage", size=n_essays // 2, seed=number)
        graph = with_wave(graph, wave)
        imbalances.append(np.abs(graph.imbalance).max())

    assert max(imbalances) <= 2
    assert max(imbalances[:5]) <= 1


def test_first_pairs_set_anchors_against_students() -> None:
    """Every student needs a short way to an anchor, and anchors' grades are known already."""
    graph = after_waves(fresh_graph(24, n_anchors=4), [12])

    with_anchor = [pair for pair in graph.shown if set(pair) & graph.anchor_ids]

    assert len(with_anchor) == 4


def test_parts_left_by_failures_are_bridged_first() -> None:
    """Comparisons that fail for good can leave the graph in parts, which no further vote mends."""
    ids = tuple("abcdefgh")
    graph = ComparisonGraph(
        ids, frozenset(), (("a", "b"), ("b", "c"), ("c", "a"), ("d", "e"), ("f", "g"))
    )

    wave = choose_wave(graph, strategy="coverage", size=3, seed=1)

    assert Parts(with_wave(graph, wave)).n_parts == 1
    assert Counter(pair.role for pair in wave) == {Role.BRIDGE: 2, Role.COVERAGE: 1}


@given(
    n_essays=st.integers(2, 9),
    n_waves=st.integers(1, 6),
    size=st.integers(1, 12),
    strategy=st.sampled_from(STRATEGIES),
)
@settings(max_examples=40)
def test_resampling_repeats_the_least_seen_pairs_in_the_other_order(
    n_essays: int, n_waves: int, size: int, strategy: Strategy
) -> None:
    """Judged again, a pair shows most when it also cancels the judge's liking for a position."""
    graph = after_waves(fresh_graph(n_essays), [2 * n_essays])
    known = set(unordered(graph))

    graph = after_waves(graph, [size] * n_waves, strategy=strategy, resampling=True)

    times = Counter(unordered(graph))
    orders = Counter(graph.shown)
    assert set(times) == known
    assert max(times.values()) - min(times.values()) <= 1
    assert all(abs(orders[a, b] - orders[b, a]) <= 1 for a, b in graph.shown)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_five_essays_resampled_three_times_are_shown_eight_times_on_each_side(
    strategy: Strategy,
) -> None:
    """The smallest real batch: 10 pairs and three passes more, 40 comparisons."""
    graph = after_waves(fresh_graph(5, n_anchors=2), [10], strategy=strategy)

    graph = after_waves(graph, [10, 10, 10], strategy=strategy, resampling=True)

    assert len(graph.shown) == 40
    assert graph.n_comparisons.tolist() == [16] * 5
    assert graph.imbalance.tolist() == [0] * 5


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("seed", range(3))
def test_a_regular_net_stays_even_beyond_full_coverage(strategy: Strategy, seed: int) -> None:
    """24 essays: all 276 pairs in waves of 12, then 12 resampled, and even when all are."""
    covered = after_waves(fresh_graph(24), [12] * 23, strategy=strategy, seed=seed)

    at_288 = after_waves(covered, [12], strategy=strategy, resampling=True)
    at_552 = after_waves(at_288, [12] * 22, strategy=strategy, resampling=True)

    assert len(set(unordered(covered))) == len(covered.shown) == 276
    assert max(positional_skew(at_288).values()) <= 0.2
    assert len(at_552.shown) == 552
    assert set(positional_skew(at_552).values()) == {0.0}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_wave_of_sixty_pairs_is_one_even_net(strategy: Strategy) -> None:
    """All at once, nothing can be mended later: 24 essays, five comparisons each."""
    graph = after_waves(fresh_graph(24, n_anchors=4), [60], strategy=strategy)

    assert Parts(graph).n_parts == 1
    assert graph.n_comparisons.tolist() == [5] * 24
    assert np.abs(graph.imbalance).max() == 1


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_essays_have_one_pair(strategy: Strategy) -> None:
    """The smallest batch there is."""
    graph = fresh_graph(2)

    wave = choose_wave(graph, strategy=strategy, size=5, seed=0)

    assert len(wave) == 1
    assert choose_wave(with_wave(graph, wave), strategy=strategy, size=5, seed=0) == ()


def test_a_hundred_and_twenty_essays_at_a_realistic_budget_are_one_even_net() -> None:
    """Ten comparisons per essay, in waves of half an essay each."""
    graph = after_waves(fresh_graph(120, n_anchors=9), [60] * 10)

    assert Parts(graph).n_parts == 1
    assert graph.n_comparisons.tolist() == [10] * 120
    assert set(positional_skew(graph).values()) == {0.0}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_both_orders_of_a_pair_come_as_a_unit_that_costs_two(strategy: Strategy) -> None:
    """Asked so, every pair cancels the judge's liking for a place, for twice the price."""
    wave = choose_wave(fresh_graph(12), strategy=strategy, size=25, seed=0, both_orders=True)

    orders = Counter((pair.essay_a, pair.essay_b) for pair in wave)
    assert len(wave) == 24
    assert set(orders.values()) == {1}
    assert all(orders[b, a] == 1 for a, b in orders)


def test_a_stated_share_of_a_wave_is_drawn_by_lot_once_there_are_scores() -> None:
    """Close pairs hardly tell how far essays lie apart; these do. Without a share, as ever."""
    graph = after_waves(fresh_graph(20), [20])
    verdicts = [JudgedPair(a, b, "A" if a < b else "B") for a, b in graph.shown]
    scale = fit_bradley_terry(graph.essay_ids, verdicts)
    scored = replace(graph, scores=scale.scores, information=scale.information)

    plain = choose_wave(scored, strategy="adaptive", size=12, seed=5)
    mixed = choose_wave_in_parts(scored, strategy="adaptive", size=12, seed=5, random_share=0.25)
    before = choose_wave_in_parts(graph, strategy="adaptive", size=12, seed=5, random_share=0.25)

    assert choose_wave_in_parts(scored, strategy="adaptive", size=12, seed=5) == plain
    assert Counter(pair.role for pair in mixed)[Role.RANDOM] == 3
    assert len({frozenset((pair.essay_a, pair.essay_b)) for pair in mixed}) == 12
    assert not any(pair.role == Role.RANDOM for pair in before)
