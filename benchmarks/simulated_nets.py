"""Verdicts on simulated essays, for benchmarks: random and banded nets of any size.

Each essay has won and lost at least once, along a ring (random) or a chain (banded) through all of
them, so that maximum likelihood is finite and solvers without a prior can take part.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from cj_pipeline.scale.tallies import Verdicts

Design = Literal["random", "banded"]

TRUE_SD = 1.5


def simulate(
    n_essays: int, n_verdicts: int, design: Design, *, seed: int, position: float = 0.0
) -> tuple[np.ndarray, Verdicts]:
    """Return true scores and verdicts; essays' numbers are unrelated to their scores.

    In a banded net an essay meets the few next to it, as when pairs are chosen for
    their closeness; in a random one it meets anyone.
    """
    rng = np.random.default_rng(seed)
    truth = np.sort(rng.normal(0, TRUE_SD, n_essays))
    chain = np.arange(n_essays - 1)
    free = n_verdicts - 2 * len(chain)
    if design == "banded":
        reach = max(2, min(10, n_essays // 4))
        first = rng.integers(0, n_essays, free)
        second = first + rng.integers(1, reach + 1, free)
        over = second >= n_essays
        second[over] = first[over] - 1
    else:
        first = rng.integers(0, n_essays, free)
        second = (first + rng.integers(1, n_essays, free)) % n_essays
        truth = rng.permutation(truth)
    chance = 1 / (1 + np.exp(-(truth[first] - truth[second] + position)))
    wins = 2 * (rng.random(free) < chance).astype(np.int64)
    first = np.concatenate([chain, chain, first])
    second = np.concatenate([chain + 1, chain + 1, second])
    wins = np.concatenate([np.zeros_like(chain), np.full_like(chain, 2), wins])

    name = rng.permutation(n_essays)
    order = rng.permutation(len(first))
    swap = rng.random(len(first)) < (0.5 if position == 0 else 0)
    a, b = np.where(swap, second, first)[order], np.where(swap, first, second)[order]
    half_wins = np.where(swap, 2 - wins, wins)[order]
    by_name = np.empty(n_essays)
    by_name[name] = truth
    verdicts = Verdicts(
        tuple(f"essay-{i:05d}" for i in range(n_essays)),
        ("judge",),
        name[a],
        name[b],
        half_wins,
        np.zeros(len(a), dtype=np.int64),
    )
    return by_name, verdicts
