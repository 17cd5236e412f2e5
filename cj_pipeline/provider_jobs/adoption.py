"""Jobs that an earlier try created: found again and adopted, the extra ones paid off.

A job that may exist is looked for by its submission key and never created again before its absence
is proved. One of a submission's jobs is kept, the others are told to stop. What they finished
until then was paid for all the same: their rows are stored, their usage is billed, and none of
them counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog

from cj_pipeline.errors import (
    AccountRefusedError,
    AmbiguousSubmissionError,
    CJError,
    ProviderRefusedError,
    UncertainOutcomeError,
)
from cj_pipeline.judging.pricing import cost_usd
from cj_pipeline.provider_jobs import charges, ledger
from cj_pipeline.provider_jobs.ledger import ProviderJob
from cj_pipeline.provider_jobs.missing_rows import LONGEST_KEPT
from cj_pipeline.provider_jobs.ownership import may_stop, of_another_account
from cj_pipeline.providers.base import FoundJob, JobStatus, Provider, RawLine, results_expire_at
from cj_pipeline.queries.batch_record import load_batch
from cj_pipeline.runtime import Runtime
from cj_pipeline.store.identity import LOOK_BACK, Identity, settle_identity
from cj_pipeline.store.session import Session

log = structlog.get_logger()

LOOK_AGAIN = timedelta(minutes=1)
"""A cancelled job takes up to ten minutes to end, and nobody waits for it."""


def adopt_if_found(runtime: Runtime, batch_id: str, key: str) -> bool:
    """Look for one unsent submission at its provider, and adopt it; nothing is ever created.

    Returns:
        Whether the ledger knows its job now; False also while somebody else is sending it.
    """
    with runtime.store.read() as db:
        record = load_batch(db, batch_id)
    with runtime.store.write() as db:
        claimed = ledger.acquire_leases(db, batch_id, runtime.clock(), only=key)
    for job in claimed:
        try:
            adopt(runtime, job, runtime.provider(record.judge(job.judge_id)))
        finally:
            with runtime.store.write() as db:
                ledger.restore_lease(db, job)
    with runtime.store.read() as db:
        found = ledger.find_job(db, key)
    return found is not None and found.provider_job_id is not None


def adopt(
    runtime: Runtime, job: ProviderJob, provider: Provider, *, earlier_key: str | None = None
) -> bool:
    """Take over the provider job that an earlier try created; False where there surely is none.

    After a restore, in a copy and after a batch was forgotten, an earlier try may have made it that
    the ledger knows nothing of. Further jobs of the same submission are told to stop, if this store
    made them.

    Args:
        runtime: The pipeline's connections.
        job: The submission.
        provider: Where to look, by today's key.
        earlier_key: The key it had before keys bore the store's identity.

    Raises:
        UncertainOutcomeError: While nobody can tell.
        AmbiguousSubmissionError: If the account's list cannot be searched to its end.
        OtherAccountError: If it may exist, and under today's key nothing proves it.
    """
    key, identity = job.submission_key, settle_identity(runtime.store, runtime.clock())
    found = _candidates(runtime, job, provider, identity, earlier_key)
    if any(not candidate.is_certain for candidate in found):
        msg = f"Job {key[:16]} may be one that is still running: it is known when that ends."
        raise UncertainOutcomeError(msg)
    if found:
        record_adoption(runtime, job, provider, found[0])
        extra = [c.job_id for c in found[1:] if _is_ours(identity, c, key)]
        keep_duplicates(runtime, job, provider, extra)
        return True
    if job.create_begun_at is not None and job.account != provider.account:
        raise of_another_account(provider.name, key, job.batch_id)
    lag = timedelta(seconds=provider.limits.list_lag_s)
    youngest = max(filter(None, (job.create_begun_at, identity.jobs_until)), default=None)
    if youngest is not None and runtime.clock() - youngest < lag:
        msg = f"Job {key[:16]} may exist: its provider's list may lag; looking again later."
        raise UncertainOutcomeError(msg)
    return False


def _candidates(
    runtime: Runtime,
    job: ProviderJob,
    provider: Provider,
    identity: Identity,
    earlier_key: str | None,
) -> list[FoundJob]:
    """Return the jobs that this submission may have made, the one to keep first."""
    key, since = job.submission_key, job.intended_at
    keys = [key]
    if identity.jobs_since is not None:
        since = min(since, max(identity.jobs_since, runtime.clock() - LOOK_BACK))
        keys += [earlier_key] if earlier_key else []
    try:
        listed = [found for each in keys for found in provider.find(each, since, job.n_requests)]
    except ProviderRefusedError as error:
        if isinstance(error, AccountRefusedError) and job.surely_absent:
            raise  # it waits for a key, and nobody has to decide anything
        # Not being let look is no proof that there is nothing.
        msg = f"Whether job {key[:16]} of batch '{job.batch_id}' exists cannot be seen: {error}"
        raise AmbiguousSubmissionError(msg) from error
    known = _jobs_of_others(runtime, job)
    found = []
    for candidate in listed:
        borne = candidate.submission_key
        may_be_it = borne in {None, *keys} or (
            identity.jobs_since is not None and borne is not None and identity.knows(borne)
        )
        if not may_be_it or candidate.job_id in known:
            continue
        is_expected = not job.surely_absent or candidate.is_running or not candidate.is_certain
        if is_expected or provider.keeps_results(candidate.job_id):
            found.append(candidate)
        else:
            log.warning("found_without_results", submission_key=key, job=candidate.job_id)
    return sorted(found, key=lambda c: (c.submission_key != key, not _is_ours(identity, c, key)))


def _is_ours(identity: Identity, found: FoundJob, key: str) -> bool:
    """Whether a job that was found may be told to stop: this store made it."""
    borne = found.submission_key
    return borne is None or borne == key or identity.made(borne)


def _jobs_of_others(runtime: Runtime, job: ProviderJob) -> set[str]:
    """Return the provider's jobs that the ledger knows to belong to other submissions.

    Where a provider keeps no name of ours on a job, they would look just like this one.
    """
    with runtime.store.read() as db:
        rows = db.rows(
            "SELECT provider_job_id FROM provider_jobs WHERE provider = $provider"
            " AND submission_key <> $key AND provider_job_id IS NOT NULL",
            {"provider": job.provider, "key": job.submission_key},
        )
    return {row["provider_job_id"] for row in rows}


def uploaded_before(provider: Provider, job: ProviderJob, shard: Path) -> str | None:
    """Return the whole file that an earlier try left at the provider, if there is one."""
    n_bytes = shard.stat().st_size
    with suppress(ProviderRefusedError):  # a server without a list of files gets another one
        for file in provider.list_files(job.intended_at):
            if file.filename == shard.name and file.n_bytes == n_bytes:
                log.info("upload_adopted", submission_key=job.submission_key, file=file.file_id)
                return file.file_id
    return None


def record_submission(runtime: Runtime, job: ProviderJob, provider: Provider, job_id: str) -> None:
    """Record the job that a create has made.

    Where the lease ran out meanwhile and another process has made or found one, ours is one too
    many: it is told to stop, and what it finished is billed. What was made is kept whoever has
    the batch by now: it may have been paid for.
    """
    runtime = replace(runtime, store=runtime.store.with_lease(None))
    now = runtime.clock()
    with runtime.store.write() as db:
        current = ledger.find_job(db, job.submission_key)
        is_extra = current is None or not current.is_unsent
        if not is_extra:
            expiry = results_expire_at(now, provider.limits)
            ledger.mark_submitted(db, job.submission_key, job_id, now, expiry)
    if not is_extra:
        _log(job, "provider_job_submitted", job_id)
    elif current is None or current.provider_job_id != job_id:
        keep_duplicates(runtime, job, provider, [job_id])


def record_adoption(
    runtime: Runtime, job: ProviderJob, provider: Provider, found: FoundJob
) -> None:
    """Record the job that was found at the provider, if no other process has done so."""
    now, job_id, borne = runtime.clock(), found.job_id, found.submission_key
    with runtime.store.write() as db:
        current = ledger.find_job(db, job.submission_key)
        if current is not None and current.provider_job_id == job_id:
            return
        expiry = results_expire_at(now, provider.limits)
        ledger.mark_adopted(
            db, job.submission_key, job_id, now, expiry, input_file_id=found.input_file_id
        )
        if job.account != provider.account:
            ledger.see_from_account(db, job.submission_key, provider.account)
        if borne is not None and borne != job.submission_key:
            _record_borne_key(db, job, borne)
    _log(job, "provider_job_adopted", job_id)


def _record_borne_key(db: Session, job: ProviderJob, borne: str) -> None:
    """Record the key that an adopted job bears; its rows come home under that key's custom ids."""
    row = {"submission_key": job.submission_key, "batch_id": job.batch_id, "borne_key": borne}
    db.insert("borne_keys", [row], on_conflict="replace")
    if borne[:16] != job.submission_key[:16]:
        db.execute(
            "UPDATE attempts SET custom_id = ? || substr(custom_id, 17) WHERE submission_key = ?",
            [borne[:16], job.submission_key],
        )


