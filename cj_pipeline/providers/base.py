"""The seam to the services that judges are reached through, and what crosses it.

Adapters hold only words (`build_request`, `parse_reply`: pure) and wire (one network step per
verb). When to send, retry, wait or stop is decided above, in `provider_jobs`. Every adapter raises
`errors.TransientError` or `errors.FinalError` and nothing of its SDK's.

    open_provider        the adapter for a judge, with its address and key
    chat_completions, responses, messages, generate_content     words, one dialect each
    openai, anthropic, gemini      wire, one SDK each
    transport            what they share: errors classified, envelopes read leniently
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from cj_pipeline.batch.comparisons import RequestOutcome
from cj_pipeline.errors import ProviderRefusedError, SettingsError
from cj_pipeline.judging.judges import Judge
from cj_pipeline.judging.pricing import Usage, estimated_tokens
from cj_pipeline.judging.prompts import Prompt
from cj_pipeline.providers.usage_evidence import UsageEvidence

if TYPE_CHECKING:
    from httpx2 import AsyncClient

CAPACITY_CODES = frozenset({"token_limit_exceeded", "rate_limit_exceeded", "batch_limit_exceeded"})
"""Why a job was refused although nothing is wrong with it: wait, then send the same again."""


OUT_OF_CREDIT = "out_of_credit"
"""Our word for every provider's, as the error of a job or a row: the account has to be paid for."""

HELD = "held"
"""Our word for a single call that was not made, because its judge gives no verdict."""

JOB_TOO_LARGE = "job_too_large"
"""Our word for a job that its provider refused for its size: its requests go in smaller ones."""

NOT_THE_REQUESTS_FAULT = frozenset({OUT_OF_CREDIT, HELD, JOB_TOO_LARGE})
"""Failures that say nothing about a request: it is asked again, however often it failed so."""


class JobOutcome(StrEnum):
    """How a provider job ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class ProviderLimits:
    """What a provider takes in one job, and from one account; None where it names no limit.

    `max_enqueued_tokens` and what bounds single calls (per minute, and at once) depend on the
    account, so only a judge's definition can hold them.
    `results_kept_s` counts from a job's creation, in seconds. `list_lag_s` is how long, in
    seconds, a new job may be missing from the account's list: before that, absence proves nothing.
    """

    max_requests: int
    max_bytes: int
    max_enqueued_tokens: int | None = None
    max_open_jobs: int | None = None
    creates_per_hour: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrent_calls: int | None = None
    results_kept_s: int | None = None
    list_lag_s: int = 90


@dataclass(frozen=True)
class Reply:
    """One row of a provider's answer, read.

    Attributes:
        custom_id: Which request it answers; None where that cannot be read.
        outcome: SUCCEEDED means that a text came; whether it holds a verdict is `judging`'s.
        text: What the model wrote, also where it was cut off.
        usage: What was billed; None where the row does not say.
        evidence: What its word on usage is worth; None where it is no answer.
        stated_usd: What it says it cost; None where it does not say.
        model: As the provider names what answered.
        fingerprint: Of the system that answered, in the provider's own word.
        service_tier: The tier it answered in, in the provider's own word.
        request_id: The provider's own name for the call, for its support.
        error_code: Of a failure, in the provider's words.
        error_message: Of a failure, shortened.
        may_retry: Whether asking the same again may help.
    """

    custom_id: str | None
    outcome: RequestOutcome
    text: str | None = None
    usage: Usage | None = None
    evidence: UsageEvidence | None = None
    stated_usd: float | None = None
    model: str | None = None
    fingerprint: str | None = None
    service_tier: str | None = None
    request_id: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    may_retry: bool = False


@dataclass(frozen=True)
class JobStatus:
    """A provider job's status.

    Attributes:
        job_id: As the provider calls it.
        state: Only an ended job is collected. An unknown word counts as running.
        provider_status: In the provider's own word.
        outcome: None while it runs. Whatever it is, there may be paid rows to collect.
        n_completed: As the provider counts; None where it does not report it yet.
        n_failed: Likewise.
        output_file_id: Where answers are, for providers that have files.
        error_file_id: Where failures are, likewise.
        error_code: Why the job as a whole failed, in the provider's word.
        error: The same, in words.
        usage: What the provider reports for the whole job; None where it does not.
        warning: What a person should know, such as an unknown status.
        created_at: By the provider's clock.
        ended_at: Likewise.
    """

    job_id: str
    state: Literal["running", "ended"]
    provider_status: str
    outcome: JobOutcome | None = None
    n_completed: int | None = None
    n_failed: int | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    error_code: str | None = None
    error: str | None = None
    usage: Usage | None = None
    warning: str | None = None
    created_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def waits_for_capacity(self) -> bool:
        """Whether the provider had no room: nothing was wrong with the shard, nothing was paid."""
        return self._failed_before_it_began and self.error_code in CAPACITY_CODES

    @property
    def waits_for_credit(self) -> bool:
        """Whether the account's credit was used up: nothing was wrong, nothing was paid."""
        return self._failed_before_it_began and self.error_code == OUT_OF_CREDIT

    @property
    def _failed_before_it_began(self) -> bool:
        """Whether surely nothing was done: what has results, or counts some, was paid for."""
        has_results = bool(self.n_completed) or self.output_file_id is not None
        return self.outcome is JobOutcome.FAILED and not has_results


