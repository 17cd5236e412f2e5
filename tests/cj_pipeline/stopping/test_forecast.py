"""The forecast: how many comparisons until a batch is as precise as it requires."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cj_pipeline.batch.options import PrecisionTargets, Strategy
from cj_pipeline.diagnostics.reliability import empirical_bayes_reliability
from cj_pipeline.pairing.comparison_graph import ComparisonGraph
from cj_pipeline.pairing.strategies import strategy_named
from cj_pipeline.pairing.waves import choose_wave
from cj_pipeline.scale.bradley_terry import Scale, fit_verdicts
from cj_pipeline.scale.tallies import Verdicts
from cj_pipeline.stopping.forecast import (
    Forecast,
    SamplingPlan,
    forecast_at_plan,
    forecast_from_scale,
)
from cj_pipeline.stopping.precision import Precision, precision_of


def scale_after(n_essays: int, per_essay: int, seed: int, *, sd: float = 1.5) -> Scale:
    ids = tuple(f"essay-{i:03d}" for i in range(n_essays))
    size = n_essays * per_essay // 2
    wave = choose_wave(
        ComparisonGraph(ids, frozenset(), ()), strategy="coverage", size=size, seed=seed
    )
    graph = ComparisonGraph(ids, frozenset(), tuple((pair.essay_a, pair.essay_b) for pair in wave))
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, sd, n_essays)
    first, second = graph.shown_indices.T
    won = 2 * (rng.random(size) < 1 / (1 + np.exp(truth[second] - truth[first])))
    return fit_verdicts(Verdicts(ids, ("j",), first, second, won, np.zeros_like(first)))


def asked_by(strategy: Strategy, wave_size: int, usd: float | None = None) -> SamplingPlan:
    return SamplingPlan(strategy_named(strategy).efficiency, wave_size, usd)


def at_plan(n_essays: int, rule: PrecisionTargets, plan: SamplingPlan) -> Forecast:
    forecast = forecast_at_plan(n_essays, rule, plan)
    assert forecast is not None
    return forecast


def from_scale(scale: Scale, rule: PrecisionTargets, plan: SamplingPlan) -> Forecast:
    forecast = forecast_from_scale(scale, rule, plan, precision_of(scale, scale.essay_ids))
    assert forecast is not None
    return forecast


def test_a_stricter_target_takes_more_comparisons_waves_and_dollars() -> None:
    """Whoever plans wants to see what the last digit costs."""
    easy, strict = (
        at_plan(100, PrecisionTargets(reliability=reliability), asked_by("adaptive", 50, 0.01))
        for reliability in (0.7, 0.9)
    )

    assert easy.total < strict.total
    assert easy.waves < strict.waves
    assert strict.usd == pytest.approx(0.01 * strict.total)
    assert strict.usd_upper == pytest.approx(0.01 * strict.upper)
    assert easy.lower < easy.total < easy.upper


def test_choosing_by_scores_is_forecast_to_take_fewer_comparisons_for_grades() -> None:
    """Close pairs decide on which side of a boundary an essay lies."""
    rule = PrecisionTargets(misgrading=0.3)
    shares = (0.2, 0.2, 0.2, 0.2, 0.2)

    chosen = at_plan(
        60, rule, SamplingPlan(strategy_named("adaptive").efficiency, 30, grade_shares=shares)
    )
    random = at_plan(
        60, rule, SamplingPlan(strategy_named("random").efficiency, 30, grade_shares=shares)
    )

    assert chosen.total < random.total
    assert chosen.usd is None


def test_the_forecast_at_plan_holds_for_an_ordinary_class() -> None:
    """80 essays, for reliability .8: what was forecast should be reached about there."""
    plan = at_plan(80, PrecisionTargets(reliability=0.8), asked_by("coverage", 40))

    per_essay = round(2 * plan.total / 80)
    reached = [empirical_bayes_reliability(scale_after(80, per_essay, seed)) for seed in range(5)]

    assert np.mean(reached) == pytest.approx(0.8, abs=0.05)


def test_verdicts_narrow_the_forecast() -> None:
    """Before the first verdict the essays' spread is assumed."""
    rule = PrecisionTargets(reliability=0.85)
    plan = at_plan(80, rule, asked_by("coverage", 40))

    later = from_scale(scale_after(80, 10, 1), rule, asked_by("coverage", 40, 0.02))

    assert later.upper / later.lower < plan.upper / plan.lower
    assert later.usd == pytest.approx(0.02 * (later.total - 400))
    assert later.waves == -(-(later.total - 400) // 40)


def test_essays_that_hardly_differ_are_forecast_to_take_longer() -> None:
    """Reliability is a share of the spread there is."""
    rule = PrecisionTargets(reliability=0.8)
    plan = asked_by("coverage", 40)

    alike = from_scale(scale_after(80, 12, 2, sd=0.5), rule, plan)
    apart = from_scale(scale_after(80, 12, 2, sd=1.5), rule, plan)

    assert alike.total > 1.5 * apart.total


def test_a_gain_per_dollar_is_foreseen_once_there_is_a_price() -> None:
    """What a comparison costs decides how many pay: the dearer, the fewer."""
    rule = PrecisionTargets(gain_per_usd=1.0)

    cheap = at_plan(60, rule, asked_by("adaptive", 30, 0.001))
    dear = at_plan(60, rule, asked_by("adaptive", 30, 0.01))

    assert forecast_at_plan(60, rule, asked_by("adaptive", 30)) is None
    assert dear.total < cheap.total


def test_misgrading_and_gains_are_foreseen_from_where_the_batch_stands() -> None:
    """Half the misgrading takes four times the comparisons; nothing known, nothing foreseen."""
    scale = scale_after(40, 10, 3)
    reached = Precision(0.8, 0.4, 0.6, misgrading=0.4, gain_per_usd=8.0)
    plan = asked_by("adaptive", 20, 0.01)

    misgrading = forecast_from_scale(scale, PrecisionTargets(misgrading=0.2), plan, reached)
    gain = forecast_from_scale(scale, PrecisionTargets(gain_per_usd=1.0), plan, reached)

    assert misgrading is not None
    assert misgrading.total == 800
    assert gain is not None
    assert gain.total == 800
    unknown = replace(reached, misgrading=None)
    assert forecast_from_scale(scale, PrecisionTargets(misgrading=0.2), plan, unknown) is None


def test_a_forecast_beyond_the_budget_says_so() -> None:
    """Otherwise the plan promises what the batch will not reach."""
    forecast = Forecast(total=300, lower=200, upper=400, waves=1, usd=None)

    assert forecast.in_words(300) == "300 comparisons (200 to 400), 1 more wave"
    assert "more than the 120 at which this batch ends" in forecast.in_words(120)


def test_a_rule_without_a_target_is_refused() -> None:
    """There would be nothing to forecast, and every scale would count as precise."""
    with pytest.raises(ValueError, match="needs a target"):
        PrecisionTargets()
