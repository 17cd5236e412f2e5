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
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import structlog

from cj_pipeline.comparisons import Outcome
from cj_pipeline.errors import (
    AmbiguousSubmissionError,
    CJError,
    ProviderRefusedError,
    TransientError,
    UncertainOutcomeError,
)
from cj_pipeline.judges import Judge
from cj_pipeline.money import estimated_tokens
from cj_pipeline.providers import Provider
from cj_pipeline.steps.engine import Engine
from cj_pipeline.steps.live_calls import LEASE, make_live_calls
from cj_pipeline.steps.note_progress import note_progress
from cj_pipeline.steps.records import BatchRecord
from cj_pipeline.steps.requests import Ask, asks_of_job, request_line
from cj_pipeline.steps.settlement import close_comparisons
from cj_pipeline.store import Session

log = structlog.get_logger()

LIST_LAG = timedelta(seconds=90)
"""How long a provider's list may lag behind a create: before that, absence proves nothing."""

WAIT_FOR_ROOM = timedelta(seconds=15)
"""How long a job waits before it is seen again whether others have ended."""


class _NoRoomError(TransientError):
    """The account has as many jobs or tokens in the provider's queue as it may."""


class _CancelledBeforeCreationError(ProviderRefusedError):
    """The batch was cancelled while this job was only an intent."""


@dataclass(frozen=True)
class Sent:
    """What one call sent."""

    n_sent: int
    n_adopted: int
    n_requests: int


def send_unsent_jobs(engine: Engine, record: BatchRecord) -> Sent:
    """Send every recorded intent of a batch that nobody else is sending.

    Raises:
        ProviderUnavailableError: If a provider could not take a job now; the others were sent.
    """
    jobs = _claim(engine, record.batch_id)
    sent = adopted = requests = 0
    trouble: TransientError | None = None
    single_calls = _single_calls(engine, record, jobs)
    for job in jobs:
        try:
            if job["submission_key"] in single_calls:
                if (unended := single_calls[job["submission_key"]]) is not None:
                    raise unended
            else:
                provider = engine.provider(record.judge(job["judge_id"]))
                _same_account(job, provider)
                adopted += _send(engine, record, job, record.judge(job["judge_id"]), provider)
        except _NoRoomError as error:
            _put_off(engine, job, error)
        except UncertainOutcomeError as error:
            # A single call leaves no job behind that could be looked for.
            is_single = job["batching_mode"] != "provider_batch_api"
            _release(engine, job, None if is_single else "ambiguous", error)
            trouble = error
        except TransientError as error:
            _release(engine, job, None, error)
            trouble = error
        except _CancelledBeforeCreationError as error:
            _give_up(engine, record, job, error, Outcome.CANCELLED)
        except ProviderRefusedError as error:
            _give_up(engine, record, job, error, Outcome.PROVIDER_ERROR)
        else:
            sent += 1
            requests += job["n_requests"]
    if trouble is not None:
        raise trouble
    return Sent(sent, adopted, requests)


def _single_calls(
    engine: Engine, record: BatchRecord, jobs: Sequence[Mapping[str, Any]]
) -> dict[str, CJError | None]:
    """Make the calls of all jobs that consist of single ones, and return how each job ended."""
    ends: dict[str, CJError | None] = {}
    mine = []
    for job in jobs:
        if job["batching_mode"] == "provider_batch_api":
            continue
        try:
            _same_account(job, engine.provider(record.judge(job["judge_id"])))
            mine.append(job)
        except CJError as error:
            ends[job["submission_key"]] = error
    try:
        return ends | (make_live_calls(engine, record, mine) if mine else {})
    except TransientError as error:
        return ends | {job["submission_key"]: error for job in mine}
    except BaseException:
        # This process may live on, and the calls should not have to wait for its lease to end.
        for job in mine:
            _free(engine, job)
        raise


def _free(engine: Engine, job: Mapping[str, Any]) -> None:
    """Let a job be taken up at once, by anybody."""
    with engine.store.write() as db:
        db.execute(
            "UPDATE provider_jobs SET lease_until = ? WHERE submission_key = ?",
            [engine.clock(), job["submission_key"]],
        )