@dataclass(frozen=True)
class ListedJob:
    """A provider job as the account's list shows it; what the list does not have is None.

    `outcome` is None while the job runs; `has_results` is False where the list tells that they
    are gone.
    """

    job_id: str
    created_at: datetime
    outcome: JobOutcome | None
    submission_key: str | None = None
    input_file_id: str | None = None
    n_requests: int | None = None
    has_results: bool = True

    @property
    def is_running(self) -> bool:
        """Whether the job has not ended."""
        return self.outcome is None


@dataclass(frozen=True)
class ListedFile:
    """A file as the account's list shows it."""

    file_id: str
    filename: str
    created_at: datetime
    n_bytes: int


@dataclass(frozen=True)
class FoundJob:
    """A job that a submission may have created.

    `is_certain` is False where the provider keeps nothing that proves it, as Anthropic does while
    a job runs: then it must be neither adopted nor created again until the job has ended.
    `submission_key` is the key that the job bears; None where it bears none of its own.
    `input_file_id` is the file it was made of, for providers that have files.
    """

    job_id: str
    is_certain: bool
    is_running: bool
    submission_key: str | None = None
    input_file_id: str | None = None


@dataclass(frozen=True)
class RawLine:
    """One line of a result, as it came; `line` counts from 1 within its `source`."""

    source: Literal["output", "error"]
    line: int
    text: str


Parser = Callable[[str], Reply]
"""Reads one line of a result; pure, and never raises."""


class LiveProvider(Protocol):
    """Makes single calls, many at once; lives as long as its event loop."""

    async def single(self, request: Mapping[str, Any], *, timeout_s: float) -> str:
        """Send one request at once; see `Provider.single`."""
        ...


class Provider(Protocol):
    """A service that judges are reached through; bound to one account and one address."""

    @property
    def name(self) -> str:
        """The provider's name, as judges give it."""
        ...

    @property
    def account(self) -> str:
        """A fingerprint of provider, address and key: jobs belong to one account."""
        ...

    @property
    def has_jobs(self) -> bool:
        """Whether it has a batch endpoint; where not, only `single` may be called."""
        ...

    @property
    def limits(self) -> ProviderLimits:
        """What it accepts per job."""
        ...

    def build_request(
        self, prompt: Prompt, judge: Judge, custom_id: str, *, cache_prefix: bool = False
    ) -> dict[str, Any]:
        """Return one request, as a line of a shard holds it; pure.

        `cache_prefix` marks the shared prefix for the provider's cache, where it needs one.
        """
        ...

    def parse_reply(self, line: str) -> Reply:
        """Parse a line of a result; pure, and never raises."""
        ...

    def upload(self, shard: Path, submission_key: str) -> str | None:
        """Send a shard's file; return its id, or None where requests travel with `create`.

        Raises:
            UncertainOutcomeError: If the file may have arrived; nothing is paid for files.
        """
        ...

    def create(self, shard: Path, input_file_id: str | None, submission_key: str) -> str:
        """Create the provider job for a shard; return its id.

        Raises:
            UncertainOutcomeError: If the job may exist: `find` it before creating it again.
            ProviderUnavailableError: If it surely does not exist, and may be created later.
            ProviderRefusedError: If the provider will not take it.
        """
        ...

    def find(self, submission_key: str, since: datetime, n_requests: int) -> tuple[FoundJob, ...]:
        """Return every job made of the same requests since then, oldest first.

        Its key may end otherwise than this one, where another store made it, or this one before it
        was restored: which of them count is the caller's to say.

        Raises:
            AmbiguousSubmissionError: If the account's list cannot be searched to its end.
        """
        ...

    def is_of(self, job_id: str, submission_key: str, n_requests: int, since: datetime) -> bool:
        """Whether a job is the one that this submission made, proved by what it bears.

        False where it is another's, and where this account does not see it.
        """
        ...

    def keeps_results(self, job_id: str) -> bool:
        """Whether a job that has ended has anything left to collect, or had nothing."""
        ...

    def list_jobs(self, since: datetime) -> Iterator[ListedJob]:
        """Yield the account's jobs, newest first, down to those created at `since`."""
        ...

    def list_files(self, since: datetime) -> Iterator[ListedFile]:
        """Yield the account's batch files, newest first, down to `since`."""
        ...

    def poll(self, job_id: str) -> JobStatus:
        """Return a job's status, by one bounded request."""
        ...

    def collect(self, job_id: str) -> Iterator[RawLine]:
        """Yield every line of an ended job's results, in whatever order they come.

        Nothing is yielded before every result has been downloaded whole.
        """
        ...

    def cancel(self, job_id: str) -> JobStatus:
        """Ask for a job to stop; one that has ended already stays as it is."""
        ...

    def discard(self, job_id: str | None, file_ids: Iterable[str]) -> None:
        """Delete what a collected job left behind; what is gone already stays gone."""
        ...

    def single(self, request: Mapping[str, Any], *, timeout_s: float) -> str:
        """Send one request at once; return its reply as `collect` would bring it.

        Raises:
            UncertainOutcomeError: If it was sent and may have been paid for.
            ProviderUnavailableError: If it surely was not carried out; `retry_after_s` may help.
            ProviderRefusedError: If no such request can succeed, as with a wrong key.
        """
        ...

    def live(self, http: AsyncClient) -> LiveProvider:
        """Return what makes single calls over a pool of connections; see `registry.open_pool`."""
        ...


