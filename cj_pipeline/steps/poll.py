"""One bounded look at each open provider job: what the providers say becomes rows.

When to look again depends on the job's age and on how long such jobs took lately; all of it is in
the store, so nobody sleeps, and any process may take the next look.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog

from cj_pipeline.errors import CJError, FinalError, ProviderUnavailableError
from cj_pipeline.judging.judges import Judge
from cj_pipeline.progress.events import record_progress
from cj_pipeline.provider_jobs.adoption import settle_duplicates
from cj_pipeline.provider_jobs.ledger import require_same_account
from cj_pipeline.provider_jobs.poll_schedule import (
    AFTER_REFUSAL,
    LEAST_WAIT_FOR_ROOM,
    PollSchedule,
    backoff,
    stalled_since,
    usual_durations,
)
from cj_pipeline.providers.base import JobOutcome, JobStatus, results_expire_at
from cj_pipeline.runtime import Runtime
from cj_pipeline.store.session import Session

log = structlog.get_logger()

ASKED_AT_ONCE = 8
"""Requests in flight in one look; two hundred open jobs at 0.3 s each are then eight seconds."""

MOST_IN_A_LOOK = 250
"""Jobs asked about in one look, so that keeping what all of them tell is bounded too."""


@dataclass(frozen=True)
class Polled:
    """What one tick saw: how many jobs it asked about, and whose have ended."""

    n_polled: int
    batches_with_ended_jobs: frozenset[str]


@dataclass(frozen=True)
class _PollFailure:
    """Why a look told nothing, and for how long to leave the provider alone."""

    problem: str
    wait: timedelta
    is_final: bool
    for_the_account: bool = False


@dataclass(frozen=True)
class _PollResult:
    """One look at one job; `told_to_stop` says that it was cancelled with it."""

    job: Mapping[str, Any]
    found: JobStatus | _PollFailure
    results_expire_at: datetime | None = None
    told_to_stop: bool = False


def poll(runtime: Runtime, *, batch_id: str | None = None, at_most_s: float = 20.0) -> Polled:
    """Ask providers about open jobs that are due, one request a job, and keep the answers.

    Args:
        engine: The pipeline's connections.
        batch_id: Only this batch's jobs; by default those of all batches.
        at_most_s: When to stop asking; what is left is due first next time.
    """
    now = runtime.clock()
    with runtime.store.read() as db:
        jobs = db.rows(
            f"SELECT *, {_IS_UNWANTED} AS is_unwanted FROM provider_jobs"  # noqa: S608 -- constants
            f" WHERE {_IS_OPEN} AND coalesce(next_poll_at, $now) <= $now"
            " AND ($batch IS NULL OR batch_id = $batch) ORDER BY next_poll_at NULLS FIRST"
            " LIMIT $most",
            {"now": now, "batch": batch_id, "most": MOST_IN_A_LOOK},
        )
        row = db.one(f"SELECT count(*) AS n FROM provider_jobs WHERE {_IS_OPEN}")  # noqa: S608
        judges = _judges(db, {job["judge_id"] for job in jobs})
        usual = usual_durations(db, now) if jobs else {}
        has_duplicates = db.one("SELECT 1 AS found FROM duplicate_jobs WHERE state = 'duplicate'")
    looks = list(_poll_all(runtime, jobs, judges, at_most_s)) if jobs else []
    _keep(runtime, looks, PollSchedule(int(row["n"]) if row else 1, usual), now)
    if has_duplicates:
        settle_duplicates(runtime, batch_id)
    ended = {
        look.job["batch_id"]
        for look in looks
        if isinstance(look.found, JobStatus)
        and look.found.state == "ended"
        and not look.found.waits_for_capacity
    }
    return Polled(len(looks), frozenset(ended))


_IS_OPEN = "state IN ('submitted', 'adopted', 'running') AND batching_mode = 'provider_batch_api'"
_IS_UNWANTED = """(
    SELECT b.state <> 'running' OR b.cancel_requested
    FROM batches b WHERE b.batch_id = provider_jobs.batch_id
)"""


def next_poll_due(db: Session, batch_id: str) -> datetime | None:
    """Return when the first of a batch's open jobs may be looked at again; None without any."""
    row = db.one(
        f"SELECT min(next_poll_at) AS due FROM provider_jobs WHERE {_IS_OPEN} AND batch_id = ?",  # noqa: S608
        [batch_id],
    )
    return row["due"] if row else None


