"""What a batch's forecast goes by, from its settings: see `forecast`."""

from __future__ import annotations

from cj_pipeline.pairing.strategies import strategy_named
from cj_pipeline.queries.batch_record import BatchRecord, pairs_per_wave
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
    )
