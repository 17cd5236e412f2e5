"""What choosing pairs well saves, in comparisons: simulated judges, then recorded votes.

    python benchmarks/pairing.py --replications 200            everything; hours
    python benchmarks/pairing.py savings --essays 20 100 --replications 20      a table in minutes

Replications that were run are kept in `--cache`, one line each, so a run that is killed goes on
where it was. Monte-Carlo standard errors are jackknifed over replications, which share their
essays and the judge's luck between strategies.
"""

from __future__ import annotations

import os

from cj_pipeline.batch.comparisons import max_possible_pairs

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import csv
import hashlib
import json
import multiprocessing
import resource
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from cj_pipeline.batch.options import PrecisionTargets
from cj_pipeline.diagnostics.reliability import (
    empirical_bayes_reliability,
    scale_separation_reliability,
)
from cj_pipeline.diagnostics.spread import likely_spread
from cj_pipeline.errors import UnscalableBatchError
from cj_pipeline.pairing.comparison_graph import ComparisonGraph
from cj_pipeline.pairing.fixed_design import mean_variance, spectral_gap
from cj_pipeline.pairing.shrinkage import shrunk
from cj_pipeline.pairing.strategies import strategy_named
from cj_pipeline.pairing.waves import choose_wave
from cj_pipeline.scale.bradley_terry import Scale, fit_verdicts
from cj_pipeline.scale.tallies import Verdicts
from cj_pipeline.stopping.forecast import (
    Forecast,
    SamplingPlan,
    forecast_at_plan,
    forecast_from_scale,
)
from cj_pipeline.stopping.precision import precision_of

VOTES = Path(__file__).parents[1] / "cj_pipeline" / "data" / "ukp_demo_votes.csv"
TARGETS = (0.90, 0.95)
LATENT_SD = 1.5
POSITION_BIAS = 0.4
CARELESS = 0.1
SECOND_JUDGE = 0.5


@dataclass(frozen=True)
class Setup:
    """One cell of a table.

    Attributes:
        strategy: As in a batch's settings, or "uniform": any pair not yet judged, by lot.
        n_essays: In the batch.
        wave: Pairs per wave.
        per_essay: Comparisons per essay at the end.
        may_repeat: Whether a pair may be repeated before all were judged.
        judge: "plain"; "biased" towards the first place; "careless", deciding by coin in a tenth
            of the cases; "pair", two judges in turn of whom one discriminates half as well.
        topic: For recorded votes; else empty.
    """

    strategy: str
    n_essays: int
    wave: int
    per_essay: int
    may_repeat: bool = False
    judge: str = "plain"
    topic: str = ""
    honesty: bool = False

    @property
    def label(self) -> str:
        return self.strategy + (" (may repeat)" if self.may_repeat else "")


class SimulatedJudge:
    """Answers by Bradley and Terry's model; the luck of a pair's k-th request is fixed by seed."""

    def __init__(self, setup: Setup, seed: int) -> None:
        rng = np.random.default_rng([seed, setup.n_essays])
        true = rng.normal(0, LATENT_SD, setup.n_essays)
        self.truth = true - true.mean()
        self._kind, self._seed = setup.judge, seed
        self._asked: dict[tuple[int, int], int] = defaultdict(int)
        self.needs_position_effect = setup.judge == "biased"

    def first_wins(self, first: int, second: int) -> float:
        low, high = min(first, second), max(first, second)
        turn = self._asked[low, high]
        self._asked[low, high] += 1
        luck = _luck(self._seed, low, high, turn)
        eta = self.truth[first] - self.truth[second]
        if self._kind == "biased":
            eta += POSITION_BIAS
        if self._kind == "pair" and (low + high + turn) % 2:
            eta *= SECOND_JUDGE
        chance = 1 / (1 + np.exp(-eta))
        if self._kind == "careless":
            chance = (1 - CARELESS) * chance + CARELESS / 2
        # The lower index wins on small luck, whichever place it is shown in.
        return float(luck < chance) if first == low else float(luck >= 1 - chance)


