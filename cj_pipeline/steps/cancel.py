"""A person ends a batch: nothing more is asked, and what was paid for is kept."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from cj_pipeline.errors import CJError
from cj_pipeline.steps.engine import Engine
from cj_pipeline.steps.note_progress import note_progress
from cj_pipeline.steps.records import BatchRecord, load_batch, note_on_batch

log = structlog.get_logger()


@dataclass(frozen=True)
class Cancelled:
    """How many provider jobs were told to stop."""

    n_jobs: int


def cancel(engine: Engine, batch_id: str) -> Cancelled:
    """Ask nothing more for a batch and tell its provider jobs to stop.

    What they finished comes home by the usual steps; then the batch ends as cancelled.
    """
    with engine.store.write() as db:
        record = load_batch(db, batch_id)
        if record.has_ended:
            return Cancelled(0)
        now = engine.clock()
        note_on_batch(db, batch_id, "cancel_requested", now)
        # Single calls that were put off are ended at once; nobody has to wait for their provider.
        db.execute(
            "UPDATE provider_jobs SET next_poll_at = ? WHERE batch_id = ?"
            " AND batching_mode <> 'provider_batch_api' AND state IN ('intent', 'running')",
            [now, batch_id],
        )
        note_progress(db, batch_id, now)
    return Cancelled(stop_open_jobs(engine, record))


def stop_open_jobs(engine: Engine, record: BatchRecord) -> int:
    """Tell every provider job of a batch that still runs to stop; return how many were told."""
    with engine.store.read() as db:
        jobs = db.rows(
            "SELECT * FROM provider_jobs WHERE batch_id = ? AND provider_job_id IS NOT NULL"
            " AND state IN ('submitted', 'adopted', 'running')",
            [record.batch_id],
        )
    told = 0
    for job in jobs:
        try:
            engine.provider(record.judge(job["judge_id"])).cancel(job["provider_job_id"])
            told += 1
        except CJError as error:
            log.warning("cancel_refused", submission_key=job["submission_key"], error=str(error))
    return told
