"""Initial scores may choose the first pairs, and nothing else."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from cj_pipeline.errors import SettingsError
from cj_pipeline.pairing.comparison_graph import ComparisonGraph, Parts
from cj_pipeline.pairing.warm_start import (
    initial_scores_from_earlier,
    initial_scores_from_order,
    initial_scores_from_texts,
    with_newcomers,
)
from cj_pipeline.pairing.waves import choose_wave
from cj_pipeline.scale.bradley_terry import Scale, fit_verdicts
from cj_pipeline.scale.tallies import Verdicts

IDS = tuple(f"essay-{i:02d}" for i in range(40))


def test_a_rough_order_becomes_ranks_with_ties() -> None:
    """A teacher sorts into piles more surely than into a row."""
    initial_scores = initial_scores_from_order(
        ["a", "b", "c", "d", "e"], [["d"], ["a", "c"], ["b"]]
    )

    assert initial_scores.tolist() == [1.5, 3.0, 1.5, 0.0, 1.5]


def test_an_order_that_names_strangers_is_refused_with_their_names() -> None:
    """A misspelt essay would silently be guessed in the middle."""
    with pytest.raises(SettingsError, match="'zoe' is not in the batch; 'a' is named twice"):
        initial_scores_from_order(["a", "b"], [["a", "zoe"], ["a"]])


def test_essays_without_an_earlier_score_lie_at_the_mean() -> None:
    """Nothing is known of them."""
    assert initial_scores_from_earlier(["a", "new"], {"a": 2.0, "b": 0.0}).tolist() == [2.0, 1.0]


def test_texts_are_guessed_by_their_vocabulary() -> None:
    """Repeating oneself is not a merit."""
    poor, rich = initial_scores_from_texts(["good good good good", "a plain but varied text"])

    assert poor < rich


@pytest.mark.parametrize("strategy", ["adaptive", "coverage"])
def test_first_pairs_are_guessed_close_and_still_make_one_even_net(strategy: str) -> None:
    """Close pairs are best, but initial scores must not cost what every first wave promises."""
    initial_scores = np.random.default_rng(1).permutation(40).astype(float)
    guided = ComparisonGraph(IDS, frozenset(), (), expected=initial_scores)
    unguided = ComparisonGraph(IDS, frozenset(), ())

    def apart(graph: ComparisonGraph) -> float:
        wave = choose_wave(graph, strategy=strategy, size=60, seed=0)  # type: ignore[arg-type]
        shown = tuple((pair.essay_a, pair.essay_b) for pair in wave)
        after = replace(graph, shown=shown)
        assert Parts(after).n_parts == 1
        assert np.ptp(after.n_comparisons) <= 1
        first, second = after.shown_indices.T
        return float(np.abs(initial_scores[first] - initial_scores[second]).mean())

    assert apart(guided) < 0.5 * apart(unguided)


def test_once_there_are_scores_the_guess_no_longer_counts() -> None:
    """Verdicts know better."""
    shown = tuple(itertools.pairwise(IDS))
    graph = ComparisonGraph(IDS, frozenset(), shown, np.linspace(-2, 2, 40), 0.3 * np.eye(40))
    guided = replace(graph, expected=np.arange(40.0)[::-1])

    waves = [choose_wave(n, strategy="adaptive", size=20, seed=0) for n in (graph, guided)]

    assert waves[0] == waves[1]


N_OLD, N_NEW = 40, 8
OLD_AND_NEW = tuple(f"essay-{i:02d}" for i in range(N_OLD + N_NEW))


def judged(ids: tuple[str, ...], shown: tuple[tuple[str, str], ...], seed: int) -> Scale:
    truth = np.random.default_rng([seed, 7]).normal(0, 1.5, len(OLD_AND_NEW))
    place = {essay_id: i for i, essay_id in enumerate(ids)}
    pairs = np.array([(place[a], place[b]) for a, b in shown])
    first, second = pairs.T
    chance = 1 / (1 + np.exp(truth[second] - truth[first]))
    won = 2 * (np.random.default_rng(seed).random(len(first)) < chance).astype(np.int64)
    return fit_verdicts(Verdicts(ids, ("j",), first, second, won, np.zeros_like(first)))


def old_scale(seed: int) -> tuple[Scale, tuple[tuple[str, str], ...]]:
    old_ids = OLD_AND_NEW[:N_OLD]
    wave = choose_wave(
        ComparisonGraph(old_ids, frozenset(), ()), strategy="coverage", size=400, seed=seed
    )
    shown = tuple((pair.essay_a, pair.essay_b) for pair in wave)
    return judged(old_ids, shown, seed), shown


def test_new_essays_are_asked_about_and_old_ones_left_alone() -> None:
    """Old essays are known well; each comparison should be about a new one."""
    old, shown = old_scale(0)

    graph = with_newcomers(ComparisonGraph(OLD_AND_NEW, frozenset(), shown), old)
    wave = choose_wave(graph, strategy="adaptive", size=16, seed=0)

    new = set(OLD_AND_NEW[N_OLD:])
    judged = [essay for pair in wave for essay in (pair.essay_a, pair.essay_b) if essay in new]
    assert all({pair.essay_a, pair.essay_b} & new for pair in wave)
    assert {judged.count(essay) for essay in new} <= {2, 3, 4}


def test_placing_by_gain_errs_less_than_placing_against_anyone() -> None:
    """Ten comparisons per new essay, against those it learns most from or against whom it may."""
    rng = np.random.default_rng(5)
    errors: dict[str, list[float]] = {"adaptive": [], "anyone": []}
    for seed in range(4):
        truth = np.random.default_rng([seed, 7]).normal(0, 1.5, len(OLD_AND_NEW))
        for way, found in errors.items():
            old, shown = old_scale(seed)
            graph = with_newcomers(ComparisonGraph(OLD_AND_NEW, frozenset(), shown), old)
            for number in range(5):
                if way == "adaptive":
                    wave = choose_wave(graph, strategy="adaptive", size=16, seed=number)
                    more = tuple((pair.essay_a, pair.essay_b) for pair in wave)
                else:
                    more = tuple(
                        (new, str(known))
                        for new in OLD_AND_NEW[N_OLD:]
                        for known in rng.choice(OLD_AND_NEW[:N_OLD], 2, replace=False)
                    )
                graph = replace(graph, shown=graph.shown + more)
                scale = judged(OLD_AND_NEW, graph.shown, seed)
                graph = replace(graph, scores=scale.scores, covariance=scale.covariance)
            assert graph.scores is not None
            found.append(float(np.mean((graph.scores - truth + truth.mean())[N_OLD:] ** 2)))

    assert np.mean(errors["adaptive"]) < np.mean(errors["anyone"])