def next_due(db: Session, now: datetime) -> datetime | None:
    """Return when the first open job of any batch is to be polled, or a postponed one to be sent.

    None where no time is set; what is to be sent already is for `next_step` to tell.
    """
    row = db.one(
        f"SELECT min(next_poll_at) AS due FROM provider_jobs WHERE ({_IS_OPEN})"  # noqa: S608
        " OR (state IN ('intent', 'uploaded', 'ambiguous') AND next_poll_at > ?)",
        [now],
    )
    return row["due"] if row else None


def _judges(db: Session, judge_ids: set[str]) -> Mapping[str, Judge]:
    """Return judges by fingerprint: whichever batch they are listed with, they are the same."""
    rows = db.rows(
        "SELECT judge_id, any_value(definition) AS definition FROM judges"
        " WHERE judge_id IN (SELECT unnest(?)) GROUP BY judge_id",
        [sorted(judge_ids)],
    )
    return {row["judge_id"]: Judge.from_definition(row["definition"]) for row in rows}


def _poll_all(
    runtime: Runtime, jobs: Sequence[dict[str, Any]], judges: Mapping[str, Judge], at_most_s: float
) -> Iterator[_PollResult]:
    """Yield what was found of each job there was time for, in order."""
    deadline = time.monotonic() + at_most_s
    left_alone: dict[str, _PollFailure] = {}

    def look(job: dict[str, Any]) -> _PollResult | None:
        if time.monotonic() > deadline and job is not jobs[0]:
            return None
        if (asked_to_wait := left_alone.get(job["account"])) is not None:
            return _PollResult(job, asked_to_wait)
        found = _look(runtime, job, judges[job["judge_id"]])
        if isinstance(found.found, _PollFailure) and found.found.for_the_account:
            left_alone[job["account"]] = found.found
        return found

    with ThreadPoolExecutor(min(ASKED_AT_ONCE, len(jobs)), "poll") as threads:
        yield from (found for found in threads.map(look, jobs) if found is not None)


def _look(runtime: Runtime, job: dict[str, Any], judge: Judge) -> _PollResult:
    """Ask about one job; tell it to stop where nobody wants it any more and it was not told yet."""
    stop = bool(job["is_unwanted"]) and job["cancel_told_at"] is None
    try:
        provider = runtime.provider(judge)
        require_same_account(job, provider)
        found = (provider.cancel if stop else provider.poll)(job["provider_job_id"])
    except FinalError as error:
        log.warning("poll_refused", submission_key=job["submission_key"], error=str(error))
        return _PollResult(job, _PollFailure(str(error), AFTER_REFUSAL, is_final=True))
    except CJError as error:
        asked = error.retry_after_s if isinstance(error, ProviderUnavailableError) else None
        if asked is None:
            wait = backoff(runtime.clock() - job["intended_at"], job)
        else:
            wait = timedelta(seconds=asked)
        answer = _PollFailure(str(error), wait, is_final=False, for_the_account=asked is not None)
        return _PollResult(job, answer)
    made = found.created_at or job["submitted_at"] or job["intended_at"]
    return _PollResult(job, found, results_expire_at(made, provider.limits), told_to_stop=stop)


