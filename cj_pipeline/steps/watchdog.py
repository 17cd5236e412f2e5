"""Batches that stall and results about to expire: found here, ended here."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from cj_pipeline.provider_jobs.cancellation import stop_open_jobs
from cj_pipeline.queries.batch_record import load_batch
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.decide import WaveDecision, decide
from cj_pipeline.store.session import Session

EXPIRES_SOON = timedelta(days=7)
"""Before a provider deletes results that nobody has brought home, people are told."""


@dataclass(frozen=True)
class Stalled:
    """A batch in which nothing has moved for longer than it allows."""

    batch_id: str
    silent_since: datetime


def stalled_batches(db: Session, now: datetime) -> list[Stalled]:
    """Return the running batches in which nothing has moved for `stall_after_s`.

    Where the provider of a judge lets jobs run longer, by its definition, that is the time.

    The clock starts when a batch is ingested, so that one that could never be sent ends too. Being
    polled is no movement: only requests, replies and decisions count. A batch that waits for a key
    or for credit is not silent: it says what it waits for, and goes on by itself once it is there.
    Rows that are missing of a job that has ended have a time of their own.
    """
    rows = db.rows(
        """
        SELECT b.batch_id,
               greatest(
                   CAST(b.settings->>'stall_after_s' AS DOUBLE),
                   (SELECT max(CAST(definition->'service'->>'stall_after_s' AS DOUBLE))
                    FROM judges j WHERE j.batch_id = b.batch_id)
               ) AS stall_after_s,
               greatest(
                   b.created_at,
                   (SELECT max(greatest(requested_at, completed_at)) FROM attempts a
                    WHERE a.batch_id = b.batch_id),
                   (SELECT max(decided_at) FROM wave_decisions d WHERE d.batch_id = b.batch_id)
               ) AS silent_since
        FROM batches b
        WHERE b.state = 'running' AND b.runner_mode = 'execute'
          AND NOT EXISTS (FROM v_job_phases p WHERE p.batch_id = b.batch_id
                          AND p.phase <> 'done'
                          AND (p.state = 'incomplete' OR p.waiting_for IN ('key', 'credit')))
        ORDER BY b.batch_id
        """
    )
    return [
        Stalled(row["batch_id"], row["silent_since"])
        for row in rows
        if now - row["silent_since"] > timedelta(seconds=row["stall_after_s"])
    ]


def expiring_results(db: Session, now: datetime) -> list[tuple[str, datetime]]:
    """Return the batches with results not brought home that are deleted soon, and when."""
    rows = db.rows(
        "SELECT batch_id, min(results_expire_at) AS expiry FROM v_job_phases"
        " WHERE (phase IN ('open', 'calling') OR state IN ('ended', 'incomplete')"
        " OR n_in_doubt > 0) AND results_expire_at < ?"
        " GROUP BY batch_id ORDER BY batch_id",
        [now + EXPIRES_SOON],
    )
    return [(row["batch_id"], row["expiry"]) for row in rows]


def has_stalled(db: Session, batch_id: str, now: datetime) -> bool:
    """Return whether this batch is one of those; see `stalled_batches`."""
    return batch_id in {stalled.batch_id for stalled in stalled_batches(db, now)}


def end_stalled(runtime: Runtime, batch_id: str) -> WaveDecision:
    """End a batch that has stalled and tell its provider jobs to stop; decide as usual otherwise.

    Nobody waits for those jobs any more; what they finished is brought home when they end, stored
    and billed, and counts for nothing.
    """
    with runtime.store.read() as db:
        is_stalled = has_stalled(db, batch_id, runtime.clock())
        record = load_batch(db, batch_id)
    decided = decide(runtime, batch_id, is_stalled=is_stalled)
    if is_stalled:
        stop_open_jobs(runtime, record)
    return decided
