"""One bounded look at each open provider job: what the providers say becomes rows.

When to look again depends on the job's age and on how long such jobs took lately; all of it is in
the store, so nobody sleeps, and any process may take the next look.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from cj_pipeline.batch.options import WaitingFor
from cj_pipeline.errors import CJError, FinalError, ProviderUnavailableError
from cj_pipeline.judging.judges import Judge
from cj_pipeline.progress.events import record_progress
from cj_pipeline.provider_jobs import clock_jumps, ledger
from cj_pipeline.provider_jobs.adoption import settle_duplicates
from cj_pipeline.provider_jobs.ledger import (
    OPEN,
    PollRecord,
    ProviderJob,
    waiting_for,
)
from cj_pipeline.provider_jobs.leftovers import delete_leftovers
from cj_pipeline.provider_jobs.ownership import may_stop, require_ours
from cj_pipeline.provider_jobs.poll_schedule import (
    AFTER_REFUSAL,
    FARTHEST,
    LEAST_WAIT_FOR_ROOM,
    PollSchedule,
    backoff,
    stalled_since,
    usual_durations,
)
from cj_pipeline.providers.base import JobStatus, results_expire_at
from cj_pipeline.runtime import Runtime
from cj_pipeline.store.session import Session

log = structlog.get_logger()

ASKED_AT_ONCE = 8
"""Requests in flight in one look; two hundred open jobs at 0.3 s each are then eight seconds."""

LEFTOVERS_IN_A_LOOK = 3
"""Things to be deleted that a look tries again, so that it stays short."""

MOST_IN_A_LOOK = 250
"""Jobs asked about in one look, so that keeping what all of them tell is bounded too."""


@dataclass(frozen=True)
class Polled:
    """What one tick saw: how many jobs it asked about, and whose have ended."""

    n_polled: int
    batches_with_ended_jobs: frozenset[str]


@dataclass(frozen=True)
class _DueJob:
    """A job to be polled, and whether its batch has no use for it any more."""

    job: ProviderJob
    is_unwanted: bool


@dataclass(frozen=True)
class _PollFailure:
    """Why a look told nothing, and for how long to leave the provider alone."""

    problem: str
    wait: timedelta
    is_final: bool
    for_the_account: bool = False
    waits_for: WaitingFor | None = None


@dataclass(frozen=True)
class _PollResult:
    """One look at one job; `told_to_stop` says that it was cancelled with it."""

    job: ProviderJob
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
        due = db.rows(
            f"SELECT *, {_IS_UNWANTED} AS is_unwanted FROM v_job_phases"  # noqa: S608 -- a constant
            " WHERE phase = 'open'"
            # No look is ever so far away: the clock has been set back since it was decided.
            " AND (coalesce(next_poll_at, $now) <= $now OR next_poll_at > $farthest)"
            " AND ($batch IS NULL OR batch_id = $batch) ORDER BY next_poll_at NULLS FIRST"
            " LIMIT $most",
            {
                "now": now,
                "farthest": now + FARTHEST,
                "batch": batch_id,
                "most": MOST_IN_A_LOOK,
            },
        )
        jobs = [_DueJob(ProviderJob.from_row(row), bool(row["is_unwanted"])) for row in due]
        row = db.one("SELECT count(*) AS n FROM v_job_phases WHERE phase = 'open'")
        judges = _judges(db, {due.job.judge_id for due in jobs})
        usual = usual_durations(db, now) if jobs else {}
        has_leftovers = db.one(
            "SELECT 1 AS found FROM provider_leftovers WHERE next_try_at <= ?", [now]
        )
        is_parked = clock_jumps.is_parked(db, now)
        has_duplicates = db.one("SELECT 1 AS found FROM duplicate_jobs WHERE state = 'duplicate'")
    if is_parked:
        with runtime.store.write() as db:
            clock_jumps.make_due(db, now)
    looks = list(_poll_all(runtime, jobs, judges, at_most_s)) if jobs else []
    _keep(runtime, looks, PollSchedule(int(row["n"]) if row else 1, usual), now)
    if has_duplicates:
        settle_duplicates(runtime, batch_id)
    if has_leftovers:
        delete_leftovers(runtime, at_most=LEFTOVERS_IN_A_LOOK)
    ended = {
        look.job.batch_id
        for look in looks
        if isinstance(look.found, JobStatus)
        and look.found.state == "ended"
        and not (look.found.waits_for_capacity or look.found.waits_for_credit)
    }
    return Polled(len(looks), frozenset(ended))


_IS_UNWANTED = """(
    SELECT b.state <> 'running' OR b.cancel_requested
    FROM batches b WHERE b.batch_id = v_job_phases.batch_id
)"""


def next_poll_due(db: Session, batch_id: str) -> datetime | None:
    """Return when the first of a batch's open or incomplete jobs may be looked at again.

    None without any.
    """
    row = db.one(
        "SELECT min(next_poll_at) AS due FROM v_job_phases"
        " WHERE (phase = 'open' OR state = 'incomplete') AND batch_id = ?",
        [batch_id],
    )
    return row["due"] if row else None


def next_due(db: Session, now: datetime) -> datetime | None:
    """Return when the first open job of any batch is to be polled, or a postponed one to be sent.

    Or when missing rows are looked for again. None where no time is set; what is to be sent
    already is for `next_step` to tell.
    """
    row = db.one(
        "SELECT min(next_poll_at) AS due FROM v_job_phases WHERE phase = 'open'"
        " OR state = 'incomplete' OR (state = 'settled' AND n_in_doubt > 0)"
        " OR (phase = 'unsent' AND next_poll_at > ?)",
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
    runtime: Runtime, jobs: Sequence[_DueJob], judges: Mapping[str, Judge], at_most_s: float
) -> Iterator[_PollResult]:
    """Yield what was found of each job there was time for, in order."""
    deadline = time.monotonic() + at_most_s
    left_alone: dict[str, _PollFailure] = {}

    def look(due: _DueJob) -> _PollResult | None:
        job = due.job
        if time.monotonic() > deadline and due is not jobs[0]:
            return None
        if (asked_to_wait := left_alone.get(job.account)) is not None:
            return _PollResult(job, asked_to_wait)
        found = _look(runtime, due, judges[job.judge_id])
        if isinstance(found.found, _PollFailure) and found.found.for_the_account:
            left_alone[job.account] = found.found
        return found

    with ThreadPoolExecutor(min(ASKED_AT_ONCE, len(jobs)), "poll") as threads:
        yield from (found for found in threads.map(look, jobs) if found is not None)


def _look(runtime: Runtime, due: _DueJob, judge: Judge) -> _PollResult:
    """Ask about one job; tell it to stop where nobody wants it any more and it was not told yet."""
    job = due.job
    stop = due.is_unwanted and job.cancel_sent_at is None and may_stop(runtime, job)
    try:
        provider = runtime.provider(judge)
        job = require_ours(runtime, job, provider)
        found = (provider.cancel if stop else provider.poll)(job.known_job_id)
    except FinalError as error:
        log.warning("poll_refused", submission_key=job.submission_key, error=str(error))
        failure = _PollFailure(
            str(error), AFTER_REFUSAL, is_final=True, waits_for=waiting_for(error)
        )
        return _PollResult(job, failure)
    except CJError as error:
        asked = error.retry_after_s if isinstance(error, ProviderUnavailableError) else None
        if asked is None:
            wait = backoff(runtime.clock() - job.intended_at, job)
        else:
            wait = timedelta(seconds=asked)
        answer = _PollFailure(str(error), wait, is_final=False, for_the_account=asked is not None)
        return _PollResult(job, answer)
    made = found.created_at or job.made_at
    return _PollResult(job, found, results_expire_at(made, provider.limits), told_to_stop=stop)


def _keep(
    runtime: Runtime, looks: Sequence[_PollResult], pace: PollSchedule, now: datetime
) -> None:
    if not looks:
        return
    unchanged = [look.job for look in looks if _is_unchanged(look, now)]
    news = [look for look in looks if not _is_unchanged(look, now)]
    with runtime.store.write() as db:
        next_polls = {job.submission_key: now + pace.wait(job, now) for job in unchanged}
        ledger.record_unchanged(db, next_polls, now)
        for look in news:
            if ledger.is_in(db, look.job.submission_key, OPEN):  # or another process has seen it
                _record(db, look, pace, now)
        _leave_accounts_alone(db, news, now)
        for batch_id in sorted({look.job.batch_id for look in news}):
            record_progress(db, batch_id, now)
    for look in news:
        found, job = look.found, look.job
        if isinstance(found, JobStatus) and found.provider_status != job.provider_status:
            log.info(
                "provider_job_status",
                batch_id=job.batch_id,
                submission_key=job.submission_key,
                provider_job_id=job.provider_job_id,
                provider_status=found.provider_status,
                n_completed=found.n_completed,
                n_failed=found.n_failed,
            )


def _is_unchanged(look: _PollResult, now: datetime) -> bool:
    """Whether a look told nothing that the row does not say, as most looks do."""
    job, found = look.job, look.found
    return (
        isinstance(found, JobStatus)
        and job.state == found.state == "running"
        and not (found.waits_for_capacity or found.waits_for_credit or found.error or found.warning)
        and not (look.told_to_stop or job.error or job.n_poll_failures)
        and stalled_since(job, now) is None
        and (job.provider_status, job.n_completed, job.n_failed)
        == (found.provider_status, found.n_completed, found.n_failed)
    )


def _record(db: Session, look: _PollResult, pace: PollSchedule, now: datetime) -> None:
    """Record what one poll says of a job that is still open."""
    if isinstance(look.found, _PollFailure):
        _record_failure(db, look.job, look.found, now)
    elif look.found.waits_for_credit:
        ledger.requeue(db, look.job, look.found, now, wait=AFTER_REFUSAL)
    elif look.found.waits_for_capacity:
        wait = max(LEAST_WAIT_FOR_ROOM, (now - look.job.intended_at) / 10)
        ledger.requeue(db, look.job, look.found, now, wait=wait)
    else:
        _record_status(db, look, look.found, pace, now)


def _record_failure(db: Session, job: ProviderJob, found: _PollFailure, now: datetime) -> None:
    """Record why nothing is known; a job is never given up for it, whoever wants it or not."""
    ledger.record_poll_failure(
        db, job, found.problem, now, wait=found.wait, waits_for=found.waits_for
    )


def _leave_accounts_alone(db: Session, looks: Sequence[_PollResult], now: datetime) -> None:
    """Put off all open jobs of an account that asked for it, also those whose turn comes sooner."""
    waits = {
        look.job.account: look.found.wait
        for look in looks
        if isinstance(look.found, _PollFailure) and look.found.for_the_account
    }
    for account, wait in waits.items():
        ledger.poll_no_sooner(db, account, now + wait)


def _record_status(
    db: Session, look: _PollResult, found: JobStatus, pace: PollSchedule, now: datetime
) -> None:
    job = look.job
    has_ended = found.state == "ended"
    counts = (found.n_completed, found.n_failed, found.provider_status)
    before = (job.n_completed, job.n_failed, job.provider_status)
    changed_at = now if counts != before else job.counts_changed_at
    warning = found.warning
    stalled = stalled_since(replace(job, counts_changed_at=changed_at), now)
    if warning is None and not has_ended and stalled is not None:
        warning = f"no progress since {stalled:%Y-%m-%d %H:%M} UTC: `cj doctor` says what to do"
        log.warning("provider_job_stalled", submission_key=job.submission_key, since=stalled)
    record = PollRecord(
        next_poll_at=None if has_ended else now + pace.wait(job, now),
        counts_changed_at=changed_at,
        results_expire_at=look.results_expire_at,
        warning=warning,
        cancel_sent=look.told_to_stop,
    )
    mark = ledger.mark_ended if has_ended else ledger.mark_running
    mark(db, job, found, record, now)