def _send_again(db: Session, job: dict[str, Any], found: JobStatus, now: datetime) -> None:
    """Put a job its provider had no room for back among the unsent: the same shard, later.

    It was not begun, so nothing was paid and nothing has to be looked for; its file stays.
    """
    wait = max(LEAST_WAIT_FOR_ROOM, (now - job["intended_at"]) / 10)
    db.execute(
        "UPDATE provider_jobs SET state = 'uploaded', provider_job_id = NULL,"
        " provider_status = ?, error_code = ?, error = ?, polled_at = ?, next_poll_at = ?,"
        " create_begun_at = NULL, n_poll_failures = 0, n_polls = n_polls + 1,"
        " lease_owner = NULL, lease_until = NULL"
        " WHERE submission_key = ? AND state IN ('submitted', 'adopted', 'running')",
        [
            found.provider_status,
            found.error_code,
            found.error,
            now,
            now + wait,
            job["submission_key"],
        ],
    )


def _keep(
    runtime: Runtime, looks: Sequence[_PollResult], pace: PollSchedule, now: datetime
) -> None:
    if not looks:
        return
    unchanged = [look.job for look in looks if _is_unchanged(look, now)]
    news = [look for look in looks if not _is_unchanged(look, now)]
    with runtime.store.write() as db:
        _keep_unchanged(db, unchanged, pace, now)
        for look in news:
            if isinstance(look.found, _PollFailure):
                _keep_no_answer(db, look.job, look.found, now)
            elif look.found.waits_for_capacity:
                _send_again(db, dict(look.job), look.found, now)
            else:
                _keep_status(db, look, look.found, pace, now)
        _leave_accounts_alone(db, news, now)
        for batch_id in sorted({look.job["batch_id"] for look in news}):
            record_progress(db, batch_id, now)
    for look in news:
        found, job = look.found, look.job
        if isinstance(found, JobStatus) and found.provider_status != job["provider_status"]:
            log.info(
                "provider_job_status",
                batch_id=job["batch_id"],
                submission_key=job["submission_key"],
                provider_job_id=job["provider_job_id"],
                provider_status=found.provider_status,
                n_completed=found.n_completed,
                n_failed=found.n_failed,
            )


def _is_unchanged(look: _PollResult, now: datetime) -> bool:
    """Whether a look told nothing that the row does not say, as most looks do."""
    job, found = look.job, look.found
    return (
        isinstance(found, JobStatus)
        and job["state"] == found.state == "running"
        and not (found.waits_for_capacity or found.error or found.warning)
        and not (look.told_to_stop or job["error"] or job["n_poll_failures"])
        and stalled_since(job, now) is None
        and all(
            job[name] == getattr(found, name)
            for name in ("provider_status", "n_completed", "n_failed")
        )
    )


def _keep_unchanged(
    db: Session, jobs: Sequence[Mapping[str, Any]], pace: PollSchedule, now: datetime
) -> None:
    """Keep that these were looked at: one statement, however many they are."""
    if not jobs:
        return
    db.execute(
        """
        UPDATE provider_jobs SET polled_at = $now, n_polls = n_polls + 1,
            next_poll_at = CAST($now AS TIMESTAMPTZ) + to_milliseconds(due.wait_ms)
        FROM (SELECT unnest($keys) AS submission_key, unnest($waits) AS wait_ms) due
        WHERE provider_jobs.submission_key = due.submission_key
          AND state IN ('submitted', 'adopted', 'running')
        """,
        {
            "now": now,
            "keys": [job["submission_key"] for job in jobs],
            "waits": [int(pace.wait(job, now).total_seconds() * 1000) for job in jobs],
        },
    )


