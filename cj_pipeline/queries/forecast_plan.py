"""What a batch's forecast goes by: its settings (see `forecast`), and what this store has seen."""

from __future__ import annotations

from dataclasses import dataclass

from cj_pipeline.batch.options import goal_of
from cj_pipeline.intake.settings import common_share
from cj_pipeline.judging.judges import Judge
from cj_pipeline.pairing.strategies import AT_ONE_CUT, strategy_named
from cj_pipeline.queries.batch_record import BatchRecord, pairs_in_wave
from cj_pipeline.scale.dependence import USUAL_BETWEEN, USUAL_REPEATED
from cj_pipeline.stopping.continuation import completion_denominator
from cj_pipeline.stopping.forecast import SamplingPlan
from cj_pipeline.store.session import Session

MIN_JOBS, MIN_CALLS, MIN_ANSWERS = 3, 20, 20
"""Fewer say too little of the next ones."""


@dataclass(frozen=True)
class PastCalls:
    """What a store has seen of a judge; None where that is too little to go by.

    Attributes:
        job_s: Seconds from sent to ended that four fifths of its model's provider jobs lie between.
        n_jobs: How many there were.
        call_s: Seconds that four fifths of its model's single calls lie between.
        n_calls: How many there were.
        answer_tokens: Output tokens a verdict of this judge takes on average, reasoning included.
        n_answers: How many answers that is from.
    """

    job_s: tuple[float, float] | None = None
    n_jobs: int = 0
    call_s: tuple[float, float] | None = None
    n_calls: int = 0
    answer_tokens: float | None = None
    n_answers: int = 0


def past_calls(db: Session, judge: Judge) -> PastCalls:
    """Return what a store has seen of a judge: times of its model, tokens of itself."""
    model = {"provider": judge.provider, "model": judge.model}
    jobs = db.rows(
        """
        SELECT count(*) AS n, quantile_cont(s, 0.1) AS low, quantile_cont(s, 0.9) AS high FROM (
            SELECT epoch(ended_at) - epoch(submitted_at) AS s FROM provider_jobs
            WHERE provider = $provider AND model = $model AND ended_at >= submitted_at
              AND batching_mode = 'provider_batch_api'
        )
        """,
        model,
    )[0]
    calls = db.rows(
        """
        SELECT count(*) AS n, quantile_cont(latency_s, 0.1) AS low,
               quantile_cont(latency_s, 0.9) AS high
        FROM live_calls l
        JOIN judges j ON j.batch_id = l.batch_id AND j.judge_id = l.judge_id
        WHERE j.provider = $provider AND j.model = $model AND l.outcome = 'answered'
        """,
        model,
    )[0]
    answers = db.rows(
        "SELECT count(*) AS n, avg(tokens_completion) AS tokens FROM attempts"
        " WHERE judge_id = ? AND outcome = 'succeeded' AND tokens_completion > 0",
        [judge.judge_id],
    )[0]
    return PastCalls(
        job_s=(jobs["low"], jobs["high"]) if jobs["n"] >= MIN_JOBS else None,
        n_jobs=jobs["n"],
        call_s=(calls["low"], calls["high"]) if calls["n"] >= MIN_CALLS else None,
        n_calls=calls["n"],
        answer_tokens=answers["tokens"] if answers["n"] >= MIN_ANSWERS else None,
        n_answers=answers["n"],
    )


def plan_ahead(record: BatchRecord, usd_per_comparison: float | None) -> SamplingPlan:
    """Return how a batch's comparisons are going to be requested."""
    settings = record.settings
    shares: tuple[float, ...] = ()
    terms = record.grading_terms
    if terms is not None and record.anchor_grades:
        steps = terms.scale.steps
        shares = terms.scale.priors or (1 / len(steps),) * len(steps)
    goal = goal_of(settings.goal)
    efficiency = strategy_named(settings.strategy).efficiency
    if goal.is_one_cut and settings.strategy == "adaptive":
        efficiency = AT_ONE_CUT
    n_students = len(record.student_ids)
    n_above = goal.n_above(n_students)
    above = None if n_above is None else n_above / max(n_students, 1)
    if goal.grade is not None and terms is not None and shares:
        above = sum(shares[terms.scale.steps.index(goal.grade) :]) / sum(shares)
    return SamplingPlan(
        efficiency=efficiency,
        above=above,
        named_only=goal.kind == "top",
        # Each verdict counts, also those of several judges on one pair.
        wave_size=_comparisons_per_wave(record),
        usd_per_comparison=usd_per_comparison,
        grade_shares=shares,
        goal_is_grades=settings.goal == "grades" and bool(shares),
        verdicts_per_pair=record.rules.verdicts_per_pair * (2 if settings.both_orders else 1),
        worth_of_verdict=_worth_of_verdict(record),
    )


def _comparisons_per_wave(record: BatchRecord) -> int:
    most = completion_denominator(len(record.essay_ids), record.rules)
    return max(1, min(most, round(pairs_in_wave(record) * record.rules.verdicts_per_pair)))


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
