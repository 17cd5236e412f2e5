"""Open jobs of a batch that ends early are stopped at the provider."""

from __future__ import annotations

import structlog

from cj_pipeline.errors import CJError
from cj_pipeline.provider_jobs import ledger
from cj_pipeline.provider_jobs.ledger import OPEN, require_own_account
from cj_pipeline.queries.batch_record import BatchRecord
from cj_pipeline.runtime import Runtime

log = structlog.get_logger()


def stop_open_jobs(runtime: Runtime, record: BatchRecord) -> int:
    """Tell every provider job of a batch that still runs to stop; return how many were told.

    Those that could not be told now are told at the next poll, if the batch was cancelled.
    """
    with runtime.store.read() as db:
        jobs = [job for job in ledger.jobs_of_batch(db, record.batch_id, OPEN) if job.is_batched]
    told: list[str] = []
    for job in jobs:
        try:
            provider = runtime.provider(record.judge(job.judge_id))
            require_own_account(job, provider)
            provider.cancel(job.known_job_id)
            told.append(job.submission_key)
        except CJError as error:
            log.warning("cancel_refused", submission_key=job.submission_key, error=str(error))
    if told:
        with runtime.store.write() as db:
            for key in told:
                if ledger.is_in(db, key, OPEN):  # or another process has seen it end
                    ledger.request_cancel(db, key, runtime.clock())
    return len(told)
