"""Recorded intents become provider jobs, each created once whatever dies or gets lost.

Who sends a job holds a lease on it. Who finds a job that somebody else began to send, or whose
create got no answer, looks for it at the provider first and adopts what it finds.
"""

from __future__ import annotations

import hashlib
import os
import socket
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import structlog

from cj_pipeline.batch.comparisons import RequestOutcome
from cj_pipeline.errors import (
    AccountRefusedError,
    AmbiguousSubmissionError,
    CJError,
    FinalError,
    ProviderRefusedError,
    ProviderUnavailableError,
    TransientError,
    UncertainOutcomeError,
)
from cj_pipeline.judging.judges import Judge
from cj_pipeline.judging.pricing import estimated_tokens
from cj_pipeline.progress.events import record_progress
from cj_pipeline.provider_jobs.adoption import keep_duplicates
from cj_pipeline.provider_jobs.ledger import require_same_account
from cj_pipeline.provider_jobs.live_calls import LEASE, make_live_calls
from cj_pipeline.provider_jobs.requests import RequestSpec, request_line, requests_of_job
from cj_pipeline.provider_jobs.settlement import fail_exhausted
from cj_pipeline.providers.base import Provider, results_expire_at
from cj_pipeline.queries.batch_record import BatchRecord, load_batch
from cj_pipeline.runtime import Runtime
from cj_pipeline.store.session import Session

log = structlog.get_logger()

WAIT_FOR_ROOM = timedelta(seconds=15)
"""How long a job waits before it is seen again whether others have ended."""

LEAST_WAIT, LONGEST_WAIT = timedelta(seconds=5), timedelta(minutes=5)
"""Between two looks for a job that may exist: a tenth of the time since it was meant to."""


class _NoRoomError(TransientError):
    """The account has as many jobs or tokens in the provider's queue as it may."""


class _CancelledBeforeCreationError(ProviderRefusedError):
    """The batch was cancelled while this job was only an intent."""


class _TakenOverError(TransientError):
    """Somebody else has begun to send this job, because we took longer than the lease allows."""


@dataclass(frozen=True)
class Sent:
    """What one call sent."""

    n_sent: int
    n_adopted: int
    n_requests: int


def submit_pending(runtime: Runtime, record: BatchRecord) -> Sent:
    """Send every recorded intent of a batch that nobody else is sending.

    Raises:
        TransientError: If a provider could not take a job now; the others were sent.
        FinalError: If a person has to mend something first, such as a key; the others were sent.
    """
    jobs = _claim(runtime, record.batch_id)
    sent = adopted = requests = 0
    single_calls = _single_calls(runtime, record, jobs)
    trouble: CJError | None = None
    for job in jobs:
        try:
            if job["submission_key"] in single_calls:
                if (unended := single_calls[job["submission_key"]]) is not None:
                    raise unended
            else:
                adopted += _send_one(runtime, record, job)
        except CJError as error:
            told = handle_failure(runtime, record, job, error)
            # What a person has to mend wins over what passes by itself; the others are sent.
            trouble = told if isinstance(told, FinalError) else trouble or told
        else:
            sent += 1
            requests += job["n_requests"]
    if trouble is not None:
        raise trouble
    return Sent(sent, adopted, requests)


def _single_calls(
    runtime: Runtime, record: BatchRecord, jobs: Sequence[dict[str, Any]]
) -> dict[str, CJError | None]:
    """Make the calls of all jobs that consist of single ones, and return how each job ended."""
    ends: dict[str, CJError | None] = {}
    mine = []
    for job in jobs:
        if job["batching_mode"] == "provider_batch_api":
            continue
        try:
            mine.append(_bound(runtime, job, runtime.provider(record.judge(job["judge_id"]))))
        except CJError as error:
            ends[job["submission_key"]] = error
    try:
        return ends | (make_live_calls(runtime, record, mine) if mine else {})
    except TransientError as error:
        return ends | {job["submission_key"]: error for job in mine}
    except BaseException:
        # This process may live on, and the calls should not have to wait for its lease to end.
        for job in mine:
            _free(runtime, job)
        raise


