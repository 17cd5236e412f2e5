"""The ledger of provider jobs: their states, and the one way from each to the next.

Every statement that writes `provider_jobs` is here, one function per transition; `TRANSITIONS` says
from which states each may go. What a transition costs is `charges`; when one is due is decided by
the callers: `sending`, `adoption`, `cancellation`, `live_calls` and `settlement`, and the steps
`submit_wave`, `poll` and `collect_wave`. Queries go by the view `v_job_phases`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from cj_pipeline.batch.options import BatchingMode, WaitingFor
from cj_pipeline.errors import (
    AccountRefusedError,
    AmbiguousSubmissionError,
    CJError,
    IllegalTransitionError,
    JudgeHeldError,
    OtherAccountError,
    OutOfCreditError,
)
from cj_pipeline.providers.base import JobOutcome, JobStatus
from cj_pipeline.queries.job_states import ROWS_ARE_DUE
from cj_pipeline.store.session import Lease, Session

LEASE = timedelta(minutes=10)
"""How long a job may be silent before a process on another machine may pick it up."""


class JobState(StrEnum):
    """Where a provider job is between its intent and its settlement."""

    INTENT = "intent"
    UPLOADED = "uploaded"
    AMBIGUOUS = "ambiguous"
    SUBMITTED = "submitted"
    ADOPTED = "adopted"
    RUNNING = "running"
    ENDED = "ended"
    COLLECTED = "collected"
    INCOMPLETE = "incomplete"
    SETTLED = "settled"
    REFUSED = "refused"


UNSENT = frozenset({JobState.INTENT, JobState.UPLOADED, JobState.AMBIGUOUS})
"""No job is known at the provider; an ambiguous one may exist there."""

OPEN = frozenset({JobState.SUBMITTED, JobState.ADOPTED, JobState.RUNNING})
"""Being judged: by the provider's batch endpoint, or by single calls from here."""

COLLECTABLE = frozenset({JobState.ENDED, JobState.COLLECTED, JobState.INCOMPLETE})
"""Judged; its results are not settled yet, or not all of them."""

DONE = frozenset({JobState.SETTLED, JobState.REFUSED})
"""Nothing more happens to it."""


