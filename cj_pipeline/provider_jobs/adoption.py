"""Provider jobs that were made beyond the one intended: kept in sight until they are paid off.

One of a submission's jobs is kept, the others are told to stop. What they finished until then was
paid for all the same: their rows are stored, their usage is billed, and none of them counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

import structlog

from cj_pipeline.errors import CJError, ProviderRefusedError
from cj_pipeline.judging.pricing import cost_usd
from cj_pipeline.provider_jobs.ledger import require_same_account
from cj_pipeline.providers.base import JobStatus, Provider, RawLine
from cj_pipeline.queries.batch_record import load_batch
from cj_pipeline.runtime import Runtime

log = structlog.get_logger()

LOOK_AGAIN = timedelta(minutes=1)
"""A cancelled job takes up to ten minutes to end, and nobody waits for it."""


def keep_duplicates(
    runtime: Runtime, job: Mapping[str, Any], provider: Provider, extra_ids: Iterable[str]
) -> None:
    """Record the extra jobs of a submission, then tell each to stop."""
    now = runtime.clock()
    rows = [
        {
            "provider_job_id": extra,
            "account": job["account"],
            "batch_id": job["batch_id"],
            "submission_key": job["submission_key"],
            "judge_id": job["judge_id"],
            "state": "duplicate",
            "found_at": now,
            "next_poll_at": now,
        }
        for extra in extra_ids
    ]
    if not rows:
        return
    with runtime.store.write() as db:
        db.insert("duplicate_jobs", rows, on_conflict="ignore")
    for row in rows:
        log.warning(
            "duplicate_provider_job",
            batch_id=job["batch_id"],
            submission_key=job["submission_key"],
            provider_job_id=row["provider_job_id"],
        )
        _tell_to_stop(runtime, row, provider)


def settle_duplicates(runtime: Runtime, batch_id: str | None = None, *, at_most: int = 3) -> int:
    """Look at duplicates that are due; bill those that have ended, and return how many.

    Args:
        engine: The pipeline's connections.
        batch_id: Only this batch's; by default those of all batches.
        at_most: How many to look at, so that a tick stays short.
    """
    now = runtime.clock()
    with runtime.store.read() as db:
        rows = db.rows(
            "SELECT d.*, p.wave, p.batching_mode, p.provider_job_id AS kept_id"
            " FROM duplicate_jobs d JOIN provider_jobs p USING (submission_key)"
            " WHERE d.state = 'duplicate' AND coalesce(d.next_poll_at, $now) <= $now"
            " AND ($batch IS NULL OR d.batch_id = $batch) ORDER BY d.next_poll_at LIMIT $most",
            {"now": now, "batch": batch_id, "most": at_most},
        )
        records = {name: load_batch(db, name) for name in {row["batch_id"] for row in rows}}
    settled = 0
    for row in rows:
        try:
            provider = runtime.provider(records[row["batch_id"]].judge(row["judge_id"]))
            require_same_account(row, provider)
            if row["cancel_told_at"] is None:
                _tell_to_stop(runtime, row, provider)
            status = provider.poll(row["provider_job_id"])
            if status.state == "ended":
                _settle(runtime, row, provider, status)
                settled += 1
                continue
            problem, provider_status = None, status.provider_status
        except CJError as error:
            problem, provider_status = str(error), None
        with runtime.store.write() as db:
            db.execute(
                "UPDATE duplicate_jobs SET next_poll_at = ?, error = ?,"
                " provider_status = coalesce(?, provider_status)"
                " WHERE account = ? AND provider_job_id = ?",
                [
                    now + LOOK_AGAIN,
                    problem,
                    provider_status,
                    row["account"],
                    row["provider_job_id"],
                ],
            )
    return settled


def _tell_to_stop(runtime: Runtime, row: Mapping[str, Any], provider: Provider) -> None:
    """Cancel a duplicate; where that fails now, the next look does it."""
    try:
        provider.cancel(row["provider_job_id"])
    except CJError as error:
        log.warning("cancel_refused", provider_job_id=row["provider_job_id"], error=str(error))
        return
    with runtime.store.write() as db:
        db.execute(
            "UPDATE duplicate_jobs SET cancel_told_at = ? WHERE account = ? AND"
            " provider_job_id = ?",
            [runtime.clock(), row["account"], row["provider_job_id"]],
        )


def _settle(
    runtime: Runtime, row: Mapping[str, Any], provider: Provider, status: JobStatus
) -> None:
    """Store a duplicate's rows as they came, and enter what they cost."""
    try:
        lines: list[RawLine] = list(provider.collect(row["provider_job_id"]))
    except ProviderRefusedError as error:
        log.warning("duplicate_without_results", job=row["provider_job_id"], error=str(error))
        lines = []
    now = runtime.clock()
    with runtime.store.write() as db:
        judge = load_batch(db, row["batch_id"]).judge(row["judge_id"])
        batched = row["batching_mode"] == "provider_batch_api"
        replies = [provider.parse_reply(line.text) for line in lines]
        # Of a row that came twice the bill is one.
        usages = {reply.custom_id: reply.usage for reply in replies if reply.usage is not None}
        billed = sum(cost_usd(judge.price, usage, batched=batched) for usage in usages.values())
        db.insert(
            "callbacks",
            [
                {
                    "batch_id": row["batch_id"],
                    "wave": row["wave"],
                    "submission_key": row["provider_job_id"],
                    "source": line.source,
                    "line": line.line,
                    "custom_id": reply.custom_id,
                    "kind": "duplicate",
                    "body": line.text,
                    "received_at": now,
                }
                for line, reply in zip(lines, replies, strict=True)
            ],
            on_conflict="ignore",
        )
        db.insert(
            "ledger",
            [
                {
                    "batch_id": row["batch_id"],
                    "submission_key": row["provider_job_id"],
                    "judge_id": row["judge_id"],
                    "kind": "billed",
                    "usd": billed,
                    "entered_at": now,
                }
            ],
            on_conflict="ignore",
        )
        db.execute(
            "UPDATE duplicate_jobs SET state = 'settled', settled_at = ?, provider_status = ?,"
            " outcome = ?, n_paid = ?, billed_usd = ?, error = NULL, next_poll_at = NULL"
            " WHERE account = ? AND provider_job_id = ?",
            [
                now,
                status.provider_status,
                status.outcome,
                len(usages),
                billed,
                row["account"],
                row["provider_job_id"],
            ],
        )
    log.warning(
        "duplicate_provider_job_billed",
        batch_id=row["batch_id"],
        provider_job_id=row["provider_job_id"],
        n_paid=len(usages),
        billed_usd=billed,
    )