class RecordedVotes:
    """Answers a pair with one of the votes people cast on it, drawn by seed, each used once."""

    needs_position_effect = False

    def __init__(self, setup: Setup, seed: int) -> None:
        votes, ids = votes_on(setup.topic)
        self.truth = _scale_of_all_votes(setup.topic).scores
        place = {item: i for i, item in enumerate(ids)}
        rng = np.random.default_rng(seed)
        self._left: dict[tuple[int, int], list[float]] = defaultdict(list)
        for k in rng.permutation(len(votes)):
            a, b, win = votes[k]
            i, j = place[a], place[b]
            self._left[min(i, j), max(i, j)].append(win if i < j else 1 - win)

    def first_wins(self, first: int, second: int) -> float:
        votes = self._left[min(first, second), max(first, second)]
        if not votes:
            return 0.5
        vote = votes[0]
        votes.append(votes.pop(0))
        return vote if first < second else 1 - vote


def trajectory(setup: Setup, seed: int) -> dict[str, Any]:
    """Return how well the scores do after every wave of one replication."""
    judge = RecordedVotes(setup, seed) if setup.topic else SimulatedJudge(setup, seed)
    n = setup.n_essays
    ids = tuple(f"e{i:05d}" for i in range(n))
    place = {essay_id: i for i, essay_id in enumerate(ids)}
    net = ComparisonGraph(ids, frozenset(), ())
    half_wins: list[int] = []
    scale: Scale | None = None
    end = setup.per_essay * n // 2
    out: dict[str, list[float]] = defaultdict(list)
    while len(net.shown) < end:
        size = min(setup.wave, end - len(net.shown))
        wave = _next_wave(net, setup, size, seed)
        for a, b in wave:
            half_wins.append(round(2 * judge.first_wins(place[a], place[b])))
        net = replace(net, shown=net.shown + wave)
        first, second = net.shown_indices.T
        verdicts = Verdicts(
            ids, ("j",), first, second, np.array(half_wins), np.zeros(len(first), dtype=np.int64)
        )
        try:
            start = None if scale is None else dict(zip(ids, scale.scores.tolist(), strict=True))
            scale = fit_verdicts(verdicts, position_effect=judge.needs_position_effect, start=start)
        except UnscalableBatchError:
            continue
        net = _with_scale(net, scale)
        out["comparisons"].append(len(net.shown))
        for name, scores in (("spearman", scale.scores), ("drawn_in", shrunk(net).scores)):
            assert scores is not None
            out[name].append(_correlation(rankdata(scores), rankdata(judge.truth)))
        if setup.honesty:
            out["true_r2"].append(_correlation(scale.scores, judge.truth) ** 2)
            out["honest"].append(empirical_bayes_reliability(scale))
            out["naive"].append(scale_separation_reliability(scale.scores, scale.standard_errors))
    out["max_lean"] = [float(np.abs(net.imbalance).max())]
    counts = net.n_comparisons
    out["participation"] = [
        float(counts.min() / counts.mean()),
        float(counts.max() / counts.mean()),
    ]
    return dict(out)


def _next_wave(
    net: ComparisonGraph, setup: Setup, size: int, seed: int
) -> tuple[tuple[str, str], ...]:
    covered = len({frozenset(pair) for pair in net.shown})
    left = max_possible_pairs(net.n_essays) - covered
    by_score = setup.may_repeat and net.scores is not None
    if setup.strategy == "uniform" and left:
        return _by_lot(net, min(size, left), seed)
    wave = choose_wave(
        net,
        strategy="random" if setup.strategy == "uniform" else setup.strategy,  # type: ignore[arg-type]
        size=size,
        seed=seed * 100_003 + len(net.shown),
        resampling=left == 0 and not by_score,
        may_repeat=setup.may_repeat,
    )
    return tuple((pair.essay_a, pair.essay_b) for pair in wave)


def _with_scale(net: ComparisonGraph, scale: Scale) -> ComparisonGraph:
    """Return the net with what a batch's own next wave would go by."""
    spread = likely_spread(scale).logits
    return replace(net, scores=scale.scores, information=scale.information, spread=spread)