@dataclass(frozen=True)
class ProviderJob:
    """A provider job as the ledger has it: one row of `provider_jobs`; times in UTC, money in USD.

    Attributes:
        submission_key: Names the job before anything is sent.
        batch_id: Whose it is.
        wave: The last wave whose requests it bears.
        judge_id: The judge's fingerprint.
        batching_mode: Single calls and serial bundles have no job at the provider.
        provider: The service the judge is reached through.
        model: As the provider names it.
        account: A fingerprint of the account it goes out from.
        state: Where it is.
        n_requests: How many comparisons it asks for.
        n_bytes: The size of its requests, in bytes.
        content_sha256: Of its requests, once they are built.
        input_file_id: The uploaded requests, for providers that have files.
        provider_job_id: The provider's id; None until it is known.
        provider_status: In the provider's own word.
        outcome: How it ended; None before.
        output_file_id: Where answers are.
        error_file_id: Where failures are.
        n_completed: Requests answered, as the provider counts them.
        n_failed: Requests failed, likewise.
        error_code: Why the job as a whole failed, in the provider's word.
        error: What is waited for, or what went wrong, in words.
        waiting_for: The same in one word, where something other than the provider is waited for.
        reserved_usd: The most it can cost.
        billed_usd: By the usage of the rows that came; None until it is settled.
        estimated_usd: Expected before it left.
        possible_usd: What may have been paid for beyond the bill.
        provider_usd: What the provider's own count comes to.
        provider_tokens_prompt: Input tokens by the provider's own count of the whole job.
        provider_tokens_cached: Of these, read from a cache.
        provider_tokens_completion: Output tokens by that count.
        is_canary: Whether it went ahead to see how a new judge answers.
        intended_at: When it was recorded.
        create_begun_at: Since when the provider may have it; None where it surely has not.
        submitted_at: When the provider took it.
        ended_at: When it ended.
        collected_at: When its rows were stored.
        polled_at: When it was last polled.
        next_poll_at: When it is polled, or sent again, at the earliest.
        n_polls: How often it was polled.
        n_poll_failures: Polls in a row without an answer.
        counts_changed_at: When the provider last reported any progress.
        results_expire_at: When the provider deletes its results.
        cancel_sent_at: When the provider was asked to stop it.
        incomplete_since: When rows were first missing that the provider counts as done.
        n_in_doubt: Requests without a row that may have been paid for.
        lease_owner: The process that sends it, or was the last to try.
        lease_until: Until when nobody else may.
    """

    submission_key: str
    batch_id: str
    wave: int
    judge_id: str
    batching_mode: BatchingMode
    provider: str
    model: str
    account: str
    state: JobState
    n_requests: int
    n_bytes: int
    reserved_usd: float
    intended_at: datetime
    content_sha256: str | None = None
    input_file_id: str | None = None
    provider_job_id: str | None = None
    provider_status: str | None = None
    outcome: JobOutcome | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    n_completed: int | None = None
    n_failed: int | None = None
    error_code: str | None = None
    error: str | None = None
    waiting_for: WaitingFor | None = None
    billed_usd: float | None = None
    estimated_usd: float | None = None
    possible_usd: float | None = None
    provider_usd: float | None = None
    provider_tokens_prompt: int | None = None
    provider_tokens_cached: int | None = None
    provider_tokens_completion: int | None = None
    is_canary: bool | None = None
    create_begun_at: datetime | None = None
    submitted_at: datetime | None = None
    ended_at: datetime | None = None
    collected_at: datetime | None = None
    polled_at: datetime | None = None
    next_poll_at: datetime | None = None
    n_polls: int = 0
    n_poll_failures: int | None = 0
    counts_changed_at: datetime | None = None
    results_expire_at: datetime | None = None
    cancel_sent_at: datetime | None = None
    incomplete_since: datetime | None = None
    n_in_doubt: int | None = None
    lease_owner: str | None = None
    lease_until: datetime | None = None

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> ProviderJob:
        """Return the job of a row of `provider_jobs` or `v_job_phases`; other columns are ignored.

        Raises:
            KeyError: If the row lacks a column.
            ValueError: If a word in it is none of ours.
        """
        values = {name: row[name] for name in _COLUMNS}
        values["state"] = JobState(row["state"])
        values["outcome"] = None if row["outcome"] is None else JobOutcome(row["outcome"])
        waiting = row["waiting_for"]
        values["waiting_for"] = None if waiting is None else WaitingFor(waiting)
        return cls(**values)

    @property
    def is_batched(self) -> bool:
        """Whether it is judged by the provider's batch endpoint, not by calls from here."""
        return self.batching_mode == "provider_batch_api"

    @property
    def is_unsent(self) -> bool:
        """Whether no job of it is known at the provider."""
        return self.state in UNSENT

    @property
    def surely_absent(self) -> bool:
        """Whether the provider surely has no such job."""
        return self.create_begun_at is None and self.state is not JobState.AMBIGUOUS

    @property
    def awaits_late_rows(self) -> bool:
        """Whether it is settled without rows that may still come."""
        return self.state is JobState.SETTLED and bool(self.n_in_doubt)

    @property
    def made_at(self) -> datetime:
        """When the provider took it, or else when it was recorded."""
        return self.submitted_at or self.intended_at

    @property
    def known_job_id(self) -> str:
        """The provider's id of a job that has one.

        Raises:
            IllegalTransitionError: If it has none, as before it was created.
        """
        if self.provider_job_id is None:
            raise _illegal(self, "have an id at the provider", OPEN | COLLECTABLE)
        return self.provider_job_id

    @property
    def file_ids(self) -> tuple[str, ...]:
        """The files that the provider stores for it."""
        files = (self.input_file_id, self.output_file_id, self.error_file_id)
        return tuple(file for file in files if file)


_COLUMNS = tuple(field.name for field in fields(ProviderJob))


@dataclass(frozen=True)
class Transition:
    """From which states a job may make a move, and where to.

    Attributes:
        jobs: From these, a job at a provider's batch endpoint.
        calls: From these, a job that consists of single calls.
        to: The state afterwards; None where it stays.
    """

    jobs: frozenset[JobState]
    calls: frozenset[JobState]
    to: JobState | None = None


_NONE: frozenset[JobState] = frozenset()
_CALLING = frozenset({JobState.INTENT, JobState.RUNNING})
_ANY = frozenset(JobState)

