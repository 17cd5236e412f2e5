"""Anthropic's message batches through the official SDK; their words are `messages`.

A batch here carries nothing by which its maker could know it again: see `find`.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import anthropic
import httpx2

from cj_pipeline.batch.comparisons import RequestOutcome
from cj_pipeline.errors import (
    AccountRefusedError,
    AmbiguousSubmissionError,
    ProviderRefusedError,
)
from cj_pipeline.judging.judges import Judge
from cj_pipeline.judging.prompts import Prompt
from cj_pipeline.judging.provider_definitions import NO_WORDS, ErrorWords
from cj_pipeline.providers.base import (
    FoundJob,
    JobOutcome,
    JobStatus,
    ListedFile,
    ListedJob,
    ProviderLimits,
    RawLine,
    Reply,
)
from cj_pipeline.providers.messages import build_params, read_message
from cj_pipeline.providers.transport import (
    CLOCK_SKEW,
    CREATE_TIMEOUT,
    MAX_PAGES,
    POLL_TIMEOUT,
    SINGLE_CALL,
    TRANSFER_TIMEOUT,
    Call,
    ErrorAnswer,
    count,
    created_id,
    error_meaning,
    failed_call,
    folded,
    items,
    json_object,
    lost_call,
    mapping,
    plain_failures,
    raw_lines,
    require_list,
    require_rows,
    retry_after_s,
    rfc3339_time,
    row_without_credit,
    shortened,
    text_or_none,
)

LIMITS = ProviderLimits(max_requests=100_000, max_bytes=32_000_000, results_kept_s=29 * 24 * 3600)
"""Anthropic takes 256 MB; requests travel in one body, held in memory, so ours are smaller."""

_RUNNING = frozenset({"in_progress", "canceling", "cancelling"})
_ENDED = frozenset(
    {"ended", "completed", "complete", "done", "finished", "succeeded"}
    | {"expired", "canceled", "cancelled", "failed"}
)
"""Anthropic says `ended`, and the rest are words seen elsewhere; compared folded."""

_COUNTS = ("processing", "succeeded", "errored", "canceled", "expired")
_PAGE = 100


@dataclass(frozen=True)
class AnthropicBatches:
    """Anthropic's API, as one workspace sees it.

    Attributes:
        client: The official SDK's, with its address, key and `max_retries=0`.
        name: The provider's name, as judges give it.
        account: See `account_fingerprint`.
        limits: What one job may hold.
        clock: Gives the time.
        error_words: What its errors say.
    """

    client: anthropic.Anthropic
    name: str
    account: str
    limits: ProviderLimits
    clock: Callable[[], datetime]
    has_jobs: bool = True
    error_words: ErrorWords = NO_WORDS

    def build_request(
        self, prompt: Prompt, judge: Judge, custom_id: str, *, cache_prefix: bool = False
    ) -> dict[str, Any]:
        """Return one request of a batch."""
        return {
            "custom_id": custom_id,
            "params": build_params(prompt, judge, cache_prefix=cache_prefix),
        }

    def parse_reply(self, line: str) -> Reply:
        """Parse a line of a batch's results."""
        return parse_result(line, self.error_words)

    def upload(self, shard: Path, submission_key: str) -> str | None:
        """Send nothing: requests travel with `create`."""
        del shard, submission_key
        return None

    def create(self, shard: Path, input_file_id: str | None, submission_key: str) -> str:
        """Create a batch of the shard's requests."""
        del input_file_id, submission_key
        with shard.open("rb") as file:
            requests = [json.loads(line) for line in file]
        call = Call(self.name, "create a message batch", creates=True)
        with self.failures(call):
            raw = self.client.messages.batches.with_raw_response.create(
                requests=requests, timeout=CREATE_TIMEOUT
            )
            return created_id(call, json_object(raw.text()), "id")

    def find(self, submission_key: str, since: datetime, n_requests: int) -> tuple[FoundJob, ...]:
        """Return the batches made since the intent with as many requests, oldest first.

        An ended one is certain if its results bear our custom ids, and left out if they do not;
        of a running one it is not known.
        """
        found = []
        for job in self.list_jobs(since):
            if job.n_requests != n_requests or not job.has_results:
                continue
            if job.is_running:
                found.append(FoundJob(job.job_id, is_certain=False, is_running=True))
            elif self._bears_key(job.job_id, submission_key):
                found.append(FoundJob(job.job_id, is_certain=True, is_running=False))
        return tuple(reversed(found))

    def is_of(self, job_id: str, submission_key: str, n_requests: int, since: datetime) -> bool:
        """Whether a batch has as many requests and was made since the intent; its id is known.

        Nobody is told another's id, and a batch is seen from its own workspace only. Once it has
        ended, its results must bear our custom ids as well.
        """
        try:
            with self.failures(Call(self.name, f"show message batch {job_id}")):
                raw = self.client.messages.batches.with_raw_response.retrieve(
                    job_id, timeout=POLL_TIMEOUT
                )
                batch = json_object(raw.text())
            made = rfc3339_time(batch.get("created_at"))
            if _total(batch) != n_requests or (made and made < since - CLOCK_SKEW):
                return False
            return not _listed(batch, since).has_results or (
                not _has_ended(batch) or self._bears_key(job_id, submission_key)
            )
        except AccountRefusedError:
            raise
        except ProviderRefusedError:
            return False

    def keeps_results(self, job_id: str) -> bool:
        """Whether a batch that has ended has its results."""
        try:
            call = Call(self.name, f"send the results of {job_id}")
            with self.failures(call), self._results(job_id):
                return True
        except AccountRefusedError:
            raise
        except ProviderRefusedError:
            return False

    def list_jobs(self, since: datetime) -> Iterator[ListedJob]:
        """Yield the workspace's batches, newest first."""
        oldest = since - CLOCK_SKEW
        known_ids: set[str] = set()
        cursor: dict[str, Any] = {}
        for _ in range(MAX_PAGES):
            with self.failures(call := Call(self.name, "list message batches")):
                raw = self.client.messages.batches.with_raw_response.list(
                    limit=_PAGE, timeout=POLL_TIMEOUT, **cursor
                )
                page = json_object(raw.text())
                require_list(call, page, "data")
            entries = [e for e in items(page.get("data")) if text_or_none(e.get("id"))]
            fresh = [entry for entry in entries if entry["id"] not in known_ids]
            is_past = False
            for entry in fresh:
                created = rfc3339_time(entry.get("created_at"))
                if created is not None and created < oldest:
                    is_past = True
                    continue
                yield _listed(entry, created or since)
            known_ids |= {entry["id"] for entry in fresh}
            if not fresh or is_past or not page.get("has_more"):
                return
            cursor = {"after_id": entries[-1]["id"]}
        msg = f"{self.name}'s list of message batches does not end: look in its console."
        raise AmbiguousSubmissionError(msg)

    def list_files(self, since: datetime) -> Iterator[ListedFile]:
        """Yield nothing: batches here have no files."""
        del since
        return iter(())

    def poll(self, job_id: str) -> JobStatus:
        """Return a batch's status, by one GET."""
        with self.failures(Call(self.name, f"show message batch {job_id}")):
            raw = self.client.messages.batches.with_raw_response.retrieve(
                job_id, timeout=POLL_TIMEOUT
            )
            return read_status(json_object(raw.text()))

    def collect(self, job_id: str) -> Iterator[RawLine]:
        """Yield the lines of an ended batch's results."""
        with tempfile.TemporaryFile() as file:
            with (
                self.failures(Call(self.name, f"send the results of {job_id}")),
                self._results(job_id) as answer,
            ):
                for piece in answer.iter_bytes():
                    file.write(piece)
            require_rows(self.name, f"the results of {job_id}", file)
            file.seek(0)
            yield from raw_lines(file, "output")

    def cancel(self, job_id: str) -> JobStatus:
        """Ask for a batch to stop; what it has finished stays paid for and can be collected."""
        try:
            with self.failures(Call(self.name, f"cancel message batch {job_id}")):
                raw = self.client.messages.batches.with_raw_response.cancel(
                    job_id, timeout=POLL_TIMEOUT
                )
                return read_status(json_object(raw.text()))
        except ProviderRefusedError:
            # An ended batch refuses to be cancelled; one that does not exist refuses the poll.
            return self.poll(job_id)

    def discard(self, job_id: str | None, file_ids: Iterable[str]) -> None:
        """Delete an ended batch and its results."""
        del file_ids
        if job_id is None:
            return
        with (
            self.failures(Call(self.name, f"delete message batch {job_id}")),
            contextlib.suppress(anthropic.NotFoundError),
        ):
            self.client.messages.batches.with_raw_response.delete(job_id, timeout=POLL_TIMEOUT)

    def single(self, request: Mapping[str, Any], *, timeout_s: float) -> str:
        """Send one request at once; return its reply as a line of a batch's results."""
        with self.failures(Call(self.name, SINGLE_CALL, creates=True)):
            try:
                raw = self.client.messages.with_raw_response.create(**_one_call(request, timeout_s))
                result = {"type": "succeeded", "message": json_object(raw.text())}
            except (anthropic.BadRequestError, anthropic.UnprocessableEntityError) as error:
                # Wrong is this request, not the judge: a row's failure, as it is in a batch.
                if error_meaning(self.error_words, error.error_code, error.api_message):
                    raise
                result = {"type": "errored", "error": json_object(error.response.text)}
            return _answer_row(request, result)

    def live(self, http: httpx2.AsyncClient) -> LiveAnthropic:
        """Return what makes single calls, many at once, over one pool of connections."""
        client = anthropic.AsyncAnthropic(
            api_key=self.client.api_key,
            base_url=self.client.base_url,
            max_retries=0,
            http_client=http,
        )
        return LiveAnthropic(self, client)

    def _results(self, job_id: str) -> contextlib.AbstractContextManager[Any]:
        """Return the results as a stream; the SDK's own reader stops at a garbled line."""
        return self.client.messages.batches.with_streaming_response.results(
            job_id, timeout=TRANSFER_TIMEOUT
        )

    def _bears_key(self, job_id: str, submission_key: str) -> bool:
        """Whether any row of an ended batch's results bears our custom ids.

        Mostly the first is enough; a garbled or foreign one must not make a paid batch a stranger.
        """
        prefix = f"{submission_key[:16]}-"
        call = Call(self.name, f"send the results of {job_id}")
        with self.failures(call), self._results(job_id) as answer:
            rest = b""
            for piece in answer.iter_bytes():
                *lines, rest = (rest + piece).split(b"\n")
                if any(_custom_id(line).startswith(prefix) for line in lines):
                    return True
        return _custom_id(rest).startswith(prefix)

    @contextlib.contextmanager
    def failures(self, call: Call) -> Iterator[None]:
        """Turn what the SDK raises into this project's errors."""
        call = replace(call, words=self.error_words)
        with plain_failures(call):
            try:
                yield
            except anthropic.APIStatusError as error:
                answer = ErrorAnswer(
                    status=error.status_code,
                    code=error.error_code or error.type,
                    message=error.api_message or error.message,
                    retry_after_s=retry_after_s(error.response.headers, self.clock()),
                )
                raise failed_call(call, answer) from None
            except anthropic.AnthropicError as error:
                raise lost_call(call, error) from None


