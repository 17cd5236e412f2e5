"""One bounded look at each open provider job: what the providers say becomes rows."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog

from cj_pipeline.errors import FinalError, ProviderUnavailableError, TransientError
from cj_pipeline.judges import Judge
from cj_pipeline.providers import JobStatus
from cj_pipeline.steps.engine import Engine
from cj_pipeline.steps.note_progress import note_progress
from cj_pipeline.store import Session

log = structlog.get_logger()

ASKED_AT_ONCE = 8
"""Requests in flight in one look; two hundred open jobs at 0.3 s each are then eight seconds."""

MOST_A_SECOND = 20.0
"""Requests that all open jobs together make, in the long run."""

MOST_IN_A_LOOK = 250
"""Jobs asked about in one look, so that keeping what all of them tell is bounded too."""

LEAST_WAIT_FOR_ROOM = timedelta(seconds=30)
"""Before a shard its provider had no room for is sent again; longer for older submissions."""


@dataclass(frozen=True)
class Polled:
    """What one tick saw: how many jobs it asked about, and whose have ended."""

    n_polled: int
    batches_with_ended_jobs: frozenset[str]


def poll(engine: Engine, *, batch_id: str | None = None, at_most_s: float = 20.0) -> Polled:
    """Ask providers about open jobs that are due, one request a job, and keep the answers.

    Args:
        engine: The pipeline's connections.
        batch_id: Only this batch's jobs; by default those of all batches.
        at_most_s: When to stop asking; what is left is due first next time.
    """
    now = engine.clock()
    with engine.store.read() as db:
        jobs = db.rows(
            f"SELECT * FROM provider_jobs WHERE {_IS_OPEN} AND coalesce(next_poll_at, $now) <= $now"  # noqa: S608 -- a constant
            " AND ($batch IS NULL OR batch_id = $batch) ORDER BY next_poll_at NULLS FIRST"
            " LIMIT $most",
            {"now": now, "batch": batch_id, "most": MOST_IN_A_LOOK},
        )
        if not jobs:
            return Polled(0, frozenset())
        row = db.one(f"SELECT count(*) AS n FROM provider_jobs WHERE {_IS_OPEN}")  # noqa: S608
        judges = _judges(db, {job["judge_id"] for job in jobs})
    looks = _looks(engine, jobs, judges, at_most_s)
    seen = [(job, found) for job, found in zip(jobs, looks, strict=True) if found is not None]
    _keep(engine, seen, now, n_open=int(row["n"]) if row else 1)
    ended = {
        job["batch_id"]
        for job, found in seen
        if isinstance(found, JobStatus) and found.state == "ended" and not found.waits_for_capacity
    }
    return Polled(len(seen), frozenset(ended))


def next_poll_due(db: Session, batch_id: str) -> datetime | None:
    """Return when the first of a batch's open jobs may be looked at again; None without any."""
    row = db.one(
        f"SELECT min(next_poll_at) AS due FROM provider_jobs WHERE {_IS_OPEN} AND batch_id = ?",  # noqa: S608
        [batch_id],
    )
    return row["due"] if row else None


def poll_interval(age: timedelta, n_open: int = 1) -> timedelta:
    """Return how long to wait before the next look at a job of this age.

    A tenth of it, so that looking late costs little of what was waited anyway; but never more than
    ten seconds, for then that wait would be most of what lies between a job's end and its grades.
    With many jobs open each waits until its turn among `MOST_A_SECOND`.
    """
    return timedelta(
        seconds=max(n_open / MOST_A_SECOND, min(10.0, max(0.5, age.total_seconds() / 10)))
    )


def _patience(age: timedelta) -> timedelta:
    """Return how long to leave a provider alone that did not answer about a job of this age."""
    return timedelta(seconds=min(300.0, max(1.0, age.total_seconds() / 10)))


_IS_OPEN = "state IN ('submitted', 'adopted', 'running') AND batching_mode = 'provider_batch_api'"


def _judges(db: Session, judge_ids: set[str]) -> Mapping[str, Judge]:
    """Return judges by fingerprint: whichever batch they are listed with, they are the same."""
    rows = db.rows(
        "SELECT judge_id, any_value(definition) AS definition FROM judges"
        " WHERE judge_id IN (SELECT unnest(?)) GROUP BY judge_id",
        [sorted(judge_ids)],
    )
    return {row["judge_id"]: Judge.from_definition(row["definition"]) for row in rows}