def _by_lot(net: ComparisonGraph, size: int, seed: int) -> tuple[tuple[str, str], ...]:
    rng = np.random.default_rng([seed, len(net.shown)])
    n = net.n_essays
    first, second = np.triu_indices(n, k=1)
    ends = np.sort(net.shown_indices, axis=1)
    is_new = ~np.isin(first * n + second, ends[:, 0] * n + ends[:, 1])
    rows = rng.choice(np.flatnonzero(is_new), size, replace=False)
    turned = rng.random(size) < 0.5
    return tuple(
        (net.essay_ids[b], net.essay_ids[a]) if turn else (net.essay_ids[a], net.essay_ids[b])
        for a, b, turn in zip(first[rows].tolist(), second[rows].tolist(), turned, strict=True)
    )


# --- running, keeping, reading -------------------------------------------------------------------


def run(setups: Sequence[Setup], replications: int, cache: Path, processes: int) -> None:
    """Run what the cache does not hold yet, every strategy's n-th replication before the next."""
    cache.parent.mkdir(parents=True, exist_ok=True)
    done = {(key, seed) for key, seed, _ in _kept(cache)}
    todo = [
        (setup, seed)
        for seed in range(replications)
        for setup in setups
        if (_key(setup), seed) not in done
    ]
    if not todo:
        return
    begun = time.perf_counter()
    with multiprocessing.Pool(processes) as pool, cache.open("a") as file:
        for count, (setup, seed, result) in enumerate(pool.imap_unordered(_job, todo), start=1):
            file.write(json.dumps([_key(setup), seed, asdict(setup), result]) + "\n")
            file.flush()
            if count % 50 == 0:
                rate = (time.perf_counter() - begun) / count
                print(
                    f"  {count}/{len(todo)} replications, {rate * (len(todo) - count):.0f} s left"
                )


def results(setup: Setup, replications: int, cache: Path) -> list[dict[str, Any]]:
    """Return the kept replications of one setup, in order of their seeds."""
    key = _key(setup)
    found = {seed: result for k, seed, result in _kept(cache) if k == key and seed < replications}
    return [found[seed] for seed in sorted(found)]


def _job(job: tuple[Setup, int]) -> tuple[Setup, int, dict[str, Any]]:
    return job[0], job[1], trajectory(*job)


def _key(setup: Setup) -> str:
    return hashlib.sha256(json.dumps(asdict(setup), sort_keys=True).encode()).hexdigest()[:16]


def _kept(cache: Path) -> Iterator[tuple[str, int, dict[str, Any]]]:
    if not cache.exists():
        return
    for line in cache.read_text().splitlines():
        try:
            key, seed, _, result = json.loads(line)
        except ValueError:  # the last line of a run that was killed
            continue
        yield key, seed, result


# --- figures -------------------------------------------------------------------------------------


def comparisons_to_reach(
    runs: Sequence[dict[str, Any]], target: float, by: str = "spearman"
) -> float:
    """Return where the mean Spearman correlation crosses the target; NaN if it does not.

    By the reported scores, or "drawn_in": by the same scores, drawn in by their errors, as peers
    with a stronger prior would report them and as pairs are chosen by.
    """
    ends = min(len(r["comparisons"]) for r in runs)
    x = np.mean([r["comparisons"][-ends:] for r in runs], axis=0)
    y = np.mean([r[by][-ends:] for r in runs], axis=0)
    above = np.flatnonzero(y >= target)
    if not len(above):
        return float("nan")
    k = above[0]
    if k == 0:
        return float(x[0])
    return float(x[k - 1] + (target - y[k - 1]) / (y[k] - y[k - 1]) * (x[k] - x[k - 1]))


def jackknifed(figure: Callable[[list[int]], float], n: int) -> tuple[float, float]:
    """Return a figure over replications and its Monte-Carlo standard error."""
    blocks = np.array_split(np.arange(n), min(n, 20))
    without = [figure([i for i in range(n) if i not in set(b.tolist())]) for b in blocks]
    k = len(blocks)
    error = np.sqrt((k - 1) / k * np.sum((np.array(without) - np.mean(without)) ** 2))
    return figure(list(range(n))), float(error)


def saved(
    runs: Sequence[dict[str, Any]],
    base: Sequence[dict[str, Any]],
    target: float,
    by: str = "spearman",
) -> tuple[float, float]:
    """Return the share of comparisons saved against a base strategy, and its error."""
    n = min(len(runs), len(base))

    def figure(rows: list[int]) -> float:
        ours = comparisons_to_reach([runs[i] for i in rows], target, by)
        return 1 - ours / comparisons_to_reach([base[i] for i in rows], target, by)

    return jackknifed(figure, n)


