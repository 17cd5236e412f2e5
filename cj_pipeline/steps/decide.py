"""A wave that is complete becomes a decision: go on, resample, or end with a reason."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import structlog

from cj_pipeline.batch.comparisons import PEOPLE_FROM, PEOPLE_KEY, max_possible_pairs
from cj_pipeline.batch.options import goal_of
from cj_pipeline.progress.events import record_progress
from cj_pipeline.provider_jobs.canary import held_back
from cj_pipeline.queries.batch_record import (
    BatchRecord,
    current_wave,
    judged_pairs,
    load_batch,
    pairs_per_wave,
    waves_gone_past,
)
from cj_pipeline.queries.comparison_graph import (
    graph_so_far,
    provisional_grades,
    with_linked_scores,
    with_scores,
)
from cj_pipeline.queries.linked_scale import linked_scale
from cj_pipeline.queries.people import n_awaited
from cj_pipeline.queries.scale import fit_scale
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.fit import Fitted, fit_within
from cj_pipeline.steps.plan_people import plan_people
from cj_pipeline.stopping.continuation import (
    BatchProgress,
    ContinuationDecision,
    Decision,
    EndReason,
    completion_denominator,
    decide_continuation,
)
from cj_pipeline.store.session import Session

if TYPE_CHECKING:
    from cj_pipeline.grading.linked_scale import LinkedScale
    from cj_pipeline.grading.projection import GradeProjections
    from cj_pipeline.scale.bradley_terry import Scale
    from cj_pipeline.stopping.expected_gain import ExpectedGain
    from cj_pipeline.stopping.precision import Precision

log = structlog.get_logger()

_OUTLOOK_UP_TO = 300
"""Essays for which the next wave's worth is worked out unasked; it takes well under a second."""


@dataclass(frozen=True)
class WaveDecision:
    """What was decided after a wave, and the figures it was decided on."""

    wave: int
    decision: ContinuationDecision
    reason: EndReason | None
    progress: BatchProgress
    completion_denominator: int
    details: dict[str, Any]


def decide(runtime: Runtime, batch_id: str, *, is_stalled: bool = False) -> WaveDecision:
    """Decide what happens to a batch next and keep the decision with the wave.

    While callbacks are pending nothing is kept: the batch waits, and the log says for what. Waves
    that were sent together are decided one after the other, each by the verdicts up to it.
    """
    _decide_gone_past(runtime, batch_id, is_stalled=is_stalled)
    with runtime.store.write() as db:
        record = load_batch(db, batch_id)
        decided = _decide_within(db, record, runtime.clock(), is_stalled=is_stalled)
    _log(batch_id, decided)
    return decided


def fit_and_decide(runtime: Runtime, batch_id: str) -> WaveDecision:
    """Score a wave and decide by it, as `fit` and `decide` do, in one transaction for both."""
    _decide_gone_past(runtime, batch_id, fits=True)
    with runtime.store.write() as db:
        record = load_batch(db, batch_id)
        fitted = fit_within(db, record)
        decided = _decide_within(db, record, runtime.clock(), fitted=fitted)
    _log(batch_id, decided)
    return decided


def _decide_gone_past(
    runtime: Runtime, batch_id: str, *, fits: bool = False, is_stalled: bool = False
) -> None:
    """Store what was decided after each wave that others were sent with: it went on.

    A transaction each, so that nobody waits for all of them; nothing before all have ended.
    """
    with runtime.store.read() as db:
        gone_past = waves_gone_past(db, batch_id)
    for wave in gone_past:
        with runtime.store.write() as db:
            record = load_batch(db, batch_id)
            ends = decide_continuation(_counted(db, record, is_stalled=is_stalled), record.rules)
            if record.has_ended or ends.is_to_wait or wave not in waves_gone_past(db, batch_id):
                return
            scale = fit_within(db, record, wave).scale if fits else fit_scale(db, record, wave)
            decided = _gone_on(db, record, wave, scale)
            _keep(db, record, decided, runtime.clock())
        _log(batch_id, decided)