def _claim(engine: Engine, batch_id: str) -> list[dict[str, Any]]:
    """Take the lease on every unsent job that is free and due, and return them as they were."""
    now = engine.clock()
    with engine.store.write() as db:
        rows = db.rows(
            "SELECT * FROM provider_jobs WHERE batch_id = ?"
            " AND (state IN ('intent', 'uploaded', 'ambiguous')"
            " OR (state = 'running' AND batching_mode <> 'provider_batch_api'))"
            " AND coalesce(next_poll_at, ?) <= ? ORDER BY submission_key",
            [batch_id, now, now],
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


def _same_account(job: Mapping[str, Any], provider: Provider) -> None:
    """A job is looked for only where it was created: elsewhere it would seem not to exist."""
    if job["account"] != provider.account:
        msg = (
            f"Provider job {job['submission_key'][:16]} of batch '{job['batch_id']}' was begun with"
            f" another key or address of {job['provider']}. Restore those credentials, or cancel"
            " the batch: nothing is asked again under new ones."
        )
        raise AmbiguousSubmissionError(msg)


def _send(
    engine: Engine, record: BatchRecord, job: Mapping[str, Any], judge: Judge, provider: Provider
) -> bool:
    """Create one provider job, or adopt the one an earlier try created; True when adopted."""
    key = job["submission_key"]
    if job["lease_owner"] is not None:
        found = provider.find(key, job["intended_at"], job["n_requests"])
        if any(not candidate.is_certain for candidate in found):
            msg = f"Job {key[:16]} may be one that is still running: it is known when that ends."
            raise UncertainOutcomeError(msg)
        if found:
            _keep_job(engine, job, found[0].job_id, job["input_file_id"], "adopted")
            for extra in found[1:]:
                provider.cancel(extra.job_id)
                log.warning("duplicate_provider_job", submission_key=key, extra=extra.job_id)
            return True
        if job["state"] == "ambiguous" and engine.clock() - job["polled_at"] < LIST_LAG:
            msg = f"Job {key[:16]} may exist: its provider's list may lag; looking again later."
            raise UncertainOutcomeError(msg)
    if record.metadata.get("cancel_requested"):
        msg = f"Batch '{record.batch_id}' was cancelled before this was sent."
        raise _CancelledBeforeCreationError(msg)
    with engine.store.read() as db:
        _require_room(db, job, provider, engine.clock())
        asks = asks_of_job(db, record, judge, key)
    with tempfile.TemporaryDirectory(dir=engine.home) as folder:
        # The key names the file, so that an upload can be found again by its name.
        shard = Path(folder) / f"{key}.jsonl"
        digest = _write_requests(shard, asks, judge, provider, key)
        file_id = job["input_file_id"]
        if file_id is None:
            file_id = provider.upload(shard, key)
            _keep_upload(engine, key, file_id, digest)
        job_id = provider.create(shard, file_id, key)
    _keep_job(engine, job, job_id, file_id, "submitted")
    return False


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
    path: Path, asks: Sequence[Ask], judge: Judge, provider: Provider, key: str
) -> str:
    """Write a shard's request file and return its SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for ask in asks:
            line = request_line(provider, judge, ask, key)
            digest.update(line)
            file.write(line)
    return digest.hexdigest()


def _keep_upload(engine: Engine, key: str, file_id: str | None, digest: str) -> None:
    with engine.store.write() as db:
        db.execute(
            "UPDATE provider_jobs SET state = 'uploaded', input_file_id = ?, content_sha256 = ?"
            " WHERE submission_key = ?",
            [file_id, digest, key],
        )


def _keep_job(
    engine: Engine, job: Mapping[str, Any], job_id: str, file_id: str | None, state: str
) -> None:
    now = engine.clock()
    with engine.store.write() as db:
        db.execute(
            """
            UPDATE provider_jobs SET state = ?, provider_job_id = ?, input_file_id = ?,
                submitted_at = ?, next_poll_at = ?, error = NULL,
                lease_owner = NULL, lease_until = NULL
            WHERE submission_key = ?
            """,
            [state, job_id, file_id, now, now, job["submission_key"]],
        )
    log.info(
        f"provider_job_{state}",
        batch_id=job["batch_id"],
        submission_key=job["submission_key"],
        provider_job_id=job_id,
        n_requests=job["n_requests"],
    )


def _release(
    engine: Engine, job: Mapping[str, Any], state: str | None, error: TransientError
) -> None:
    """Let the job be tried again later; the owner's name stays, so that it is looked for first."""
    now = engine.clock()
    wait = getattr(error, "retry_after_s", None) or 5.0
    with engine.store.write() as db:
        db.execute(
            "UPDATE provider_jobs SET state = coalesce(?, state), error = ?, lease_until = ?,"
            " next_poll_at = ?, polled_at = coalesce(polled_at, ?) WHERE submission_key = ?",
            [state, str(error), now, now + timedelta(seconds=wait), now, job["submission_key"]],
        )
    log.warning(
        "submission_uncertain" if state else "submission_postponed",
        batch_id=job["batch_id"],
        submission_key=job["submission_key"],
        error=str(error),
    )


def _put_off(engine: Engine, job: Mapping[str, Any], error: _NoRoomError) -> None:
    """Let the job wait for room: it was not begun, so its lease is as it was before."""
    now = engine.clock()
    with engine.store.write() as db:
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


def _give_up(
    engine: Engine,
    record: BatchRecord,
    job: Mapping[str, Any],
    error: ProviderRefusedError,
    outcome: Outcome,
) -> None:
    """End a job its provider will never take: every request of it failed, none was paid."""
    now = engine.clock()
    with engine.store.write() as db:
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
        close_comparisons(db, record, now)
        note_progress(db, record.batch_id, now)
    log.error("provider_job_refused", submission_key=job["submission_key"], error=str(error))
