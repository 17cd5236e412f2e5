"""Whether the scale is right about simulated essays: intervals, effects, reliabilities.

    python benchmarks/scale_truth.py [--replications N] [--only coverage|effects|reliability]

Each line is over N simulated batches (default 200), with Monte-Carlo errors.
"""

from __future__ import annotations

import argparse

import numpy as np

from cj_pipeline.diagnostics.position_effects import marginal_position_effects
from cj_pipeline.diagnostics.reliability import (
    empirical_bayes_reliability,
    scale_separation_reliability,
)
from cj_pipeline.scale.bradley_terry import Scale, fit_verdicts
from cj_pipeline.scale.intervals import verdict_intervals
from cj_pipeline.scale.tallies import Verdicts

TRUE_SD = 1.5


class Batch:
    """A simulated batch whose true scores are known and which is judged wave by wave."""

    def __init__(self, truth: np.ndarray, rng: np.random.Generator, *, n_judges: int = 1) -> None:
        self.truth = truth
        self._rng = rng
        self._n_judges = n_judges
        self._columns: list[np.ndarray] = []

    def judge_pairs(
        self,
        first: np.ndarray,
        second: np.ndarray,
        *,
        position: np.ndarray | None = None,
        log_a: np.ndarray | None = None,
    ) -> None:
        """Have these pairs judged, sides tossed for, judges dealt out evenly."""
        swap = self._rng.random(len(first)) < 0.5
        a, b = np.where(swap, second, first), np.where(swap, first, second)
        judge = self._rng.permutation(np.arange(len(a)) % self._n_judges)
        eta = self.truth[a] - self.truth[b]
        if log_a is not None:
            eta = eta * np.exp(log_a)[judge]
        if position is not None:
            eta = eta + position[judge]
        won = 2 * (self._rng.random(len(a)) < 1 / (1 + np.exp(-eta))).astype(np.int64)
        self._columns.append(np.stack([a, b, won, judge]))

    def verdicts(self) -> Verdicts:
        """Return all verdicts so far."""
        a, b, won, judge = np.concatenate(self._columns, axis=1)
        essays = tuple(f"essay-{i}" for i in range(len(self.truth)))
        judges = tuple(f"judge-{j}" for j in range(self._n_judges))
        return Verdicts(essays, judges, a, b, won, judge)


