"""Reliabilities, each under its own name, by hand, by laws and against simulated truth."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.diagnostics.reliability import (
    SpreadEvidence,
    empirical_bayes,
    empirical_bayes_reliability,
    scale_separation_reliability,
    separation_index,
)
from cj_pipeline.errors import UnscalableBatchError
from cj_pipeline.scale.bradley_terry import Scale, fit_bradley_terry, maximise
from cj_pipeline.scale.laplacian import dense, difference_variances, net_matrix
from cj_pipeline.scale.likelihood import Model, Point, gradient_at, stepped


def _verdicts(truth: np.ndarray, n_verdicts: int, seed: int) -> list[JudgedPair]:
    rng = np.random.default_rng(seed)
    ids = [f"e{i:03d}" for i in range(len(truth))]
    verdicts = []
    for k in range(n_verdicts):
        a = k % len(truth)
        b = (a + rng.integers(1, len(truth))) % len(truth)
        wins = rng.random() < 1 / (1 + np.exp(truth[b] - truth[a]))
        verdicts.append(JudgedPair(ids[a], ids[b], "A" if wins else "B"))
    return verdicts


def _scale(truth: np.ndarray, n_verdicts: int, seed: int) -> Scale:
    ids = [f"e{i:03d}" for i in range(len(truth))]
    return fit_bradley_terry(ids, _verdicts(truth, n_verdicts, seed))


def test_smaller_standard_errors_make_a_more_reliable_scale() -> None:
    """The same scores, known more precisely, explain more of their variance."""
    scores = np.array([-1.1, -0.2, 0.4, 0.9])

    vague = scale_separation_reliability(scores, np.full(4, 0.6))
    sharp = scale_separation_reliability(scores, np.full(4, 0.3))

    assert vague < sharp < 1


@given(shift=st.floats(-10, 10))
def test_reliability_ignores_where_the_scale_puts_its_zero(shift: float) -> None:
    """Logits have no natural origin, so moving every essay changes nothing."""
    scores, errors = np.array([-1.1, 0.4, 0.9]), np.array([0.3, 0.2, 0.4])

    stepped = scale_separation_reliability(scores + shift, errors)

    assert stepped == pytest.approx(scale_separation_reliability(scores, errors))


def test_essays_that_share_one_score_have_no_reliability() -> None:
    """There is no variance to take shares of."""
    with pytest.raises(UnscalableBatchError, match="All 3 essays share one score"):
        scale_separation_reliability(np.zeros(3), np.ones(3))


def test_separation_is_the_spread_in_standard_errors() -> None:
    """A reliability of .8 is a true spread of twice the error: sqrt(.8 / .2)."""
    assert separation_index(0.8) == pytest.approx(2.0)


def test_empirical_bayes_finds_the_true_spread() -> None:
    """With plenty of verdicts the spread of a hundred essays is seen within its sampling error."""
    truth = np.random.default_rng(1).normal(0, 1.5, 100)

    found = empirical_bayes(_scale(truth, 6000, seed=2))

    assert found.true_sd == pytest.approx(truth.std(ddof=1), rel=0.06)


def test_empirical_bayes_follows_the_squared_correlation_with_the_truth() -> None:
    """That is what a reliability promises; averaged over ten simulated batches."""
    promised, kept = [], []
    for seed in range(10):
        truth = np.random.default_rng(100 + seed).normal(0, 1.5, 60)
        scale = _scale(truth, 480, seed=seed)
        promised.append(empirical_bayes_reliability(scale))
        kept.append(np.corrcoef(truth, scale.scores)[0, 1] ** 2)

    assert np.mean(promised) == pytest.approx(np.mean(kept), abs=0.025)


def test_essays_that_do_not_differ_have_hardly_any_reliability() -> None:
    """Coin-tossing judges must not seem judges."""
    figures = [empirical_bayes_reliability(_scale(np.zeros(60), 600, seed=s)) for s in range(6)]

    assert np.mean(figures) < 0.15


def test_no_spread_at_all_is_a_reliability_of_zero() -> None:
    """Each pair once each way: less spread than chance gives."""
    ids = ["a", "b", "c", "d"]
    verdicts = [JudgedPair(x, y, w) for x in ids for y in ids if x < y for w in ("A", "B")]

    assert empirical_bayes(fit_bradley_terry(ids, verdicts)).reliability == 0.0


def test_the_posterior_variance_of_two_essays_is_worked_out_by_hand() -> None:
    """One difference d, seven wins in ten: everything is a function of one number."""
    verdicts = [JudgedPair("a", "b", "A")] * 7 + [JudgedPair("a", "b", "B")] * 3
    verdicts += [JudgedPair("b", "a", "B")] * 7 + [JudgedPair("b", "a", "A")] * 3
    scale = fit_bradley_terry(["a", "b"], verdicts)

    found = SpreadEvidence(scale).posterior_variance(math.log(1.5))

    # Scores of standard deviation 1.5 put a normal prior of variance 2 x 1.5^2 on d.
    prior = 1 / (2 * 1.5**2)
    d = brentq(lambda d: 14 - 20 / (1 + math.exp(-d)) - prior * d, 0, 3)
    at_mode = 1 / (20 * _logistic_slope(d) + prior)
    # The slope averaged over a normal d, by MacKay's flatter curve; then the centred scores are
    # d/2 and -d/2, with a variance of a quarter of d's each.
    flatter = 1 / math.sqrt(1 + math.pi / 8 * at_mode)
    averaged = 1 / (20 * flatter * _logistic_slope(flatter * d) + prior)
    assert d == pytest.approx(0.805, abs=0.001)
    assert found == pytest.approx(averaged / 2, rel=1e-5)
    assert found == pytest.approx(0.1145, abs=0.0001)


def _logistic_slope(x: float) -> float:
    return 0.25 / math.cosh(x / 2) ** 2


def test_the_posterior_variance_allows_for_what_the_judges_discriminations_owe_to_the_scores() -> (
    None
):
    """Against the information found by small moves, residuals and all."""
    truth = np.linspace(-1, 1, 6)
    verdicts = [
        replace(judged, judge_id=judge_id)
        for judge_id, strength, seed in (("sharp", 1.5, 1), ("vague", 0.5, 2))
        for judged in _verdicts(strength * truth, 60, seed)
    ]
    scale = fit_bradley_terry([f"e{i:03d}" for i in range(6)], verdicts, discrimination=True)

    found = SpreadEvidence(scale).posterior_variance(math.log(1.0))

    model = replace(scale.model, prior_precision=1.0)
    start = replace(scale.point, theta=np.zeros(6))
    point, _ = maximise(model, start, holds_judges=True)
    numeric = _information_by_moves(model, point)
    # Only the scores' own part is averaged over where they may lie.
    gradient = gradient_at(model, point, for_steps=False).information.essays
    gap = point.theta[gradient.layout.first] - point.theta[gradient.layout.second]
    flatter = 1 / np.sqrt(1 + np.pi / 8 * difference_variances(gradient))
    ratio = (np.cosh(gap / 2) / np.cosh(flatter * gap / 2)) ** 2 * flatter
    averaged = net_matrix(gradient.layout, gradient.weights * ratio, np.ones(6))
    numeric[:6, :6] = dense(averaged)
    covariance = np.linalg.inv(numeric)[:6, :6]
    centring = np.eye(6) - 1 / 6
    assert found == pytest.approx(np.trace(centring @ covariance @ centring), rel=1e-4)


def _information_by_moves(model: Model, point: Point) -> np.ndarray:
    """Return minus the derivative of the log-posterior's gradient, by all parameters."""
    n = model.cells.n_essays
    size = n + model.n_others
    information = np.empty((size, size))
    for k in range(size):
        move = np.zeros(size)
        move[k] = 1e-5
        ahead, behind = (
            gradient_at(model, stepped(model, point, move[:n], move[n:], sign), for_steps=False)
            for sign in (1, -1)
        )
        change = np.append(ahead.theta, ahead.others) - np.append(behind.theta, behind.others)
        information[:, k] = -change / 2e-5
    return information
