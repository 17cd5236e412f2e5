"""Open jobs of a batch that ends early are stopped at the provider."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from cj_pipeline.errors import CJError
from cj_pipeline.provider_jobs import ledger
from cj_pipeline.provider_jobs.ledger import OPEN
from cj_pipeline.provider_jobs.ownership import may_stop, not_ours_to_stop, require_ours
from cj_pipeline.queries.batch_record import BatchRecord
from cj_pipeline.runtime import Runtime

log = structlog.get_logger()


@dataclass(frozen=True)
class Stopped:
    """Which provider jobs were asked to stop, and why others were not.

    Attributes:
        n_told: How many were.
        problems: One line for each that runs on, with what a person can do.
    """

    n_told: int
    problems: tuple[str, ...] = ()


def stop_open_jobs(runtime: Runtime, record: BatchRecord) -> Stopped:
    """Tell every provider job of a batch that still runs to stop, by whatever key proves it ours.

    Those that could not be told now are told at the next poll: nobody gives them up.
    """
    with runtime.store.read() as db:
        jobs = [job for job in ledger.jobs_of_batch(db, record.batch_id, OPEN) if job.is_batched]
    told: list[str] = []
    problems: list[str] = []
    for job in jobs:
        if not may_stop(runtime, job):
            problems.append(not_ours_to_stop(runtime, job))
            continue
        try:
            provider = runtime.provider(record.judge(job.judge_id))
            require_ours(runtime, job, provider)
            provider.cancel(job.known_job_id)
            told.append(job.submission_key)
        except CJError as error:
            log.warning("cancel_refused", submission_key=job.submission_key, error=str(error))
            problems.append(
                f"Provider job {job.provider_job_id} could not be asked to stop, and may go on and"
                f" be paid for: {error} That is retried at every poll, and by `cj cancel`."
            )
    if told:
        with runtime.store.write() as db:
            for key in told:
                if ledger.is_in(db, key, OPEN):  # or another process has seen it end
                    ledger.request_cancel(db, key, runtime.clock())
    return Stopped(len(told), tuple(problems))
