"""Recorded intents become provider jobs, each created once whatever dies or gets lost.

Who sends a job holds a lease on it. Who finds a job that somebody else began to send, or whose
create got no answer, looks for it at the provider first and adopts what it finds.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from cj_pipeline.batch.comparisons import RequestOutcome
from cj_pipeline.errors import (
    AccountRefusedError,
    CJError,
    FinalError,
    IllegalTransitionError,
    JobTooLargeError,
    ProviderRefusedError,
    ProviderUnavailableError,
    TransientError,
    UncertainOutcomeError,
)
from cj_pipeline.judging.judges import Judge
from cj_pipeline.judging.pricing import estimated_tokens
from cj_pipeline.progress.events import record_progress
from cj_pipeline.provider_jobs import charges, ledger
from cj_pipeline.provider_jobs.adoption import adopt, record_submission, uploaded_before
from cj_pipeline.provider_jobs.ledger import (
    JobState,
    ProviderJob,
    acquire_leases,
    find_job,
    owner,
)
from cj_pipeline.provider_jobs.live_calls import make_live_calls
from cj_pipeline.provider_jobs.requests import (
    RequestSpec,
    key_without_identity,
    request_line,
    requests_of_job,
)
from cj_pipeline.provider_jobs.settlement import fail_exhausted
from cj_pipeline.providers.base import JOB_TOO_LARGE, Provider
from cj_pipeline.queries.batch_record import BatchRecord
from cj_pipeline.runtime import Runtime
from cj_pipeline.store.identity import known_identity
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


def submit_pending(
    runtime: Runtime, record: BatchRecord, *, held: frozenset[str] = frozenset()
) -> Sent:
    """Send every recorded intent of a batch that nobody else is sending.

    Args:
        runtime: The pipeline's connections.
        record: The batch.
        held: The judges whose calls are held: of theirs nothing is sent, unless the batch is
            cancelled, which ends what was not sent.

    Raises:
        TransientError: If a provider could not take a job now; the others were sent.
        FinalError: If a person has to mend something first, such as a key; the others were sent.
    """
    with runtime.store.write() as db:
        jobs = acquire_leases(db, record.batch_id, runtime.clock())
        if not record.cancel_requested:
            for job in (job for job in jobs if job.judge_id in held):
                ledger.restore_lease(db, job)
            jobs = [job for job in jobs if job.judge_id not in held]
    sent = adopted = requests = 0
    single_calls = _single_calls(runtime, record, jobs)
    trouble: CJError | None = None
    for job in jobs:
        try:
            if job.submission_key in single_calls:
                if (unended := single_calls[job.submission_key]) is not None:
                    raise unended
            else:
                adopted += _send_one(runtime, record, job)
        except CJError as error:
            told = handle_failure(runtime, record, job, error)
            # What a person has to mend wins over what passes by itself; the others are sent.
            trouble = told if isinstance(told, FinalError) else trouble or told
        else:
            sent += 1
            requests += job.n_requests
    if trouble is not None:
        raise trouble
    return Sent(sent, adopted, requests)


def _single_calls(
    runtime: Runtime, record: BatchRecord, jobs: Sequence[ProviderJob]
) -> dict[str, CJError | None]:
    """Make the calls of all jobs that consist of single ones, and return how each job ended."""
    ends: dict[str, CJError | None] = {}
    mine = []
    for job in jobs:
        if job.is_batched:
            continue
        try:
            mine.append(_bound(runtime, job, runtime.provider(record.judge(job.judge_id))))
        except CJError as error:
            ends[job.submission_key] = error
    try:
        return ends | (make_live_calls(runtime, record, mine) if mine else {})
    except TransientError as error:
        return ends | {job.submission_key: error for job in mine}
    except BaseException:
        # This process may live on, and the calls should not have to wait for its lease to end.
        with runtime.store.write() as db:
            for job in mine:
                ledger.release_lease(db, job, runtime.clock())
        raise


def _send_one(runtime: Runtime, record: BatchRecord, job: ProviderJob) -> bool:
    """Send one claimed job; True when it was adopted."""
    judge = record.judge(job.judge_id)
    provider = runtime.provider(judge)
    return _send(runtime, record, _bound(runtime, job, provider), judge, provider)


def handle_failure(
    runtime: Runtime, record: BatchRecord, job: ProviderJob, error: CJError
) -> CJError | None:
    """Keep what a failed try means for its job; return what whoever called has to know."""
    match error:
        case _NoRoomError():
            _defer(runtime, job, error)
            return None
        case _TakenOverError() | IllegalTransitionError():
            log.warning("submission_taken_over", reason=str(error))
            return None
        case UncertainOutcomeError():
            # A single call leaves no job behind that could be looked for.
            _hold(runtime, job, error, is_ambiguous=job.is_batched)
        case _CancelledBeforeCreationError():
            _refuse(runtime, record, job, error, RequestOutcome.CANCELLED)
            return None
        case JobTooLargeError() if job.is_batched and job.n_requests > 1:
            _refuse(runtime, record, job, error, RequestOutcome.PROVIDER_ERROR, code=JOB_TOO_LARGE)
            return None
        case AccountRefusedError():
            # Nothing is wrong with the requests: they wait until the account is mended.
            _hold(runtime, job, error)
        case ProviderRefusedError():
            _refuse(runtime, record, job, error, RequestOutcome.PROVIDER_ERROR)
            return None
        case _:
            _hold(runtime, job, error)
    return error


def _bound(runtime: Runtime, job: ProviderJob, provider: Provider) -> ProviderJob:
    """Return a job bound to the account it goes out from.

    One that surely was never created may go out from another account, as after a mistyped key.

    Single calls that have begun go on from it too: those that were answered are stored. One whose
    create was begun is looked for first, whatever account that was.
    """
    if job.account == provider.account or job.create_begun_at is not None:
        return job
    with runtime.store.write() as db:
        if job.state is JobState.RUNNING:
            ledger.see_from_account(db, job.submission_key, provider.account)
            return replace(job, account=provider.account)
        ledger.bind_account(db, job.submission_key, provider.account)
    return replace(job, account=provider.account, state=JobState.INTENT, input_file_id=None)


def _send(
    runtime: Runtime, record: BatchRecord, job: ProviderJob, judge: Judge, provider: Provider
) -> bool:
    """Create one provider job, or adopt the one an earlier try created; True when adopted."""
    key = job.submission_key
    was_begun = job.lease_owner is not None
    is_unwanted = record.cancel_requested
    with runtime.store.read() as db:
        asks = requests_of_job(db, record, judge, key)
        may_be_unknown = known_identity(db, runtime.clock()).jobs_since is not None
    if (was_begun or may_be_unknown) and not (is_unwanted and job.surely_absent):
        earlier = key_without_identity(record.batch_id, judge.judge_id, provider.account, asks)
        if adopt(runtime, job, provider, earlier_key=earlier):
            return True
    if is_unwanted:
        msg = f"Batch '{record.batch_id}' was cancelled before this was sent."
        raise _CancelledBeforeCreationError(msg)
    with runtime.store.read() as db:
        _require_room(db, job, provider, runtime.clock())
    with tempfile.TemporaryDirectory(dir=runtime.home) as folder:
        # The key names the file, so that an upload can be found again by its name.
        shard = Path(folder) / f"{key}.jsonl"
        digest = _write_requests(shard, asks, judge, provider, key)
        file_id = job.input_file_id
        if file_id is None and was_begun:
            file_id = uploaded_before(provider, job, shard)
        if file_id is None:
            file_id = _upload(provider, shard, key)
        _begin_create(runtime, key, file_id, digest)
        job_id = _create(runtime, provider, shard, file_id, key)
    record_submission(runtime, job, provider, job_id)
    return False


def _upload(provider: Provider, shard: Path, key: str) -> str | None:
    try:
        return provider.upload(shard, key)
    except UncertainOutcomeError as error:
        # Nothing is paid for files, and no job can be made of one whose id nobody has.
        msg = f"{error} Before it is sent again, the provider is searched for it by name."
        raise ProviderUnavailableError(msg) from error


def _create(
    runtime: Runtime, provider: Provider, shard: Path, file_id: str | None, key: str
) -> str:
    try:
        return provider.create(shard, file_id, key)
    except (ProviderUnavailableError, ProviderRefusedError):
        # It surely was not created: nobody has to wait for a list that may lag.
        with runtime.store.write() as db:
            ledger.withdraw_create(db, key)
        raise


def _require_room(db: Session, job: ProviderJob, provider: Provider, now: datetime) -> None:
    """Keep within what one account may have in its provider's queue, all batches together.

    Raises:
        _NoRoomError: If this job has to wait for others to end.
    """
    open_now = db.one(
        "SELECT count(*) FILTER (phase = 'open') AS n_jobs,"
        " coalesce(sum(n_bytes) FILTER (phase = 'open' AND model = $model), 0) AS n_bytes,"
        " count(*) FILTER (submitted_at > $hour_ago) AS n_this_hour"
        " FROM v_job_phases WHERE account = $account"
        " AND batching_mode = 'provider_batch_api'",
        {"account": job.account, "model": job.model, "hour_ago": now - timedelta(hours=1)},
    )
    if open_now is None:
        return
    limits = provider.limits
    tokens = estimated_tokens(int(open_now["n_bytes"])) + estimated_tokens(job.n_bytes)
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
        msg = f"Job {job.submission_key[:16]} would make {'; '.join(full)}: it waits."
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
    with runtime.store.write() as db:
        held = find_job(db, key)
        if held is None or held.lease_owner != owner(db):
            msg = f"Job {key[:16]} is being sent by {held and held.lease_owner}."
            raise _TakenOverError(msg)
        ledger.mark_uploaded(db, key, file_id, digest)
        ledger.begin_create(db, key, runtime.clock())


def _hold(
    runtime: Runtime, job: ProviderJob, error: CJError, *, is_ambiguous: bool = False
) -> None:
    """Let the job be tried again later, and note whether it may exist by now."""
    now = runtime.clock()
    asked_to_wait = getattr(error, "retry_after_s", None)
    if isinstance(error, FinalError):
        # Nothing is gained by waiting: whoever tries again is told again.
        wait = timedelta()
    elif asked_to_wait is not None:
        wait = timedelta(seconds=asked_to_wait)
    else:
        wait = min(LONGEST_WAIT, max(LEAST_WAIT, (now - job.intended_at) / 10))
    record = ledger.mark_ambiguous if is_ambiguous else ledger.postpone
    with runtime.store.write() as db:
        record(db, job.submission_key, error, now, wait=wait)
    log.warning(
        "submission_uncertain" if is_ambiguous else "submission_postponed",
        batch_id=job.batch_id,
        submission_key=job.submission_key,
        error=str(error),
    )


def _defer(runtime: Runtime, job: ProviderJob, error: _NoRoomError) -> None:
    with runtime.store.write() as db:
        ledger.defer(db, job, error, runtime.clock(), wait=WAIT_FOR_ROOM)
    log.info("submission_waits", batch_id=job.batch_id, reason=str(error))


def _refuse(
    runtime: Runtime,
    record: BatchRecord,
    job: ProviderJob,
    error: ProviderRefusedError,
    outcome: RequestOutcome,
    *,
    code: str = "invalid_request",
) -> None:
    """End a job its provider will never take: every request of it failed, none was paid.

    Requests of one that was too large are sent again, in smaller jobs.
    """
    now = runtime.clock()
    with runtime.store.write() as db:
        ledger.refuse(db, job.submission_key, error, now)
        db.execute(
            "UPDATE attempts SET outcome = ?, error_code = ?, error_message = ?, may_retry = ?,"
            " tokens_prompt = 0, tokens_completion = 0, cost_usd = 0, completed_at = ?"
            " WHERE submission_key = ?",
            [outcome.value, code, str(error), code == JOB_TOO_LARGE, now, job.submission_key],
        )
        charges.release(db, job, now)
        fail_exhausted(db, record, now)
        record_progress(db, record.batch_id, now)
    log.error("provider_job_refused", submission_key=job.submission_key, error=str(error))