def _looks(
    engine: Engine, jobs: Sequence[dict[str, Any]], judges: Mapping[str, Judge], at_most_s: float
) -> Iterator[JobStatus | timedelta | None]:
    """Yield what was found of each job, in order; None of those there was no time for."""
    deadline = time.monotonic() + at_most_s

    def look(job: dict[str, Any]) -> JobStatus | timedelta | None:
        if time.monotonic() > deadline and job is not jobs[0]:
            return None
        return _look(engine, job, judges[job["judge_id"]])

    with ThreadPoolExecutor(min(ASKED_AT_ONCE, len(jobs)), "poll") as threads:
        yield from threads.map(look, jobs)


def _look(engine: Engine, job: dict[str, Any], judge: Judge) -> JobStatus | timedelta:
    """Return a job's status, or how long to leave the provider alone."""
    age = engine.clock() - job["intended_at"]
    try:
        return engine.provider(judge).poll(job["provider_job_id"])
    except ProviderUnavailableError as error:
        wait = error.retry_after_s
        return _patience(age) if wait is None else timedelta(seconds=wait)
    except TransientError:
        return _patience(age)
    except FinalError as error:
        log.warning("poll_refused", submission_key=job["submission_key"], error=str(error))
        return timedelta(minutes=5)


def _send_again(db: Session, job: dict[str, Any], found: JobStatus, now: datetime) -> None:
    """Put a job its provider had no room for back among the unsent: the same shard, later.

    It was not begun, so nothing was paid and nothing has to be looked for; its file stays.
    """
    wait = max(LEAST_WAIT_FOR_ROOM, _patience(now - job["intended_at"]))
    db.execute(
        "UPDATE provider_jobs SET state = 'uploaded', provider_job_id = NULL,"
        " provider_status = ?, error_code = ?, error = ?, polled_at = ?, next_poll_at = ?,"
        " lease_owner = NULL, lease_until = NULL, n_polls = n_polls + 1"
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
    engine: Engine,
    seen: Sequence[tuple[dict[str, Any], JobStatus | timedelta]],
    now: datetime,
    *,
    n_open: int,
) -> None:
    if not seen:
        return
    news = [(job, found) for job, found in seen if not _is_as_it_was(job, found)]
    with engine.store.write() as db:
        _keep_unchanged(db, [job for job, found in seen if _is_as_it_was(job, found)], now, n_open)
        for job, found in news:
            if isinstance(found, timedelta):
                db.execute(
                    "UPDATE provider_jobs SET polled_at = ?, next_poll_at = ?,"
                    " n_polls = n_polls + 1 WHERE submission_key = ?",
                    [now, now + found, job["submission_key"]],
                )
                continue
            if found.waits_for_capacity:
                _send_again(db, job, found, now)
                continue
            ended = found.state == "ended"
            db.execute(
                """
                UPDATE provider_jobs SET
                    state = $state, outcome = $outcome, provider_status = $provider_status,
                    n_completed = $n_completed, n_failed = $n_failed,
                    error_code = $error_code, error = coalesce($error, $warning),
                    provider_tokens_prompt = $prompt, provider_tokens_cached = $cached,
                    provider_tokens_completion = $completion,
                    output_file_id = $output, error_file_id = $errors, polled_at = $now,
                    next_poll_at = $next, ended_at = $ended, n_polls = n_polls + 1
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
                    "prompt": found.usage.prompt if found.usage else None,
                    "cached": found.usage.cached if found.usage else None,
                    "completion": found.usage.completion if found.usage else None,
                    "warning": found.warning,
                    "output": found.output_file_id,
                    "errors": found.error_file_id,
                    "now": now,
                    "next": None
                    if ended
                    else now + poll_interval(now - job["intended_at"], n_open),
                    "ended": (found.ended_at or now) if ended else None,
                    "key": job["submission_key"],
                },
            )
        for batch_id in sorted({job["batch_id"] for job, _ in news}):
            note_progress(db, batch_id, now)
    for job, found in seen:
        if isinstance(found, JobStatus) and found.provider_status != job["provider_status"]:
            log.info(
                "provider_job_status",
                batch_id=job["batch_id"],
                submission_key=job["submission_key"],
                provider_job_id=job["provider_job_id"],
                provider_status=found.provider_status,
            )


def _is_as_it_was(job: Mapping[str, Any], found: JobStatus | timedelta) -> bool:
    """Whether a look told nothing that the row does not say, as most looks do."""
    return (
        isinstance(found, JobStatus)
        and job["state"] == found.state == "running"
        and not (found.waits_for_capacity or found.error or found.warning)
        and all(
            job[name] == getattr(found, name)
            for name in ("provider_status", "n_completed", "n_failed")
        )
    )


def _keep_unchanged(
    db: Session, jobs: Sequence[Mapping[str, Any]], now: datetime, n_open: int
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
            "waits": [
                int(poll_interval(now - job["intended_at"], n_open).total_seconds() * 1000)
                for job in jobs
            ],
        },
    )
