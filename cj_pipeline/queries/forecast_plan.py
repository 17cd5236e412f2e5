"""What a batch's forecast goes by, from its settings: see `forecast`."""

from __future__ import annotations

from cj_pipeline.intake.settings import common_share
from cj_pipeline.pairing.strategies import strategy_named
from cj_pipeline.queries.batch_record import BatchRecord, pairs_per_wave
from cj_pipeline.scale.dependence import USUAL_BETWEEN, USUAL_REPEATED
from cj_pipeline.stopping.forecast import SamplingPlan


def plan_ahead(record: BatchRecord, usd_per_comparison: float | None) -> SamplingPlan:
    """Return how a batch's comparisons are going to be requested."""
    settings = record.settings
    shares: tuple[float, ...] = ()
    terms = record.grading_terms
    if terms is not None and record.anchor_grades:
        steps = terms.scale.steps
        shares = terms.scale.priors or (1 / len(steps),) * len(steps)
    return SamplingPlan(
        efficiency=strategy_named(settings.strategy).efficiency,
        # Each verdict counts, also those of several judges on one pair.
        wave_size=round(pairs_per_wave(record) * record.rules.verdicts_per_pair),
        usd_per_comparison=usd_per_comparison,
        grade_shares=shares,
        goal_is_grades=settings.goal == "grades" and bool(shares),
        verdicts_per_pair=record.rules.verdicts_per_pair * (2 if settings.both_orders else 1),
        worth_of_verdict=_worth_of_verdict(record),
    )


def _worth_of_verdict(record: BatchRecord) -> float:
    """Return what a verdict tells, of one on a pair of its own: several on a pair share its luck.

    By the correlations that are usual until the batch's own verdicts show them.
    """
    settings, per_pair = record.settings, record.rules.verdicts_per_pair
    if settings.verdict_dependence == "off":
        return 1.0
    common = common_share(settings)
    if common is None:
        told = _told_together(max(1.0, per_pair), USUAL_BETWEEN)
    else:
        n_judges = len(record.judges)
        told = common * _told_together(max(1, n_judges), USUAL_BETWEEN) + (1 - common)
    told /= max(1.0, per_pair)
    return told * (_told_together(2, USUAL_REPEATED) / 2 if settings.both_orders else 1.0)


def _told_together(n_verdicts: float, correlation: float) -> float:
    """Return how many independent verdicts so many correlated ones are worth."""
    return n_verdicts / (1 + (n_verdicts - 1) * correlation)