TRANSITIONS: Mapping[str, Transition] = {
    "bind_account": Transition(UNSENT, frozenset({JobState.INTENT}), JobState.INTENT),
    "see_from_account": Transition(OPEN | COLLECTABLE | {JobState.SETTLED}, _CALLING),
    "mark_uploaded": Transition(UNSENT, _NONE, JobState.UPLOADED),
    "begin_create": Transition(frozenset({JobState.UPLOADED}), _NONE),
    "withdraw_create": Transition(frozenset({JobState.UPLOADED}), _NONE),
    "mark_submitted": Transition(
        frozenset({JobState.UPLOADED, JobState.AMBIGUOUS}), _NONE, JobState.SUBMITTED
    ),
    "mark_adopted": Transition(UNSENT, _NONE, JobState.ADOPTED),
    "mark_ambiguous": Transition(UNSENT, _NONE, JobState.AMBIGUOUS),
    "postpone": Transition(UNSENT, _CALLING),
    "defer": Transition(UNSENT, _NONE),
    "refuse": Transition(UNSENT, _CALLING, JobState.REFUSED),
    "mark_running": Transition(OPEN, _NONE, JobState.RUNNING),
    "record_poll_failure": Transition(OPEN, _NONE),
    "requeue": Transition(OPEN, _NONE, JobState.UPLOADED),
    "request_cancel": Transition(OPEN, _NONE),
    "mark_ended": Transition(OPEN, _NONE, JobState.ENDED),
    "give_up": Transition(OPEN, _NONE, JobState.ENDED),
    "mark_calls_ended": Transition(_NONE, _CALLING, JobState.ENDED),
    "mark_collected": Transition(
        frozenset({JobState.ENDED, JobState.INCOMPLETE}),
        frozenset({JobState.ENDED}),
        JobState.COLLECTED,
    ),
    "await_rows": Transition(frozenset({JobState.COLLECTED}), _NONE, JobState.INCOMPLETE),
    "settle": Transition(
        frozenset({JobState.COLLECTED}), frozenset({JobState.COLLECTED}), JobState.SETTLED
    ),
    "record_late_rows": Transition(frozenset({JobState.SETTLED}), _NONE),
    "rebill": Transition(frozenset({JobState.SETTLED}), frozenset({JobState.SETTLED})),
    "record_providers_count": Transition(
        COLLECTABLE | {JobState.SETTLED}, COLLECTABLE | {JobState.SETTLED}
    ),
    "add_possible_usd": Transition(_ANY, _ANY),
    "set_possible_usd": Transition(COLLECTABLE | {JobState.SETTLED}, _NONE),
}
"""What each transition of this module allows; the functions below are named after its keys.

Three more never change a state and may meet any: leases are taken, renewed and released only where
a job is still unsent or being called, and due times move only for jobs that wait for one.
"""


# Reading


def find_job(db: Session, key: str) -> ProviderJob | None:
    """Return the job of a submission key as it is now; None where the store has none."""
    row = db.one("SELECT * FROM provider_jobs WHERE submission_key = ?", [key])
    return None if row is None else ProviderJob.from_row(row)


def jobs_of_batch(db: Session, batch_id: str, states: Iterable[JobState]) -> list[ProviderJob]:
    """Return a batch's jobs in these states, by submission key."""
    rows = db.rows(
        "SELECT * FROM provider_jobs WHERE batch_id = ? AND state IN (SELECT unnest(?))"
        " ORDER BY submission_key",
        [batch_id, _words(states)],
    )
    return [ProviderJob.from_row(row) for row in rows]


def jobs_with_rows_due(db: Session, batch_id: str, now: datetime) -> list[ProviderJob]:
    """Return a batch's jobs whose rows are to be brought home now, by submission key."""
    rows = db.rows(
        f"FROM v_job_phases WHERE batch_id = $batch AND {ROWS_ARE_DUE} ORDER BY submission_key",
        {"batch": batch_id, "now": now},
    )
    return [ProviderJob.from_row(row) for row in rows]


def is_in(db: Session, key: str, states: frozenset[JobState]) -> bool:
    """Return whether a job is still in one of these states, and no other process moved it on."""
    row = db.one("SELECT state FROM provider_jobs WHERE submission_key = ?", [key])
    return row is not None and JobState(row["state"]) in states


def waiting_for(error: CJError) -> WaitingFor | None:
    """Return what has to come before an error passes; None where waiting for it is enough."""
    if isinstance(error, OutOfCreditError):
        return WaitingFor.CREDIT
    if isinstance(error, JudgeHeldError):
        return WaitingFor.PERSON
    if isinstance(error, AccountRefusedError | OtherAccountError):
        return WaitingFor.KEY
    if isinstance(error, AmbiguousSubmissionError):
        return WaitingFor.PERSON
    return None