def _free(runtime: Runtime, job: Mapping[str, Any]) -> None:
    """Let a job be taken up at once, by anybody."""
    with runtime.store.write() as db:
        db.execute(
            "UPDATE provider_jobs SET lease_until = ? WHERE submission_key = ?",
            [runtime.clock(), job["submission_key"]],
        )


def _send_one(runtime: Runtime, record: BatchRecord, job: dict[str, Any]) -> bool:
    """Send one claimed job; True when it was adopted."""
    judge = record.judge(job["judge_id"])
    provider = runtime.provider(judge)
    return _send(runtime, record, _bound(runtime, job, provider), judge, provider)


def handle_failure(
    runtime: Runtime, record: BatchRecord, job: Mapping[str, Any], error: CJError
) -> CJError | None:
    """Keep what a failed try means for its job; return what whoever called has to know."""
    match error:
        case _NoRoomError():
            defer(runtime, job, error)
            return None
        case _TakenOverError():
            log.warning("submission_taken_over", reason=str(error))
            return None
        case UncertainOutcomeError():
            # A single call leaves no job behind that could be looked for.
            is_single = job["batching_mode"] != "provider_batch_api"
            _release(runtime, job, None if is_single else "ambiguous", error)
        case _CancelledBeforeCreationError():
            refuse(runtime, record, job, error, RequestOutcome.CANCELLED)
            return None
        case AccountRefusedError():
            # Nothing is wrong with the requests: they wait until the account is mended.
            _release(runtime, job, None, error)
        case ProviderRefusedError():
            refuse(runtime, record, job, error, RequestOutcome.PROVIDER_ERROR)
            return None
        case _:
            _release(runtime, job, None, error)
    return error


def _bound(runtime: Runtime, job: dict[str, Any], provider: Provider) -> dict[str, Any]:
    """Return a job bound to the account it goes out from.

    One that surely was never created may go out from another account, as after a mistyped key.

    Raises:
        AmbiguousSubmissionError: If it may exist in the account it was begun with.
    """
    is_elsewhere = job["account"] != provider.account
    if is_elsewhere and job["state"] != "running" and job["create_begun_at"] is None:
        now_bound = {"account": provider.account, "state": "intent", "input_file_id": None}
        with runtime.store.write() as db:
            db.execute(
                "UPDATE provider_jobs SET account = $account, state = $state,"
                " input_file_id = $input_file_id WHERE submission_key = $key",
                now_bound | {"key": job["submission_key"]},
            )
        return job | now_bound
    require_same_account(job, provider)
    return job


def adopt_if_found(runtime: Runtime, batch_id: str, key: str) -> bool:
    """Look for one unsent submission at its provider, and adopt it; nothing is ever created.

    Returns:
        Whether the ledger knows its job now; False also while somebody else is sending it.
    """
    with runtime.store.read() as db:
        record = load_batch(db, batch_id)
    for job in _claim(runtime, batch_id, only=key):
        judge = record.judge(job["judge_id"])
        try:
            provider = runtime.provider(judge)
            require_same_account(job, provider)
            adopt(runtime, job, provider)
        finally:
            with runtime.store.write() as db:
                db.execute(
                    "UPDATE provider_jobs SET lease_owner = ?, lease_until = ?"
                    " WHERE submission_key = ? AND provider_job_id IS NULL",
                    [job["lease_owner"], job["lease_until"], key],
                )
    with runtime.store.read() as db:
        row = db.one("SELECT provider_job_id FROM provider_jobs WHERE submission_key = ?", [key])
    return row is not None and row["provider_job_id"] is not None


def _claim(runtime: Runtime, batch_id: str, *, only: str | None = None) -> list[dict[str, Any]]:
    """Take the lease on every unsent job that is free and due, and return them as they were.

    Args:
        engine: The pipeline's connections.
        batch_id: Whose.
        only: The key of one job, which then need not be due.
    """
    now = runtime.clock()
    with runtime.store.write() as db:
        rows = db.rows(
            "SELECT * FROM provider_jobs WHERE batch_id = ?"
            " AND (state IN ('intent', 'uploaded', 'ambiguous')"
            " OR (state = 'running' AND batching_mode <> 'provider_batch_api'))"
            " AND (submission_key = ? OR (? IS NULL AND coalesce(next_poll_at, ?) <= ?))"
            " ORDER BY submission_key",
            [batch_id, only, only, now, now],
        )
        free = [job for job in rows if not _is_held(job, now)]
        for job in free:
            db.execute(
                "UPDATE provider_jobs SET lease_owner = ?, lease_until = ?"
                " WHERE submission_key = ?",
                [_this_process(), now + LEASE, job["submission_key"]],
            )
    return free


