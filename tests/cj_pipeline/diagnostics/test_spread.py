"""How far essays' true scores are taken to lie apart, by few verdicts and by many."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cj_pipeline.diagnostics.spread import USUAL, likely_spread
from cj_pipeline.scale.bradley_terry import Scale, fit_verdicts
from cj_pipeline.scale.tallies import Verdicts


def judged(true_scores: np.ndarray, rounds: int) -> Scale:
    """Return the scale of essays that each met two others by lot in every round."""
    rng = np.random.default_rng(1)
    orders = [rng.permutation(len(true_scores)) for _ in range(rounds)]
    first = np.concatenate(orders)
    second = np.concatenate([np.roll(order, 1) for order in orders])
    chance = 1 / (1 + np.exp(true_scores[second] - true_scores[first]))
    half_wins = 2 * (rng.random(len(first)) < chance).astype(np.int64)
    ids = tuple(f"essay-{i:03d}" for i in range(len(true_scores)))
    return fit_verdicts(Verdicts(ids, ("j",), first, second, half_wins, np.zeros_like(first)))


@pytest.mark.parametrize("spread", [0.7, 1.5, 3.0])
def test_many_verdicts_tell_the_spread_whatever_is_usual(spread: float) -> None:
    """Within twice the error it claims, which is small by then."""
    true_scores = np.random.default_rng(0).normal(0, spread, 80)

    found = likely_spread(judged(true_scores, rounds=30))

    assert abs(found.log_mean - math.log(true_scores.std(ddof=1))) < 2 * found.log_error
    assert found.log_error < 0.12


def test_few_verdicts_leave_it_at_what_is_usual() -> None:
    """Eight essays in a ring: anything may be behind who won."""
    found = likely_spread(judged(np.linspace(-3, 3, 8), rounds=1))

    assert abs(found.log_mean - USUAL.log_mean) < USUAL.log_error
    assert 0.8 * USUAL.log_error < found.log_error <= USUAL.log_error


def test_the_more_verdicts_the_surer() -> None:
    """Forecasts narrow as a batch goes on."""
    true_scores = np.random.default_rng(0).normal(0, 1.5, 40)

    errors = [likely_spread(judged(true_scores, rounds)).log_error for rounds in (2, 5, 15)]

    assert errors == sorted(errors, reverse=True)
