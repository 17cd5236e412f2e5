"""How fast standard errors of all essays are had, and how exact they are.

    python benchmarks/standard_errors.py

Ours against the inverse of the whole information matrix by NumPy, centred. At the maximum that
`fit_verdicts` finds, default prior. Then all that is reported of a batch: scores with errors from
the posterior, ranks and their intervals, in seconds of processor time.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable

import numpy as np
from simulated_nets import simulate

from cj_pipeline.scale.bradley_terry import fit_verdicts
from cj_pipeline.scale.information import standard_errors
from cj_pipeline.scale.laplacian import dense
from cj_pipeline.scale.ranks import rank_intervals
from cj_pipeline.scale.score_posterior import score_posterior

NETS = [
    (500, 30_000, "random"),
    (500, 30_000, "banded"),
    (500, 1_000_000, "random"),
    (5_000, 30_000, "banded"),
    (5_000, 30_000, "random"),
    (5_000, 1_000_000, "banded"),
    (5_000, 1_000_000, "random"),
]


def best_of(n_runs: int, run: Callable[[], object]) -> float:
    """Return the shortest of several runs, in seconds."""
    times = []
    for _ in range(n_runs):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def reported(n_essays: int) -> tuple[float, float, float]:
    """Return the processor time of fit, posterior and rank intervals; twelve verdicts an essay."""
    _, verdicts = simulate(n_essays, 6 * n_essays, "random", seed=1)
    runs = []
    for _ in range(5):
        begun = time.process_time()
        scale = fit_verdicts(verdicts)
        fitted = time.process_time()
        posterior = score_posterior(scale)
        known = time.process_time()
        rank_intervals(posterior)
        runs.append((fitted - begun, known - fitted, time.process_time() - known))
    return min(runs, key=sum)


def main() -> None:
    """Print a line per net."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(platform.processor() or platform.machine(), "NumPy", np.__version__)
    for n_essays, n_verdicts, design in NETS:
        _, verdicts = simulate(n_essays, n_verdicts, design, seed=1)  # type: ignore[arg-type]
        scale = fit_verdicts(verdicts)
        found = standard_errors(scale.information)
        seconds = best_of(5, lambda s=scale: standard_errors(s.information))  # type: ignore[misc]
        full = dense(scale.information.essays)
        start = time.perf_counter()
        inverse = np.linalg.inv(full)
        inverse -= inverse.mean(axis=0)
        inverse -= inverse.mean(axis=1)[:, None]
        exact = np.sqrt(np.diag(inverse))
        dense_seconds = time.perf_counter() - start
        errors = np.abs(found.values / exact - 1)
        print(
            f"{n_essays:5,} essays {n_verdicts:9,} verdicts {design:6s} {1e3 * seconds:8.1f} ms "
            f"({found.method}); whole inverse {1e3 * dense_seconds:8.0f} ms; error stated "
            f"{found.relative_error:.1e}, true: largest {errors.max():.1e}, root mean square "
            f"{np.sqrt(np.mean(errors**2)):.1e}",
            flush=True,
        )
    for n_essays in (100, 500, 5_000):
        fit, posterior, ranks = reported(n_essays)
        print(
            f"{n_essays:5,} essays: fit {fit:.3f} s, posterior {posterior:.3f} s, ranks {ranks:.3f}"
            f" s, together {fit + posterior + ranks:.3f} s"
        )


if __name__ == "__main__":
    main()
