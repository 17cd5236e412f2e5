"""A person ends a batch: nothing more is asked, and what was paid for is kept."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from cj_pipeline.progress.events import record_progress
from cj_pipeline.provider_jobs.cancellation import stop_open_jobs
from cj_pipeline.provider_jobs.ledger import send_now
from cj_pipeline.provider_jobs.settlement import fail_exhausted
from cj_pipeline.queries.batch_record import load_batch
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.batch_flags import BatchFlag, set_flag

log = structlog.get_logger()


@dataclass(frozen=True)
class Cancelled:
    """How many provider jobs were asked to stop, and why others could not be."""

    n_jobs: int
    problems: tuple[str, ...] = ()


def cancel(runtime: Runtime, batch_id: str) -> Cancelled:
    """Ask nothing more for a batch and tell its provider jobs to stop.

    What they finished comes home by the usual steps; then the batch ends as cancelled. Of a batch
    that has ended, jobs that could not be told before are told now.
    """
    with runtime.store.read() as db:
        record = load_batch(db, batch_id)
    if not record.has_ended:
        _end(runtime, batch_id)
    stopped = stop_open_jobs(runtime, record)
    return Cancelled(stopped.n_told, stopped.problems)


def _end(runtime: Runtime, batch_id: str) -> None:
    """Record that nothing more is asked for a batch."""
    with runtime.store.write() as db:
        record = load_batch(db, batch_id)
        if record.has_ended:
            return
        now = runtime.clock()
        set_flag(db, batch_id, BatchFlag.CANCEL_REQUESTED, now)
        fail_exhausted(db, record, now, give_up=True)
        # What was put off and surely is not at its provider is ended at once: nobody has to wait.
        send_now(db, batch_id, now)
        record_progress(db, batch_id, now)