def _log(job: ProviderJob, event: str, job_id: str) -> None:
    log.info(
        event,
        batch_id=job.batch_id,
        submission_key=job.submission_key,
        provider_job_id=job_id,
        n_requests=job.n_requests,
    )


def keep_duplicates(
    runtime: Runtime, job: ProviderJob, provider: Provider, extra_ids: Iterable[str]
) -> None:
    """Record the extra jobs of a submission, then tell each to stop."""
    now = runtime.clock()
    rows = [
        {
            "provider_job_id": extra,
            "account": job.account,
            "batch_id": job.batch_id,
            "submission_key": job.submission_key,
            "judge_id": job.judge_id,
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
            batch_id=job.batch_id,
            submission_key=job.submission_key,
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
            with runtime.store.read() as db:
                kept = ledger.find_job(db, row["submission_key"])
            if kept is None or not may_stop(runtime, kept):
                continue
            if row["account"] != provider.account and not provider.is_of(
                row["provider_job_id"], row["submission_key"], kept.n_requests, kept.intended_at
            ):
                raise of_another_account(provider.name, row["submission_key"], row["batch_id"])
            if row["cancel_sent_at"] is None:
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
            "UPDATE duplicate_jobs SET cancel_sent_at = ? WHERE account = ? AND"
            " provider_job_id = ?",
            [runtime.clock(), row["account"], row["provider_job_id"]],
        )


def _settle(
    runtime: Runtime, row: Mapping[str, Any], provider: Provider, status: JobStatus
) -> None:
    """Store a duplicate's rows as they came, and enter what they cost.

    Raises:
        CJError: If its results cannot be had now: a refusal proves nothing before they expire.
    """
    try:
        lines: list[RawLine] = list(provider.collect(row["provider_job_id"]))
    except ProviderRefusedError as error:
        if runtime.clock() - row["found_at"] < LONGEST_KEPT:
            raise
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
        charges.bill_duplicate(
            db,
            row["provider_job_id"],
            batch_id=row["batch_id"],
            judge_id=row["judge_id"],
            billed_usd=billed,
            now=now,
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
