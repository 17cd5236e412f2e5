"""How many comparisons, waves and dollars it will take to be as precise as a batch requires.

Information adds up: twice the comparisons per essay, half the error variance. So every target is
first put as the error variance at which it is met, and that as a number of comparisons. Before
the first verdict the essays' spread is assumed, afterwards the scale shows it. Whether a
batch is precise is decided elsewhere (`precision`); this only forecasts.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from cj_pipeline.batch.options import PrecisionTargets
from cj_pipeline.diagnostics.spread import (
    USUAL,
    USUAL_SPREAD,
    LikelySpread,
    likely_spread,
    likely_student_spread,
)
from cj_pipeline.pairing.strategies import Efficiency
from cj_pipeline.scale.bradley_terry import Scale
from cj_pipeline.scale.score_posterior import score_posterior
from cj_pipeline.stopping.precision import Precision

_Z = 1.2816
"""Ten per cent lie above it: intervals hold eighty."""
_LEAST_DOUBT = 0.12
"""Relative error of a forecast that knows the spread: a judge's luck varies."""
_RANKS_PER_SPREAD = math.sqrt(1 / (2 * math.pi * math.sqrt(3)))
"""Root mean square, over normal essays, of the share of them within one standard deviation's
move: an error of one spread moves a rank by this share of the batch."""


@dataclass(frozen=True)
class Forecast:
    """What it takes to reach a target, from now on; a tenth of batches lies beyond each end.

    Attributes:
        total: Comparisons in all, those already made among them.
        lower: A tenth of the batches will need fewer.
        upper: A tenth will need more.
        waves: Still to come, at the size planned.
        usd: Still to be spent; None where no price is known.
        usd_lower: The same for `lower`.
        usd_upper: The same for `upper`.
    """

    total: int
    lower: int
    upper: int
    waves: int
    usd: float | None
    usd_lower: float | None = None
    usd_upper: float | None = None

    def in_words(self, ends_at: int) -> str:
        """Return the forecast as `cj plan`, the UI and the report say it.

        Args:
            ends_at: The comparisons at which the batch ends whatever it has reached.
        """
        waves = "1 more wave" if self.waves == 1 else f"{self.waves:,} more waves"
        text = f"{self.total:,} comparisons ({self.lower:,} to {self.upper:,}), {waves}"
        if self.usd is not None and self.usd_lower is not None and self.usd_upper is not None:
            text += f", USD {self.usd:.4f} ({self.usd_lower:.4f} to {self.usd_upper:.4f})"
        if self.total > ends_at:
            text += f"; more than the {ends_at:,} at which this batch ends"
        return text


@dataclass(frozen=True)
class SamplingPlan:
    """How the comparisons are going to be made.

    Attributes:
        efficiency: The information in a comparison, with pairs chosen as they are.
        wave_size: Comparisons per wave.
        usd_per_comparison: What one is expected to cost; None where that is not known.
        grade_shares: The share of essays expected at each grade, lowest first; empty where
            there are no grades. Before the first verdict they say where boundaries lie.
        above: The share of students above the one cut that is the goal; None where there is none.
        named_only: Whether those above it count alone, as in `goal: top(...)`.
        goal_is_grades: Whether gains are counted in grade steps, not in ranks.
        verdicts_per_pair: How many comparisons a pair takes: of several judges, in both orders.
        worth_of_verdict: What each of these tells, of a verdict on a pair of its own.
    """

    efficiency: Efficiency
    wave_size: int
    usd_per_comparison: float | None = None
    grade_shares: tuple[float, ...] = ()
    goal_is_grades: bool = False
    above: float | None = None
    named_only: bool = False
    verdicts_per_pair: float = 1.0
    worth_of_verdict: float = 1.0


