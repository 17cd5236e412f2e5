"""Ways of choosing pairs that were tried and lost, next to the adaptive strategy, on common seeds.

    python benchmarks/choosing/other_ways.py --replications 60      about 5 s a replication

`kink`: the knowledge gradient. A verdict is worth what it is expected to add to the summed sizes of
all differences, which it does only where it may turn an order (Frazier, Powell and Dayanik 2009,
doi:10.1287/ijoc.1080.0314); an essay comes at most twice a wave. `merge`: merge sort, one verdict
after the other and never in waves, which is the best case for it, begun again from the order so
far once it has ended. `window`: partners drawn by chance, likelier the closer in score.
Information gain on the joint posterior in spanning trees is `hybrid_mst` in `pairing.py`. Simulated
essays (standard deviation 1.5 logits), a logistic judge, waves of half the essays, ranked by scores
drawn in to the likely spread.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import time
from collections.abc import Callable, Generator
from dataclasses import replace

import numpy as np
from scipy.stats import rankdata
from warm_starts import LATENT_SD, crossing, saved

from cj_pipeline.arrays import Floats
from cj_pipeline.diagnostics.spread import likely_spread
from cj_pipeline.errors import UnscalableBatchError
from cj_pipeline.pairing.adaptive import expected_information
from cj_pipeline.pairing.comparison_graph import ComparisonGraph
from cj_pipeline.pairing.shrinkage import shrunk
from cj_pipeline.pairing.waves import choose_wave
from cj_pipeline.scale.bradley_terry import Scale, fit_verdicts
from cj_pipeline.scale.information import covariance
from cj_pipeline.scale.tallies import Verdicts

Pairs = list[tuple[int, int]]


def adaptive(graph: ComparisonGraph, size: int, seed: int) -> Pairs:
    """The product's own way."""
    place = {essay_id: i for i, essay_id in enumerate(graph.essay_ids)}
    chosen = choose_wave(graph, strategy="adaptive", size=size, seed=seed)
    return [(place[pair.essay_a], place[pair.essay_b]) for pair in chosen]


def kink(graph: ComparisonGraph, size: int, seed: int) -> Pairs:
    """The pairs whose verdicts are expected to turn most orders."""
    if graph.scores is None:
        return adaptive(graph, size, seed)
    believed = shrunk(graph)
    assert believed.scores is not None
    assert believed.information is not None
    first, second = np.triu_indices(graph.n_essays, k=1)
    apart = believed.scores[first] - believed.scores[second]
    along = covariance(believed.information)
    own = along[first] - along[second]
    variance = own[np.arange(len(first)), first] - own[np.arange(len(first)), second]
    information = expected_information(apart, variance)
    p = 1 / (1 + np.exp(-apart / np.sqrt(1 + np.pi * variance / 8)))
    value = np.empty(len(first))
    for k in range(len(first)):
        reach = (own[k, first] - own[k, second]) / (1 + information[k] * variance[k])
        won = np.abs(apart + reach * (1 - p[k]))
        lost = np.abs(apart - reach * p[k])
        value[k] = np.sum(p[k] * won + (1 - p[k]) * lost - np.abs(apart))
    return _few_each(graph, list(zip(first.tolist(), second.tolist(), strict=True)), value, size)


def window(graph: ComparisonGraph, size: int, seed: int) -> Pairs:
    """Partners by lot, likelier the closer they are believed to be."""
    if graph.scores is None:
        return adaptive(graph, size, seed)
    believed = shrunk(graph)
    assert believed.scores is not None
    first, second = np.triu_indices(graph.n_essays, k=1)
    apart = believed.scores[first] - believed.scores[second]
    # The greatest of log weights with Gumbel noise is a draw by weight.
    noise = np.random.default_rng(seed).gumbel(size=len(first))
    value = noise - 0.5 * apart**2
    return _few_each(graph, list(zip(first.tolist(), second.tolist(), strict=True)), value, size)


def _few_each(graph: ComparisonGraph, pairs: Pairs, value: Floats, size: int) -> Pairs:
    shown = {tuple(sorted(pair)) for pair in graph.shown_indices.tolist()}
    times = np.zeros(graph.n_essays, dtype=np.int64)
    chosen: Pairs = []
    for k in np.argsort(-value):
        one, other = pairs[k]
        if len(chosen) == size:
            break
        if (one, other) not in shown and max(times[one], times[other]) < 2:
            chosen.append((one, other))
            times[[one, other]] += 1
    return chosen