# Leases


def this_process() -> str:
    """Return the name under which this process holds leases."""
    return f"{socket.gethostname()}:{os.getpid()}"


def owner(db: Session) -> str:
    """Return the name under which a session's writer holds leases on jobs.

    Who moves a whole batch along adds the number of that lease: jobs go with the batch.
    """
    return this_process() if db.lease is None else f"{this_process()}/{db.lease.fence}"


def acquire_leases(
    db: Session, batch_id: str, now: datetime, *, only: str | None = None
) -> list[ProviderJob]:
    """Take the lease on every unsent job that is free and due, and return them as they were.

    Args:
        db: A session that may write.
        batch_id: Whose.
        now: By the pipeline's clock.
        only: The key of one job, which then need not be due.
    """
    rows = db.rows(
        "FROM v_job_phases WHERE batch_id = ? AND phase IN ('unsent', 'calling')"
        " AND (submission_key = ? OR (? IS NULL AND coalesce(next_poll_at, ?) <= ?))"
        " ORDER BY submission_key",
        [batch_id, only, only, now, now],
    )
    jobs = map(ProviderJob.from_row, rows)
    free = [job for job in jobs if not is_leased(job, now, db.lease)]
    _update(
        db,
        [job.submission_key for job in free],
        lease_owner=owner(db),
        lease_until=now + LEASE,
    )
    return free


def is_leased(job: ProviderJob, now: datetime, lease: Lease | None = None) -> bool:
    """Return whether another process that may be alive is sending this job.

    Args:
        job: The job.
        now: By the pipeline's clock.
        lease: Of whoever asks, on the job's batch: who had the batch before has lost its jobs too.
    """
    if job.lease_owner is None or job.lease_until is None or job.lease_until <= now:
        return False
    process, _, fence = job.lease_owner.partition("/")
    if lease is not None and fence and fence != str(lease.fence):
        return False
    host, pid = process.rsplit(":", 1)
    if host != socket.gethostname():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def release_lease(db: Session, job: ProviderJob, now: datetime) -> None:
    """Let a job be taken up at once, by anybody, if it still waits to be sent."""
    if (current := find_job(db, job.submission_key)) and _is_sendable(current):
        _update(db, [job.submission_key], lease_until=now)


def restore_lease(db: Session, job: ProviderJob) -> None:
    """Give a job the lease it had when it was read, if it still waits to be sent."""
    if (current := find_job(db, job.submission_key)) and _is_sendable(current):
        _update(db, [job.submission_key], lease_owner=job.lease_owner, lease_until=job.lease_until)


def renew_calls(db: Session, keys: Sequence[str], now: datetime) -> None:
    """Note that single calls of these jobs are being made, and renew the leases on them.

    A job that another process has taken further meanwhile stays as it is.
    """
    rows = db.rows(
        "SELECT submission_key, submitted_at FROM v_job_phases"
        " WHERE submission_key IN (SELECT unnest(?)) AND batching_mode <> 'provider_batch_api'"
        " AND phase IN ('unsent', 'calling')",
        [list(keys)],
    )
    new = [row["submission_key"] for row in rows if row["submitted_at"] is None]
    _update(db, new, submitted_at=now)
    _update(
        db,
        [row["submission_key"] for row in rows],
        state=JobState.RUNNING,
        lease_until=now + LEASE,
        waiting_for=None,
    )


# From intent to submission


def record_intents(db: Session, jobs: Sequence[ProviderJob]) -> None:
    """Record jobs that are meant to be sent, before anything leaves.

    Raises:
        IllegalTransitionError: If one of them is not an intent.
    """
    for job in jobs:
        if job.state is not JobState.INTENT:
            raise _illegal(job, "be recorded", {JobState.INTENT})
    db.insert("provider_jobs", jobs)


def bind_account(db: Session, key: str, account: str) -> ProviderJob:
    """Let a job that surely was never created go out from another account; return it.

    Raises:
        IllegalTransitionError: If it may exist.
    """
    job = _require(db, key, "bind_account")
    if job.create_begun_at is not None:
        raise _illegal(job, "change its account: it may exist", UNSENT)
    _apply(db, key, "bind_account", account=account, input_file_id=None)
    return _require(db, key, "bind_account")


