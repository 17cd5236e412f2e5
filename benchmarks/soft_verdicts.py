"""What verdicts with a probability would save, were scores fitted to them. By simulation alone.

A judge sees a difference between two essays with an error of its own for the pair, and decides by
lot as sure as that. Known of it is: the verdict alone; the probability itself, as token
log-probabilities would give it; or a confidence from 1 to 5, coarse and blurred, turned into the
share of the judge's own repeated verdicts that came out alike (a quarter of pairs asked again).

    python benchmarks/soft_verdicts.py [--batches 60]

Scores are found by a logistic fit to outcomes between 0 and 1, with code of its own. Log loss is of
the judge's verdicts on held-out pairs: as the scores stand, and with one unit fitted to half of the
held-out verdicts and tried on the other half.
"""

from __future__ import annotations

import argparse
import platform

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

N_ESSAYS, SPREAD, REPEATED, BLUR = 40, 1.3, 0.25, 0.5
LEVELS = (0.5, 1.0, 1.7, 2.6)
"""Logits a judge has to see between essays to be surer by a step."""
UNITS = np.exp(np.linspace(-1, 2, 61))


def share(logits: Floats) -> Floats:
    """Return the probability of logits."""
    return np.asarray(0.5 + 0.5 * np.tanh(logits / 2))


def fitted(first: Ints, second: Ints, outcomes: Floats) -> Floats:
    """Return scores by Newton's method, drawn in by a normal prior with the true spread."""
    scores = np.zeros(N_ESSAYS)
    design = np.zeros((len(first), N_ESSAYS))
    design[np.arange(len(first)), first] = 1
    design[np.arange(len(first)), second] = -1
    for _ in range(40):
        p = share(design @ scores)
        slope = design.T @ (outcomes - p) - scores / SPREAD**2
        bend = design.T @ ((p * (1 - p))[:, None] * design) + np.eye(N_ESSAYS) / SPREAD**2
        step = np.linalg.solve(bend, slope)
        scores = scores + step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-5:
            break
    return scores


def pairs(per_essay: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Return random pairs in which every essay takes part equally often."""
    orders = [rng.permutation(N_ESSAYS) for _ in range(per_essay)]
    first = np.concatenate([order[::2] for order in orders])
    return first, np.concatenate([order[1::2] for order in orders])


def calibrated(won: Floats, confidence: Ints, seen: Floats, rng: np.random.Generator) -> Floats:
    """Return outcomes as probable as the judge's own repeated verdicts bear out."""
    is_repeated = rng.random(len(won)) < REPEATED
    is_alike = (rng.random(len(won)) < share(seen)) == (won == 1)
    outcomes = won.copy()
    for level in range(len(LEVELS) + 1):
        rows = is_repeated & (confidence == level)
        sure = (np.sum(is_alike[rows]) + 1.5) / (np.sum(rows) + 2)
        at = confidence == level
        outcomes[at] = np.where(won[at] == 1, sure, 1 - sure)
    return outcomes


def log_losses(leads: Floats, won: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the log loss of held-out verdicts: with the scores' unit, and with a fitted one."""
    signed = np.where(won, leads, -leads)
    half = len(signed) // 2
    losses = [np.mean(np.logaddexp(0, -unit * signed[:half])) for unit in UNITS]
    unit = UNITS[int(np.argmin(losses))]
    rest = signed[half:]
    return float(np.mean(np.logaddexp(0, -rest))), float(np.mean(np.logaddexp(0, -unit * rest)))


def batch(own_error: float, per_essay: int, seed: int) -> dict[str, tuple[float, float, float]]:
    """Return per kind of verdict the squared correlation with the truth and both log losses."""
    rng = np.random.default_rng([20261130, seed])
    truth = rng.normal(0, SPREAD, N_ESSAYS)

    def sees(first: Ints, second: Ints) -> Floats:
        error = own_error * rng.standard_normal(len(first))
        return np.asarray(truth[first] - truth[second] + error)

    first, second = pairs(per_essay, rng)
    seen = sees(first, second)
    won = (rng.random(len(seen)) < share(seen)).astype(np.float64)
    blurred = np.abs(seen) + BLUR * rng.standard_normal(len(seen))
    confidence = np.digitize(blurred, LEVELS).astype(np.int64)
    kinds = {
        "verdict alone": won,
        "confidence": calibrated(won, confidence, seen, rng),
        "probability": share(seen),
    }
    held_first, held_second = pairs(10, rng)
    held_won = rng.random(len(held_first)) < share(sees(held_first, held_second))
    found = {}
    for kind, outcomes in kinds.items():
        scores = fitted(first, second, outcomes)
        losses = log_losses(scores[held_first] - scores[held_second], held_won)
        found[kind] = (float(np.corrcoef(scores, truth)[0, 1] ** 2), *losses)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=60)
    n_batches = parser.parse_args().batches
    print(
        f"{n_batches} batches a row of {N_ESSAYS} essays, sd {SPREAD}; Python"
        f" {platform.python_version()}, NumPy {np.__version__}, {platform.machine()}.\n\n"
        "| own error on a pair | comparisons each | known | true r2 | log loss | with its unit |\n"
        "|---:|---:|---|---:|---:|---:|"
    )
    for own_error in (0.0, 0.7, 1.5):
        for per_essay in (8, 16, 32):
            rows = [batch(own_error, per_essay, seed) for seed in range(n_batches)]
            for kind in rows[0]:
                values = np.array([row[kind] for row in rows])
                error = values[:, 0].std(ddof=1) / np.sqrt(n_batches)
                print(
                    f"| {own_error} | {per_essay} | {kind} | {values[:, 0].mean():.3f} ±"
                    f" {error:.3f} | {values[:, 1].mean():.3f} | {values[:, 2].mean():.3f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