def forecast_at_plan(n_essays: int, rule: PrecisionTargets, plan: SamplingPlan) -> Forecast | None:
    """Return the forecast before the first verdict, for essays that differ as in most classes.

    None where the rule has a target that nothing is known of yet: gain per dollar without a price.
    """
    if rule.gain_per_usd is not None and plan.usd_per_comparison is None:
        return None
    return _forecast(_needed(n_essays, rule, plan, USUAL, None), 0, plan)


def forecast_from_scale(
    scale: Scale,
    rule: PrecisionTargets,
    plan: SamplingPlan,
    precision: Precision,
    *,
    is_precise: bool = True,
    anchor_ids: Collection[str] = (),
) -> Forecast | None:
    """Return the forecast from a batch's present state; None where a target cannot be foreseen.

    Args:
        scale: After the last wave.
        rule: The targets.
        plan: How further comparisons are made.
        precision: What the scale has reached; misgrading and gains are foreseen from there.
        anchor_ids: Whose spread is not the students'.
        is_precise: Whether that is enough to stop; otherwise it takes another wave at the least.
    """
    n = len(scale.essay_ids)
    if rule.misgrading is not None and precision.misgrading is None:
        return None
    if rule.gain_per_usd is not None and precision.gain_per_usd is None:
        return None
    if rule.misplaced is not None and not precision.misplaced:
        return None
    so_far = round(float(scale.n_comparisons.sum()) / 2)
    spread = likely_spread(scale)
    if anchor_ids:
        spread = likely_student_spread(score_posterior(scale, anchor_ids))
    needed = _needed(n, rule, plan, spread, _Now(so_far, precision))
    return _forecast(needed, so_far, plan, at_least=so_far + (not is_precise) * plan.wave_size)


@dataclass(frozen=True)
class _Now:
    """A batch's present state: comparisons so far, and what they have reached."""

    n_comparisons: int
    precision: Precision


def _needed(
    n_essays: int,
    rule: PrecisionTargets,
    plan: SamplingPlan,
    spread: LikelySpread,
    now: _Now | None,
) -> tuple[float, float, float]:
    """Return comparisons in all: expected, and the ends of the interval."""

    def at(log_spread: float) -> float:
        sd = math.exp(log_spread)
        information = _information_per_comparison(sd) * plan.worth_of_verdict
        for_scores = information * plan.efficiency.scores
        for_ranks = information * plan.efficiency.ranks
        # One pair more than the errors need goes into joining the essays, and no scale has fewer.
        counts = [
            n_essays / 2 * (1 / (for_scores * allowed) + plan.verdicts_per_pair)
            for allowed in _variances_allowed(rule, sd)
        ]
        counts.append((n_essays - 1) * plan.verdicts_per_pair)
        if rule.misgrading is not None:
            counts.append(_to_misgrading(n_essays, rule.misgrading, plan, now, for_ranks))
        if rule.misplaced is not None:
            counts.append(_to_misplaced(n_essays, rule.misplaced, plan, now, for_ranks))
        if rule.gain_per_usd is not None:
            counts.append(_to_gain(n_essays, rule.gain_per_usd, plan, now, (sd, for_ranks)))
        return max(counts)

    ends = [at(spread.log_mean + sign * _Z * spread.log_error) for sign in (-1, 1)]
    doubt = math.exp(_Z * _LEAST_DOUBT)
    expected = at(spread.log_mean)
    return expected, min(*ends, expected) / doubt, max(*ends, expected) * doubt


