"""Ranks, their intervals, and the probability of standing above."""

from __future__ import annotations

import numpy as np
import pytest

from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.scale.bradley_terry import Scale, fit_bradley_terry
from cj_pipeline.scale.ranks import probability_above, rank_intervals, ranks

IDS = [f"e{i:02d}" for i in range(12)]


def _scale(n_verdicts: int, spread: float, seed: int = 0) -> tuple[np.ndarray, Scale]:
    rng = np.random.default_rng(seed)
    truth = np.linspace(-spread, spread, 12)
    judged = []
    for k in range(n_verdicts):
        a = k % 12
        b = (a + rng.integers(1, 12)) % 12
        wins = rng.random() < 1 / (1 + np.exp(truth[b] - truth[a]))
        judged.append(JudgedPair(IDS[a], IDS[b], "A" if wins else "B"))
    return truth, fit_bradley_terry(IDS, judged)


def test_equal_scores_share_the_better_rank() -> None:
    """As in sports: 1, 2, 2, 4."""
    assert ranks(np.array([0.5, 2.0, 0.5, -1.0])).tolist() == [2, 1, 2, 4]


def test_an_essay_is_above_another_as_surely_as_the_other_is_below() -> None:
    """The two probabilities are of the same event."""
    _, scale = _scale(240, 2.0)

    upper, lower = probability_above(scale, "e03", "e07"), probability_above(scale, "e07", "e03")

    assert upper + lower == pytest.approx(1)


def test_what_errors_have_in_common_cancels() -> None:
    """Errors on the mean-centred gauge are correlated: adding variances alone would mislead."""
    judged = [JudgedPair("x", "y", w) for w in "AAAB"]  # type: ignore[arg-type]
    scale = fit_bradley_terry(["x", "y"], judged)

    from scipy.stats import norm

    # For two essays the scores are d/2 and -d/2, so the difference has twice the standard error.
    by_hand = norm.cdf((scale.scores[0] - scale.scores[1]) / (2 * scale.standard_errors[0]))
    assert probability_above(scale, "x", "y") == pytest.approx(by_hand)


def test_more_verdicts_narrow_the_rank_intervals() -> None:
    """Intervals that did not shrink would say nothing."""
    _, few = _scale(120, 1.0)
    _, many = _scale(6000, 1.0)

    width = [np.mean(found.upper - found.lower) for found in map(rank_intervals, (few, many))]

    assert width[1] < 0.5 * width[0]


def test_rank_intervals_hold_the_true_rank_at_least_as_often_as_they_say() -> None:
    """Over 40 simulated batches, all twelve essays each; ranks are whole, so rather more often."""
    held = []
    for seed in range(40):
        truth, scale = _scale(360, 1.5, seed)
        found = rank_intervals(scale, seed=seed)
        true_rank = ranks(truth)
        held.append(np.mean((found.lower <= true_rank) & (true_rank <= found.upper)))

    assert np.mean(held) > 0.95


def test_the_same_seed_gives_the_same_intervals() -> None:
    """A report printed twice must not differ."""
    _, scale = _scale(240, 2.0)

    assert np.array_equal(rank_intervals(scale, seed=3).upper, rank_intervals(scale, seed=3).upper)
