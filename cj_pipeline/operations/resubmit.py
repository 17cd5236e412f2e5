"""Pairs whose answers may be paid for and never came are bought again, on a person's word."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog

from cj_pipeline.errors import SettingsError
from cj_pipeline.progress.events import record_progress
from cj_pipeline.provider_jobs.ledger import JobState, ProviderJob
from cj_pipeline.provider_jobs.settlement import keep_earlier_outcomes
from cj_pipeline.queries.batch_record import BatchRecord, load_batch
from cj_pipeline.runtime import Runtime
from cj_pipeline.store.session import Session

log = structlog.get_logger()

LEAST_LETTERS = 8
"""Of a submission key, so that nobody buys what was not meant."""


@dataclass(frozen=True)
class Resubmitted:
    """What is requested again.

    Attributes:
        batch_id: Whose it is; it goes on where it had ended.
        n_pairs: How many comparisons are requested once more.
        in_doubt_usd: What the first request of them may have cost; it stays in doubt.
    """

    batch_id: str
    n_pairs: int
    in_doubt_usd: float


def resubmit(runtime: Runtime, job_name: str) -> Resubmitted:
    """Have the pairs of a job that are in doubt requested again, by the usual steps of its batch.

    Rows of the first request that come after all are stored and billed; of two verdicts on a
    comparison the one that came first counts.

    Args:
        runtime: The pipeline's connections.
        job_name: The beginning of the job's submission key, or its id at the provider.

    Raises:
        SettingsError: If no such job has pairs in doubt, or its batch may request nothing more.
    """
    now = runtime.clock()
    with runtime.store.write() as db:
        job = _find(db, job_name)
        record = load_batch(db, job.batch_id)
        _require_open_budget(record)
        lost = db.rows(
            "SELECT custom_id, comparison_id, in_doubt_usd FROM attempts a"
            " WHERE submission_key = ? AND in_doubt_usd IS NOT NULL AND NOT EXISTS ("
            "   FROM attempts b WHERE b.comparison_id = a.comparison_id AND b.attempt > a.attempt)"
            " AND NOT EXISTS (FROM comparisons c WHERE c.comparison_id = a.comparison_id"
            "   AND c.status = 'succeeded')",
            [job.submission_key],
        )
        if not lost:
            msg = f"Every pair in doubt of job {job.submission_key[:16]} was requested again."
            raise SettingsError(msg)
        _ask_again(db, lost, now)
        if record.has_ended:
            _reopen(db, record, now)
        record_progress(db, record.batch_id, now)
    in_doubt = sum(row["in_doubt_usd"] for row in lost)
    log.info(
        "resubmitted",
        batch_id=job.batch_id,
        submission_key=job.submission_key,
        n_pairs=len(lost),
        in_doubt_usd=in_doubt,
    )
    return Resubmitted(job.batch_id, len(lost), in_doubt)


def _find(db: Session, name: str) -> ProviderJob:
    rows = db.rows(
        "SELECT * FROM provider_jobs WHERE provider_job_id = $name"
        " OR (length($name) >= $least AND starts_with(submission_key, $name))",
        {"name": name, "least": LEAST_LETTERS},
    )
    if len(rows) != 1:
        how_many = "no job" if not rows else f"{len(rows)} jobs"
        msg = (
            f"'{name}' names {how_many}: give the id at the provider, or the first"
            f" {LEAST_LETTERS} letters of the submission key, as `cj cost BATCH` shows them."
        )
        raise SettingsError(msg)
    job = ProviderJob.from_row(rows[0])
    if job.state is JobState.INCOMPLETE:
        msg = (
            f"Job {job.submission_key[:16]} still waits for {job.n_in_doubt} rows:"
            " they are given up after the batch's `incomplete_after_s`."
        )
        raise SettingsError(msg)
    if not job.awaits_late_rows:
        msg = f"Job {job.submission_key[:16]} is {job.state.value} and has no pairs in doubt."
        raise SettingsError(msg)
    return job


def _require_open_budget(record: BatchRecord) -> None:
    why = None
    if record.cancel_requested:
        why = "it was cancelled"
    elif record.spend_cap_reached:
        why = "its spend cap is reached"
    elif record.canary_failed:
        why = "a judge of it gave no verdict"
    if why is not None:
        msg = f"Batch '{record.batch_id}' requests nothing more: {why}."
        raise SettingsError(msg)


def _ask_again(db: Session, lost: list[dict[str, Any]], now: datetime) -> None:
    names = [row["custom_id"] for row in lost]
    failed = {
        row["custom_id"]: row
        for row in db.rows(
            "SELECT * FROM comparisons WHERE status = 'failed' AND custom_id IN (SELECT unnest(?))",
            [names],
        )
    }
    keep_earlier_outcomes(db, [(name, failed.get(name)) for name in names], now)
    db.execute(
        "UPDATE attempts SET may_retry = TRUE, error_code = 'resubmitted'"
        " WHERE custom_id IN (SELECT unnest(?))",
        [names],
    )
    db.execute(
        "DELETE FROM comparisons WHERE status = 'failed' AND custom_id IN (SELECT unnest(?))",
        [names],
    )


def _reopen(db: Session, record: BatchRecord, now: datetime) -> None:
    """Let an ended batch go on; it is decided, graded and published anew at its new end."""
    batch = [record.batch_id]
    db.execute(
        "UPDATE batches SET state = 'running', end_reason = NULL, ended_at = NULL,"
        " late_rows_at = ?, updated_at = ? WHERE batch_id = ?",
        [now, now, *batch],
    )
    db.execute("DELETE FROM batch_report WHERE batch_id = ?", batch)
    db.execute(
        "DELETE FROM wave_decisions WHERE batch_id = ?"
        " AND wave = (SELECT max(wave) FROM comparison_pairs WHERE batch_id = ?)",
        batch * 2,
    )