def random_wave(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a wave in which each essay meets one other, drawn at random."""
    order = rng.permutation(n)
    return order[0 : n - n % 2 : 2], order[1:n:2][: n // 2]


def judged_at_random(n: int, per_essay: int, rng: np.random.Generator, truth: np.ndarray) -> Batch:
    """Return a batch with a ring through all essays, then random waves."""
    batch = Batch(truth, rng)
    ring = rng.permutation(n)
    batch.judge_pairs(ring, np.roll(ring, 1))
    for _ in range(per_essay - 2):
        batch.judge_pairs(*random_wave(n, rng))
    return batch


def judged_adaptively(n: int, per_essay: int, rng: np.random.Generator, truth: np.ndarray) -> Batch:
    """Return a batch in which, after two random rounds, neighbours by score meet (Swiss)."""
    batch = judged_at_random(n, 4, rng, truth)
    for _ in range(per_essay - 4):
        scores = fit_verdicts(batch.verdicts()).scores
        order = np.argsort(scores + rng.normal(0, 0.3, n))
        order = np.roll(order, rng.integers(2))
        batch.judge_pairs(order[0 : n - n % 2 : 2], order[1:n:2][: n // 2])
    return batch


def coverage(n: int, per_essay: int, replications: int, rng: np.random.Generator) -> None:
    """Print how often 95 % intervals hold the true score, and two scores' true difference.

    Both kinds of interval: by profile likelihood, as shown and exported, and normal; of all essays,
    of those truly beyond two logits, and of those that won or lost everything.
    """
    kept: dict[str, list[np.ndarray]] = {"all": [], "beyond 2 logits": [], "one-sided": []}
    differences, bias = [], []
    for _ in range(replications):
        truth = rng.normal(0, TRUE_SD, n)
        scale = fit_verdicts(judged_at_random(n, per_essay, rng, truth).verdicts())
        centred = truth - truth.mean()
        by_profile = verdict_intervals(scale)
        inside = np.array(
            [
                (by_profile.lower <= centred) & (centred <= by_profile.upper),
                np.abs(scale.scores - centred) <= 1.96 * scale.standard_errors,
            ]
        )
        one_sided = np.isin(scale.essay_ids, scale.one_sided)
        kept["all"].append(inside.mean(axis=1))
        kept["beyond 2 logits"].extend(inside.T[np.abs(centred) > 2])
        kept["one-sided"].extend(inside.T[one_sided])
        one, other = rng.permutation(n)[:2]
        part = scale.covariance[np.ix_([one, other], [one, other])]
        spread = np.sqrt(part[0, 0] + part[1, 1] - 2 * part[0, 1])
        gap = (scale.scores[one] - scale.scores[other]) - (centred[one] - centred[other])
        differences.append(abs(gap) <= 1.96 * spread)
        bias.append(np.polyfit(centred, scale.scores, 1)[0])
    print(f"  {n:4d} essays, {per_essay:3d} comparisons each")
    for whose, held in kept.items():
        if held:
            (profile, normal), error = np.mean(held, axis=0), np.std(held, axis=0, ddof=1)
            error /= np.sqrt(len(held))
            print(
                f"    {whose:15s} ({len(held):5d}): by profile likelihood {profile:.3f} +- "
                f"{error[0]:.3f}, normal {normal:.3f} +- {error[1]:.3f}"
            )
    print(
        f"    normal intervals of differences {np.mean(differences):.3f} +- "
        f"{np.std(differences, ddof=1) / np.sqrt(replications):.3f}; slope on the truth "
        f"{np.mean(bias):.3f}",
        flush=True,
    )


def effects(
    per_essay: int, replications: int, rng: np.random.Generator, *, discrimination: bool
) -> None:
    """Print how position effects and discriminations of a panel of three come back."""
    position = np.array([0.8, 0.0, -0.3])
    log_a = np.array([0.4, 0.0, -0.4]) if discrimination else np.zeros(3)
    gammas, logs, inside, stretched = [], [], [], []
    for _ in range(replications):
        batch = Batch(rng.normal(0, TRUE_SD, 50), rng, n_judges=3)
        for _ in range(per_essay):
            batch.judge_pairs(*random_wave(50, rng), position=position, log_a=log_a)
        scale = fit_verdicts(batch.verdicts(), position_effect=True, discrimination=discrimination)
        found = list(marginal_position_effects(scale).values())
        stretched.append([e.value for e in scale.position_effects.values()])
        gammas.append([e.value for e in found])
        logs.append([e.value for e in scale.discriminations.values()])
        inside.append(
            [
                abs(e.value - true) <= 1.96 * e.standard_error
                for e, true in zip(found, position, strict=True)
            ]
        )
    root = np.sqrt(replications)
    print(f"  {per_essay} comparisons each, discrimination {'on' if discrimination else 'off'}")
    print("    position effects: true", position, "found", np.round(np.mean(gammas, axis=0), 3),
          "+-", np.round(np.std(gammas, axis=0, ddof=1) / root, 3),
          "95 % intervals hold", np.round(np.mean(inside, axis=0), 3), flush=True)  # fmt: skip
    print("    as taken out of the scores:", np.round(np.mean(stretched, axis=0), 3), "+-",
          np.round(np.std(stretched, axis=0, ddof=1) / root, 3), flush=True)  # fmt: skip
    if discrimination:
        print("    log discriminations: true", log_a, "found",
              np.round(np.mean(logs, axis=0), 3), "+-",
              np.round(np.std(logs, axis=0, ddof=1) / root, 3), flush=True)  # fmt: skip


def reliabilities(
    n: int, per_essay: int, true_sd: float, replications: int, rng: np.random.Generator
) -> None:
    """Print true squared correlation, the honest and the naive reliability, both designs."""
    for name, design in (("random", judged_at_random), ("adaptive", judged_adaptively)):
        figures = []
        for _ in range(replications):
            truth = rng.normal(0, true_sd, n) if true_sd else np.zeros(n)
            scale: Scale = fit_verdicts(design(n, per_essay, rng, truth).verdicts())
            true = np.corrcoef(truth, scale.scores)[0, 1] ** 2 if true_sd else 0.0
            naive = scale_separation_reliability(scale.scores, scale.standard_errors)
            figures.append([true, empirical_bayes_reliability(scale), naive])
        mean = np.mean(figures, axis=0)
        error = np.std(figures, axis=0, ddof=1) / np.sqrt(replications)
        print(
            f"  {n:4d} essays, {per_essay:3d} each, true sd {true_sd}, {name:8s}: true "
            f"{mean[0]:.3f} +- {error[0]:.3f}, empirical Bayes {mean[1]:.3f} +- {error[1]:.3f}, "
            f"scale separation {mean[2]:.3f} +- {error[2]:.3f}",
            flush=True,
        )


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replications", type=int, default=200)
    parser.add_argument("--only", choices=("coverage", "effects", "reliability"), default=None)
    chosen = parser.parse_args()
    n_times, only = chosen.replications, chosen.only
    rng = np.random.default_rng(20)
    if only in (None, "coverage"):
        print(f"Coverage of 95 % intervals, true sd {TRUE_SD}, random pairs")
        for n, per_essay in ((10, 9), (20, 10), (50, 10), (50, 20), (100, 15), (100, 40)):
            coverage(n, per_essay, n_times, rng)
    if only in (None, "effects"):
        print("Panel of three judges, 50 essays")
        for per_essay in (30, 120):
            for discrimination in (False, True):
                effects(per_essay, n_times, rng, discrimination=discrimination)
    if only in (None, "reliability"):
        print("Reliability under random and adaptive pairs")
        for n, per_essay, true_sd in (
            (20, 10, 1.5),
            (100, 8, 1.5),
            (100, 15, 1.5),
            (100, 30, 2.0),
            (20, 10, 0.0),
            (100, 15, 0.0),
        ):
            reliabilities(n, per_essay, true_sd, n_times, rng)


if __name__ == "__main__":
    main()