def _this_process() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _is_held(job: Mapping[str, Any], now: datetime) -> bool:
    """Return whether somebody who may be alive is sending this job."""
    owner = job["lease_owner"]
    if owner is None or job["lease_until"] is None or job["lease_until"] <= now:
        return False
    host, pid = owner.rsplit(":", 1)
    if host != socket.gethostname():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def adopt(runtime: Runtime, job: Mapping[str, Any], provider: Provider) -> bool:
    """Take over the provider job that an earlier try created; False where there surely is none.

    Further jobs of the same submission are told to stop.

    Raises:
        UncertainOutcomeError: While nobody can tell.
        AmbiguousSubmissionError: If the account's list cannot be searched to its end.
    """
    key = job["submission_key"]
    try:
        candidates = provider.find(key, job["intended_at"], job["n_requests"])
    except ProviderRefusedError as error:
        # Not being let look is no proof that there is nothing.
        msg = f"Whether job {key[:16]} of batch '{job['batch_id']}' exists cannot be seen: {error}"
        raise AmbiguousSubmissionError(msg) from error
    known = _jobs_of_others(runtime, job)
    found = [candidate for candidate in candidates if candidate.job_id not in known]
    if any(not candidate.is_certain for candidate in found):
        msg = f"Job {key[:16]} may be one that is still running: it is known when that ends."
        raise UncertainOutcomeError(msg)
    if found:
        _keep_job(runtime, job, provider, found[0].job_id, "adopted")
        keep_duplicates(runtime, job, provider, [extra.job_id for extra in found[1:]])
        return True
    begun, lag = job["create_begun_at"], timedelta(seconds=provider.limits.list_lag_s)
    if begun is not None and runtime.clock() - begun < lag:
        msg = f"Job {key[:16]} may exist: its provider's list may lag; looking again later."
        raise UncertainOutcomeError(msg)
    return False


def _jobs_of_others(runtime: Runtime, job: Mapping[str, Any]) -> set[str]:
    """Return the account's jobs that the ledger knows to belong to other submissions.

    Where a provider keeps no name of ours on a job, they would look just like this one.
    """
    with runtime.store.read() as db:
        rows = db.rows(
            "SELECT provider_job_id FROM provider_jobs WHERE account = $account"
            " AND submission_key <> $key AND provider_job_id IS NOT NULL"
            " AND submitted_at >= $since - INTERVAL 1 DAY",
            {
                "account": job["account"],
                "key": job["submission_key"],
                "since": job["intended_at"],
            },
        )
    return {row["provider_job_id"] for row in rows}


def _send(
    runtime: Runtime, record: BatchRecord, job: Mapping[str, Any], judge: Judge, provider: Provider
) -> bool:
    """Create one provider job, or adopt the one an earlier try created; True when adopted."""
    key = job["submission_key"]
    was_begun = job["lease_owner"] is not None
    is_unwanted = record.cancel_requested
    surely_absent = job["create_begun_at"] is None and job["state"] != "ambiguous"
    if was_begun and not (is_unwanted and surely_absent) and adopt(runtime, job, provider):
        return True
    if is_unwanted:
        msg = f"Batch '{record.batch_id}' was cancelled before this was sent."
        raise _CancelledBeforeCreationError(msg)
    with runtime.store.read() as db:
        _require_room(db, job, provider, runtime.clock())
        asks = requests_of_job(db, record, judge, key)
    with tempfile.TemporaryDirectory(dir=runtime.home) as folder:
        # The key names the file, so that an upload can be found again by its name.
        shard = Path(folder) / f"{key}.jsonl"
        digest = _write_requests(shard, asks, judge, provider, key)
        file_id = job["input_file_id"]
        if file_id is None and was_begun:
            file_id = _uploaded_before(provider, job, shard)
        if file_id is None:
            file_id = _upload(provider, shard, key)
        _begin_create(runtime, key, file_id, digest)
        job_id = _create(runtime, provider, shard, file_id, key)
    _keep_job(runtime, job, provider, job_id, "submitted")
    return False