def merge_sorted(order: list[int]) -> Generator[tuple[int, int], bool, None]:
    """Yield each pair of a merge sort, sent whether its first won; sorts `order`, worst first."""
    runs = [[each] for each in order]
    while len(runs) > 1:
        merged = []
        for k in range(0, len(runs), 2):
            both = list[int]()
            one, other = runs[k], [each for run in runs[k + 1 : k + 2] for each in run]
            while one and other:
                first_won = yield one[0], other[0]
                both.append(other.pop(0) if first_won else one.pop(0))
            merged.append(both + one + other)
        runs = merged
    order[:] = runs[0]


WAYS: dict[str, Callable[[ComparisonGraph, int, int], Pairs]] = {
    "adaptive": adaptive,
    "kink": kink,
    "window": window,
}


def curve(n: int, way: str, per_essay: int, seed: int) -> Floats:
    """Return after each n/2 verdicts: comparisons per essay, Spearman drawn in and verdict-only."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, LATENT_SD, n)
    chance = rng.random((n, n, 4))
    lot = [(i, j) for i in range(n) for j in range(i + 1, n)]
    rng.shuffle(lot)
    ids = tuple(f"e{i:04d}" for i in range(n))
    graph = ComparisonGraph(ids, frozenset(), ())
    times: dict[tuple[int, int], int] = {}

    def ask(one: int, other: int) -> bool:
        low, high = min(one, other), max(one, other)
        turn = times[low, high] = times.get((low, high), -1) + 1
        low_wins = chance[low, high, turn % 4] < 1 / (1 + np.exp(truth[high] - truth[low]))
        return bool(low_wins) == (one == low)

    won: list[int] = []
    rows = []
    order = rng.permutation(n).tolist()
    sort, answer = merge_sorted(order), None
    while len(graph.shown) < per_essay * n // 2:
        if way == "uniform":
            pairs = [lot.pop() for _ in range(n // 2)]
            won += [2 * ask(*pair) for pair in pairs]
        elif way == "merge":
            pairs = []
            while len(pairs) < n // 2:
                try:
                    pair = next(sort) if answer is None else sort.send(answer)
                except StopIteration:
                    sort, answer = merge_sorted(order), None
                    continue
                answer = ask(*pair)
                won.append(2 * answer)
                pairs.append(pair)
        else:
            pairs = WAYS[way](graph, n // 2, 1000 * seed + len(graph.shown))
            won += [2 * ask(*pair) for pair in pairs]
        shown = tuple((ids[one], ids[other]) for one, other in pairs)
        graph = replace(graph, shown=(*graph.shown, *shown))
        scale = _fitted(graph, won)
        if scale is None:
            continue
        graph = replace(
            graph,
            scores=scale.scores,
            information=scale.information,
            spread=likely_spread(scale).logits,
        )
        drawn_in = shrunk(graph).scores
        assert drawn_in is not None
        rows.append(
            (
                2 * len(graph.shown) / n,
                *(
                    np.corrcoef(rankdata(scores), rankdata(truth))[0, 1]
                    for scores in (drawn_in, scale.scores)
                ),
            )
        )
    return np.array(rows)


def _fitted(graph: ComparisonGraph, won: list[int]) -> Scale | None:
    first, second = graph.shown_indices.T
    nobody = np.zeros(len(first), dtype=np.int64)
    try:
        return fit_verdicts(Verdicts(graph.essay_ids, ("j",), first, second, np.array(won), nobody))
    except UnscalableBatchError:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--essays", type=int, default=100)
    parser.add_argument("--replications", type=int, default=60)
    parser.add_argument("--ways", nargs="+", default=["adaptive", "window", "merge", "kink"])
    parser.add_argument("--seconds", type=float, default=550, help="begins nothing later")
    options = parser.parse_args()
    begun = time.monotonic()
    found: dict[str, list[Floats]] = {}
    for way in ("uniform", *options.ways):
        per_essay = 20 if way == "uniform" else 16
        found[way] = []
        for seed in range(options.replications):
            if time.monotonic() - begun > options.seconds:
                break
            found[way].append(curve(options.essays, way, per_essay, seed))
        if not found[way]:
            continue
        for column, name in ((1, "drawn in"), (2, "verdict-only")):
            line = f"{way:9s} ({len(found[way]):3d}) {name:12s}"
            for mark in (0.85, 0.90):
                line += f"  {mark:.2f}: {crossing(found[way], mark, column):5.2f}"
                if way != "uniform":
                    share, error = saved(found["uniform"], found[way], mark, column)
                    line += f" saved {100 * share:5.1f} ± {100 * error:3.1f}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
