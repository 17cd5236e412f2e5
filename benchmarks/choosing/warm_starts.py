"""What a guess of the scores saves when pairs are chosen about it, and what that does to scores.

    python benchmarks/choosing/warm_starts.py --essays 100 --replications 200 --cells none .5/.5

A cell is true/stated: the guess's correlation with the truth, and what it is said to be; with
`length` behind it (`.5/.5/length`) judge and guess both overrate long essays. `none` is the product
as it is. With a guess z, pairs are chosen under the prior N(r s z, s^2), s the likely spread, all
the way; no score knows of it. Simulated essays (standard deviation 1.5 logits), a logistic judge,
waves of half the essays unless `--wave` says otherwise. Replications share essays and the judge's
luck; they are kept in `--cache`, so a run that is killed goes on where it was. About half a second
a replication at 100 essays, in one process.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.special import ndtri
from scipy.stats import rankdata

from cj_pipeline.arrays import Floats
from cj_pipeline.diagnostics.spread import likely_spread
from cj_pipeline.errors import UnscalableBatchError
from cj_pipeline.pairing.comparison_graph import ComparisonGraph
from cj_pipeline.pairing.posterior import own_information
from cj_pipeline.pairing.shrinkage import DRAWN_IN_TO, shrunk
from cj_pipeline.pairing.waves import choose_wave
from cj_pipeline.scale.bradley_terry import fit_verdicts
from cj_pipeline.scale.information import covariance
from cj_pipeline.scale.laplacian import NetMatrix, solve
from cj_pipeline.scale.score_posterior import score_posterior
from cj_pipeline.scale.tallies import Verdicts

LATENT_SD = 1.5
LENGTH_SD = 0.75
"""Logits by which the judge overrates an essay one standard deviation longer than usual."""
LENGTH_IN_ERROR = 0.8
"""How closely the error of a guess goes by length, as a correlation."""
MARKS = (0.80, 0.85, 0.90, 0.95)
HELD_AT, HELD_SEEDS = 12, 60
"""Comparisons per essay at which intervals are looked at, and for how many replications."""


def curve(n: int, cell: str, per_essay: int, seed: int, wave: int) -> Floats:
    """Return after each wave: comparisons per essay, Spearman with the truth, share held.

    The correlation is given for scores drawn in to the likely spread, as reported scores are, and
    for the verdict-only ones; neither knows of the guess. The share of essays that their reported
    95 % intervals hold is looked at once, at `HELD_AT` comparisons each, for some of the seeds.
    """
    true_r, stated_r, errs = _meant(cell)
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, LATENT_SD, n)
    chance = rng.random((n, n, 4))
    length, noise = rng.normal(size=(2, n))
    heard = truth + (LENGTH_SD * length if errs else 0)
    error = LENGTH_IN_ERROR * length + np.sqrt(1 - LENGTH_IN_ERROR**2) * noise if errs else noise
    guess = true_r * truth / LATENT_SD + np.sqrt(1 - true_r**2) * error
    ids = tuple(f"e{i:04d}" for i in range(n))
    place = {essay_id: i for i, essay_id in enumerate(ids)}
    graph = ComparisonGraph(ids, frozenset(), ())
    if stated_r:
        graph = replace(graph, expected=guess)
    lot = [(i, j) for i in range(n) for j in range(i + 1, n)]
    rng.shuffle(lot)
    rows = []
    while len(graph.shown) < min(per_essay * n // 2, n * (n - 1) // 2):
        if cell.startswith("uniform"):
            drawn = [lot.pop() for _ in range(min(wave, len(lot)))]
            pairs = [(ids[i], ids[j]) for i, j in drawn]
        else:
            chosen = choose_wave(
                about_guess(graph, stated_r),
                strategy="adaptive",
                size=wave,
                seed=1000 * seed + len(graph.shown),
            )
            pairs = [(pair.essay_a, pair.essay_b) for pair in chosen]
        graph = replace(graph, shown=(*graph.shown, *pairs))
        first = np.array([place[a] for a, _ in graph.shown])
        second = np.array([place[b] for _, b in graph.shown])
        low, high = np.minimum(first, second), np.maximum(first, second)
        low_wins = chance[low, high, 0] < 1 / (1 + np.exp(heard[high] - heard[low]))
        won = 2 * np.where(first == low, low_wins, ~low_wins).astype(np.int64)
        try:
            scale = fit_verdicts(Verdicts(ids, ("j",), first, second, won, np.zeros_like(first)))
        except UnscalableBatchError:
            continue
        graph = replace(
            graph,
            scores=scale.scores,
            information=scale.information,
            spread=likely_spread(scale).logits,
        )
        each = 2 * len(graph.shown) / n
        held = np.nan
        if seed < HELD_SEEDS and HELD_AT - 2 * wave / n < each <= HELD_AT:
            reported = score_posterior(scale)
            off = np.abs(reported.scores - truth + truth.mean())
            held = float(np.mean(off <= 1.96 * reported.standard_errors))
        drawn_in = shrunk(replace(graph, expected=None)).scores
        assert drawn_in is not None
        rows.append(
            (
                each,
                *(
                    np.corrcoef(rankdata(scores), rankdata(truth))[0, 1]
                    for scores in (drawn_in, scale.scores)
                ),
                held,
            )
        )
    return np.array(rows)


def about_guess(graph: ComparisonGraph, r: float) -> ComparisonGraph:
    """Return the graph as it is believed to be where its guess has this correlation."""
    if graph.scores is None or graph.expected is None or graph.information is None:
        return graph
    assert graph.spread is not None
    z = ndtri((rankdata(graph.expected) - 0.5) / graph.n_essays)
    spread = DRAWN_IN_TO * graph.spread
    narrow = spread**-2
    centre = r * spread * z / z.std()
    essays, layout = graph.information.essays, graph.information.essays.layout
    first, second, n = layout.first, layout.second, graph.n_essays
    gap = graph.scores[first] - graph.scores[second]
    counts = essays.weights / _slope(gap)
    scores = graph.scores
    pull = own_information(graph.information) * np.sinh(np.clip(scores, -20, 20))
    for _ in range(4):
        apart = scores[first] - scores[second]
        weights = counts * _slope(apart)
        own = np.bincount(first, weights, n) + np.bincount(second, weights, n)
        own_and_prior = np.asarray(own + narrow, dtype=np.float64)
        matrix = NetMatrix(layout, weights, own_and_prior, np.zeros(n))
        less = 0.5 * counts * (np.tanh(0.5 * gap) - np.tanh(0.5 * apart))
        gradient = pull + np.bincount(first, less, n) - np.bincount(second, less, n)
        scores = scores + solve(matrix, gradient - narrow * (scores - centre), rtol=1e-6)
    information = replace(graph.information, essays=matrix)
    return replace(
        graph,
        scores=scores - scores.mean(),
        covariance=covariance(information),
        information=None,
    )


def _slope(apart: Floats) -> Floats:
    return np.asarray(0.25 / np.cosh(0.5 * np.clip(apart, -30, 30)) ** 2)


def _meant(cell: str) -> tuple[float, float, bool]:
    parts = cell.split("/")
    errs = parts[-1] == "length"
    if parts[0] in {"none", "uniform"}:
        return 0.0, 0.0, errs
    return float(parts[0]), float(parts[1]), errs


def crossing(curves: Sequence[Floats], mark: float, column: int) -> float:
    """Return the comparisons per essay at which the mean correlation reaches the mark."""
    shortest = min(len(each) for each in curves)
    x = np.mean([each[-shortest:, 0] for each in curves], axis=0)
    y = np.mean([each[-shortest:, column] for each in curves], axis=0)
    reached = np.flatnonzero(y >= mark)
    if not len(reached):
        return float("nan")
    k = int(reached[0])
    if k == 0:
        return float(x[0])
    return float(x[k - 1] + (mark - y[k - 1]) / (y[k] - y[k - 1]) * (x[k] - x[k - 1]))


def saved(
    base: Sequence[Floats], other: Sequence[Floats], mark: float, column: int
) -> tuple[float, float]:
    """Return the share of comparisons saved against the base, and its jackknife error."""
    n = min(len(base), len(other))

    def figure(rows: Sequence[int]) -> float:
        ours = crossing([other[k] for k in rows], mark, column)
        return 1 - ours / crossing([base[k] for k in rows], mark, column)

    blocks = np.array_split(np.arange(n), min(n, 20))
    without = [figure([i for i in range(n) if i not in set(b.tolist())]) for b in blocks]
    k = len(blocks)
    error = np.sqrt((k - 1) / k * np.sum((np.array(without) - np.mean(without)) ** 2))
    return figure(range(n)), float(error)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--essays", type=int, default=100)
    parser.add_argument("--replications", type=int, default=200)
    parser.add_argument("--wave", type=float, default=0.5, help="pairs per wave, of the essays")
    parser.add_argument("--per-essay", type=int, default=0)
    parser.add_argument("--cells", nargs="+", default=["none", ".5/.5", ".7/.7"])
    parser.add_argument("--base", default="uniform")
    parser.add_argument("--cache", type=Path, default=Path("warm-starts.jsonl"))
    parser.add_argument("--seconds", type=float, default=550, help="begins nothing later")
    options = parser.parse_args()
    begun = time.monotonic()
    n = options.essays
    wave = round(options.wave * n)
    known: dict[tuple[str, int, int, int], Floats] = {}
    if options.cache.exists():
        for line in options.cache.read_text().splitlines():
            cell, size, per_wave, seed, rows = json.loads(line)
            known[cell, size, per_wave, seed] = np.array(rows, dtype=float)
    found: dict[str, list[Floats]] = {}
    for cell in (options.base, *options.cells):
        per_essay = options.per_essay or (36 if cell.startswith("uniform") else 26)
        found[cell] = []
        for seed in range(options.replications):
            key = (cell, n, wave, seed)
            if key not in known:
                if time.monotonic() - begun > options.seconds:
                    break
                known[key] = curve(n, cell, per_essay, seed, wave)
                rows = [[None if np.isnan(x) else x for x in row] for row in known[key].round(5)]
                with options.cache.open("a") as file:
                    file.write(json.dumps([*key, rows]) + "\n")
            found[cell].append(known[key])
    for column, name in ((1, "drawn-in scores"), (2, "verdict-only scores")):
        print(f"{n} essays, waves of {wave}, ranked by {name}")
        for cell, curves in found.items():
            line = f"  {cell:18s} ({len(curves):3d})"
            for mark in MARKS:
                takes = crossing(curves, mark, column) if curves else float("nan")
                line += f"  {mark:.2f}: {takes:5.2f}"
                if cell != options.base and curves:
                    share, error = saved(found[options.base], curves, mark, column)
                    line += f" saved {100 * share:5.1f} ± {100 * error:3.1f}"
            held = [np.nanmean(each[:, 3]) for each in curves if not np.isnan(each[:, 3]).all()]
            if held:
                line += f"  intervals hold {np.mean(held):.3f} ({len(held)})"
            print(line, flush=True)


if __name__ == "__main__":
    main()