def savings(options: argparse.Namespace) -> None:
    """Comparisons to reach a rank correlation, by strategy, batch size and wave size."""
    table = []
    for n in options.essays:
        for wave in (n // 2, n) if n <= 100 else (n,):
            for judge in options.judges:
                table.append((n, wave, judge))
    for n, wave, judge in table:
        ways = [(s, False) for s in options.strategies]
        if n <= 40:
            ways += [(s, True) for s in options.strategies if s in {"hybrid_mst", "adaptive"}]
        per_essay = options.per_essay + (10 if n <= 40 else 0)  # few essays correlate less
        setups = [Setup(s, n, wave, per_essay, may, judge) for s, may in ways]
        run(setups, options.replications, options.cache, options.processes)
        print(f"\n{n} essays, waves of {wave}, {judge} judge: comparisons per essay to Spearman")
        base = results(setups[0], options.replications, options.cache)
        for by in ("spearman", "drawn_in"):
            print(f"ranked by scores {'as reported' if by == 'spearman' else 'drawn in'}")
            print("strategy                     .90    saved           .95    saved         (runs)")
            for setup in setups:
                runs = results(setup, options.replications, options.cache)
                cells = []
                for target in TARGETS:
                    needed = comparisons_to_reach(runs, target, by) * 2 / n
                    share, error = saved(runs, base, target, by)
                    cells.append(f"{needed:6.2f}  {share:6.1%} ± {error:5.1%}")
                print(f"{setup.label:26s} {'  '.join(cells)}  ({len(runs)})", flush=True)


def waves(options: argparse.Namespace) -> None:
    """What answering in waves costs: one strategy, one by one and in ever larger waves."""
    n = 40
    sizes = (1, n // 4, n // 2, n, 2 * n)
    setups = [Setup("adaptive", n, size, 34) for size in sizes]
    setups += [Setup("random", n, n // 2, 34)]
    run(setups, options.replications, options.cache, options.processes)
    print(f"\n{n} essays, adaptive: comparisons per essay to Spearman .90 and .95, by wave size")
    one_by_one = results(setups[0], options.replications, options.cache)
    for setup in setups:
        runs = results(setup, options.replications, options.cache)
        cells = []
        for target in TARGETS:
            share, error = saved(runs, one_by_one, target)
            needed = comparisons_to_reach(runs, target) * 2 / n
            cells.append(f"{needed:6.2f} ({-share:+6.1%} ± {error:4.1%})")
        print(f"{setup.strategy:9s} wave of {setup.wave:3d}  {'  '.join(cells)}  ({len(runs)})")


def honesty(options: argparse.Namespace) -> None:
    """Reported reliabilities next to the true squared correlation, on the way and on stopping."""
    print("\nReliability minus true squared correlation, mean over replications")
    print("essays  strategy    when                  true r²   empirical Bayes      naive")
    for n in (20, 100):
        setups = [Setup(s, n, n // 2, 32, honesty=True) for s in ("random", "adaptive", "swiss")]
        run(setups, options.replications, options.cache, options.processes)
        for setup in setups:
            runs = results(setup, options.replications, options.cache)
            for per_essay in (6, 12, 18, 24):
                ends = [_first(r["comparisons"], 0.5 * per_essay * n) for r in runs]
                print(_honest_row(setup, f"{per_essay} per essay", runs, ends))
            for target in (0.8, 0.9):
                # A batch stops once two waves in a row have it; at the first it would by luck.
                lasting = [[0.0, *map(min, pairwise(r["honest"]))] for r in runs]
                for when, values in (
                    ("reaching", [r["honest"] for r in runs]),
                    ("stopped at", lasting),
                ):
                    ends = [_first(each, target) for each in values]
                    print(_honest_row(setup, f"{when} {target:.2f}", runs, ends), flush=True)


def _first(values: Sequence[float], least: float) -> int | None:
    """Return the first place with at least so much; None where none has."""
    return next((k for k, value in enumerate(values) if value >= least), None)


def _honest_row(
    setup: Setup, when: str, runs: Sequence[dict[str, Any]], ends: Sequence[int | None]
) -> str:
    pairs = [(r, k) for r, k in zip(runs, ends, strict=True) if k is not None]
    row = f"{setup.n_essays:5d}   {setup.strategy:10s}  {when:18s}"
    if len(pairs) < 2:
        return f"{row}     too few runs came so far"
    truth = np.array([r["true_r2"][k] for r, k in pairs])
    cells = []
    for name in ("honest", "naive"):
        gap = np.array([r[name][k] for r, k in pairs]) - truth
        cells.append(f"{gap.mean():+.3f} ± {gap.std(ddof=1) / np.sqrt(len(gap)):.3f}")
    return f"{row}     {truth.mean():.3f}     {cells[0]}     {cells[1]}   ({len(pairs)})"


def votes(options: argparse.Namespace) -> None:
    """Recorded votes of people on real texts: comparisons to the scale of all votes."""
    print("\nRecorded votes: comparisons per essay to Spearman .90 with the scale of all votes")
    for topic in ("uniform-good", "uniform-bad", "pe-yes"):
        n = len(votes_on(topic)[1])
        ways = [("uniform", False), ("random", False), ("adaptive", False), ("adaptive", True)]
        setups = [Setup(s, n, n // 2, min(30, n - 1), may, topic=topic) for s, may in ways]
        run(setups, options.replications, options.cache, options.processes)
        base = results(setups[0], options.replications, options.cache)
        for setup in setups:
            runs = results(setup, options.replications, options.cache)
            share, error = saved(runs, base, TARGETS[0])
            needed = comparisons_to_reach(runs, TARGETS[0]) * 2 / n
            print(
                f"{topic:13s} {n:3d} essays  {setup.label:22s} {needed:6.2f}"
                f"   {share:6.1%} ± {error:.1%} saved  ({len(runs)})"
            )


def fixed(options: argparse.Namespace) -> None:
    """One wave that nothing can repair: the shape of the graph, and the errors it leads to."""
    n = 24
    rng = np.random.default_rng(0)
    ids = tuple(f"e{i:05d}" for i in range(n))
    print(
        f"\nAll at once, {n} essays: mean variance of a score (verdicts of information 1), spectral"
    )
    print("gap, and mean Spearman correlation with the true scores")
    for per_essay in (5, 10, 15, 20):
        size = n * per_essay // 2
        for name in ("uniform", "round robin", "coverage", "fixed"):
            variances, gaps, correlations = [], [], []
            for seed in range(min(options.replications, 200)):
                setup = Setup("uniform", n, size, per_essay)
                net = ComparisonGraph(ids, frozenset(), ())
                if name == "uniform":
                    shown = _by_lot(net, size, seed)
                elif name == "round robin":
                    order = rng.permutation(n)
                    shown = tuple(
                        (ids[order[a]], ids[order[b]]) for a, b in _round_robin(n, per_essay)
                    )
                else:
                    strategy = "adaptive" if name == "fixed" else "coverage"
                    wave = choose_wave(net, strategy=strategy, size=size, seed=seed)
                    shown = tuple((pair.essay_a, pair.essay_b) for pair in wave)
                net = replace(net, shown=shown)
                first, second = net.shown_indices.T
                judge = SimulatedJudge(setup, seed)
                won = [round(2 * judge.first_wins(a, b)) for a, b in net.shown_indices.tolist()]
                nobody = np.zeros(len(first), dtype=np.int64)
                try:
                    scale = fit_verdicts(
                        Verdicts(ids, ("j",), first, second, np.array(won), nobody)
                    )
                except UnscalableBatchError:
                    continue
                gaps.append(spectral_gap(n, net.shown_indices))
                variances.append(mean_variance(n, net.shown_indices))
                correlations.append(_correlation(rankdata(scale.scores), rankdata(judge.truth)))
            error = np.std(correlations, ddof=1) / np.sqrt(len(correlations))
            print(
                f"{per_essay:3d} per essay  {name:12s} variance {np.mean(variances):.4f}"
                f"  gap {np.mean(gaps):6.2f}  Spearman {np.mean(correlations):.4f} ± {error:.4f}"
                f"  ({len(correlations)} connected)"
            )


def _round_robin(n: int, rounds: int) -> Iterator[tuple[int, int]]:
    """Yield the pairs of the first rounds of a tournament, by the circle method."""
    for turn in range(rounds):
        ring = [n - 1, *((turn + k) % (n - 1) for k in range(n - 1))]
        yield from zip(ring[: n // 2], ring[: n // 2 - 1 : -1], strict=True)


def forecasts(options: argparse.Namespace) -> None:
    """How far forecasts of reaching a reliability were off, and how often their intervals held."""
    print("\nComparisons to empirical-Bayes reliability .80 and .90: reached against forecast")
    print(
        "essays strategy   target  forecast             reached / forecast   in the 80 % interval"
    )
    for n in (20, 60, 100):
        for strategy in ("random", "adaptive"):
            with multiprocessing.Pool(options.processes) as pool:
                seeds = range(min(options.replications, 100))
                outcomes = pool.starmap(_forecast_run, [(n, strategy, seed) for seed in seeds])
            for target in _FORESEEN:
                for k, when in enumerate(("at plan", *(f"after {p} per essay" for p in _ASKED_AT))):
                    seen = [(reached[target], made[target][k]) for reached, made in outcomes]
                    told = [(end, each) for end, each in seen if each is not None]
                    if len(told) < len(seen) / 2:
                        continue
                    ratio = np.median([end / total for end, (total, _, _) in told])
                    # A batch stops at the end of a wave, so an end within the next wave is a hit.
                    held = np.mean([low <= end <= high + n // 2 for end, (_, low, high) in told])
                    print(
                        f"{n:5d}  {strategy:9s}   {target:.2f}   {when:20s} {ratio:6.2f}"
                        f"               {held:6.0%}  ({len(told)})",
                        flush=True,
                    )


_FORESEEN = (0.8, 0.9)
_ASKED_AT = (4, 8, 12)


def _forecast_run(
    n: int, strategy: str, seed: int
) -> tuple[dict[float, int], dict[float, list[tuple[int, int, int] | None]]]:
    """Return where each reliability was reached, and what was foreseen while it was not."""
    setup = Setup(strategy, n, n // 2, 50)
    judge = SimulatedJudge(setup, seed)
    ids = tuple(f"e{i:05d}" for i in range(n))
    place = {essay_id: i for i, essay_id in enumerate(ids)}
    net, half_wins = ComparisonGraph(ids, frozenset(), ()), []
    plan = SamplingPlan(strategy_named(strategy).efficiency, n // 2)
    rules = {target: PrecisionTargets(reliability=target) for target in _FORESEEN}
    at_plan = {target: forecast_at_plan(n, rule, plan) for target, rule in rules.items()}
    made = {target: [_ends(forecast)] for target, forecast in at_plan.items()}
    ask_at, reached, before = list(_ASKED_AT), dict[float, int](), 0.0
    while len(net.shown) < setup.per_essay * n // 2 and len(reached) < len(rules):
        wave = _next_wave(net, setup, n // 2, seed)
        half_wins += [round(2 * judge.first_wins(place[a], place[b])) for a, b in wave]
        net = replace(net, shown=net.shown + wave)
        first, second = net.shown_indices.T
        nobody = np.zeros(len(first), dtype=np.int64)
        try:
            scale = fit_verdicts(Verdicts(ids, ("j",), first, second, np.array(half_wins), nobody))
        except UnscalableBatchError:
            continue
        net = _with_scale(net, scale)
        if len(net.shown) >= 2 * n:
            reliability = empirical_bayes_reliability(scale)
            for target in rules:
                if min(before, reliability) >= target:
                    reached.setdefault(target, len(net.shown))
            before = reliability
        if ask_at and 2 * len(net.shown) >= ask_at[0] * n:
            ask_at.pop(0)
            for target, rule in rules.items():
                told = forecast_from_scale(scale, rule, plan, precision_of(scale, ids))
                made[target].append(None if target in reached else _ends(told))
    for target, each in made.items():
        each.extend([None] * len(ask_at))
        reached.setdefault(target, len(net.shown))
    return reached, made


def _ends(forecast: Forecast | None) -> tuple[int, int, int] | None:
    return None if forecast is None else (forecast.total, forecast.lower, forecast.upper)


def speed(_: argparse.Namespace) -> None:
    """Processor time and peak memory of one adaptive wave of n/2, each in a process of its own."""
    print("\nOne adaptive wave of n/2 pairs, six comparisons per essay behind it")
    print("essays   choosing    whole wave (with positions)   peak memory of the process")
    for n in (20, 100, 1_000, 10_000):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            choosing, whole, peak = pool.apply(_timed_wave, (n,))
        print(f"{n:6d}   {choosing:7.3f} s   {whole:7.3f} s                      {peak:6.0f} MB")


def _timed_wave(n: int) -> tuple[float, float, float]:
    from cj_pipeline.pairing.adaptive import most_informative_pairs

    rng = np.random.default_rng(0)
    truth = rng.normal(0, LATENT_SD, n)
    orders = [rng.permutation(n) for _ in range(3)]
    first = np.concatenate(orders)
    second = np.concatenate([np.roll(order, 1) for order in orders])
    won = 2 * (rng.random(len(first)) < 1 / (1 + np.exp(truth[second] - truth[first])))
    ids = tuple(f"e{i:05d}" for i in range(n))
    scale = fit_verdicts(Verdicts(ids, ("j",), first, second, won, np.zeros_like(first)))
    shown = tuple((ids[a], ids[b]) for a, b in zip(first, second, strict=True))
    net = ComparisonGraph(ids, frozenset(), shown, scale.scores, None, scale.information)
    most_informative_pairs(net, 1, rng)
    begun = time.process_time()
    most_informative_pairs(net, n // 2, rng)
    chosen = time.process_time()
    choose_wave(replace(net), strategy="adaptive", size=n // 2, seed=0)
    done = time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return chosen - begun, done - chosen, peak


# --- small helpers -------------------------------------------------------------------------------


def votes_on(topic: str) -> tuple[list[tuple[str, str, float]], tuple[str, ...]]:
    """Return the votes on a topic as (a, b, what a won), and its items."""
    with VOTES.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["topic"] == topic]
    won = {"a": 1.0, "b": 0.0, "tie": 0.5}
    votes = [
        (r["item_a"], r["item_b"], won.get(r["winner"], float(r["winner"] == r["item_a"])))
        for r in rows
    ]
    items = sorted({item for a, b, _ in votes for item in (a, b)})
    return votes, tuple(items)


def _scale_of_all_votes(topic: str) -> Scale:
    if topic not in _SCALES:
        rows, ids = votes_on(topic)
        place = {item: i for i, item in enumerate(ids)}
        first = np.array([place[a] for a, _, _ in rows])
        second = np.array([place[b] for _, b, _ in rows])
        won = np.array([round(2 * win) for _, _, win in rows])
        _SCALES[topic] = fit_verdicts(
            Verdicts(ids, ("j",), first, second, won, np.zeros_like(first))
        )
    return _SCALES[topic]


_SCALES: dict[str, Scale] = {}


def _luck(seed: int, low: int, high: int, turn: int) -> float:
    digest = hashlib.blake2b(f"{seed}/{low}/{high}/{turn}".encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big") / 2**56


def _correlation(x: Iterable[float], y: Iterable[float]) -> float:
    return float(np.corrcoef(np.asarray(x), np.asarray(y))[0, 1])


TABLES: dict[str, Callable[[argparse.Namespace], None]] = {
    "savings": savings,
    "waves": waves,
    "honesty": honesty,
    "votes": votes,
    "fixed": fixed,
    "forecasts": forecasts,
    "speed": speed,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=", ".join(TABLES))
    parser.add_argument("--replications", type=int, default=200)
    parser.add_argument("--essays", type=int, nargs="+", default=[20, 100, 500])
    parser.add_argument("--per-essay", type=int, default=36)
    parser.add_argument("--judges", nargs="+", default=["plain"])
    parser.add_argument(
        "--strategies",
        nargs="+",
        default=["uniform", "random", "swiss", "asap", "hybrid_mst", "adaptive"],
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--cache", type=Path, default=Path(".cj/benchmarks/pairing.jsonl"))
    options = parser.parse_args()
    for name in options.tables or TABLES:
        TABLES[name](options)


if __name__ == "__main__":
    main()
