"""How many comparisons, waves and dollars it will take to be as precise as a batch asks.

Information adds up: twice the comparisons per essay, half the error variance. Before the first
verdict the essays' spread is assumed, afterwards it is the scale that tells. Whether a batch is
precise is decided elsewhere (`steps.decide`); this only looks ahead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cj_pipeline.bradley_terry import Scale
from cj_pipeline.reliability import empirical_bayes
from cj_pipeline.settings import PreciseRule, Strategy

USUAL_SPREAD = 1.5
"""Standard deviation of essays' true scores, in logits, in an ordinary class."""
_SPREADS_DIFFER = 0.3
"""Standard deviation of that spread's logarithm among classes and judges."""
_WITHOUT_SCORES = frozenset({"coverage", "resample", "random"})
_WORTH_OF_CHOOSING = 1.25
"""A comparison chosen by scores against one chosen without, in information for the same ranks."""
_Z = 1.2816
"""Ten per cent lie above it: intervals hold eighty."""
_LEAST_DOUBT = 0.12
"""Relative error of a forecast that knows the spread: a judge's luck varies."""


@dataclass(frozen=True)
class Forecast:
    """What it takes to reach a target, from now on.

    Attributes:
        total: Comparisons in all, those already made among them.
        lower: A tenth of the batches will need fewer.
        upper: A tenth will need more.
        waves: Still to come, at the size planned.
        usd: Still to be spent; None where no price is known.
    """

    total: int
    lower: int
    upper: int
    waves: int
    usd: float | None


def forecast_at_plan(
    n_essays: int,
    rule: PreciseRule,
    *,
    strategy: Strategy,
    wave_size: int,
    usd_per_comparison: float | None = None,
) -> Forecast:
    """Return the forecast before the first verdict, for essays that differ as in most classes."""
    spread = _Spread(math.log(USUAL_SPREAD), _SPREADS_DIFFER)
    needed = _needed(n_essays, rule, strategy, spread)
    return _forecast(needed, 0, wave_size, usd_per_comparison)


def forecast_from_scale(
    scale: Scale,
    rule: PreciseRule,
    *,
    strategy: Strategy,
    wave_size: int,
    usd_per_comparison: float | None = None,
) -> Forecast:
    """Return the forecast from where a batch stands.

    What the verdicts say of the essays' spread is weighed against what is usual, so that the first
    waves, which say little of it, do not make the forecast jump.
    """
    n = len(scale.essay_ids)
    found = empirical_bayes(scale)
    usual_weight, weight, told = 1 / _SPREADS_DIFFER**2, 0.0, 0.0
    if found.reliability > 0:
        # A standard deviation from n essays errs by 1/sqrt(2(n-1)), the more the noisier they are.
        weight = 2 * (n - 1) * found.reliability**2
        told = math.log(found.true_sd)
    spread = _Spread(
        (usual_weight * math.log(USUAL_SPREAD) + weight * told) / (usual_weight + weight),
        1 / math.sqrt(usual_weight + weight),
    )
    so_far = round(float(scale.n_comparisons.sum()) / 2)
    needed = _needed(n, rule, strategy, spread)
    return _forecast(needed, so_far, wave_size, usd_per_comparison)


@dataclass(frozen=True)
class _Spread:
    """What is held of the essays' true spread: the mean and the error of its logarithm."""

    log_mean: float
    log_error: float


def _needed(
    n_essays: int, rule: PreciseRule, strategy: Strategy, spread: _Spread
) -> tuple[float, float, float]:
    """Return comparisons in all: expected, and the ends of the interval."""
    worth = _WORTH_OF_CHOOSING if strategy not in _WITHOUT_SCORES else 1.0

    def at(log_spread: float) -> float:
        sd = math.exp(log_spread)
        told = worth * _information_per_comparison(sd) * _variance_allowed(rule, sd)
        # One comparison more than the errors ask for goes into joining the essays.
        return n_essays / 2 * (1 / told + 1)

    ends = [at(spread.log_mean + sign * _Z * spread.log_error) for sign in (-1, 1)]
    doubt = math.exp(_Z * _LEAST_DOUBT)
    return at(spread.log_mean), min(ends) / doubt, max(ends) * doubt


def _forecast(
    needed: tuple[float, float, float],
    so_far: int,
    wave_size: int,
    usd_per_comparison: float | None,
) -> Forecast:
    total, lower, upper = (max(so_far, math.ceil(each)) for each in needed)
    left = total - so_far
    usd = None if usd_per_comparison is None else left * usd_per_comparison
    return Forecast(total, lower, upper, -(-left // wave_size), usd)


def _variance_allowed(rule: PreciseRule, spread: float) -> float:
    """Return the error variance at which every target is met, for essays of this spread."""
    allowed = []
    if rule.reliability is not None:
        allowed.append(spread**2 / _odds(rule.reliability))
    if rule.mean_standard_error is not None:
        allowed.append(rule.mean_standard_error**2)
    if rule.max_standard_error is not None:
        # The essay placed least surely has about one and a half times the mean's variance.
        allowed.append(rule.max_standard_error**2 / 1.5)
    return min(allowed)


def _information_per_comparison(spread: float) -> float:
    """Return the mean of P(A) P(B) over pairs of essays with this spread."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(31)
    apart = nodes * spread * math.sqrt(2)
    return float(np.sum(weights * (0.25 - 0.25 * np.tanh(0.5 * apart) ** 2)) / weights.sum())


def _odds(reliability: float) -> float:
    return reliability / (1 - reliability)
