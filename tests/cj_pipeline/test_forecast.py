"""Looking ahead: how many comparisons until a batch is as precise as it asks."""

from __future__ import annotations

import numpy as np
import pytest

from cj_pipeline.bradley_terry import Scale, fit_verdicts
from cj_pipeline.forecast import forecast_at_plan, forecast_from_scale
from cj_pipeline.pairing import Net, choose_wave
from cj_pipeline.reliability import empirical_bayes_reliability
from cj_pipeline.settings import PreciseRule
from cj_pipeline.tallies import Verdicts


def scale_after(n_essays: int, per_essay: int, seed: int, *, sd: float = 1.5) -> Scale:
    ids = tuple(f"essay-{i:03d}" for i in range(n_essays))
    size = n_essays * per_essay // 2
    wave = choose_wave(Net(ids, frozenset(), ()), strategy="coverage", size=size, seed=seed)
    net = Net(ids, frozenset(), tuple((pair.essay_a, pair.essay_b) for pair in wave))
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, sd, n_essays)
    first, second = net.shown_indices.T
    won = 2 * (rng.random(size) < 1 / (1 + np.exp(truth[second] - truth[first])))
    return fit_verdicts(Verdicts(ids, ("j",), first, second, won, np.zeros_like(first)))


def test_a_stricter_target_takes_more_comparisons_waves_and_dollars() -> None:
    """Whoever plans wants to see what the last digit costs."""
    easy, strict = (
        forecast_at_plan(
            100,
            PreciseRule(reliability=reliability),
            strategy="adaptive",
            wave_size=50,
            usd_per_comparison=0.01,
        )
        for reliability in (0.7, 0.9)
    )

    assert easy.total < strict.total
    assert easy.waves < strict.waves
    assert strict.usd == pytest.approx(0.01 * strict.total)
    assert easy.lower < easy.total < easy.upper


def test_choosing_by_scores_is_forecast_to_take_fewer_comparisons() -> None:
    """The strategy is part of the plan."""
    rule = PreciseRule(mean_standard_error=0.4)

    chosen = forecast_at_plan(60, rule, strategy="adaptive", wave_size=30)
    random = forecast_at_plan(60, rule, strategy="random", wave_size=30)

    assert chosen.total < random.total
    assert chosen.usd is None


def test_the_forecast_at_plan_holds_for_an_ordinary_class() -> None:
    """80 essays, asked for reliability .8: what was forecast should be reached about there."""
    plan = forecast_at_plan(80, PreciseRule(reliability=0.8), strategy="coverage", wave_size=40)

    per_essay = round(2 * plan.total / 80)
    reached = [empirical_bayes_reliability(scale_after(80, per_essay, seed)) for seed in range(5)]

    assert np.mean(reached) == pytest.approx(0.8, abs=0.05)


def test_verdicts_narrow_the_forecast() -> None:
    """Before the first verdict the essays' spread is a guess."""
    rule = PreciseRule(reliability=0.85)
    plan = forecast_at_plan(80, rule, strategy="coverage", wave_size=40)

    later = forecast_from_scale(
        scale_after(80, 10, 1), rule, strategy="coverage", wave_size=40, usd_per_comparison=0.02
    )

    assert later.upper / later.lower < plan.upper / plan.lower
    assert later.usd == pytest.approx(0.02 * (later.total - 400))
    assert later.waves == -(-(later.total - 400) // 40)


def test_essays_that_hardly_differ_are_forecast_to_take_longer() -> None:
    """Reliability is a share of the spread there is."""
    rule = PreciseRule(reliability=0.8)

    alike = forecast_from_scale(
        scale_after(80, 12, 2, sd=0.5), rule, strategy="coverage", wave_size=40
    )
    apart = forecast_from_scale(
        scale_after(80, 12, 2, sd=1.5), rule, strategy="coverage", wave_size=40
    )

    assert alike.total > 1.5 * apart.total


def test_a_rule_without_a_target_is_refused() -> None:
    """There would be nothing to look ahead to, and every scale would count as precise."""
    with pytest.raises(ValueError, match="needs a target"):
        PreciseRule()
