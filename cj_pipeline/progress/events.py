"""What the rows say of a batch's progress, and the events that are due.

`record_progress` is called inside every transaction that changes a batch's state: what
landed, and that it landed, is committed together. It works out which events are due by the rows and
not yet recorded, so it may be called twice, late, or by another process after a kill: the
events are the same, and after `ended` there are none.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any, Literal

import structlog

from cj_pipeline.batch.comparisons import PEOPLE_FROM
from cj_pipeline.progress.values import (
    MAX_LANDINGS,
    MIN_GAPS,
    EventKind,
    Landing,
    Progress,
    ProgressEvent,
    TargetProgress,
    checkpoint_size,
    last_checkpoint,
    throughput,
    time_left,
)
from cj_pipeline.queries.batch_record import BatchRecord, load_batch
from cj_pipeline.queries.live_profile import stored_profile
from cj_pipeline.stopping.continuation import BatchOutcome, completion_denominator, outcome_of
from cj_pipeline.store.session import Session

log = structlog.get_logger()


def record_progress(
    db: Session, batch_id: str, now: datetime, *, checkpoint_every: int | None = None
) -> tuple[ProgressEvent, ...]:
    """Store the events that are due by a batch's rows, and return them.

    Args:
        db: A session that may write, after the rows were written.
        batch_id: The batch.
        now: When the events happened.
        checkpoint_every: After how many comparisons progress is reported; by default as the batch's
            profile has it, or a fortieth of all where it is not judged by single calls.

    Raises:
        UnknownBatchError: If the store has no such batch.
    """
    reported = _last_reported(db, batch_id)
    if reported["has_ended"]:
        return ()
    record = load_batch(db, batch_id)
    if record.state == "rejected":
        return ()
    progress = _progress(db, record, now, reported["share_done"])
    size = checkpoint_size(progress.n_expected, checkpoint_every or _configured_size(record))
    checkpoint = max(reported["checkpoint"], last_checkpoint(progress.n_done, size))
    if progress.outcome is not None:
        # Reported alone: any other event would already show how the batch came out.
        due = [EventKind.ENDED]
    else:
        is_due = {
            EventKind.OPENED: not reported["sequence"],
            EventKind.ASKED: _last_wave(db, "attempts", batch_id) > reported["requested_wave"],
            EventKind.CHECKPOINT: checkpoint > reported["checkpoint"],
            EventKind.DECIDED: _last_wave(db, "wave_decisions", batch_id)
            > reported["decided_wave"],
            EventKind.CANCELLING: progress.is_cancelling and not reported["is_cancelling"],
        }
        due = [kind for kind, is_so in is_due.items() if is_so]
    events = tuple(
        ProgressEvent(batch_id, sequence, kind, checkpoint, progress, now)
        for sequence, kind in enumerate(due, start=reported["sequence"] + 1)
    )
    db.insert("progress_events", [_row(event) for event in events])
    for event in events:
        _log(event)
    return events


def progress_of(db: Session, batch_id: str, now: datetime) -> Progress:
    """Return a batch's progress at this moment.

    Raises:
        UnknownBatchError: If the store has no such batch.
    """
    reported = _last_reported(db, batch_id)
    progress = _progress(db, load_batch(db, batch_id), now, reported["share_done"])
    # Whatever was collected since the end, the outcome stays as it was reported then.
    return (
        replace(progress, outcome=BatchOutcome(reported["outcome"]))
        if reported["outcome"]
        else progress
    )


def events_since(
    db: Session, batch_id: str, sequence: int = 0, *, at_most: int = 1000
) -> list[ProgressEvent]:
    """Return a batch's events after the one of that number, in order."""
    return [
        ProgressEvent(
            batch_id=row["batch_id"],
            sequence=row["sequence"],
            kind=EventKind(row["kind"]),
            checkpoint=row["checkpoint"],
            progress=Progress.from_json(row["progress"]),
            at=row["recorded_at"],
        )
        for row in db.rows(
            "SELECT * FROM progress_events WHERE batch_id = ? AND sequence > ?"
            " ORDER BY sequence LIMIT ?",
            [batch_id, sequence, at_most],
        )
    ]


def is_cancel_requested(db: Session, batch_id: str) -> bool:
    """Return whether a person has requested a batch's end: then nothing more is sent."""
    row = db.one(
        "SELECT cancel_requested FROM batches WHERE batch_id = ?",
        [batch_id],
    )
    return row is not None and bool(row["cancel_requested"])