def _gone_on(db: Session, record: BatchRecord, wave: int, scale: Scale | None) -> WaveDecision:
    counted = _counted(db, record, is_stalled=False, up_to=wave)
    reached = _reached(db, record, scale, up_to=wave) if scale is not None else None
    progress = replace(
        counted,
        is_connected=scale is not None,
        max_score_change=_max_score_change(db, record.batch_id, wave, scale),
        next_wave_is_out=True,
    )
    details = _details(db, record, progress, scale, reached, up_to=wave)
    return _decided(record, wave, decide_continuation(progress, record.rules), progress, details)


def _decide_within(
    db: Session,
    record: BatchRecord,
    now: datetime,
    *,
    fitted: Fitted | None = None,
    is_stalled: bool = False,
) -> WaveDecision:
    wave = current_wave(db, record.batch_id)
    known = db.one(
        "SELECT decision, reason FROM wave_decisions WHERE batch_id = ? AND wave = ?",
        [record.batch_id, wave],
    )
    progress, scale, reached = _progress(db, record, wave, fitted=fitted, is_stalled=is_stalled)
    if known is not None and record.has_ended:
        decision = Decision(ContinuationDecision(known["decision"]), EndReason(known["reason"]))
    else:
        decision = decide_continuation(progress, record.rules)
    details = _details(db, record, progress, scale, reached)
    decided = _decided(record, wave, decision, progress, details)
    if not record.has_ended and not decision.is_to_wait:
        _keep(db, record, decided, now)
        record_progress(db, record.batch_id, now)
    return decided


def decide_again(runtime: Runtime, batch_id: str) -> bool:
    """Decide anew how a batch ended, by the verdicts it has now; nothing more is asked.

    Returns:
        False if it would not have ended yet: then its end stays as it was.
    """
    with runtime.store.write() as db:
        record = load_batch(db, batch_id)
        wave = current_wave(db, batch_id)
        progress, scale, reached = _progress(db, record, wave, is_stalled=False)
        decision = decide_continuation(progress, record.rules)
        if decision.is_to_wait:
            return True
        if decision.reason is None:
            return False
        earlier = db.one(
            "SELECT decision, reason, decided_at::VARCHAR AS decided_at FROM wave_decisions"
            " WHERE batch_id = ? AND wave = ?",
            [batch_id, wave],
        )
        details = _details(db, record, progress, scale, reached) | {"earlier_decision": earlier}
        decided = _decided(record, wave, decision, progress, details)
        _keep(db, record, decided, runtime.clock())
    _log(batch_id, decided)
    return True


def _decided(
    record: BatchRecord,
    wave: int,
    decision: Decision,
    progress: BatchProgress,
    details: dict[str, Any],
) -> WaveDecision:
    return WaveDecision(
        wave=wave,
        decision=decision.decision,
        reason=decision.reason,
        progress=progress,
        completion_denominator=completion_denominator(len(record.essay_ids), record.rules),
        details=details,
    )


def _progress(
    db: Session,
    record: BatchRecord,
    wave: int,
    *,
    fitted: Fitted | None = None,
    is_stalled: bool,
) -> tuple[BatchProgress, Scale | None, _Reached | None]:
    scale = fitted.scale if fitted is not None else fit_scale(db, record)
    reached = _reached(db, record, scale) if scale is not None else None
    progress = replace(
        _counted(db, record, is_stalled=is_stalled),
        is_connected=scale is not None,
        max_score_change=_max_score_change(db, record.batch_id, wave, scale),
        is_precise=_is_precise(db, record, wave, reached),
    )
    return progress, scale, reached


