"""The adaptive strategy and its peers, on batches whose true scores are known."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from scipy.optimize import minimize

from cj_pipeline.batch.comparisons import ChosenPair, Role
from cj_pipeline.batch.options import Strategy
from cj_pipeline.diagnostics.position_balance import MIN_SHOWN_FOR_SKEW
from cj_pipeline.pairing.adaptive import (
    _Greatest,
    expected_information,
    most_informative_pairs,
)
from cj_pipeline.pairing.comparison_graph import ComparisonGraph
from cj_pipeline.pairing.loss import (
    cut_loss_jacobian,
    cut_loss_jacobian_times,
    rank_loss_jacobian,
    rank_loss_jacobian_times,
)
from cj_pipeline.pairing.positions import POSITIONAL_SKEW_BAND
from cj_pipeline.pairing.shrinkage import DRAWN_IN_TO, shrunk
from cj_pipeline.pairing.waves import choose_wave, positional_skew
from cj_pipeline.scale.bradley_terry import Scale, fit_verdicts
from cj_pipeline.scale.tallies import Verdicts

SCORED: tuple[Strategy, ...] = ("adaptive", "swiss", "asap", "hybrid_mst")


def names(n_essays: int) -> tuple[str, ...]:
    return tuple(f"essay-{i:05d}" for i in range(n_essays))


def judged(graph: ComparisonGraph, true_scores: np.ndarray, seed: int) -> Scale:
    """Let a judge who is right as often as Bradley and Terry say answer everything shown."""
    rng = np.random.default_rng(seed)
    first, second = graph.shown_indices.T
    chance = 1 / (1 + np.exp(true_scores[second] - true_scores[first]))
    half_wins = 2 * (rng.random(len(first)) < chance).astype(np.int64)
    return fit_verdicts(
        Verdicts(graph.essay_ids, ("j",), first, second, half_wins, np.zeros_like(first))
    )


def scored_graph(
    n_essays: int, per_essay: int, *, seed: int = 0, sd: float = 1.5
) -> ComparisonGraph:
    ids = names(n_essays)
    true_scores = np.random.default_rng(seed).normal(0, sd, n_essays)
    empty = ComparisonGraph(ids, frozenset(ids[: n_essays // 10]), ())
    wave = choose_wave(empty, strategy="coverage", size=n_essays * per_essay // 2, seed=seed)
    graph = replace(empty, shown=tuple((p.essay_a, p.essay_b) for p in wave))
    scale = judged(graph, true_scores, seed)
    return replace(graph, scores=scale.scores, information=scale.information)


def simulated(
    strategy: Strategy, n_essays: int, n_waves: int, seed: int
) -> tuple[ComparisonGraph, float]:
    """Return the graph after waves of n/2 and the scores' correlation with the true ones."""
    true_scores = np.random.default_rng([seed, 1]).normal(0, 1.5, n_essays)
    graph = ComparisonGraph(names(n_essays), frozenset(), ())
    for number in range(n_waves):
        wave = choose_wave(graph, strategy=strategy, size=n_essays // 2, seed=seed + number)
        graph = replace(graph, shown=graph.shown + tuple((p.essay_a, p.essay_b) for p in wave))
        if number:
            scale = judged(graph, true_scores, seed)
            graph = replace(graph, scores=scale.scores, covariance=scale.covariance)
    assert graph.scores is not None
    return graph, float(np.corrcoef(graph.scores, true_scores)[0, 1])


@pytest.mark.parametrize("strategy", SCORED)
def test_with_scores_no_pair_is_repeated_and_waves_are_full(strategy: Strategy) -> None:
    """A strategy that uses scores has to keep what every wave promises, to the last pair."""
    graph, _ = simulated(strategy, n_essays=13, n_waves=13, seed=1)

    assert len({frozenset(pair) for pair in graph.shown}) == len(graph.shown) == 78


@pytest.mark.parametrize("strategy", SCORED)
def test_with_scores_positions_stay_even_beyond_full_coverage(strategy: Strategy) -> None:
    """24 essays: 276 pairs by scores, then 12 and finally all of them resampled."""
    graph, _ = simulated(strategy, n_essays=24, n_waves=23, seed=2)

    skews = []
    for number in range(23):
        wave = choose_wave(graph, strategy=strategy, size=12, seed=number, resampling=True)
        graph = replace(graph, shown=graph.shown + tuple((p.essay_a, p.essay_b) for p in wave))
        skews.append(max(positional_skew(graph).values()))

    assert len(graph.shown) == 552
    assert skews[0] <= 0.2
    assert skews[-1] == 0


@pytest.mark.parametrize("strategy", SCORED)
def test_gains_are_kept_with_the_pairs(strategy: Strategy) -> None:
    """A reader who wonders why a pair was bought should see the gain expected from it."""
    graph = scored_graph(20, per_essay=4)

    wave = choose_wave(graph, strategy=strategy, size=10, seed=0)

    assert {pair.role for pair in wave} == {Role.INFORMATIVE}
    gains = [pair.expected_gain for pair in wave]
    assert all(gain is None for gain in gains) == (strategy == "swiss")
    assert strategy == "swiss" or all(gain is not None and gain > 0 for gain in gains)


def test_adaptive_scores_are_closer_to_the_truth_than_random_ones() -> None:
    """The point of it: the same number of comparisons gives more information."""
    adaptive = np.mean([simulated("adaptive", 30, 12, seed)[1] for seed in range(8)])

    random = np.mean([simulated("random", 30, 12, seed)[1] for seed in range(8)])

    assert adaptive > random


def test_first_pair_is_the_one_that_most_lessens_the_loss() -> None:
    """Checked by carrying out the update for every pair, written out in full."""
    asked_of = scored_graph(12, per_essay=4)
    graph = shrunk(asked_of)
    assert graph.scores is not None
    assert graph.information is not None
    from cj_pipeline.scale.information import covariance

    before = covariance(graph.information)
    jacobian = rank_loss_jacobian(graph.scores, before)
    losses = {}
    for i, j in zip(*np.triu_indices(12, k=1), strict=True):
        d = np.eye(12)[i] - np.eye(12)[j]
        variance = d @ before @ d
        information = expected_information(np.array([graph.scores[i] - graph.scores[j]]), variance)[
            0
        ]
        after = before - np.outer(before @ d, before @ d) * information / (
            1 + information * variance
        )
        losses[int(i), int(j)] = np.trace(jacobian @ (before - after) @ jacobian.T)

    best = most_informative_pairs(asked_of, 1, np.random.default_rng(0), may_repeat=True)[0]

    assert (best.one, best.other) == max(losses, key=lambda pair: losses[pair])
    assert best.expected_gain == pytest.approx(max(losses.values()))


def test_early_scores_are_drawn_in_for_choosing_to_the_spread_there_truly_is() -> None:
    """Four verdicts an essay leave scores too far apart; the ones believed err less."""
    errors = {"reported": 0.0, "believed": 0.0}
    for seed in range(8):
        graph = scored_graph(60, 4, seed=seed)
        truth = np.random.default_rng(seed).normal(0, 1.5, 60)
        believed = shrunk(graph)
        assert graph.scores is not None
        assert believed.scores is not None
        errors["reported"] += float(np.mean((graph.scores - truth + truth.mean()) ** 2))
        errors["believed"] += float(np.mean((believed.scores - truth + truth.mean()) ** 2))

    assert errors["believed"] < 0.7 * errors["reported"]


def test_what_is_believed_is_the_maximum_under_the_normal_prior() -> None:
    """Found from the fitted scores alone; here from the verdicts themselves."""
    sd = DRAWN_IN_TO * 1.2
    ids = names(30)
    wave = choose_wave(ComparisonGraph(ids, frozenset(), ()), strategy="coverage", size=90, seed=1)
    graph = ComparisonGraph(ids, frozenset(), tuple((p.essay_a, p.essay_b) for p in wave))
    rng = np.random.default_rng(2)
    first, second = graph.shown_indices.T
    won = 2 * (rng.random(90) < 0.5 + 0.4 * np.sign(second - first)).astype(np.int64)
    scale = fit_verdicts(Verdicts(ids, ("j",), first, second, won, np.zeros_like(first)))

    def minus_log_posterior(theta: np.ndarray) -> float:
        eta = (theta[first] - theta[second]) * (won - 1)
        return float(np.sum(np.logaddexp(0, -eta)) + 0.5 * np.sum(theta**2) / sd**2)

    believed = shrunk(
        replace(graph, scores=scale.scores, information=scale.information, spread=1.2)
    )

    best = minimize(minus_log_posterior, np.zeros(30)).x
    assert believed.scores == pytest.approx(best - best.mean(), abs=0.08)


def test_a_net_whose_covariance_is_all_that_is_known_is_believed_as_it_is() -> None:
    """Known essays are where the earlier scale has them, whatever a prior would say."""
    graph = replace(scored_graph(12, 4), information=None, covariance=np.eye(12))

    assert shrunk(graph) is graph


def test_a_wave_does_not_ask_the_same_thing_twice() -> None:
    """Later pairs gain less, because of what the earlier ones are going to show."""
    graph = scored_graph(30, per_essay=4)

    one_by_one = most_informative_pairs(graph, 15, np.random.default_rng(0))
    alone = [most_informative_pairs(graph, 1, np.random.default_rng(0))[0].expected_gain]

    gains = [choice.expected_gain for choice in one_by_one]
    assert gains[0] == alone[0]
    essays = [i for choice in one_by_one for i in (choice.one, choice.other)]
    assert max(np.bincount(essays)) <= 3


def test_boundaries_draw_comparisons_to_essays_near_them() -> None:
    """When grades are the goal, an essay far from every boundary need not be placed finely."""
    graph = scored_graph(60, per_essay=8)
    assert graph.scores is not None
    graded = replace(graph, boundaries=(1.2,))

    near = [abs(graph.scores[[c.one, c.other]] - 1.2).mean() for c in _wave(graded)]
    ranked = [abs(graph.scores[[c.one, c.other]] - 1.2).mean() for c in _wave(graph)]

    assert np.mean(near) < 0.6 * np.mean(ranked)
    assert {choice.role for choice in _wave(graded)} == {Role.BOUNDARY}


def _wave(graph: ComparisonGraph) -> list:
    return most_informative_pairs(graph, 15, np.random.default_rng(0))


def test_a_large_batch_is_sketched_to_the_same_end() -> None:
    """Memory must not grow with the square of the batch; the pairs bought must stay as good."""
    graph = scored_graph(2_000, per_essay=6)
    assert graph.information is not None
    from cj_pipeline.scale.information import covariance

    exact = replace(graph, covariance=covariance(graph.information))

    sketched_gain = _exact_gain(exact, most_informative_pairs(graph, 100, np.random.default_rng(0)))
    exact_gain = _exact_gain(exact, most_informative_pairs(exact, 100, np.random.default_rng(0)))

    assert sketched_gain > 0.8 * exact_gain


def test_memory_grows_with_the_batch_and_not_with_its_square() -> None:
    """Twice the essays may take twice the memory, not four times."""
    peaks = []
    for n in (2_000, 4_000):
        graph = scored_graph(n, per_essay=6)
        tracemalloc.start()
        most_informative_pairs(graph, 100, np.random.default_rng(0))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    assert peaks[1] < 3 * peaks[0]


def _exact_gain(graph: ComparisonGraph, choices: list) -> float:
    """Return how much of the loss these pairs take away together."""
    assert graph.scores is not None
    assert graph.covariance is not None
    first = np.array([choice.one for choice in choices])
    second = np.array([choice.other for choice in choices])
    u = graph.covariance[first] - graph.covariance[second]
    v = u[:, first] - u[:, second]
    information = expected_information(graph.scores[first] - graph.scores[second], np.diag(v))
    reach = rank_loss_jacobian(graph.scores, graph.covariance) @ u.T
    return float(np.trace(reach @ np.linalg.solve(np.diag(1 / information) + v, reach.T)))


def test_the_stake_in_ranks_is_the_same_written_out_or_not() -> None:
    """The large batch's way must be the small one's, where errors are independent."""
    rng = np.random.default_rng(3)
    scores, variances = rng.normal(size=30), rng.uniform(0.1, 0.5, 30)
    columns = rng.normal(size=(30, 4))

    product = rank_loss_jacobian_times(scores, variances, columns)

    assert product == pytest.approx(rank_loss_jacobian(scores, np.diag(variances)).T @ columns)


def test_of_many_essays_neighbours_may_count_as_one() -> None:
    """Ten neighbours in score together lose less than a hundredth of what the rank loss says."""
    rng = np.random.default_rng(3)
    scores, variances = rng.normal(0, 1.5, 3_000), rng.uniform(0.1, 0.5, 3_000)
    columns = rng.normal(size=(3_000, 3))

    product = rank_loss_jacobian_times(scores, variances, columns)

    expected = rank_loss_jacobian(scores, np.diag(variances)).T @ columns
    assert np.linalg.norm(product - expected) < 0.01 * np.linalg.norm(expected)


def test_the_greatest_of_changing_values_is_known_as_they_change() -> None:
    """A wave that took another pair than the best one would cost comparisons unnoticed."""
    rng = np.random.default_rng(0)
    values = rng.integers(0, 40, 500).astype(np.float64)
    greatest = _Greatest(values)
    for step in range(300):
        rows = np.unique(rng.integers(0, 500, 12))
        values[rows] = np.where(rng.random(len(rows)) < 0.3, -np.inf, rng.integers(0, 40))
        greatest.refresh(slice(None) if step % 50 == 49 else rows)

        assert greatest.at() == np.argmax(values)


def test_every_strategy_can_be_set() -> None:
    """What a batch may name is what can be chosen."""
    assert set(SCORED) < set(get_args(Strategy))


@pytest.mark.parametrize("strategy", SCORED)
def test_with_scores_both_orders_are_a_unit_that_costs_two(strategy: Strategy) -> None:
    """Nine comparisons are four pairs in both orders; the odd one is left over."""
    graph = scored_graph(12, per_essay=4)

    wave = choose_wave(graph, strategy=strategy, size=9, seed=0, both_orders=True)

    judged = [(pair.essay_a, pair.essay_b) for pair in wave]
    assert len(judged) == 8
    assert [(b, a) for a, b in judged[::2]] == judged[1::2]
    assert [pair.role for pair in wave[::2]] == [pair.role for pair in wave[1::2]]


@pytest.mark.parametrize("strategy", get_args(Strategy))
@pytest.mark.parametrize("both_orders", [False, True])
def test_positions_are_driven_to_zero_with_any_strategy(
    strategy: Strategy, *, both_orders: bool
) -> None:
    """An essay's imbalance is one, as an odd number cannot be even, or within the band.

    Half as many pairs as essays leave many an odd number: the hardest waves to balance.
    """
    n = 24
    for seed in range(4):
        true_scores = np.random.default_rng([3, seed]).normal(0, 1.5, n)
        graph = ComparisonGraph(names(n), frozenset(), ())
        for number in range(14):
            wave = choose_wave(
                graph, strategy=strategy, size=n // 2, seed=number, both_orders=both_orders
            )
            graph = replace(graph, shown=graph.shown + tuple((p.essay_a, p.essay_b) for p in wave))
            if number > 2 + 2 * both_orders:
                scale = judged(graph, true_scores, number)
                graph = replace(graph, scores=scale.scores, information=scale.information)

            is_fair = np.abs(graph.imbalance) <= np.maximum(
                1, POSITIONAL_SKEW_BAND * graph.n_comparisons
            )
            assert is_fair[graph.n_comparisons >= MIN_SHOWN_FOR_SKEW].all()
            assert not both_orders or not any(positional_skew(graph).values())


def test_pairs_for_one_cut_lie_at_it() -> None:
    """Whether the best tenth is known hangs on those about to enter it, not on the last ones."""
    graph = scored_graph(100, 8)
    ranking = choose_wave(graph, strategy="adaptive", size=50, seed=1)
    for_top = choose_wave(replace(graph, n_above=10), strategy="adaptive", size=50, seed=1)
    assert graph.scores is not None
    score = dict(zip(graph.essay_ids, graph.scores.tolist(), strict=True))
    students = sorted(
        (score[each] for each in graph.essay_ids if each not in graph.anchor_ids), reverse=True
    )
    cut = 0.5 * (students[9] + students[10])

    def distance(wave: tuple[ChosenPair, ...]) -> float:
        return float(np.mean([abs(score[e] - cut) for p in wave for e in (p.essay_a, p.essay_b)]))

    assert distance(for_top) < 0.7 * distance(ranking)
    assert {pair.role for pair in for_top} == {Role.BOUNDARY}


def test_the_loss_of_one_cut_ignores_a_common_move() -> None:
    """When all students go up alike, nobody takes anybody's place."""
    rng = np.random.default_rng(1)
    scores, variances = rng.normal(0, 1.5, 30), rng.uniform(0.1, 0.5, 30)
    is_student = np.arange(30) >= 5

    jacobian = cut_loss_jacobian(scores, variances, 6, is_student)

    assert jacobian @ np.ones(30) == pytest.approx(0, abs=1e-12)
    columns = rng.normal(size=(30, 4))
    for transposed, written_out in ((False, jacobian), (True, jacobian.T)):
        product = cut_loss_jacobian_times(
            scores, variances, 6, is_student, columns, transposed=transposed
        )
        assert product == pytest.approx(written_out @ columns)


def test_a_cut_in_a_large_batch_is_chosen_for_by_sketches() -> None:
    """Beyond what can be written out the same pairs matter."""
    graph = replace(scored_graph(1_600, 6), n_above=160)
    wave = choose_wave(graph, strategy="adaptive", size=400, seed=1)
    assert graph.scores is not None
    score = dict(zip(graph.essay_ids, graph.scores.tolist(), strict=True))
    cut = np.sort(graph.scores)[-160]

    near = np.mean([min(abs(score[p.essay_a] - cut), abs(score[p.essay_b] - cut)) for p in wave])

    assert len(wave) == 400
    assert near < 0.6 * np.mean(np.abs(graph.scores - cut))