def split_shards(n_bytes: Sequence[int], limits: ProviderLimits) -> list[range]:
    """Return which requests go out together, in order, each shard within a provider's limits.

    Args:
        n_bytes: The size of each request's line, its line end not counted.
        limits: Of the provider.

    Raises:
        ProviderRefusedError: If one request alone is over a limit.
    """
    shards, start, size, tokens = [], 0, 0, 0
    for index, line in enumerate(n_bytes):
        line_size, line_tokens = line + 1, estimated_tokens(line)
        _refuse_oversized(index, line_size, line_tokens, limits)
        is_full = (
            index - start >= limits.max_requests
            or size + line_size > limits.max_bytes
            or (
                limits.max_enqueued_tokens is not None
                and tokens + line_tokens > limits.max_enqueued_tokens
            )
        )
        if is_full:
            shards.append(range(start, index))
            start, size, tokens = index, 0, 0
        size, tokens = size + line_size, tokens + line_tokens
    if start < len(n_bytes):
        shards.append(range(start, len(n_bytes)))
    return shards


def results_expire_at(created_at: datetime, limits: ProviderLimits) -> datetime | None:
    """Return when a job's results are deleted by its provider; None where it is not known."""
    if limits.results_kept_s is None:
        return None
    return created_at + timedelta(seconds=limits.results_kept_s)


def account_fingerprint(provider: str, base_url: str, key: str) -> str:
    """Return what an account is known by in the store; the key cannot be had from it."""
    parts = "\n".join([provider, base_url.rstrip("/"), key])
    return f"{provider}-{hashlib.sha256(parts.encode()).hexdigest()[:12]}"


def require_key(judge: Judge, environment: Mapping[str, str]) -> str:
    """Return the key a judge needs; a placeholder for a server that needs none.

    Raises:
        SettingsError: If the variable that should hold it is not set.
    """
    if judge.key_variable is None:
        return "none-needed"
    key = environment.get(judge.key_variable, "").strip()
    if not key:
        msg = (
            f"Judge '{judge.name}' needs a key: set the environment variable"
            f" {judge.key_variable}, or {judge.key_variable}_FILE or _COMMAND to what yields it, or"
            " choose a simulated judge."
        )
        raise SettingsError(msg)
    return key


def _refuse_oversized(index: int, size: int, tokens: int, limits: ProviderLimits) -> None:
    if size > limits.max_bytes:
        what = f"{size} bytes, more than the {limits.max_bytes} the provider takes at once"
    elif limits.max_enqueued_tokens is not None and tokens > limits.max_enqueued_tokens:
        what = f"about {tokens} tokens, more than the {limits.max_enqueued_tokens} that may wait"
    else:
        return
    msg = f"Request {index + 1} alone has {what}: shorten its essays or the instructions."
    raise ProviderRefusedError(msg)