def see_from_account(db: Session, key: str, account: str) -> None:
    """Record the account that a job is asked for from now on: it was proved to be ours there."""
    _apply(db, key, "see_from_account", account=account)


def mark_uploaded(db: Session, key: str, file_id: str | None, content_sha256: str) -> None:
    """Record that a job's requests are at the provider, or travel with its create."""
    _apply(db, key, "mark_uploaded", input_file_id=file_id, content_sha256=content_sha256)


def begin_create(db: Session, key: str, now: datetime) -> None:
    """Record that the provider may have the job from now on, and renew the lease."""
    _apply(db, key, "begin_create", create_begun_at=now, lease_until=now + LEASE, waiting_for=None)


def withdraw_create(db: Session, key: str) -> None:
    """Record that a create surely came to nothing, unless another process has begun its own."""
    job = find_job(db, key)
    if job is not None and job.lease_owner == owner(db) and job.state in _from("begin_create"):
        _apply(db, key, "withdraw_create", create_begun_at=None)


def mark_submitted(
    db: Session, key: str, job_id: str, now: datetime, results_expire_at: datetime | None
) -> None:
    """Record that the provider has the job, under this id."""
    taken_up = _taken_up(job_id, now, results_expire_at)
    _apply(db, key, "mark_submitted", **taken_up)


def mark_adopted(
    db: Session,
    key: str,
    job_id: str,
    now: datetime,
    results_expire_at: datetime | None,
    *,
    input_file_id: str | None = None,
) -> None:
    """Record that the job an earlier try created was found, and the file it was made of, if any."""
    taken_up = _taken_up(job_id, now, results_expire_at)
    if input_file_id is not None:
        taken_up["input_file_id"] = input_file_id
    _apply(db, key, "mark_adopted", **taken_up)


def _taken_up(job_id: str, now: datetime, results_expire_at: datetime | None) -> dict[str, Any]:
    return {
        "provider_job_id": job_id,
        "submitted_at": now,
        "next_poll_at": now,
        "counts_changed_at": now,
        "results_expire_at": results_expire_at,
        "n_poll_failures": 0,
        "error": None,
        "waiting_for": None,
        "lease_owner": None,
        "lease_until": None,
    }


def mark_ambiguous(
    db: Session, key: str, error: CJError, now: datetime, *, wait: timedelta
) -> None:
    """Record that the job may exist; the owner's name stays, so that it is looked for first."""
    job = _require(db, key, "mark_ambiguous")
    _apply(db, key, "mark_ambiguous", **_held(job, error, now, wait))


def postpone(db: Session, key: str, error: CJError, now: datetime, *, wait: timedelta) -> None:
    """Let the job be tried again later; the owner's name stays, so that it is looked for first."""
    job = _require(db, key, "postpone")
    _apply(db, key, "postpone", **_held(job, error, now, wait))


def _held(job: ProviderJob, error: CJError, now: datetime, wait: timedelta) -> dict[str, Any]:
    return {
        "error": str(error),
        "waiting_for": waiting_for(error),
        "lease_until": now,
        "next_poll_at": now + wait,
        "polled_at": job.polled_at or now,
    }


def defer(db: Session, job: ProviderJob, error: CJError, now: datetime, *, wait: timedelta) -> None:
    """Let the job wait for room: it was not begun, so its lease is as it was before."""
    _apply(
        db,
        job.submission_key,
        "defer",
        error=str(error),
        waiting_for=WaitingFor.ROOM,
        lease_owner=job.lease_owner,
        lease_until=now if job.lease_owner else None,
        next_poll_at=now + wait,
    )


def refuse(db: Session, key: str, error: CJError, now: datetime) -> None:
    """End a job that its provider will never take: nothing was paid."""
    _apply(
        db,
        key,
        "refuse",
        error=str(error),
        waiting_for=None,
        billed_usd=0.0,
        ended_at=now,
        lease_owner=None,
        lease_until=None,
    )


# While it is judged


@dataclass(frozen=True)
class PollRecord:
    """What a poll adds to the provider's own words.

    Attributes:
        next_poll_at: When the job is polled next; None once it has ended.
        counts_changed_at: When the provider last reported any progress.
        results_expire_at: When its results are deleted; None where nobody knows.
        warning: What a person should know, such as that it has stalled.
        cancel_sent: Whether the provider was asked to stop it with this poll.
    """

    next_poll_at: datetime | None
    counts_changed_at: datetime | None
    results_expire_at: datetime | None
    warning: str | None
    cancel_sent: bool