def _forecast(
    needed: tuple[float, float, float], so_far: int, plan: SamplingPlan, *, at_least: int = 0
) -> Forecast:
    total, lower, upper = (max(at_least, math.ceil(each)) for each in needed)
    price = plan.usd_per_comparison
    usd, usd_lower, usd_upper = (
        None if price is None else (each - so_far) * price for each in (total, lower, upper)
    )
    waves = -(-(total - so_far) // plan.wave_size)
    return Forecast(total, lower, upper, waves, usd, usd_lower, usd_upper)


def _variances_allowed(rule: PrecisionTargets, spread: float) -> list[float]:
    """Return the error variance at which each target of the scores is met, at this spread."""
    allowed = []
    if rule.reliability is not None:
        allowed.append(spread**2 / _odds(rule.reliability))
    if rule.mean_standard_error is not None:
        allowed.append(rule.mean_standard_error**2)
    if rule.max_standard_error is not None:
        # The essay placed least surely has about one and a half times the mean's variance.
        allowed.append(rule.max_standard_error**2 / 1.5)
    return allowed


def _to_misgrading(
    n_essays: int, target: float, plan: SamplingPlan, now: _Now | None, information: float
) -> float:
    """Return the comparisons at which no more than this share of students is graded wrongly.

    Close to a boundary with density f of essays about it, errors of standard deviation e put
    f e sqrt(2 / pi) of the essays on the wrong side. So the share falls with e.
    """
    if now is not None and now.precision.misgrading is not None:
        return now.n_comparisons * (now.precision.misgrading / target) ** 2
    spread, e_per_share = 1.0, _boundary_density(plan.grade_shares) * math.sqrt(2 / math.pi)
    error = target * spread / max(e_per_share, 1e-9)
    # The spread cancels but for what a comparison tells, which `information` holds per squared
    # logit.
    return n_essays / 2 * (1 / (information * (error * USUAL_SPREAD) ** 2) + plan.verdicts_per_pair)


def _to_misplaced(
    n_essays: int, target: float, plan: SamplingPlan, now: _Now | None, information: float
) -> float:
    """Return the comparisons at which no more than this share is on the wrong side of one cut.

    As for misgrading; of those above the cut alone, half of the misplaced ones are as many.
    """
    if now is not None and now.precision.misplaced:
        return now.n_comparisons * (now.precision.misplaced / target) ** 2
    above = 0.5 if plan.above is None else plan.above
    share = target * 2 * above if plan.named_only else target
    error = share / max(_boundary_density((1 - above, above)) * math.sqrt(2 / math.pi), 1e-9)
    return n_essays / 2 * (1 / (information * (error * USUAL_SPREAD) ** 2) + plan.verdicts_per_pair)


def _to_gain(
    n_essays: int,
    target: float,
    plan: SamplingPlan,
    now: _Now | None,
    spread_and_information: tuple[float, float],
) -> float:
    """Return the comparisons after which a dollar gains no more than this.

    The typical error falls with one over the root of the comparisons, so what the next one gains
    falls with their power -3/2.
    """
    if now is not None and now.precision.gain_per_usd is not None:
        return now.n_comparisons * math.pow(now.precision.gain_per_usd / target, 2 / 3)
    spread, information = spread_and_information
    per_logit = n_essays * _RANKS_PER_SPREAD / spread
    if plan.goal_is_grades:
        per_logit = _boundary_density(plan.grade_shares) * math.sqrt(math.pi) / spread
    price = plan.usd_per_comparison or 0.0
    # error = per_logit sqrt(n / (2 information T)); minus its slope in T, per dollar, is the
    # target.
    at_one = per_logit * math.sqrt(n_essays / (2 * information))
    return math.pow(at_one / (2 * max(target * price, 1e-12)), 2 / 3)


def _boundary_density(shares: Sequence[float]) -> float:
    """Return the summed density of essays at the boundaries, for a spread of one."""
    normal = NormalDist()
    below = np.cumsum(shares)[:-1] / max(float(np.sum(shares)), 1e-12)
    return sum(normal.pdf(normal.inv_cdf(min(max(float(p), 1e-6), 1 - 1e-6))) for p in below)


def _information_per_comparison(spread: float) -> float:
    """Return the mean of P(A) P(B) over pairs of essays with this spread."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(31)
    apart = nodes * spread * math.sqrt(2)
    return float(np.sum(weights * (0.25 - 0.25 * np.tanh(0.5 * apart) ** 2)) / weights.sum())


def _odds(reliability: float) -> float:
    return reliability / (1 - reliability)
