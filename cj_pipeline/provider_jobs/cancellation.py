"""Open jobs of a batch that ends early are stopped at the provider."""

from __future__ import annotations

import structlog

from cj_pipeline.errors import CJError
from cj_pipeline.provider_jobs.ledger import require_same_account
from cj_pipeline.queries.batch_record import BatchRecord
from cj_pipeline.runtime import Runtime

log = structlog.get_logger()


def stop_open_jobs(runtime: Runtime, record: BatchRecord) -> int:
    """Tell every provider job of a batch that still runs to stop; return how many were told.

    Those that could not be told now are told at the next poll, if the batch was cancelled.
    """
    with runtime.store.read() as db:
        jobs = db.rows(
            "SELECT * FROM provider_jobs WHERE batch_id = ? AND provider_job_id IS NOT NULL"
            " AND state IN ('submitted', 'adopted', 'running')",
            [record.batch_id],
        )
    told: list[str] = []
    for job in jobs:
        try:
            provider = runtime.provider(record.judge(job["judge_id"]))
            require_same_account(job, provider)
            provider.cancel(job["provider_job_id"])
            told.append(job["submission_key"])
        except CJError as error:
            log.warning("cancel_refused", submission_key=job["submission_key"], error=str(error))
    if told:
        with runtime.store.write() as db:
            db.execute(
                "UPDATE provider_jobs SET cancel_told_at = $now, next_poll_at = $now"
                " WHERE submission_key IN (SELECT unnest($told))",
                {"now": runtime.clock(), "told": told},
            )
    return len(told)