def mark_running(
    db: Session, job: ProviderJob, found: JobStatus, record: PollRecord, now: datetime
) -> None:
    """Record what a provider reports of a job that runs."""
    _apply(db, job.submission_key, "mark_running", **_polled(job, found, record, now))


def mark_ended(
    db: Session, job: ProviderJob, found: JobStatus, record: PollRecord, now: datetime
) -> None:
    """Record that a job has ended at the provider, and in which way."""
    polled = _polled(job, found, record, now) | {"ended_at": found.ended_at or now}
    _apply(db, job.submission_key, "mark_ended", **polled)


def _polled(
    job: ProviderJob, found: JobStatus, record: PollRecord, now: datetime
) -> dict[str, Any]:
    usage = found.usage
    return {
        "outcome": found.outcome,
        "provider_status": found.provider_status,
        "n_completed": found.n_completed,
        "n_failed": found.n_failed,
        "error_code": found.error_code,
        "error": found.error or record.warning,
        "waiting_for": None,
        "provider_tokens_prompt": usage.prompt if usage else None,
        "provider_tokens_cached": usage.cached if usage else None,
        "provider_tokens_completion": usage.completion if usage else None,
        "output_file_id": found.output_file_id,
        "error_file_id": found.error_file_id,
        "polled_at": now,
        "next_poll_at": record.next_poll_at,
        "n_polls": job.n_polls + 1,
        "n_poll_failures": 0,
        "counts_changed_at": record.counts_changed_at,
        "results_expire_at": record.results_expire_at or job.results_expire_at,
        "cancel_sent_at": now if record.cancel_sent else job.cancel_sent_at,
    }


def record_unchanged(db: Session, next_polls: Mapping[str, datetime], now: datetime) -> None:
    """Record that open jobs were polled and nothing is new: one statement, however many they are.

    Args:
        db: A session that may write.
        next_polls: When each is polled next, by submission key.
        now: When they were polled.
    """
    if not next_polls:
        return
    db.execute(
        """
        UPDATE provider_jobs SET polled_at = $now, n_polls = n_polls + 1, next_poll_at = due.at
        FROM (SELECT unnest($keys) AS submission_key, unnest($due) AS at) due
        WHERE provider_jobs.submission_key = due.submission_key
          AND state IN (SELECT unnest($open))
        """,
        {
            "now": now,
            "keys": list(next_polls),
            "due": list(next_polls.values()),
            "open": _words(OPEN),
        },
    )


def record_poll_failure(
    db: Session,
    job: ProviderJob,
    problem: str,
    now: datetime,
    *,
    wait: timedelta,
    waits_for: WaitingFor | None,
) -> None:
    """Record why a poll got no answer, and when the next one may be made."""
    _apply(
        db,
        job.submission_key,
        "record_poll_failure",
        polled_at=now,
        next_poll_at=now + wait,
        error=problem,
        waiting_for=waits_for,
        n_polls=job.n_polls + 1,
        n_poll_failures=(job.n_poll_failures or 0) + 1,
    )


def requeue(
    db: Session, job: ProviderJob, found: JobStatus, now: datetime, *, wait: timedelta
) -> None:
    """Put a job back among the unsent that had no room, or no credit: the same shard, later.

    It was not begun, so nothing was paid and nothing has to be looked for; its file stays.
    """
    _apply(
        db,
        job.submission_key,
        "requeue",
        provider_job_id=None,
        provider_status=found.provider_status,
        error_code=found.error_code,
        error=found.error,
        waiting_for=WaitingFor.CREDIT if found.waits_for_credit else WaitingFor.ROOM,
        polled_at=now,
        next_poll_at=now + wait,
        create_begun_at=None,
        n_polls=job.n_polls + 1,
        n_poll_failures=0,
        lease_owner=None,
        lease_until=None,
    )


def request_cancel(db: Session, key: str, now: datetime) -> None:
    """Record that the provider was asked to stop a job, which is then polled at once."""
    _apply(db, key, "request_cancel", cancel_sent_at=now, next_poll_at=now)


def give_up(db: Session, job: ProviderJob, problem: str, now: datetime) -> None:
    """End a job as cancelled that nobody wants and nobody may see."""
    _apply(
        db,
        job.submission_key,
        "give_up",
        outcome=JobOutcome.CANCELLED,
        error=problem,
        polled_at=now,
        next_poll_at=None,
        ended_at=now,
        n_polls=job.n_polls + 1,
    )


