"""Boundaries from uncertain anchors: against brute force, against simulation, against laws."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from cj_pipeline.grading import boundaries as model
from cj_pipeline.grading.boundaries import BoundaryPosterior, fit_boundaries, grade_probabilities
from cj_pipeline.grading.disagreement import LOG_SHARE_MEAN, LOG_SHARE_SD

Floats = NDArray[np.float64]

FOUR = np.array([-1.6, -0.4, 0.3, 1.2])
FOUR_STEPS = np.array([0, 0, 1, 1])
RELATED = 0.16 * np.eye(4) + 0.09


def by_brute_force(spread: float) -> Floats:
    """Return the 10 %, 50 % and 90 % points of a pass-fail boundary between `FOUR`.

    Half a million draws from what is believed beforehand, weighted by the likelihood: every
    anchor's true score and what its graders saw drawn too, nothing integrated.
    """
    rng = np.random.default_rng(11)
    n = 500_000
    edge = FOUR.mean() + model.CENTRE_SD * rng.standard_normal(n)
    log_width = model.LOG_RANGE_MEAN - np.log(2) + model.LOG_WIDTH_SD * rng.standard_normal(n)
    ratio = LOG_SHARE_MEAN + LOG_SHARE_SD * rng.standard_normal(n)
    noise = 2 * np.exp(log_width + ratio)
    widths = np.exp(log_width[:, None] + model.LOG_END_SPREAD * rng.standard_normal((n, 2)))
    kept = spread**2 / (spread**2 + noise**2)
    shared = 0.3 * rng.standard_normal(n)  # the errors' covariance is 0.16 each and 0.09 alike
    weight = np.ones(n)
    for score, step in zip(FOUR, FOUR_STEPS, strict=True):
        low = edge - widths[:, 0] if step == 0 else edge
        seen = low + rng.random(n) * widths[:, step]
        middle = FOUR.mean() + kept * (seen - FOUR.mean())
        theta = middle + np.sqrt(kept) * noise * rng.standard_normal(n)
        weight *= norm.pdf(score, theta + shared, 0.4)
    order = np.argsort(edge)
    return np.interp([0.1, 0.5, 0.9], np.cumsum(weight[order]) / weight.sum(), edge[order])


@pytest.mark.parametrize("spread", [1.5, 3.0])
def test_a_single_boundary_agrees_with_brute_force(spread: float) -> None:
    """Correlated errors, unknown widths and disagreement included; within both methods' noise."""
    expected = by_brute_force(spread)

    posterior = fit_boundaries(2, FOUR_STEPS, FOUR, RELATED, spread=spread, n_draws=8192)

    points = np.quantile(posterior.boundaries, [0.1, 0.5, 0.9])
    assert points == pytest.approx(expected, abs=0.1)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Simulated from the model's own beliefs, 80 % intervals hold four in five boundaries."""
    rng = np.random.default_rng(3)
    steps = np.array([0, 1, 1, 2, 3, 3, 4])
    held = []
    for _ in range(60):
        width = 6 / 5 * np.exp(model.LOG_WIDTH_SD * rng.standard_normal())
        spreads = np.array([model.LOG_END_SPREAD, *[model.LOG_WIDTH_SPREAD] * 3, 0.7])
        edges = np.concatenate([[0], np.cumsum(width * np.exp(spreads * rng.standard_normal(5)))])
        noise = width * 5 / 18 * np.exp(0.6 * rng.standard_normal())
        seen = edges[steps] + rng.random(7) * np.diff(edges)[steps]
        scores = seen + noise * rng.standard_normal(7) + 0.4 * rng.standard_normal(7)

        posterior = fit_boundaries(5, steps, scores, 0.16 * np.eye(7), spread=1e3, n_draws=256)

        low, high = np.quantile(posterior.boundaries, [0.1, 0.9], axis=0)
        held += ((low < edges[1:-1]) & (edges[1:-1] < high)).tolist()

    assert np.mean(held) == pytest.approx(0.8, abs=0.08)


def test_boundaries_rise_in_every_draw() -> None:
    """Not on average only: no draw may have a B begin above an A."""
    posterior = fit_boundaries(
        6, np.array([5, 0, 3]), np.array([-2.0, 2.0, 0.0]), 0.2 * np.eye(3), spread=1.5
    )

    assert np.all(np.diff(posterior.boundaries, axis=1) > 0)


def test_the_same_anchors_give_the_same_draws() -> None:
    """A grade may not depend on when it was computed."""
    first, second = (
        fit_boundaries(2, FOUR_STEPS, FOUR, RELATED, spread=1.5, n_draws=256) for _ in range(2)
    )

    assert np.array_equal(first.boundaries, second.boundaries)


def test_anchors_in_perfect_order_show_less_disagreement_than_shuffled_ones() -> None:
    """What graders and judge differ by is learned from the anchors."""
    scores, covariance = np.linspace(-4, 4, 15), 0.04 * np.eye(15)
    ordered = np.repeat(np.arange(5), 3)
    shuffled = np.array([0, 2, 0, 1, 0, 1, 3, 2, 4, 1, 3, 4, 2, 4, 3])

    agreed, disputed = (
        fit_boundaries(5, steps, scores, covariance, spread=3.0) for steps in (ordered, shuffled)
    )

    assert np.median(agreed.disagreement) < 0.5 * np.median(disputed.disagreement)


def test_an_essay_that_shares_its_errors_with_an_anchor_stays_by_it() -> None:
    """The anchor of the higher grade scored lower, so its error was downwards, and an essay judged
    with the same error is better than it seems."""
    anchors = np.diag([0.5, 0.5])
    posterior = fit_boundaries(
        2, np.array([0, 1]), np.array([1.0, -1.0]), anchors, spread=1.5, n_draws=4096
    )
    score, variance = np.array([-1.0]), np.array([0.5])

    alone = grade_probabilities(posterior, score, np.zeros((1, 2)), variance, anchors)
    among_anchors = grade_probabilities(
        posterior, score, np.array([[0.0, 0.49]]), variance, anchors
    )

    assert among_anchors[0, 1] > alone[0, 1] + 0.02


def test_probabilities_average_over_boundaries_and_errors() -> None:
    """By hand: two equally likely boundaries, and a normal error around the score."""
    posterior = BoundaryPosterior(
        boundaries=np.array([[0.0], [1.0]]),
        disagreement=np.array([0.6, 0.6]),
        width=np.ones(2),
        slopes=np.zeros(2),
        anchor_errors=np.zeros((2, 1)),
    )

    probabilities = grade_probabilities(
        posterior, np.array([0.5]), np.zeros((1, 1)), np.array([0.64]), np.eye(1)
    )

    assert probabilities[0] == pytest.approx([0.5, 0.5])


def test_hopelessly_precise_and_contradictory_anchors_are_survived() -> None:
    """Nothing overflows, whatever is passed in; whether to grade is decided elsewhere."""
    posterior = fit_boundaries(
        9, np.array([8, 0, 4]), np.array([-30.0, 30.0, 0.0]), 1e-6 * np.eye(3), spread=1.5
    )

    assert np.all(np.isfinite(posterior.boundaries))
