"""Whether a true change between two terms is told: bias and coverage of the linked change.

    OPENBLAS_NUM_THREADS=1 python benchmarks/linking.py --batches 30

Two terms of 40 students each share anchors; a logistic judge, random pairs, 20 comparisons each
unless said.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from cj_pipeline.errors import UnscalableBatchError
from cj_pipeline.grading.linking import link_batches
from cj_pipeline.scale.bradley_terry import Scale, fit_verdicts
from cj_pipeline.scale.tallies import Verdicts


@dataclass(frozen=True)
class Case:
    """What happened between the terms."""

    name: str
    change: float = 0.5
    anchors: int = 8
    unit: float = 1.0
    drift: float = 0.0
    n_drifted: int = 1
    jitter: float = 0.0
    all_anchors: float = 0.0
    each: int = 20


CASES = (
    Case("all well"),
    Case("3 anchors", anchors=3),
    Case("judge 1.5 x sharper", unit=1.5),
    Case("judge 1.5 x sharper, change 1.5", unit=1.5, change=1.5),
    Case("judge 2 x sharper, change 1.5", unit=2.0, change=1.5),
    Case("anchors' jitter .4", jitter=0.4),
    Case("one of 8 drifted 1.5", drift=1.5),
    Case("one of 8 drifted 1.5, 48 each", drift=1.5, each=48),
    Case("one of 3 drifted 1.5", drift=1.5, anchors=3),
    Case("three of 8 drifted 1.5", drift=1.5, n_drifted=3),
    Case("all anchors +.7", all_anchors=0.7),
)


def term(names: tuple[str, ...], truth: np.ndarray, each: int, rng: np.random.Generator) -> Scale:
    """Return a term's scale by pairs drawn at random."""
    orders = [rng.permutation(len(truth)) for _ in range(each)]
    half = len(truth) // 2
    first = np.concatenate([order[:half] for order in orders])
    second = np.concatenate([order[half : 2 * half] for order in orders])
    won = 2 * (rng.random(len(first)) < 1 / (1 + np.exp(truth[second] - truth[first])))
    return fit_verdicts(Verdicts(names, ("j",), first, second, won, np.zeros_like(first)))


def figures_of(case: Case, seed: int) -> tuple[float, ...]:
    """Return error and standard error of the change, the unit, and what became of drifts."""
    rng = np.random.default_rng([seed, len(case.name)])
    anchors = np.linspace(-2, 2, case.anchors) + rng.normal(0, 0.3, case.anchors)
    before, after = rng.normal(0, 1.3, 40), rng.normal(case.change, 1.3, 40)
    later = anchors + case.all_anchors + rng.normal(0, case.jitter, case.anchors)
    later[: case.n_drifted] += case.drift
    names = tuple(f"a{i}" for i in range(case.anchors))
    one = tuple(f"p{i}" for i in range(40))
    other = tuple(f"q{i}" for i in range(40))
    linked = link_batches(
        term(names + one, np.concatenate([anchors, before]), case.each, rng),
        term(names + other, case.unit * np.concatenate([later, after]), case.each, rng),
        names,
    )
    true = float(after.mean() - before.mean())
    flagged = {drift.essay_id for drift in linked.drifts if drift.is_drifted}
    moved = set(names[: case.n_drifted]) if case.drift else set()
    return (
        linked.change - true,
        linked.change_standard_error,
        linked.unit_ratio,
        len(flagged & moved) / len(moved) if moved else np.nan,
        len(flagged - moved) / (len(names) - len(moved)),
        float(np.median([drift.could_be_seen for drift in linked.drifts])),
    )


def main() -> None:
    """Print a line per case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=30)
    options = parser.parse_args()
    for case in CASES:
        rows = []
        refused = 0
        for seed in range(options.batches):
            try:
                rows.append(figures_of(case, seed))
            except UnscalableBatchError:
                refused += 1
        found = np.array(rows)
        off, error = found[:, 0], found[:, 1]
        told = "" if not case.drift else f", drifted found {np.mean(found[:, 3]):.2f}"
        print(
            f"{case.name}: bias {off.mean():+.2f} ± {off.std() / np.sqrt(len(off)):.2f}, rmse"
            f" {np.sqrt(np.mean(off**2)):.2f}, SE {error.mean():.2f}, holds"
            f" {np.mean(np.abs(off) < 1.96 * error):.2f}; unit {found[:, 2].mean():.2f}{told},"
            f" false flags {found[:, 4].mean():.3f}, seen from {found[:, 5].mean():.1f}; refused"
            f" {refused}",
            flush=True,
        )


if __name__ == "__main__":
    main()