@dataclass(frozen=True)
class LiveAnthropic:
    """Single calls to Anthropic's API, many at once."""

    adapter: AnthropicBatches
    client: anthropic.AsyncAnthropic

    async def single(self, request: Mapping[str, Any], *, timeout_s: float) -> str:
        """Send one request at once; see `Provider.single`."""
        with self.adapter.failures(Call(self.adapter.name, SINGLE_CALL, creates=True)):
            try:
                create = self.client.messages.with_raw_response.create
                raw = await create(**_one_call(request, timeout_s))
                result = {"type": "succeeded", "message": json_object(await raw.text())}
            except (anthropic.BadRequestError, anthropic.UnprocessableEntityError) as error:
                words = self.adapter.error_words
                if error_meaning(words, error.error_code, error.api_message):
                    raise
                result = {"type": "errored", "error": json_object(error.response.text)}
            return _answer_row(request, result)


def _one_call(request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
    """Return what the SDK is to send for one request of a batch."""
    return {
        **request["params"],
        "timeout": httpx2.Timeout(timeout_s, connect=min(10, timeout_s)),
    }


def _answer_row(request: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """Return an answer as the line of a batch's results it would be."""
    return json.dumps({"custom_id": request["custom_id"], "result": result}, ensure_ascii=False)


def parse_result(line: str, words: ErrorWords = NO_WORDS) -> Reply:
    """Parse a line of a batch's results; pure."""
    try:
        row = json_object(line)
    except ValueError:
        return Reply(None, RequestOutcome.PROVIDER_ERROR, error_code="garbled", may_retry=True)
    result = mapping(row.get("result"))
    kind = result.get("type")
    if kind == "succeeded":
        reply = read_message(mapping(result.get("message")))
    elif kind == "expired":
        reply = Reply(None, RequestOutcome.EXPIRED, error_code="expired", may_retry=True)
    elif kind in ("canceled", "cancelled"):
        reply = Reply(None, RequestOutcome.CANCELLED, error_code="canceled", may_retry=True)
    else:
        reply = _errored(mapping(result.get("error")), words)
    return replace(reply, custom_id=text_or_none(row.get("custom_id")))


def read_status(batch: Mapping[str, Any]) -> JobStatus:
    """Return a batch's status, from its JSON; pure.

    Raises:
        ValueError: If it is not a batch.
    """
    job_id = text_or_none(batch.get("id"))
    status = text_or_none(batch.get("processing_status"))
    if job_id is None or status is None:
        msg = "not a message batch"
        raise ValueError(msg)
    counts = {name: count(mapping(batch.get("request_counts")).get(name)) for name in _COUNTS}
    job = JobStatus(
        job_id=job_id,
        state="running",
        provider_status=status,
        created_at=rfc3339_time(batch.get("created_at")),
        ended_at=rfc3339_time(batch.get("ended_at")),
    )
    if not _has_ended(batch):
        warning = f"unknown status '{shortened(status, 60)}'; it counts as running"
        return replace(job, warning=None if folded(status) in _RUNNING else warning)
    outcome = JobOutcome.COMPLETED
    if batch.get("cancel_initiated_at") and counts["canceled"]:
        outcome = JobOutcome.CANCELLED
    elif counts["expired"]:
        outcome = JobOutcome.EXPIRED
    # Until a batch has ended, all of its counts but `processing` are 0 and mean nothing.
    return replace(
        job,
        state="ended",
        outcome=outcome,
        n_completed=counts["succeeded"],
        n_failed=counts["errored"] + counts["canceled"] + counts["expired"],
    )


def _has_ended(batch: Mapping[str, Any]) -> bool:
    """Whether a batch has ended: by its word, or by its results with nothing left to process."""
    word = folded(batch.get("processing_status"))
    if word in _ENDED or word in _RUNNING:
        return word in _ENDED
    counts = mapping(batch.get("request_counts"))
    is_whole = _total(batch) > 0 and count(counts.get("processing")) == 0
    return is_whole and text_or_none(batch.get("results_url")) is not None


def _custom_id(line: bytes) -> str:
    return parse_result(line.decode("utf-8", "replace")).custom_id or ""


def _errored(error: Mapping[str, Any], words: ErrorWords) -> Reply:
    details = mapping(error.get("error")) or error
    code = text_or_none(details.get("type"))
    message = details.get("message")
    request_id = text_or_none(error.get("request_id"))
    meaning = error_meaning(words, code, message)
    if meaning == "out_of_credit":
        return replace(row_without_credit(message), request_id=request_id)
    is_ours = meaning == "not_for_plan" or (meaning is None and code == "invalid_request_error")
    return Reply(
        custom_id=None,
        outcome=RequestOutcome.PROVIDER_ERROR,
        request_id=request_id,
        error_code=code or "no_result",
        error_message=shortened(message) if message else None,
        may_retry=not is_ours,
    )


def _listed(entry: Mapping[str, Any], created_at: datetime) -> ListedJob:
    return ListedJob(
        job_id=str(entry["id"]),
        created_at=created_at,
        outcome=JobOutcome.COMPLETED if _has_ended(entry) else None,
        n_requests=_total(entry),
        has_results=not _has_ended(entry) or text_or_none(entry.get("results_url")) is not None,
    )


def _total(batch: Mapping[str, Any]) -> int:
    counts = mapping(batch.get("request_counts"))
    return sum(count(counts.get(name)) for name in _COUNTS)
