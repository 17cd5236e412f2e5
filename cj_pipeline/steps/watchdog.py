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
    """A batch that waits for callbacks and has seen nothing for longer than it allows."""

    batch_id: str
    silent_since: datetime


def stalled_batches(db: Session, now: datetime) -> list[Stalled]:
    """Return the batches with requests in flight in which nothing has moved for `stall_after_s`.

    Being polled is no movement: only what was asked, and what came back, counts. Rows that are
    missing of a job that has ended have a time of their own.
    """
    rows = db.rows(
        """
        SELECT b.batch_id, max(greatest(a.requested_at, a.completed_at)) AS silent_since,
               any_value(CAST(b.settings->>'stall_after_s' AS DOUBLE)) AS stall_after_s
        FROM batches b JOIN attempts a USING (batch_id)
        JOIN provider_jobs p USING (submission_key)
        WHERE b.state = 'running' AND p.state <> 'incomplete'
        GROUP BY b.batch_id
        HAVING count(*) > count(a.outcome)
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


def end_stalled(runtime: Runtime, batch_id: str) -> WaveDecision:
    """End a batch that has stalled and tell its provider jobs to stop; decide as usual otherwise.

    Nobody waits for those jobs any more; what they finished is brought home when they end, stored
    and billed, and counts for nothing.
    """
    with runtime.store.read() as db:
        is_stalled = batch_id in {s.batch_id for s in stalled_batches(db, runtime.clock())}
        record = load_batch(db, batch_id)
    decided = decide(runtime, batch_id, is_stalled=is_stalled)
    if is_stalled:
        stop_open_jobs(runtime, record)
    return decided
