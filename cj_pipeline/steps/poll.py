"""One bounded look at each open provider job: what the providers say becomes rows."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog

from cj_pipeline.errors import FinalError, ProviderUnavailableError, TransientError
from cj_pipeline.judges import Judge
from cj_pipeline.providers import JobStatus
from cj_pipeline.steps.engine import Engine
from cj_pipeline.steps.note_progress import note_progress
from cj_pipeline.steps.records import load_batch
from cj_pipeline.store import Session

log = structlog.get_logger()

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
            "SELECT * FROM provider_jobs WHERE state IN ('submitted', 'adopted', 'running')"
            " AND batching_mode = 'provider_batch_api' AND coalesce(next_poll_at, $now) <= $now"
            " AND ($batch IS NULL OR batch_id = $batch) ORDER BY next_poll_at NULLS FIRST",
            {"now": now, "batch": batch_id},
        )
        loaded = {name: load_batch(db, name) for name in {job["batch_id"] for job in jobs}}
    started = time.monotonic()
    seen: list[tuple[dict[str, Any], JobStatus | timedelta]] = []
    for job in jobs:
        if seen and time.monotonic() - started > at_most_s:
            break
        judge = loaded[job["batch_id"]].judge(job["judge_id"])
        seen.append((job, _look(engine, job, judge)))
    _keep(engine, seen, now)
    ended = {
        job["batch_id"]
        for job, found in seen
        if isinstance(found, JobStatus) and found.state == "ended" and not found.waits_for_capacity
    }
    return Polled(len(seen), frozenset(ended))


def poll_interval(age: timedelta) -> timedelta:
    """Return how long to wait before the next look at a job of this age: a tenth of it."""
    return timedelta(seconds=min(300.0, max(1.0, age.total_seconds() / 10)))


def _look(engine: Engine, job: dict[str, Any], judge: Judge) -> JobStatus | timedelta:
    """Return a job's status, or how long to leave the provider alone."""
    age = engine.clock() - job["intended_at"]
    try:
        return engine.provider(judge).poll(job["provider_job_id"])
    except ProviderUnavailableError as error:
        wait = error.retry_after_s
        return poll_interval(age) if wait is None else timedelta(seconds=wait)
    except TransientError:
        return poll_interval(age)
    except FinalError as error:
        log.warning("poll_refused", submission_key=job["submission_key"], error=str(error))
        return timedelta(minutes=5)


def _send_again(db: Session, job: dict[str, Any], found: JobStatus, now: datetime) -> None:
    """Put a job its provider had no room for back among the unsent: the same shard, later.

    It was not begun, so nothing was paid and nothing has to be looked for; its file stays.
    """
    wait = max(LEAST_WAIT_FOR_ROOM, poll_interval(now - job["intended_at"]))
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
    engine: Engine, seen: list[tuple[dict[str, Any], JobStatus | timedelta]], now: datetime
) -> None:
    if not seen:
        return
    with engine.store.write() as db:
        for job, found in seen:
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
                    "next": None if ended else now + poll_interval(now - job["intended_at"]),
                    "ended": (found.ended_at or now) if ended else None,
                    "key": job["submission_key"],
                },
            )
        for batch_id in sorted({job["batch_id"] for job, _ in seen}):
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
