"""Whether what is reported of scores holds: intervals, ranks, P(above), changes and reliability.

    OPENBLAS_NUM_THREADS=1 python benchmarks/certainty.py --strategy adaptive --essays 20 50 \\
        --sd 0.5 1 1.5 --batches 40

Batches of a logistic judge, with pairs chosen wave by wave as a batch chooses them. Each line ends
with the Monte-Carlo error of its coverage of scores.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import dataclass, replace

import numpy as np

from cj_pipeline.arrays import Floats
from cj_pipeline.batch.options import Strategy
from cj_pipeline.diagnostics.changes import score_changes
from cj_pipeline.diagnostics.spread import likely_spread
from cj_pipeline.errors import UnscalableBatchError
from cj_pipeline.pairing.comparison_graph import ComparisonGraph
from cj_pipeline.pairing.waves import choose_wave
from cj_pipeline.scale.bradley_terry import Scale, fit_verdicts
from cj_pipeline.scale.ranks import probability_above, rank_intervals, ranks
from cj_pipeline.scale.score_posterior import score_posterior
from cj_pipeline.scale.tallies import Verdicts


@dataclass(frozen=True)
class Design:
    """How a simulated batch is judged.

    Attributes:
        strategy: As `batch.yaml` names it; `random` for pairs by lot.
        per_essay: Comparisons of each essay.
        by_lot: The share of each wave's pairs that are drawn by lot.
    """

    strategy: Strategy
    per_essay: int
    by_lot: float = 0.0


def judged(
    truth: Floats, design: Design, seed: int, anchors: frozenset[str] = frozenset()
) -> list[Scale]:
    """Return the scale after each wave of half as many comparisons as there are essays."""
    rng = np.random.default_rng([seed, 3])
    n = len(truth)
    ids = tuple(f"e{i:04d}" for i in range(n))
    graph = ComparisonGraph(ids, anchors, ())
    won = np.empty(0, dtype=np.int64)
    scales: list[Scale] = []
    while len(graph.shown) < design.per_essay * n // 2:
        n_by_lot = round(design.by_lot * (n // 2))
        wave = []
        for strategy, size in (("random", n_by_lot), (design.strategy, n // 2 - n_by_lot)):
            if size:
                number = seed * 1009 + len(graph.shown)
                wave = choose_wave(graph, strategy=strategy, size=size, seed=number)  # type: ignore[arg-type]
                pairs = tuple((pair.essay_a, pair.essay_b) for pair in wave)
                graph = replace(graph, shown=(*graph.shown, *pairs))
        if not wave:
            break
        first, second = graph.shown_indices.T
        new = slice(len(won), None)
        p = 1 / (1 + np.exp(truth[second[new]] - truth[first[new]]))
        won = np.concatenate([won, 2 * (rng.random(len(p)) < p).astype(np.int64)])
        verdicts = Verdicts(ids, ("j",), first, second, won, np.zeros_like(first))
        try:
            scale = fit_verdicts(verdicts)
        except UnscalableBatchError:
            continue
        scales.append(scale)
        graph = replace(
            graph,
            scores=scale.scores,
            information=scale.information,
            spread=likely_spread(scale).logits,
        )
    return scales


def figures_of(n: int, sd: float, design: Design, seed: int) -> dict[str, float]:
    """Return what one batch reported beside what was true."""
    truth = np.random.default_rng([seed, 1]).normal(0, sd, n)
    truth -= truth.mean()
    scale = judged(truth, design, seed)[-1]
    found = score_posterior(scale)
    placed = rank_intervals(found)
    true_rank = ranks(truth)
    best_first = np.argsort(-found.scores)
    above = [
        (probability_above(found, found.essay_ids[a], found.essay_ids[b]), truth[a] > truth[b])
        for a, b in itertools.pairwise(best_first)
    ]
    again = score_posterior(judged(truth, design, seed + 500_000)[-1])
    changes = score_changes(found, again, found.essay_ids)
    off = np.abs(scale.scores - truth)
    return {
        "scores": float(np.mean((found.lower <= truth) & (truth <= found.upper))),
        "verdict_only": float(np.mean(off <= 1.96 * scale.standard_errors)),
        "ranks": float(np.mean((placed.lower <= true_rank) & (true_rank <= placed.upper))),
        "p_above_told": float(np.mean([p for p, _ in above])),
        "p_above_true": float(np.mean([is_so for _, is_so in above])),
        "changed": float(any(each.is_beyond_noise for each in changes)),
        "reliability": found.reliability.value or 0.0,
        "true_r2": float(np.corrcoef(found.scores, truth)[0, 1] ** 2) if sd else 0.0,
        "alike": float(found.reliability.cannot_be_told_apart),
        "within": float(
            (found.reliability.lower or 0)
            <= (np.corrcoef(found.scores, truth)[0, 1] ** 2 if sd else 0.0)
            <= (found.reliability.upper or 1)
        ),
        "rmse": float(np.sqrt(np.mean((found.scores - truth) ** 2))),
        "rmse_verdict_only": float(np.sqrt(np.mean(off**2))),
    }


def main() -> None:
    """Print a line per cell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strategy", default="adaptive")
    parser.add_argument("--essays", type=int, nargs="+", default=[20, 50])
    parser.add_argument("--sd", type=float, nargs="+", default=[0.5, 1.0, 1.5])
    parser.add_argument("--each", type=int, default=12)
    parser.add_argument("--by-lot", type=float, default=0.0)
    parser.add_argument("--batches", type=int, default=20)
    options = parser.parse_args()
    design = Design(options.strategy, options.each, options.by_lot)
    for n in options.essays:
        for sd in options.sd:
            rows = [figures_of(n, sd, design, seed) for seed in range(options.batches)]
            mean = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
            error = np.std([row["scores"] for row in rows]) / np.sqrt(len(rows))
            print(
                f"{n} essays, {design.strategy}, {design.per_essay} each, sd {sd}: scores hold"
                f" {mean['scores']:.3f} (verdict-only {mean['verdict_only']:.3f}), ranks"
                f" {mean['ranks']:.3f}; P(above) {mean['p_above_told']:.3f} told,"
                f" {mean['p_above_true']:.3f} true; called changed {mean['changed']:.3f};"
                f" reliability {mean['reliability']:.3f}, true {mean['true_r2']:.3f}, limits hold"
                f" {mean['within']:.2f}, alike {mean['alike']:.2f}; rmse {mean['rmse']:.2f}"
                f" (verdict-only {mean['rmse_verdict_only']:.2f}); ± {error:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