def _uploaded_before(provider: Provider, job: Mapping[str, Any], shard: Path) -> str | None:
    """Return the whole file that an earlier try left at the provider, if there is one."""
    n_bytes = shard.stat().st_size
    with suppress(ProviderRefusedError):  # a server without a list of files gets another one
        for file in provider.list_files(job["intended_at"]):
            if file.filename == shard.name and file.n_bytes == n_bytes:
                log.info("upload_adopted", submission_key=job["submission_key"], file=file.file_id)
                return file.file_id
    return None


def _upload(provider: Provider, shard: Path, key: str) -> str | None:
    try:
        return provider.upload(shard, key)
    except UncertainOutcomeError as error:
        # Nothing is paid for files, and no job can be made of one whose id nobody has.
        msg = f"{error} Before it is sent again, it is looked for by its name."
        raise ProviderUnavailableError(msg) from error


def _create(
    runtime: Runtime, provider: Provider, shard: Path, file_id: str | None, key: str
) -> str:
    try:
        return provider.create(shard, file_id, key)
    except (ProviderUnavailableError, ProviderRefusedError):
        # It surely was not created: nobody has to wait for a list that may lag.
        with runtime.store.write() as db:
            db.execute(
                "UPDATE provider_jobs SET create_begun_at = NULL WHERE submission_key = ?", [key]
            )
        raise


def _require_room(db: Session, job: Mapping[str, Any], provider: Provider, now: datetime) -> None:
    """Keep within what one account may have in its provider's queue, all batches together.

    Raises:
        _NoRoomError: If this job has to wait for others to end.
    """
    open_now = db.one(
        "SELECT count(*) FILTER (state IN ('submitted', 'adopted', 'running')) AS n_jobs,"
        " coalesce(sum(n_bytes) FILTER (state IN ('submitted', 'adopted', 'running')"
        " AND model = $model), 0) AS n_bytes,"
        " count(*) FILTER (submitted_at > $hour_ago) AS n_this_hour"
        " FROM provider_jobs WHERE account = $account"
        " AND batching_mode = 'provider_batch_api'",
        {
            "account": job["account"],
            "model": job["model"],
            "hour_ago": now - timedelta(hours=1),
        },
    )
    if open_now is None:
        return
    limits = provider.limits
    tokens = estimated_tokens(int(open_now["n_bytes"])) + estimated_tokens(job["n_bytes"])
    full = [
        f"{used} {what}, and {most} is the limit"
        for used, most, what in (
            (open_now["n_jobs"] + 1, limits.max_open_jobs, "open jobs"),
            (tokens, limits.max_enqueued_tokens, "tokens in the queue"),
            (open_now["n_this_hour"] + 1, limits.creates_per_hour, "jobs made within an hour"),
        )
        if most is not None and used > most
    ]
    if full:
        msg = f"Job {job['submission_key'][:16]} would make {'; '.join(full)}: it waits."
        raise _NoRoomError(msg)


