"""The likelihood at a point: against sums written out, and its gradient against its slope."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.scale.bradley_terry import fit_bradley_terry
from cj_pipeline.scale.likelihood import gradient_at, initial_point, log_likelihood, tie_probability

IDS = ["a", "b", "c", "d"]


def _judged() -> list[JudgedPair]:
    rng = np.random.default_rng(3)
    judged = []
    for _ in range(80):
        a, b = rng.choice(4, 2, replace=False)
        winner = ("A", "A", "B", "tie")[rng.integers(4)]
        judged.append(JudgedPair(IDS[a], IDS[b], winner, f"j{rng.integers(2)}"))  # type: ignore[arg-type]
    return judged


def test_the_log_likelihood_is_the_sum_over_verdicts() -> None:
    """With everything on: discriminations, position effects and Davidson's ties."""
    judged = _judged()
    scale = fit_bradley_terry(
        IDS, judged, ties="davidson", position_effect=True, discrimination=True
    )
    score = dict(zip(IDS, scale.point.theta.tolist(), strict=True))

    total = 0.0
    for verdict in judged:
        eta = np.exp(scale.discriminations[verdict.judge_id].value) * (
            score[verdict.essay_a] - score[verdict.essay_b]
        )
        eta += scale.position_effects[verdict.judge_id].value
        assert scale.tie_strength is not None
        odds = {
            "A": np.exp(eta / 2),
            "B": np.exp(-eta / 2),
            "tie": np.exp(scale.tie_strength.value),
        }
        total += np.log(odds[verdict.winner] / sum(odds.values()))

    assert log_likelihood(scale.model, scale.point) == pytest.approx(total)


def test_the_gradient_is_the_slope_of_the_log_likelihood() -> None:
    """Without a prior, found by a small move of each score."""
    scale = fit_bradley_terry(IDS, _judged(), ties="davidson", prior_comparisons=0)
    point = replace(scale.point, theta=np.array([0.3, -0.2, 0.5, -0.6]))

    slopes = []
    for k in range(4):
        ahead, behind = (
            log_likelihood(scale.model, replace(point, theta=point.theta + h * np.eye(4)[k]))
            for h in (1e-6, -1e-6)
        )
        slopes.append((ahead - behind) / 2e-6)

    assert gradient_at(scale.model, point, for_steps=False).theta == pytest.approx(slopes, abs=1e-5)


def test_ties_are_likeliest_between_equals() -> None:
    """Davidson: nu / (nu + 2) there, by hand for nu = 1."""
    probabilities = tie_probability(np.array([-2.0, 0.0, 2.0]), 0.0)

    assert probabilities[1] == pytest.approx(1 / 3)
    assert probabilities[0] == pytest.approx(probabilities[2])
    assert probabilities[0] < probabilities[1]


def test_the_first_guess_is_near_the_maximum_of_a_random_net() -> None:
    """It saves steps only if it is."""
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 1.5, 150)
    ids = [f"e{i}" for i in range(150)]
    judged = []
    for _ in range(9000):
        a, b = rng.choice(150, 2, replace=False)
        wins = rng.random() < 1 / (1 + np.exp(truth[b] - truth[a]))
        judged.append(JudgedPair(ids[a], ids[b], "A" if wins else "B"))
    scale = fit_bradley_terry(ids, judged)

    first = initial_point(scale.model).theta

    assert np.sqrt(np.mean((first - scale.scores) ** 2)) < 0.2 * scale.scores.std()