def mark_calls_ended(
    db: Session,
    key: str,
    outcome: JobOutcome,
    error: CJError | None,
    *,
    content_sha256: str,
    now: datetime,
    error_code: str | None = None,
) -> None:
    """Record that single calls need not be made any more, and how they ended as a whole."""
    job = _require(db, key, "mark_calls_ended")
    _apply(
        db,
        key,
        "mark_calls_ended",
        outcome=outcome,
        error=None if error is None else str(error),
        error_code=error_code,
        waiting_for=None,
        ended_at=now,
        submitted_at=job.submitted_at or now,
        content_sha256=content_sha256,
        lease_owner=None,
        lease_until=None,
    )


# Results


def mark_collected(db: Session, key: str, now: datetime, found: JobStatus | None = None) -> None:
    """Record that every line that came of an ended job is stored.

    Args:
        db: A session that may write.
        key: The job's submission key.
        now: By the pipeline's clock.
        found: What the provider said of the job meanwhile, where it was asked again.
    """
    _apply(db, key, "mark_collected", collected_at=now, **recounted(found))


@dataclass(frozen=True)
class AwaitedRows:
    """Rows of an ended job that may have been paid for and have not come.

    Attributes:
        n_rows: How many.
        reason: Why they are waited for, in words.
        waits_for: The same in one word.
        next_try_at: When they are looked for again; None where they are not any more.
    """

    n_rows: int
    reason: str | None
    waits_for: WaitingFor | None
    next_try_at: datetime | None


def await_rows(
    db: Session, key: str, billed_usd: float, awaited: AwaitedRows, now: datetime
) -> None:
    """Record that rows are missing that the provider counts as done; the batch waits for them."""
    job = _require(db, key, "await_rows")
    _apply(
        db,
        key,
        "await_rows",
        billed_usd=billed_usd,
        incomplete_since=job.incomplete_since or now,
        n_in_doubt=awaited.n_rows,
        error=awaited.reason,
        waiting_for=awaited.waits_for,
        next_poll_at=awaited.next_try_at,
    )


def settle(db: Session, key: str, billed_usd: float, awaited: AwaitedRows | None = None) -> None:
    """Record that every request of a job has its outcome, and what it cost.

    Rows that are still `awaited` are waited for by nobody, and stored if they come.
    """
    job = _require(db, key, "settle")
    if awaited is None and job.incomplete_since is None:
        _apply(db, key, "settle", billed_usd=billed_usd)
        return
    _apply(
        db,
        key,
        "settle",
        billed_usd=billed_usd,
        n_in_doubt=awaited.n_rows if awaited else 0,
        error=awaited.reason if awaited else None,
        waiting_for=None,
        next_poll_at=awaited.next_try_at if awaited else None,
    )


def record_late_rows(
    db: Session,
    key: str,
    billed_usd: float,
    awaited: AwaitedRows,
    found: JobStatus | None = None,
) -> None:
    """Record how a settled job stands after its missing rows were looked for again."""
    _apply(
        db,
        key,
        "record_late_rows",
        billed_usd=billed_usd,
        n_in_doubt=awaited.n_rows,
        error=awaited.reason,
        next_poll_at=awaited.next_try_at,
        **recounted(found),
    )


def recounted(found: JobStatus | None) -> dict[str, Any]:
    """Return what a provider's later word on an ended job changes: counts and files, no more."""
    if found is None or found.state != "ended":
        return {}
    told = {
        "n_completed": found.n_completed,
        "n_failed": found.n_failed,
        "output_file_id": found.output_file_id,
        "error_file_id": found.error_file_id,
    }
    return {name: value for name, value in told.items() if value is not None}


def rebill(db: Session, key: str, billed_usd: float) -> None:
    """Record what a settled job cost by a later reading of its rows."""
    _apply(db, key, "rebill", billed_usd=billed_usd)


def record_providers_count(db: Session, key: str, provider_usd: float) -> None:
    """Record what a job comes to by its provider's own count."""
    _apply(db, key, "record_providers_count", provider_usd=provider_usd)


def add_possible_usd(db: Session, key: str, usd: float) -> None:
    """Add to what may have been paid for beyond a job's bill."""
    job = _require(db, key, "add_possible_usd")
    _apply(db, key, "add_possible_usd", possible_usd=(job.possible_usd or 0.0) + usd)