def _last_reported(db: Session, batch_id: str) -> dict[str, Any]:
    """Return what has been reported of a batch so far."""
    row = db.one(
        """
        SELECT coalesce(max(sequence), 0) AS sequence,
               coalesce(max(checkpoint), 0) AS checkpoint,
               coalesce(max(share_done), 0) AS share_done,
               coalesce(max(wave) FILTER (kind = 'asked'), 0) AS requested_wave,
               coalesce(max(wave) FILTER (kind = 'decided'), 0) AS decided_wave,
               coalesce(bool_or(kind = 'cancelling'), FALSE) AS is_cancelling,
               coalesce(bool_or(kind = 'ended'), FALSE) AS has_ended,
               max(outcome) AS outcome
        FROM progress_events WHERE batch_id = ?
        """,
        [batch_id],
    )
    return row or {}


def _configured_size(record: BatchRecord) -> int | None:
    """Every step counts alike, whichever of them records the landing."""
    if record.settings.batching_mode == "provider_batch_api":
        return None
    return stored_profile(record.metadata).checkpoint_every


def _last_wave(db: Session, table: Literal["attempts", "wave_decisions"], batch_id: str) -> int:
    row = db.one(
        f"SELECT coalesce(max(wave), 0) AS wave FROM {table} WHERE batch_id = ?",  # noqa: S608
        [batch_id],
    )
    return int(row["wave"]) if row else 0


_TARGETS = """
WITH requested AS (
    SELECT judge_id,
           count(DISTINCT comparison_id) AS n_asked,
           count(*) FILTER (outcome IS NULL) AS n_open,
           coalesce(sum(tokens_prompt), 0) + coalesce(sum(tokens_completion), 0) AS tokens,
           min(requested_at) AS first_requested_at,
           max(completed_at) AS last_read_at
    FROM attempts WHERE batch_id = $batch GROUP BY judge_id
),
-- Answers to single calls that are here and not read yet.
landed AS (
    SELECT a.judge_id, count(*) AS n_landed, max(c.received_at) AS last_landed_at
    FROM attempts a
    JOIN callbacks c ON c.submission_key = a.submission_key AND c.custom_id = a.custom_id
    JOIN provider_jobs j ON j.submission_key = a.submission_key
    WHERE a.batch_id = $batch AND c.batch_id = $batch AND a.outcome IS NULL
      AND c.kind IN ('matched', 'failed', 'expired')
      AND j.batching_mode <> 'provider_batch_api'
    GROUP BY a.judge_id
),
-- What providers count as done in jobs that are not read yet; some count only at the end.
at_provider AS (
    SELECT judge_id,
           sum(CASE WHEN state = 'incomplete' THEN n_in_doubt
                    WHEN phase = 'collectable' THEN n_requests
                    ELSE least(n_requests, coalesce(n_completed, 0) + coalesce(n_failed, 0))
               END) AS n_counted,
           max(polled_at) AS last_counted_at
    FROM v_job_phases
    WHERE batch_id = $batch AND batching_mode = 'provider_batch_api'
      AND phase IN ('open', 'collectable')
    GROUP BY judge_id
),
ended AS (
    SELECT judge_id,
           count(*) FILTER (status = 'succeeded') AS n_succeeded,
           count(*) FILTER (status = 'failed') AS n_failed
    FROM comparisons WHERE batch_id = $batch GROUP BY judge_id
),
billed AS (
    SELECT judge_id,
           coalesce(sum(usd) FILTER (kind = 'billed'), 0) AS cost_usd,
           coalesce(sum(usd) FILTER (kind = 'reserved'), 0)
               - coalesce(sum(usd) FILTER (kind = 'released'), 0) AS reserved_usd
    FROM ledger WHERE batch_id = $batch GROUP BY judge_id
)
SELECT t.judge_id, t.name, t.provider, t.model,
       coalesce(n_asked, 0) AS n_asked,
       coalesce(n_open, 0) AS n_open,
       coalesce(n_succeeded, 0) AS n_succeeded,
       coalesce(n_failed, 0) AS n_failed,
       CAST(coalesce(n_landed, 0) + coalesce(n_counted, 0) AS BIGINT) AS n_unread,
       CAST(coalesce(tokens, 0) AS BIGINT) AS tokens,
       coalesce(cost_usd, 0) AS cost_usd,
       coalesce(reserved_usd, 0) AS reserved_usd,
       first_requested_at,
       greatest(last_read_at, last_landed_at, last_counted_at) AS last_at
FROM judges t
LEFT JOIN requested USING (judge_id)
LEFT JOIN landed USING (judge_id)
LEFT JOIN at_provider USING (judge_id)
LEFT JOIN ended USING (judge_id)
LEFT JOIN billed USING (judge_id)
WHERE t.batch_id = $batch AND t.provider <> 'human' ORDER BY t.name, t.judge_id
"""