def _counted(
    db: Session, record: BatchRecord, *, is_stalled: bool, up_to: int | None = None
) -> BatchProgress:
    """Return what a decision takes but for the scale; comparisons of waves up to that one."""
    counts = comparison_counts(db, record.batch_id, up_to)
    models = {judge.judge_id for judge in record.judges}
    judged = judged_pairs(db, record.batch_id, up_to)
    covered = {frozenset(pair.pair) for pair in judged if pair.judge_id in models}
    return BatchProgress(
        n_essays=len(record.essay_ids),
        submitted=counts["submitted"] + (held_back(db, record) if up_to is None else 0),
        completed=counts["completed"],
        failed=counts["failed"],
        failed_as_expired=counts["failed_as_expired"],
        n_in_flight=_n_in_flight(db, record),
        n_awaited_of_people=n_awaited(db, record),
        n_covered_pairs=len(covered),
        spend_cap_reached=record.spend_cap_reached,
        canary_failed=record.canary_failed,
        nothing_left_to_ask=record.nothing_left_to_ask,
        is_cancelled=record.cancel_requested,
        is_stalled=is_stalled,
        n_in_doubt=counts["n_in_doubt"],
    )


def _n_in_flight(db: Session, record: BatchRecord) -> int:
    """Return how many requests are out; of a cancelled batch those alone that can be seen."""
    row = db.one(
        "SELECT count(*) AS n FROM attempts a LEFT JOIN provider_jobs p USING (submission_key)"
        " WHERE a.batch_id = ? AND a.outcome IS NULL"
        " AND NOT (? AND p.waiting_for IS NOT DISTINCT FROM 'key')",
        [record.batch_id, record.cancel_requested],
    )
    return int(row["n"]) if row else 0


def comparison_counts(db: Session, batch_id: str, up_to: int | None = None) -> dict[str, int]:
    """Return submitted, completed, failed and failed_as_expired comparisons of a batch's models.

    And how many of the failed ones are in doubt. Of waves up to that one, where one is given.
    """
    row = db.one(
        """
        SELECT
            (SELECT count(DISTINCT comparison_id) FROM attempts
             WHERE batch_id = $batch AND submission_key <> $people
             AND ($up_to IS NULL OR wave <= $up_to)) AS submitted,
            count(*) FILTER (status = 'succeeded') AS completed,
            count(*) FILTER (status = 'failed') AS failed,
            count(*) FILTER (failure_reason = 'expired') AS failed_as_expired,
            count(*) FILTER (status = 'failed' AND custom_id IN (
                SELECT custom_id FROM attempts
                WHERE batch_id = $batch AND in_doubt_usd IS NOT NULL
            )) AS n_in_doubt
        FROM comparisons WHERE batch_id = $batch AND sequence < $from
        AND ($up_to IS NULL OR wave <= $up_to)
        """,
        {"batch": batch_id, "people": PEOPLE_KEY, "from": PEOPLE_FROM, "up_to": up_to},
    )
    return {key: int(value) for key, value in (row or {}).items()}


def _max_score_change(db: Session, batch_id: str, wave: int, scale: Scale | None) -> float | None:
    before = db.rows(
        """
        SELECT essay_id, verdict_score FROM essay_scores
        WHERE batch_id = $batch AND wave = (
            SELECT max(wave) FROM essay_scores WHERE batch_id = $batch AND wave < $wave
        )
        """,
        {"batch": batch_id, "wave": wave},
    )
    if scale is None or not before:
        return None
    earlier: dict[str, float] = {row["essay_id"]: row["verdict_score"] for row in before}
    return max(
        abs(float(score) - earlier[essay_id])
        for essay_id, score in zip(scale.essay_ids, scale.scores, strict=True)
    )


def _is_precise(
    db: Session, record: BatchRecord, wave: int, reached: _Reached | None
) -> bool | None:
    """Return whether every target is met; None where the batch sets none.

    A reliability has to be met by two waves in a row: a batch that stopped at the first would stop
    when its verdicts happen to look better than they are.
    """
    rule = record.settings.precise
    if rule is None or reached is None:
        return None if rule is None else False
    from cj_pipeline.stopping.precision import meets

    if not meets(reached.precision, rule):
        return False
    return rule.reliability is None or _reliability_after(db, record, wave - 1) >= rule.reliability


