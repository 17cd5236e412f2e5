"""A person ends a batch: nothing more is asked, and what was paid for is kept."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from cj_pipeline.errors import CJError
from cj_pipeline.steps.accounts import require_same_account
from cj_pipeline.steps.engine import Engine
from cj_pipeline.steps.note_progress import note_progress
from cj_pipeline.steps.records import BatchRecord, load_batch, note_on_batch
from cj_pipeline.steps.settlement import close_comparisons

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
        close_comparisons(db, record, now, give_up=True)
        # What was put off and surely is not at its provider is ended at once: nobody has to wait.
        db.execute(
            "UPDATE provider_jobs SET next_poll_at = $now WHERE batch_id = $batch"
            " AND CASE batching_mode WHEN 'provider_batch_api'"
            " THEN state IN ('intent', 'uploaded') AND create_begun_at IS NULL"
            " ELSE state IN ('intent', 'running') END",
            {"now": now, "batch": batch_id},
        )
        note_progress(db, batch_id, now)
    return Cancelled(stop_open_jobs(engine, record))


def stop_open_jobs(engine: Engine, record: BatchRecord) -> int:
    """Tell every provider job of a batch that still runs to stop; return how many were told.

    Those that could not be told now are told at the next poll, if the batch was cancelled.
    """
    with engine.store.read() as db:
        jobs = db.rows(
            "SELECT * FROM provider_jobs WHERE batch_id = ? AND provider_job_id IS NOT NULL"
            " AND state IN ('submitted', 'adopted', 'running')",
            [record.batch_id],
        )
    told: list[str] = []
    for job in jobs:
        try:
            provider = engine.provider(record.judge(job["judge_id"]))
            require_same_account(job, provider)
            provider.cancel(job["provider_job_id"])
            told.append(job["submission_key"])
        except CJError as error:
            log.warning("cancel_refused", submission_key=job["submission_key"], error=str(error))
    if told:
        with engine.store.write() as db:
            db.execute(
                "UPDATE provider_jobs SET cancel_told_at = $now, next_poll_at = $now"
                " WHERE submission_key IN (SELECT unnest($told))",
                {"now": engine.clock(), "told": told},
            )
    return len(told)