def _progress(db: Session, record: BatchRecord, now: datetime, share_before: float) -> Progress:
    rows = db.rows(_TARGETS, {"batch": record.batch_id})
    targets = tuple(_target(row) for row in rows)
    n_succeeded = sum(target.n_succeeded for target in targets)
    n_failed = sum(target.n_failed for target in targets)
    n_done = sum(target.n_done for target in targets)
    n_asked = sum(target.n_asked for target in targets)
    wave, n_planned = _planned(db, record.batch_id)
    n_expected = _n_expected(record, n_planned)
    outcome = outcome_of(record.state, record.end_reason, n_asked=n_asked, n_failed=n_failed)
    has_scores = outcome is not None and outcome.has_scores
    runs = record.state == "running"
    landings = _landings(db, record, Landing(now, n_done), n_expected - n_asked)
    cost_usd = sum(target.cost_usd for target in targets)
    n_ended = n_succeeded + n_failed
    ends_without = (outcome is not None and not has_scores) or record.cancel_requested
    share = _share_done(
        n_succeeded if ends_without else n_done,
        n_expected,
        share_before,
        is_complete=has_scores,
    )
    return Progress(
        batch_id=record.batch_id,
        state=record.state,
        end_reason=record.end_reason,
        outcome=outcome,
        is_cancelling=runs and record.cancel_requested,
        wave=wave,
        n_expected=n_expected,
        may_end_sooner=runs and _may_end_sooner(record),
        n_asked=n_asked,
        n_done=n_done,
        n_succeeded=n_succeeded,
        n_failed=n_failed,
        n_in_flight=sum(target.n_in_flight for target in targets),
        share_done=share,
        comparisons_per_s=throughput(landings, now) if runs else _mean_pace(rows, n_done),
        eta=time_left(landings, n_expected - n_done, now) if runs else None,
        cost_usd=cost_usd,
        reserved_usd=max(0.0, sum(row["reserved_usd"] for row in rows)),
        projected_usd=_projected(cost_usd, n_ended, n_expected) if runs else cost_usd,
        spend_cap_usd=record.settings.spend_cap_usd,
        targets=targets,
        at=now,
    )


def _target(row: dict[str, Any]) -> TargetProgress:
    n_ended = row["n_succeeded"] + row["n_failed"]
    n_unread = min(row["n_unread"], row["n_open"])
    n_done = n_ended + n_unread
    if not row["n_asked"]:
        status = "waiting"
    elif 2 * row["n_failed"] > n_ended:
        status = "failing"
    else:
        status = "asking" if row["n_open"] else "done"
    return TargetProgress(
        judge_id=row["judge_id"],
        name=row["name"],
        provider=row["provider"],
        model=row["model"],
        status=status,
        n_asked=row["n_asked"],
        n_done=n_done,
        n_succeeded=row["n_succeeded"],
        n_failed=row["n_failed"],
        n_in_flight=row["n_open"] - n_unread,
        comparisons_per_s=_pace(n_done, row["first_requested_at"], row["last_at"]),
        tokens=row["tokens"],
        cost_usd=row["cost_usd"],
    )


def _pace(n_done: int, first: datetime | None, last: datetime | None) -> float | None:
    if not n_done or first is None or last is None or last <= first:
        return None
    return n_done / (last - first).total_seconds()


def _mean_pace(rows: list[dict[str, Any]], n_done: int) -> float | None:
    firsts = [row["first_requested_at"] for row in rows if row["first_requested_at"]]
    lasts = [row["last_at"] for row in rows if row["last_at"]]
    return _pace(n_done, min(firsts, default=None), max(lasts, default=None))