def _keep_no_answer(
    db: Session, job: Mapping[str, Any], found: _PollFailure, now: datetime
) -> None:
    """Keep why nothing is known; a cancelled batch does not wait for a job it may not see."""
    unwanted = db.one(
        "SELECT 1 AS found FROM batches WHERE batch_id = ?"
        " AND (state <> 'running' OR cancel_requested)",
        [job["batch_id"]],
    )
    if found.is_final and unwanted:
        db.execute(
            "UPDATE provider_jobs SET state = 'ended', outcome = ?, error = ?, polled_at = ?,"
            " next_poll_at = NULL, ended_at = ?, n_polls = n_polls + 1 WHERE submission_key = ?"
            " AND state IN ('submitted', 'adopted', 'running')",
            [JobOutcome.CANCELLED, found.problem, now, now, job["submission_key"]],
        )
        return
    db.execute(
        "UPDATE provider_jobs SET polled_at = ?, next_poll_at = ?, error = ?,"
        " n_polls = n_polls + 1, n_poll_failures = coalesce(n_poll_failures, 0) + 1"
        " WHERE submission_key = ? AND state IN ('submitted', 'adopted', 'running')",
        [now, now + found.wait, found.problem, job["submission_key"]],
    )


def _leave_accounts_alone(db: Session, looks: Sequence[_PollResult], now: datetime) -> None:
    """Put off all open jobs of an account that asked for it, also those whose turn comes sooner."""
    waits = {
        look.job["account"]: look.found.wait
        for look in looks
        if isinstance(look.found, _PollFailure) and look.found.for_the_account
    }
    for account, wait in waits.items():
        db.execute(
            f"UPDATE provider_jobs SET next_poll_at = $until WHERE {_IS_OPEN}"  # noqa: S608
            " AND account = $account AND next_poll_at < $until",
            {"until": now + wait, "account": account},
        )


def _keep_status(
    db: Session,
    look: _PollResult,
    found: JobStatus,
    pace: PollSchedule,
    now: datetime,
) -> None:
    job = look.job
    ended = found.state == "ended"
    counts = (found.n_completed, found.n_failed, found.provider_status)
    before = (job["n_completed"], job["n_failed"], job["provider_status"])
    changed_at = now if counts != before else job["counts_changed_at"]
    warning = found.warning
    stalled = stalled_since({**job, "counts_changed_at": changed_at}, now)
    if warning is None and not ended and stalled is not None:
        warning = f"no progress since {stalled:%Y-%m-%d %H:%M} UTC: `cj doctor` says what to do"
        log.warning("provider_job_stalled", submission_key=job["submission_key"], since=stalled)
    db.execute(
        """
        UPDATE provider_jobs SET
            state = $state, outcome = $outcome, provider_status = $provider_status,
            n_completed = $n_completed, n_failed = $n_failed,
            error_code = $error_code, error = coalesce($error, $warning),
            provider_tokens_prompt = $prompt, provider_tokens_cached = $cached,
            provider_tokens_completion = $completion,
            output_file_id = $output, error_file_id = $errors, polled_at = $now,
            next_poll_at = $next, ended_at = $ended, n_polls = n_polls + 1, n_poll_failures = 0,
            counts_changed_at = $changed, results_expire_at = coalesce($expire, results_expire_at),
            cancel_told_at = CASE WHEN $stopped THEN $now ELSE cancel_told_at END
        WHERE submission_key = $key AND state IN ('submitted', 'adopted', 'running')
        """,
        {
            "state": "ended" if ended else "running",
            "outcome": found.outcome,
            "provider_status": found.provider_status,
            "n_completed": found.n_completed,
            "n_failed": found.n_failed,
            "error_code": found.error_code,
            "error": found.error,
            "warning": warning,
            "prompt": found.usage.prompt if found.usage else None,
            "cached": found.usage.cached if found.usage else None,
            "completion": found.usage.completion if found.usage else None,
            "output": found.output_file_id,
            "errors": found.error_file_id,
            "now": now,
            "next": None if ended else now + pace.wait(job, now),
            "ended": (found.ended_at or now) if ended else None,
            "changed": changed_at,
            "expire": look.results_expire_at,
            "stopped": look.told_to_stop,
            "key": job["submission_key"],
        },
    )