def set_possible_usd(db: Session, key: str, usd: float) -> None:
    """Record what may have been paid for beyond the bill of a job at a provider."""
    _apply(db, key, "set_possible_usd", possible_usd=usd)


# When it is due


def poll_sooner(db: Session, keys: Sequence[str], now: datetime) -> None:
    """Let open jobs be polled now, if they are not due sooner."""
    db.execute(
        "UPDATE provider_jobs SET next_poll_at = least(next_poll_at, $now)"
        " WHERE submission_key IN (SELECT unnest($keys)) AND state IN (SELECT unnest($open))",
        {"now": now, "keys": list(keys), "open": _words(OPEN)},
    )


def poll_no_sooner(db: Session, account: str, until: datetime) -> None:
    """Put off all open jobs of an account that asked to be left alone."""
    db.execute(
        "UPDATE provider_jobs SET next_poll_at = $until WHERE account = $account"
        " AND batching_mode = 'provider_batch_api' AND state IN (SELECT unnest($open))"
        " AND next_poll_at < $until",
        {"until": until, "account": account, "open": _words(OPEN)},
    )


def send_now(db: Session, batch_id: str, now: datetime) -> None:
    """Make due what a batch had put off and its provider surely does not have."""
    waiting = jobs_of_batch(db, batch_id, UNSENT | {JobState.RUNNING})
    due = [job.submission_key for job in waiting if _is_sendable(job) and job.surely_absent]
    _update(db, due, next_poll_at=now)


def send_what_waited(db: Session, batch_id: str, now: datetime) -> None:
    """Make due what waits for a key or for credit: whoever runs the batch again has seen to it."""
    waiting = jobs_of_batch(db, batch_id, UNSENT | {JobState.RUNNING})
    due = [
        job.submission_key
        for job in waiting
        if _is_sendable(job) and job.waiting_for in {WaitingFor.KEY, WaitingFor.CREDIT}
    ]
    _update(db, due, next_poll_at=now)


# The one way in


def forget_errors(db: Session, keys: Sequence[str]) -> None:
    """Remove what providers said of jobs: it may quote an essay that is erased."""
    _update(db, keys, error=None)


def _words(states: Iterable[JobState]) -> list[str]:
    return sorted(state.value for state in states)


def _is_sendable(job: ProviderJob) -> bool:
    return job.state in (UNSENT if job.is_batched else _CALLING)


def _from(transition: str, *, is_batched: bool = True) -> frozenset[JobState]:
    rule = TRANSITIONS[transition]
    return rule.jobs if is_batched else rule.calls


def _require(db: Session, key: str, transition: str) -> ProviderJob:
    """Return a job as it is now, if it may make this transition.

    Raises:
        IllegalTransitionError: If it may not, or the store has no such job.
    """
    job = find_job(db, key)
    if job is None:
        msg = f"The store has no provider job {key[:16]}: `{transition}` needs one."
        raise IllegalTransitionError(msg)
    allowed = _from(transition, is_batched=job.is_batched)
    if job.state not in allowed:
        raise _illegal(job, f"take `{transition}`", allowed)
    return job


def _illegal(job: ProviderJob, what: str, allowed: Iterable[JobState]) -> IllegalTransitionError:
    states = ", ".join(state for state in JobState if state in set(allowed)) or "none"
    return IllegalTransitionError(
        f"Provider job {job.submission_key[:16]} of batch '{job.batch_id}' is {job.state.value} and"
        f" cannot {what} from there, only from: {states}."
    )


def _apply(db: Session, key: str, transition: str, **columns: Any) -> None:
    """Make a transition and set these columns with it.

    Raises:
        IllegalTransitionError: If the job may not make it from where it is.
    """
    _require(db, key, transition)
    to = TRANSITIONS[transition].to
    _update(db, [key], **({} if to is None else {"state": to}), **columns)


def _update(db: Session, keys: Sequence[str], **columns: Any) -> None:
    if not keys:
        return
    assert set(columns) <= set(_COLUMNS)  # noqa: S101 - names are written into the statement
    assignments = ", ".join(f"{name} = ${name}" for name in columns)
    db.execute(
        f"UPDATE provider_jobs SET {assignments}"  # noqa: S608 - columns of the table, as checked
        " WHERE submission_key IN (SELECT unnest($keys))",
        {**columns, "keys": list(keys)},
    )
