"""Whether intervals hold where several verdicts are on one pair: panels, and a judge asked again.

    OPENBLAS_NUM_THREADS=1 python benchmarks/panels.py --batches 20

`luck` is the share of pairs whose luck judges have in common (1: clones), `own` the standard
deviation of what a judge sees in an essay that is not there, of which `together` is common to all.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.scale.score_posterior import score_posterior
from cj_pipeline.scale.scoring import ScoringRules, score_verdicts


@dataclass(frozen=True)
class Panel:
    """How simulated judges differ and what they share."""

    name: str
    luck: float = 0.0
    own: float = 0.0
    together: float = 0.0
    different_pairs: bool = False
    repeats: int = 1


PANELS = (
    Panel("independent"),
    Panel("a pair's luck shared .7", luck=0.7),
    Panel("clones", luck=1.0),
    Panel("essay .7 own", own=0.7),
    Panel("essay .7, .6 of it shared", own=0.7, together=0.6),
    Panel("essay .7 own, pair's luck .7", luck=0.7, own=0.7),
    Panel("essay .7 own, different pairs", own=0.7, different_pairs=True),
    Panel("clones asked different pairs", luck=1.0, different_pairs=True),
    Panel("independent, different pairs", different_pairs=True),
)


def verdicts_of(
    panel: Panel, n: int, n_judges: int, per_essay: int, seed: int
) -> tuple[np.ndarray, list[JudgedPair]]:
    """Return true scores and verdicts on pairs drawn at random."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, 1.4, n)
    truth -= truth.mean()
    common = rng.normal(0, np.sqrt(panel.together), n)
    seen = [
        truth + panel.own * (common + rng.normal(0, np.sqrt(1 - panel.together), n))
        for _ in range(n_judges)
    ]
    judged = []
    for _ in range(per_essay):
        order = rng.permutation(n)
        for place, (a, b) in enumerate(zip(order[::2].tolist(), order[1::2].tolist(), strict=True)):
            shared = rng.random()
            judges = [place % n_judges] if panel.different_pairs else range(n_judges)
            for judge in judges:
                for _ in range(panel.repeats):
                    draw = shared if rng.random() < panel.luck else rng.random()
                    p = 1 / (1 + np.exp(seen[judge][b] - seen[judge][a]))
                    winner = "A" if draw < p else "B"
                    judged.append(JudgedPair(f"e{a}", f"e{b}", winner, f"j{judge}"))
    return truth, judged


def main() -> None:
    """Print a line per panel."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--essays", type=int, default=36)
    parser.add_argument("--judges", type=int, default=3)
    parser.add_argument("--each", type=int, default=10)
    options = parser.parse_args()
    ids = [f"e{i}" for i in range(options.essays)]
    for panel in (*PANELS, Panel("one deterministic judge, every pair 3 times", 1.0, repeats=3)):
        n_judges = 1 if panel.repeats > 1 else options.judges
        rows = []
        for seed in range(options.batches):
            truth, judged = verdicts_of(panel, options.essays, n_judges, options.each, seed)
            scored = score_verdicts(ids, judged, ScoringRules(discrimination="off"))
            found = score_posterior(scored)
            before = score_posterior(
                score_verdicts(ids, judged, ScoringRules(discrimination="off", dependence="off"))
            )
            dependence = scored.dependence
            rows.append(
                (
                    np.mean((before.lower <= truth) & (truth <= before.upper)),
                    np.mean((found.lower <= truth) & (truth <= found.upper)),
                    np.mean(np.abs(scored.scores - truth) <= 1.96 * scored.standard_errors),
                    found.reliability.value,
                    np.corrcoef(found.scores, truth)[0, 1] ** 2,
                    dependence.effective_judges or np.nan if dependence else np.nan,
                    np.sqrt(dependence.judge_variance) if dependence else 0.0,
                )
            )
        mean, error = np.nanmean(rows, axis=0), np.std([row[1] for row in rows])
        print(
            f"{panel.name}: intervals hold {mean[0]:.3f} counted apart, {mean[1]:.3f} as reported,"
            f" {mean[2]:.3f} verdict-only; reliability {mean[3]:.3f}, true {mean[4]:.3f}; worth"
            f" {mean[5]:.2f} judges of {n_judges}, tau {mean[6]:.2f};"
            f" ± {error / np.sqrt(len(rows)):.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