def _reliability_after(db: Session, record: BatchRecord, wave: int) -> float:
    row = db.one(
        "SELECT (details->'precision'->>'reliability')::DOUBLE AS reliability"
        " FROM wave_decisions WHERE batch_id = ? AND wave = ?",
        [record.batch_id, wave],
    )
    return 0.0 if row is None or row["reliability"] is None else float(row["reliability"])


@dataclass(frozen=True)
class _Reached:
    """What the verdicts so far have reached, beside the scale itself.

    Attributes:
        precision: In every figure a batch may set a target for.
        outlook: What the next wave would bring; None where nobody asked and it takes long.
        usd_per_comparison: Of those that have a verdict, failed attempts included.
    """

    precision: Precision
    outlook: ExpectedGain | None
    usd_per_comparison: float | None


def _reached(db: Session, record: BatchRecord, scale: Scale, up_to: int | None = None) -> _Reached:
    from cj_pipeline.stopping.expected_gain import outlook
    from cj_pipeline.stopping.precision import precision_of

    rule = record.settings.precise
    wants_gain = rule is not None and rule.gain_per_usd is not None
    chain = linked_scale(db, record, scale, up_to)
    ahead = None
    if wants_gain or len(record.essay_ids) <= _OUTLOOK_UP_TO:
        net = with_scores(graph_so_far(db, record, up_to).graph, record, scale)
        net = with_linked_scores(db, record, net, scale, up_to)
        covered = len({frozenset(pair) for pair in net.shown})
        ahead = outlook(
            net,
            pairs_per_wave(record),
            seed=record.settings.seed,
            may_repeat=covered == max_possible_pairs(net.n_essays),
        )
    row = db.one(
        # In a stated order, or the sum's last digit would differ between two runs of one batch.
        "SELECT sum(cost_usd ORDER BY sequence)"
        " / nullif(count(*) FILTER (status = 'succeeded'), 0) AS usd"
        " FROM comparisons WHERE batch_id = $batch AND sequence < $from"
        " AND ($up_to IS NULL OR wave <= $up_to)",
        {"batch": record.batch_id, "from": PEOPLE_FROM, "up_to": up_to},
    )
    usd = float(row["usd"]) if row is not None and row["usd"] else None
    goal = goal_of(record.settings.goal)
    wants_grades = goal.grade is not None or (rule is not None and rule.misgrading is not None)
    precision = precision_of(
        scale,
        record.student_ids,
        projections=_grades(record, scale, chain) if wants_grades else None,
        outlook=ahead,
        usd_per_comparison=usd,
        standard_errors=None if chain is None else _errors_amid(chain, record),
        goal=goal,
    )
    return _Reached(precision, ahead, usd)


def _grades(
    record: BatchRecord, scale: Scale, chain: LinkedScale | None
) -> GradeProjections | None:
    if chain is None or record.grading_terms is None:
        return provisional_grades(record, scale)
    from cj_pipeline.grading.linked_scale import only
    from cj_pipeline.grading.rules import grade_by

    found = grade_by(record.grading_terms, chain, chain.anchor_grades, chain.judged)
    return only(found, record.essay_ids)


def _errors_amid(chain: LinkedScale, record: BatchRecord) -> dict[str, float]:
    """Return the students' standard errors as earlier batches' verdicts make them too."""
    place = {essay_id: i for i, essay_id in enumerate(chain.essay_ids)}
    return {
        essay_id: float(chain.covariance[place[essay_id], place[essay_id]]) ** 0.5
        for essay_id in record.student_ids
    }


