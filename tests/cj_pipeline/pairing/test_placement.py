"""New essays find their place in an old scale with few comparisons."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cj_pipeline.pairing.comparison_graph import ComparisonGraph
from cj_pipeline.pairing.warm_start import with_newcomers
from cj_pipeline.pairing.waves import choose_wave
from cj_pipeline.scale.bradley_terry import Scale, fit_verdicts
from cj_pipeline.scale.tallies import Verdicts

N_OLD, N_NEW = 40, 8
IDS = tuple(f"essay-{i:02d}" for i in range(N_OLD + N_NEW))


def judged(ids: tuple[str, ...], shown: tuple[tuple[str, str], ...], seed: int) -> Scale:
    truth = np.random.default_rng([seed, 7]).normal(0, 1.5, len(IDS))
    place = {essay_id: i for i, essay_id in enumerate(ids)}
    pairs = np.array([(place[a], place[b]) for a, b in shown])
    first, second = pairs.T
    chance = 1 / (1 + np.exp(truth[second] - truth[first]))
    won = 2 * (np.random.default_rng(seed).random(len(first)) < chance).astype(np.int64)
    return fit_verdicts(Verdicts(ids, ("j",), first, second, won, np.zeros_like(first)))


def old_scale(seed: int) -> tuple[Scale, tuple[tuple[str, str], ...]]:
    old_ids = IDS[:N_OLD]
    wave = choose_wave(
        ComparisonGraph(old_ids, frozenset(), ()), strategy="coverage", size=400, seed=seed
    )
    shown = tuple((pair.essay_a, pair.essay_b) for pair in wave)
    return judged(old_ids, shown, seed), shown


def test_new_essays_are_asked_about_and_old_ones_left_alone() -> None:
    """Old essays are known well; each comparison should be about a new one."""
    old, shown = old_scale(0)

    graph = with_newcomers(ComparisonGraph(IDS, frozenset(), shown), old)
    wave = choose_wave(graph, strategy="adaptive", size=16, seed=0)

    new = set(IDS[N_OLD:])
    judged = [essay for pair in wave for essay in (pair.essay_a, pair.essay_b) if essay in new]
    assert all({pair.essay_a, pair.essay_b} & new for pair in wave)
    assert {judged.count(essay) for essay in new} <= {2, 3, 4}


def test_placing_by_gain_errs_less_than_placing_against_anyone() -> None:
    """Ten comparisons per new essay, against those it learns most from or against whom it may."""
    rng = np.random.default_rng(5)
    errors: dict[str, list[float]] = {"adaptive": [], "anyone": []}
    for seed in range(4):
        truth = np.random.default_rng([seed, 7]).normal(0, 1.5, len(IDS))
        for way, found in errors.items():
            old, shown = old_scale(seed)
            graph = with_newcomers(ComparisonGraph(IDS, frozenset(), shown), old)
            for number in range(5):
                if way == "adaptive":
                    wave = choose_wave(graph, strategy="adaptive", size=16, seed=number)
                    more = tuple((pair.essay_a, pair.essay_b) for pair in wave)
                else:
                    more = tuple(
                        (new, str(known))
                        for new in IDS[N_OLD:]
                        for known in rng.choice(IDS[:N_OLD], 2, replace=False)
                    )
                graph = replace(graph, shown=graph.shown + more)
                scale = judged(IDS, graph.shown, seed)
                graph = replace(graph, scores=scale.scores, covariance=scale.covariance)
            assert graph.scores is not None
            found.append(float(np.mean((graph.scores - truth + truth.mean())[N_OLD:] ** 2)))

    assert np.mean(errors["adaptive"]) < np.mean(errors["anyone"])