def _write_requests(
    path: Path, asks: Sequence[RequestSpec], judge: Judge, provider: Provider, key: str
) -> str:
    """Write a shard's request file and return its SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for ask in asks:
            line = request_line(provider, judge, ask, key)
            digest.update(line)
            file.write(line)
    return digest.hexdigest()


def _begin_create(runtime: Runtime, key: str, file_id: str | None, digest: str) -> None:
    """Commit that the provider may have the job from now on, if it is still ours to create.

    Raises:
        _TakenOverError: If the lease ran out and somebody else has it.
    """
    now = runtime.clock()
    with runtime.store.write() as db:
        held = db.one("SELECT lease_owner FROM provider_jobs WHERE submission_key = ?", [key])
        if held is None or held["lease_owner"] != _this_process():
            msg = f"Job {key[:16]} is being sent by {held and held['lease_owner']}."
            raise _TakenOverError(msg)
        db.execute(
            "UPDATE provider_jobs SET state = 'uploaded', input_file_id = ?, content_sha256 = ?,"
            " create_begun_at = ?, lease_until = ? WHERE submission_key = ?",
            [file_id, digest, now, now + LEASE, key],
        )


def _keep_job(
    runtime: Runtime, job: Mapping[str, Any], provider: Provider, job_id: str, state: str
) -> None:
    now = runtime.clock()
    with runtime.store.write() as db:
        db.execute(
            """
            UPDATE provider_jobs SET state = ?, provider_job_id = ?,
                submitted_at = ?, next_poll_at = ?, counts_changed_at = ?, results_expire_at = ?,
                n_poll_failures = 0, error = NULL, lease_owner = NULL, lease_until = NULL
            WHERE submission_key = ?
            """,
            [
                state,
                job_id,
                now,
                now,
                now,
                results_expire_at(now, provider.limits),
                job["submission_key"],
            ],
        )
    log.info(
        f"provider_job_{state}",
        batch_id=job["batch_id"],
        submission_key=job["submission_key"],
        provider_job_id=job_id,
        n_requests=job["n_requests"],
    )


def _release(runtime: Runtime, job: Mapping[str, Any], state: str | None, error: CJError) -> None:
    """Let the job be tried again later; the owner's name stays, so that it is looked for first."""
    now = runtime.clock()
    asked_to_wait = getattr(error, "retry_after_s", None)
    if isinstance(error, FinalError):
        # Nothing is gained by waiting: whoever tries again is told again.
        wait = timedelta()
    elif asked_to_wait is not None:
        wait = timedelta(seconds=asked_to_wait)
    else:
        wait = min(LONGEST_WAIT, max(LEAST_WAIT, (now - job["intended_at"]) / 10))
    with runtime.store.write() as db:
        db.execute(
            "UPDATE provider_jobs SET state = coalesce(?, state), error = ?, lease_until = ?,"
            " next_poll_at = ?, polled_at = coalesce(polled_at, ?) WHERE submission_key = ?",
            [state, str(error), now, now + wait, now, job["submission_key"]],
        )
    log.warning(
        "submission_uncertain" if state else "submission_postponed",
        batch_id=job["batch_id"],
        submission_key=job["submission_key"],
        error=str(error),
    )


def defer(runtime: Runtime, job: Mapping[str, Any], error: _NoRoomError) -> None:
    """Let the job wait for room: it was not begun, so its lease is as it was before."""
    now = runtime.clock()
    with runtime.store.write() as db:
        db.execute(
            "UPDATE provider_jobs SET error = ?, lease_owner = ?, lease_until = ?,"
            " next_poll_at = ? WHERE submission_key = ?",
            [
                str(error),
                job["lease_owner"],
                now if job["lease_owner"] else None,
                now + WAIT_FOR_ROOM,
                job["submission_key"],
            ],
        )
    log.info("submission_waits", batch_id=job["batch_id"], reason=str(error))


def refuse(
    runtime: Runtime,
    record: BatchRecord,
    job: Mapping[str, Any],
    error: ProviderRefusedError,
    outcome: RequestOutcome,
) -> None:
    """End a job its provider will never take: every request of it failed, none was paid."""
    now = runtime.clock()
    with runtime.store.write() as db:
        db.execute(
            "UPDATE attempts SET outcome = ?, error_code = 'invalid_request', error_message = ?,"
            " tokens_prompt = 0, tokens_completion = 0, cost_usd = 0, completed_at = ?"
            " WHERE submission_key = ?",
            [outcome.value, str(error), now, job["submission_key"]],
        )
        db.execute(
            "UPDATE provider_jobs SET state = 'refused', error = ?, billed_usd = 0, ended_at = ?,"
            " lease_owner = NULL, lease_until = NULL WHERE submission_key = ?",
            [str(error), now, job["submission_key"]],
        )
        db.insert(
            "ledger",
            [
                {
                    "batch_id": record.batch_id,
                    "submission_key": job["submission_key"],
                    "judge_id": job["judge_id"],
                    "kind": "released",
                    "usd": job["reserved_usd"],
                    "entered_at": now,
                }
            ],
            on_conflict="ignore",
        )
        fail_exhausted(db, record, now)
        record_progress(db, record.batch_id, now)
    log.error("provider_job_refused", submission_key=job["submission_key"], error=str(error))