def _details(
    db: Session,
    record: BatchRecord,
    progress: BatchProgress,
    scale: Scale | None,
    reached: _Reached | None,
    *,
    up_to: int | None = None,
) -> dict[str, Any]:
    """Return the summaries kept with each decision, under the keys older runs used."""
    row = db.one(
        """
        SELECT
            count(DISTINCT (least(essay_a, essay_b), greatest(essay_a, essay_b)))
                FILTER (status = 'succeeded') AS successful_pairs_count,
            count(*) FILTER (status = 'failed') AS failed_comparisons,
            (SELECT coalesce(max(resampling_pass), 0) FROM comparison_pairs
             WHERE batch_id = $batch AND ($up_to IS NULL OR wave <= $up_to)
            ) AS resampling_pass_count
        FROM comparisons WHERE batch_id = $batch AND ($up_to IS NULL OR wave <= $up_to)
        """,
        {"batch": record.batch_id, "up_to": up_to},
    )
    all_pairs = max_possible_pairs(len(record.essay_ids))
    details: dict[str, Any] = {
        "max_possible_pairs": all_pairs,
        **(row or {}),
        "unique_coverage_complete": row is not None and row["successful_pairs_count"] == all_pairs,
    }
    if scale is None or reached is None:
        return details
    from cj_pipeline.diagnostics.quality_flags import quality_flags, se_summary
    from cj_pipeline.diagnostics.reliability import reliability_details
    from cj_pipeline.scale.score_posterior import score_posterior

    posterior = score_posterior(scale, record.anchor_grades)
    details["bt_se_summary"] = se_summary(scale, posterior, record.student_ids)
    details["bt_quality_flags"] = quality_flags(
        details["bt_se_summary"],
        mean_se_warning=record.settings.mean_se_warning,
        max_se_warning=record.settings.max_se_warning,
    )
    details["precision"] = asdict(reached.precision)
    if reached.outlook is not None:
        details["outlook"] = asdict(reached.outlook)
    if record.settings.precise is not None:
        from cj_pipeline.queries.forecast_plan import plan_ahead
        from cj_pipeline.stopping.forecast import forecast_from_scale

        forecast = forecast_from_scale(
            scale,
            record.settings.precise,
            plan_ahead(record, reached.usd_per_comparison),
            reached.precision,
            is_precise=bool(progress.is_precise),
            anchor_ids=record.anchor_grades,
        )
        details["forecast"] = None if forecast is None else asdict(forecast)
    details |= reliability_details(scale, record.anchor_grades)
    return details


def _log(batch_id: str, decided: WaveDecision) -> None:
    progress = decided.progress
    log.info(
        decided.decision.value,
        batch_id=batch_id,
        wave=decided.wave,
        reason=decided.reason.value if decided.reason else None,
        pending_callbacks=progress.pending,
        submitted_comparisons=progress.submitted,
        completed_comparisons=progress.completed,
        failed_comparisons=progress.failed,
        completion_denominator=decided.completion_denominator,
    )


def _keep(db: Session, record: BatchRecord, decided: WaveDecision, now: datetime) -> None:
    """Keep the decision and, in the same transaction, the batch's end and its reason."""
    progress = decided.progress
    row = {
        "batch_id": record.batch_id,
        "wave": decided.wave,
        "decision": decided.decision.value,
        "reason": decided.reason.value if decided.reason else None,
        "submitted": progress.submitted,
        "completed": progress.completed,
        "failed": progress.failed,
        "completion_denominator": decided.completion_denominator,
        "success_rate": progress.success_rate,
        "max_score_change": progress.max_score_change,
        "details": decided.details | {"progress": asdict(progress)},
        "decided_at": now,
    }
    db.insert("wave_decisions", [row], on_conflict="replace")
    if decided.reason is None:
        return
    if decided.decision is ContinuationDecision.FINALIZE_SCORING:
        plan_people(db, record, now)
    if decided.reason is EndReason.CANCELLED:
        state = "cancelled"
    elif decided.decision is ContinuationDecision.FINALIZE_SCORING:
        state = "succeeded"
    else:
        state = "failed"
    db.execute(
        "UPDATE batches SET state = ?, end_reason = ?, ended_at = coalesce(ended_at, ?),"
        " updated_at = ?"
        " WHERE batch_id = ?",
        [state, decided.reason.value, now, now, record.batch_id],
    )
