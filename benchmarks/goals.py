"""What pairs chosen for one cut save, against uniform pairs and pairs chosen for the whole ranking.

    python benchmarks/goals.py --essays 100 --replications 200        about 5 s a replication

Simulated essays (standard deviation 1.5 logits) and a logistic judge, waves of half the essays,
ranked by the reported scores. Errors are jackknifed over replications, which share essays and the
judge's luck between strategies.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from cj_pipeline.arrays import Floats
from cj_pipeline.batch.options import Goal
from cj_pipeline.diagnostics.spread import likely_spread
from cj_pipeline.errors import UnscalableBatchError
from cj_pipeline.pairing.comparison_graph import ComparisonGraph
from cj_pipeline.pairing.waves import choose_wave
from cj_pipeline.scale.bradley_terry import fit_verdicts
from cj_pipeline.scale.score_posterior import score_posterior
from cj_pipeline.scale.tallies import Verdicts
from cj_pipeline.stopping.precision import misplaced

LATENT_SD = 1.5
GOALS = {"top tenth": Goal("top", share=0.1), "cut at the median": Goal("cut", share=0.5)}
MARKS = {"top tenth": (0.40, 0.35, 0.30), "cut at the median": (0.14, 0.12)}
"""Shares misplaced: of those named as the tenth, and of all."""


def curve(n: int, strategy: str, goal: Goal, per_essay: int, seed: int) -> Floats:
    """Return after each wave: comparisons per essay, share truly misplaced, share expected to be.

    Args:
        n: Essays.
        strategy: `uniform`, `ranking` or `goal`.
        goal: What is counted, and chosen for by `goal`.
        per_essay: Comparisons per essay at the end.
        seed: Of essays and luck.
    """
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, LATENT_SD, n)
    chance = rng.random((n, n, 4))
    ids = tuple(f"e{i:04d}" for i in range(n))
    place = {essay_id: i for i, essay_id in enumerate(ids)}
    n_above = goal.n_above(n) or 1
    best = set(np.argsort(-truth)[:n_above].tolist())
    graph = ComparisonGraph(ids, frozenset(), (), n_above=n_above if strategy == "goal" else None)
    lot = [(i, j) for i in range(n) for j in range(i + 1, n)]
    rng.shuffle(lot)
    rows = []
    while len(graph.shown) < per_essay * n // 2:
        if strategy == "uniform":
            pairs = [(ids[i], ids[j]) for i, j in (lot.pop() for _ in range(n // 2))]
        else:
            wave = choose_wave(
                graph, strategy="adaptive", size=n // 2, seed=1000 * seed + len(graph.shown)
            )
            pairs = [(pair.essay_a, pair.essay_b) for pair in wave]
        graph = replace(graph, shown=(*graph.shown, *pairs))
        first = np.array([place[a] for a, _ in graph.shown])
        second = np.array([place[b] for _, b in graph.shown])
        low, high = np.minimum(first, second), np.maximum(first, second)
        low_wins = chance[low, high, 0] < 1 / (1 + np.exp(truth[high] - truth[low]))
        won = 2 * np.where(first == low, low_wins, ~low_wins).astype(np.int64)
        try:
            scale = fit_verdicts(Verdicts(ids, ("j",), first, second, won, np.zeros_like(first)))
        except UnscalableBatchError:
            continue
        if strategy != "uniform":
            graph = replace(
                graph,
                scores=scale.scores,
                information=scale.information,
                spread=likely_spread(scale).logits,
            )
        posterior = score_posterior(scale)
        named = np.argsort(-posterior.scores, kind="stable")[:n_above].tolist()
        wrong = sum(i not in best for i in named)
        share = wrong / n_above if goal.kind == "top" else 2 * wrong / n
        rows.append((2 * len(graph.shown) / n, share, misplaced(posterior, goal) or 0.0))
    return np.array(rows)


def crossing(curves: Sequence[Floats], mark: float) -> float:
    """Return the comparisons per essay at which the mean share has fallen to the mark."""
    shortest = min(len(each) for each in curves)
    x = np.mean([each[-shortest:, 0] for each in curves], axis=0)
    y = np.mean([each[-shortest:, 1] for each in curves], axis=0)
    reached = np.flatnonzero(y <= mark)
    if not len(reached):
        return float("nan")
    k = int(reached[0])
    if k == 0:
        return float(x[0])
    return float(x[k - 1] + (y[k - 1] - mark) / (y[k - 1] - y[k]) * (x[k] - x[k - 1]))


def jackknifed(figure: Callable[[list[int]], float], n: int) -> tuple[float, float]:
    """Return a figure of replications and its standard error."""
    everyone = list(range(n))
    without = np.array([figure([j for j in everyone if j != i]) for i in everyone])
    return figure(everyone), float(np.sqrt((n - 1) * np.var(without)))


def saved(uniform: Sequence[Floats], other: Sequence[Floats], mark: float, i: list[int]) -> float:
    """Return the share of comparisons saved to a mark, of these replications."""
    return 1 - crossing([other[k] for k in i], mark) / crossing([uniform[k] for k in i], mark)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--essays", type=int, default=100)
    parser.add_argument("--replications", type=int, default=200)
    parser.add_argument("--goals", nargs="+", default=list(GOALS), choices=list(GOALS))
    options = parser.parse_args()
    lengths = {"uniform": 24, "ranking": 20, "goal": 16}
    for name in options.goals:
        goal = GOALS[name]
        found = {
            strategy: [
                curve(options.essays, strategy, goal, length, seed)
                for seed in range(options.replications)
            ]
            for strategy, length in lengths.items()
        }
        told = np.mean([each[-1, 2] - each[-1, 1] for each in found["goal"]])
        print(f"{name}: expected less true share misplaced at the end {told:+.3f}", flush=True)
        for mark in MARKS[name]:
            by_uniform = crossing(found["uniform"], mark)
            line = f"  {mark:.0%} misplaced: uniform takes {by_uniform:.1f}"
            for strategy in ("ranking", "goal"):
                figure = partial(saved, found["uniform"], found[strategy], mark)
                value, error = jackknifed(figure, options.replications)
                line += f"; {strategy} saves {100 * value:.0f} ± {100 * error:.0f} %"
            print(line, flush=True)


if __name__ == "__main__":
    main()