def _planned(db: Session, batch_id: str) -> tuple[int, int]:
    row = db.one(
        "SELECT coalesce(max(wave), 0) AS wave, count(*) AS n FROM comparison_pairs"
        " WHERE batch_id = ? AND sequence < ?",
        [batch_id, PEOPLE_FROM],
    )
    return (int(row["wave"]), int(row["n"])) if row else (0, 0)


_NOT_QUITE_ALL = 0.99


def _share_done(n_done: int, n_expected: int, before: float, *, is_complete: bool) -> float:
    """Return the share done, never less than before; all of it only once there are scores."""
    if is_complete:
        return 1.0
    share = n_done / n_expected if n_expected else 0.0
    return max(before, min(share, _NOT_QUITE_ALL))


def _n_expected(record: BatchRecord, n_planned: int) -> int:
    is_all_planned = n_planned and (record.settings.all_at_once or record.nothing_left_to_ask)
    if is_all_planned:
        return n_planned
    return completion_denominator(len(record.essay_ids), record.rules)


def _may_end_sooner(record: BatchRecord) -> bool:
    rules = record.rules
    return not rules.all_at_once and (
        record.settings.precise is not None or rules.score_stability_threshold is not None
    )


def _projected(cost_usd: float, n_ended: int, n_expected: int) -> float | None:
    """Return the cost of all that may be requested, at the mean so far."""
    return cost_usd * max(1.0, n_expected / n_ended) if n_ended else None


def _landings(db: Session, record: BatchRecord, now: Landing, n_unrequested: int) -> list[Landing]:
    """Return how the count has risen since the first request, and how it is now.

    Events report it at every checkpoint. A small batch may pass one or none; once all is requested,
    its single calls' answers show it, each by its time. Before, they know nothing of the pauses in
    which further waves are chosen.

    Args:
        db: A session.
        record: The batch.
        now: How the count is.
        n_to_come: Comparisons that are not yet requested.
    """
    rows = db.rows(
        "SELECT recorded_at, n_done FROM progress_events WHERE batch_id = ? AND sequence >= ("
        " SELECT min(sequence) FROM progress_events WHERE batch_id = ? AND kind = 'asked')"
        " ORDER BY sequence DESC LIMIT ?",
        [record.batch_id, record.batch_id, 4 * MAX_LANDINGS],
    )
    reported = [Landing(row["recorded_at"], row["n_done"]) for row in reversed(rows)]
    if n_unrequested <= 0 and len({landing.n_done for landing in reported}) <= MIN_GAPS:
        answered = _answers(db, record, now.n_done)
        reported = [*reported[:1], *answered] if answered else reported
    return [*reported, now]


def _answers(db: Session, record: BatchRecord, n_done: int) -> list[Landing]:
    """Return how the count rose with the latest answers to single calls; none to provider jobs."""
    if record.settings.batching_mode == "provider_batch_api":
        return []
    rows = db.rows(
        "SELECT answered_at FROM live_calls WHERE batch_id = ? AND outcome = 'answered'"
        " ORDER BY answered_at DESC LIMIT ?",
        [record.batch_id, min(n_done, MAX_LANDINGS + 1)],
    )
    counts = range(n_done - len(rows) + 1, n_done + 1)
    return [Landing(row["answered_at"], n) for row, n in zip(reversed(rows), counts, strict=True)]


def _row(event: ProgressEvent) -> dict[str, Any]:
    progress = event.progress
    has_ended = event.kind is EventKind.ENDED
    return {
        "batch_id": event.batch_id,
        "sequence": event.sequence,
        "kind": event.kind.value,
        "outcome": progress.outcome if has_ended else None,
        "wave": progress.wave,
        "checkpoint": event.checkpoint,
        "n_done": progress.n_done,
        "share_done": progress.share_done,
        "cost_usd": progress.cost_usd,
        "progress": progress.as_json(),
        "recorded_at": event.at,
    }


def _log(event: ProgressEvent) -> None:
    progress = event.progress
    log.info(
        "progress",
        batch_id=event.batch_id,
        sequence=event.sequence,
        kind=event.kind.value,
        outcome=progress.outcome.value if progress.outcome else None,
        n_done=progress.n_done,
        n_expected=progress.n_expected,
        share_done=round(progress.share_done, 4),
        eta_s=round(progress.eta.seconds, 1) if progress.eta else None,
        cost_usd=progress.cost_usd,
        projected_usd=progress.projected_usd,
    )
