"""Gemini's batches through the official SDK; their words are `generate_content`.

Requests travel inline: the file way leaves files behind whose names are too long to delete. The
SDK's own reading of a batch drops its error and its counts, so answers are read from the JSON as
it came.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2
from google import genai
from google.genai import errors, types
from google.genai.client import AsyncClient

from cj_pipeline.batch.comparisons import RequestOutcome, of_same_content
from cj_pipeline.errors import (
    AccountRefusedError,
    AmbiguousSubmissionError,
    ProviderRefusedError,
)
from cj_pipeline.judging.judges import Judge
from cj_pipeline.judging.prompts import Prompt
from cj_pipeline.judging.provider_definitions import NO_WORDS, ErrorWords
from cj_pipeline.providers.base import (
    OUT_OF_CREDIT,
    FoundJob,
    JobOutcome,
    JobStatus,
    ListedFile,
    ListedJob,
    ProviderLimits,
    RawLine,
    Reply,
)
from cj_pipeline.providers.generate_content import build_content, read_response
from cj_pipeline.providers.transport import (
    CLOCK_SKEW,
    MAX_PAGES,
    SINGLE_CALL,
    Call,
    ErrorAnswer,
    count_or_none,
    created_id,
    error_meaning,
    failed_call,
    is_out_of_credit,
    items,
    json_object,
    mapping,
    plain_failures,
    refuse_error_within,
    retry_after_s,
    rfc3339_time,
    row_without_credit,
    shortened,
    text_or_none,
)

LIMITS = ProviderLimits(
    max_requests=50_000,
    max_bytes=6_000_000,
    max_open_jobs=100,
    results_kept_s=6 * 7 * 24 * 3600,
)
"""Gemini takes less than 20 MB inline; the SDK writes a two-byte letter as six, so a third."""

_RUNNING = frozenset({"PENDING", "RUNNING", "QUEUED", "PAUSED", "CANCELLING", "UPDATING"})
_ENDED = {
    "SUCCEEDED": JobOutcome.COMPLETED,
    "PARTIALLY_SUCCEEDED": JobOutcome.COMPLETED,
    "COMPLETED": JobOutcome.COMPLETED,
    "DONE": JobOutcome.COMPLETED,
    "FAILED": JobOutcome.FAILED,
    "CANCELLED": JobOutcome.CANCELLED,
    "CANCELED": JobOutcome.CANCELLED,
    "EXPIRED": JobOutcome.EXPIRED,
}
_CANCELLED_CODE, _INVALID_CODE = 1, 3  # google.rpc.Code
_PAGE = 100
_POLL_S, _CREATE_S, _COLLECT_S = 20, 120, 300


class BodyRecorder:
    """Keeps the last body each thread received, as it came."""

    def __init__(self) -> None:
        self._last = threading.local()

    def __call__(self, response: httpx2.Response) -> None:
        """Take a response in; meant as the client's response hook."""
        self._last.text = response.read().decode("utf-8", errors="replace")

    def take(self) -> dict[str, Any]:
        """Return this thread's last body.

        Raises:
            ValueError: If it was not a JSON object.
        """
        text, self._last.text = self._last.text, ""
        return json_object(text)


class TaskBodies:
    """Keeps the last body each task received, as it came."""

    def __init__(self) -> None:
        self._last: ContextVar[dict[str, str] | None] = ContextVar("last_body", default=None)

    async def __call__(self, response: httpx2.Response) -> None:
        """Take a response in; meant as the asynchronous client's response hook."""
        place = self._last.get()
        if place is not None:
            place["text"] = (await response.aread()).decode("utf-8", errors="replace")

    def expect(self) -> dict[str, str]:
        """Return where the next body of this task will be, under `text`."""
        place: dict[str, str] = {}
        self._last.set(place)
        return place


@dataclass(frozen=True)
class GeminiBatches:
    """Gemini's API, as one key's project sees it.

    Attributes:
        client: The official SDK's, over an HTTP client whose responses go to `bodies`.
        bodies: See `BodyRecorder`.
        name: The provider's name, as judges give it.
        account: See `account_fingerprint`.
        limits: What one job may hold.
        clock: Gives the time.
        reopen: The same client over another HTTP client, an asynchronous one.
        error_words: What its errors say.
    """

    client: genai.Client
    bodies: BodyRecorder
    name: str
    account: str
    limits: ProviderLimits
    clock: Callable[[], datetime]
    reopen: Callable[[httpx2.AsyncClient], genai.Client]
    has_jobs: bool = True
    error_words: ErrorWords = NO_WORDS

    def build_request(
        self, prompt: Prompt, judge: Judge, custom_id: str, *, cache_prefix: bool = False
    ) -> dict[str, Any]:
        """Return one inline request; this provider caches prefixes by itself."""
        del cache_prefix
        return {**build_content(prompt, judge), "metadata": {"key": custom_id}}

    def parse_reply(self, line: str) -> Reply:
        """Parse one inline response."""
        return parse_response(line, self.error_words)

    def upload(self, shard: Path, submission_key: str) -> str | None:
        """Send nothing: requests travel with `create`."""
        del shard, submission_key
        return None

    def create(self, shard: Path, input_file_id: str | None, submission_key: str) -> str:
        """Create a batch whose display name is its submission key."""
        del input_file_id
        with shard.open("rb") as file:
            requests = [json.loads(line) for line in file]
        call = Call(self.name, "create a batch", creates=True)
        with self.failures(call):
            self.client.batches.create(
                model=requests[0]["model"],
                src=types.BatchJobSource(
                    inlined_requests=[types.InlinedRequest.model_validate(r) for r in requests]
                ),
                config=types.CreateBatchJobConfig(
                    display_name=submission_key, http_options=_within(_CREATE_S)
                ),
            )
            return created_id(call, self.bodies.take(), "name")

    def find(self, submission_key: str, since: datetime, n_requests: int) -> tuple[FoundJob, ...]:
        """Return the batches whose display name is a key that begins as this one, oldest first."""
        del n_requests
        jobs = [
            job
            for job in self.list_jobs(since)
            if of_same_content(job.submission_key, submission_key)
        ]
        jobs.sort(key=lambda job: (job.created_at, job.job_id))
        return tuple(FoundJob(job.job_id, True, job.is_running, job.submission_key) for job in jobs)

    def is_of(self, job_id: str, submission_key: str, n_requests: int, since: datetime) -> bool:
        """Whether a batch bears this key as its display name."""
        del n_requests, since
        try:
            operation = self._operation(job_id, _POLL_S)
        except AccountRefusedError:
            raise
        except ProviderRefusedError:
            return False
        return mapping(operation.get("metadata")).get("displayName") == submission_key

    def keeps_results(self, job_id: str) -> bool:
        """Whether a batch is there: its results are part of it."""
        try:
            self._operation(job_id, _COLLECT_S)
        except AccountRefusedError:
            raise
        except ProviderRefusedError:
            return False
        return True

    def list_jobs(self, since: datetime) -> Iterator[ListedJob]:
        """Yield the project's batches made since then; its list has no stated order."""
        oldest = since - CLOCK_SKEW
        known_ids: set[str] = set()
        token: str | None = None
        for _ in range(MAX_PAGES):
            with self.failures(call := Call(self.name, "list batches")):
                self.client.batches.list(
                    config=types.ListBatchJobsConfig(
                        page_size=_PAGE, page_token=token, http_options=_within(_POLL_S)
                    )
                )
                page = self.bodies.take()
                refuse_error_within(call, page, "operations")
            listed = [e for e in items(page.get("operations")) if text_or_none(e.get("name"))]
            fresh = [entry for entry in listed if entry["name"] not in known_ids]
            for entry in fresh:
                job = _listed(entry, since)
                if job.created_at >= oldest:
                    yield job
            known_ids |= {entry["name"] for entry in fresh}
            token = text_or_none(page.get("nextPageToken"))
            if not fresh or token is None:
                return
        msg = f"{self.name}'s list of batches does not end: look in its console."
        raise AmbiguousSubmissionError(msg)

    def list_files(self, since: datetime) -> Iterator[ListedFile]:
        """Yield nothing: our batches here have no files."""
        del since
        return iter(())

    def poll(self, job_id: str) -> JobStatus:
        """Return a batch's status, by one GET."""
        return read_status(self._operation(job_id, _POLL_S))

    def collect(self, job_id: str) -> Iterator[RawLine]:
        """Yield an ended batch's responses, each as one line."""
        operation = self._operation(job_id, _COLLECT_S)
        for number, response in enumerate(_inlined_responses(operation), start=1):
            yield RawLine("output", number, json.dumps(response, ensure_ascii=False))

    def cancel(self, job_id: str) -> JobStatus:
        """Ask for a batch to stop."""
        with (
            contextlib.suppress(ProviderRefusedError),
            self.failures(Call(self.name, f"cancel {job_id}")),
        ):
            self.client.batches.cancel(
                name=job_id, config=types.CancelBatchJobConfig(http_options=_within(_POLL_S))
            )
        return self.poll(job_id)

    def discard(self, job_id: str | None, file_ids: Iterable[str]) -> None:
        """Delete an ended batch and its results."""
        del file_ids
        if job_id is None:
            return
        with self.failures(Call(self.name, f"delete {job_id}")):
            try:
                self.client.batches.delete(
                    name=job_id, config=types.DeleteBatchJobConfig(http_options=_within(_POLL_S))
                )
            except errors.ClientError as error:
                if error.code != 404:
                    raise

    def single(self, request: Mapping[str, Any], *, timeout_s: float) -> str:
        """Send one request at once; return its reply as an inline response of a batch."""
        with self.failures(Call(self.name, SINGLE_CALL, creates=True)):
            try:
                self.client.models.generate_content(**_one_call(request, timeout_s))
                answer = {"response": self.bodies.take()}
            except errors.ClientError as error:
                answer = _refused_row(error, self.error_words)
            return _answer_row(request, answer)

    def live(self, http: httpx2.AsyncClient) -> LiveGemini:
        """Return what makes single calls, many at once, over one pool of connections."""
        bodies = TaskBodies()
        http.event_hooks = {**http.event_hooks, "response": [bodies]}
        return LiveGemini(self, self.reopen(http).aio, bodies)

    def _operation(self, job_id: str, timeout_s: float) -> dict[str, Any]:
        with self.failures(Call(self.name, f"show {job_id}")):
            self.client.batches.get(
                name=job_id, config=types.GetBatchJobConfig(http_options=_within(timeout_s))
            )
            operation = self.bodies.take()
            if not text_or_none(operation.get("name")):
                msg = "not a batch"
                raise ValueError(msg)
            return operation

    @contextlib.contextmanager
    def failures(self, call: Call) -> Iterator[None]:
        """Turn what the SDK raises into this project's errors."""
        call = replace(call, words=self.error_words)
        with plain_failures(call):
            try:
                yield
            except errors.APIError as error:
                headers = getattr(error.response, "headers", None) or httpx2.Headers()
                # A wrong key is answered with 400 here.
                status = 401 if _is_about_the_key(error) else error.code
                answer = ErrorAnswer(
                    status=status,
                    code=error.status,
                    message=str(error.message),
                    retry_after_s=retry_after_s(headers, self.clock()) or _retry_delay_s(error),
                )
                raise failed_call(call, answer) from None


@dataclass(frozen=True)
class LiveGemini:
    """Single calls to Gemini's API, many at once."""

    adapter: GeminiBatches
    client: AsyncClient
    bodies: TaskBodies

    async def single(self, request: Mapping[str, Any], *, timeout_s: float) -> str:
        """Send one request at once; see `Provider.single`."""
        with self.adapter.failures(Call(self.adapter.name, SINGLE_CALL, creates=True)):
            place = self.bodies.expect()
            try:
                await self.client.models.generate_content(**_one_call(request, timeout_s))
                answer = {"response": json_object(place.get("text", ""))}
            except errors.ClientError as error:
                answer = _refused_row(error, self.adapter.error_words)
            return _answer_row(request, answer)


def _one_call(request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
    """Return what the SDK is to send for one inline request."""
    config = {**request["config"], "http_options": _within(timeout_s)}
    return {
        "model": request["model"],
        "contents": request["contents"],
        "config": types.GenerateContentConfig.model_validate(config),
    }


def _refused_row(error: errors.ClientError, words: ErrorWords) -> dict[str, Any]:
    """Return a request's own failure as a row, as it is in a batch; raise any other.

    Raises:
        errors.ClientError: If it is about the key, or about anything but this request.
    """
    concerns_all = error_meaning(words, error.status, error.message)
    if error.code != 400 or _is_about_the_key(error) or concerns_all:
        raise error
    return {"error": {"code": _INVALID_CODE, "message": str(error.message)}}


def _answer_row(request: Mapping[str, Any], answer: Mapping[str, Any]) -> str:
    """Return an answer as the inline response of a batch it would be."""
    return json.dumps({**answer, "metadata": request["metadata"]}, ensure_ascii=False)


def parse_response(line: str, words: ErrorWords = NO_WORDS) -> Reply:
    """Parse one inline response; pure."""
    try:
        row = json_object(line)
    except ValueError:
        return Reply(None, RequestOutcome.PROVIDER_ERROR, error_code="garbled", may_retry=True)
    if row.get("error") or not mapping(row.get("response")):
        reply = _failed_row(mapping(row.get("error")), words)
    else:
        reply = read_response(mapping(row.get("response")))
    return replace(reply, custom_id=text_or_none(mapping(row.get("metadata")).get("key")))


def read_status(operation: Mapping[str, Any]) -> JobStatus:
    """Return a batch's status, from its operation's JSON; pure."""
    metadata = mapping(operation.get("metadata"))
    state = _state(metadata)
    outcome = _ended(operation, state)
    n_completed, n_failed = _done(mapping(metadata.get("batchStats")), outcome)
    if outcome is JobOutcome.FAILED and n_completed is None:
        # A batch that failed half way may hold results all the same.
        n_completed = sum("response" in row for row in _inlined_responses(operation)) or None
    error = mapping(operation.get("error"))
    warning = None
    if outcome is None and state.upper() not in _RUNNING:
        warning = f"unknown status '{shortened(state, 60)}'; it counts as running"
    return JobStatus(
        job_id=str(operation["name"]),
        state="ended" if outcome else "running",
        provider_status=state,
        outcome=outcome,
        n_completed=n_completed,
        n_failed=n_failed,
        error_code=_code_of(error),
        error=shortened(error["message"]) if error.get("message") else None,
        warning=warning,
        created_at=rfc3339_time(metadata.get("createTime")),
        ended_at=rfc3339_time(metadata.get("endTime")) if outcome else None,
    )


def _code_of(error: Mapping[str, Any]) -> str | None:
    """Return why a batch failed as a whole, in the provider's word or in ours."""
    if is_out_of_credit(str(error.get("status") or ""), error.get("message")):
        return OUT_OF_CREDIT
    return str(error["code"]) if error.get("code") else None


def _done(stats: Mapping[str, Any], outcome: JobOutcome | None) -> tuple[int | None, int | None]:
    """Return how many requests are done and how many failed; None where that is not told.

    Google leaves out what is 0, so one of the counts tells all of them; a count of 0 requests tells
    nothing. An expired batch has no
    results at all.
    """
    done, failed, pending, total = (
        count_or_none(stats.get(f"{kind}equestCount"))
        for kind in ("successfulR", "failedR", "pendingR", "r")
    )
    says_nothing = done is failed is pending is None or (total == 0 and not done and not failed)
    if says_nothing and outcome is not JobOutcome.EXPIRED:
        return None, None
    return done or 0, failed or 0


def _failed_row(error: dict[str, Any], words: ErrorWords) -> Reply:
    code, message = error.get("code"), error.get("message")
    meaning = error_meaning(words, str(error.get("status") or ""), message)
    if meaning == "out_of_credit":
        return row_without_credit(message)
    is_ours = meaning == "not_for_plan" or (meaning is None and code == _INVALID_CODE)
    return Reply(
        custom_id=None,
        outcome=RequestOutcome.CANCELLED
        if code == _CANCELLED_CODE
        else RequestOutcome.PROVIDER_ERROR,
        error_code="no_response" if code is None else str(error.get("status") or code),
        error_message=shortened(message) if message else None,
        may_retry=not is_ours,
    )


def _inlined_responses(operation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a batch's responses, from whichever of two places the service put them."""
    in_metadata = mapping(mapping(operation.get("metadata")).get("output"))
    for holder in (mapping(operation.get("response")), in_metadata):
        responses = mapping(holder.get("inlinedResponses")).get("inlinedResponses")
        if isinstance(responses, list):
            return [mapping(response) for response in responses]
    return []


def _listed(operation: Mapping[str, Any], since: datetime) -> ListedJob:
    metadata = mapping(operation.get("metadata"))
    return ListedJob(
        job_id=str(operation["name"]),
        created_at=rfc3339_time(metadata.get("createTime")) or since,
        outcome=_ended(operation, _state(metadata)),
        submission_key=text_or_none(metadata.get("displayName")),
        n_requests=count_or_none(mapping(metadata.get("batchStats")).get("requestCount")),
    )


def _state(metadata: Mapping[str, Any]) -> str:
    """Return a batch's state without its prefix, of which there are two."""
    return re.sub(r"^(JOB|BATCH)_STATE_", "", str(metadata.get("state")), flags=re.IGNORECASE)


def _ended(operation: Mapping[str, Any], state: str) -> JobOutcome | None:
    """Return how a batch ended; None while it runs.

    A word nobody knows is an end where the operation is `done`, or bears an error.
    """
    word = state.strip().upper()
    if word in _ENDED:
        return _ENDED[word]
    if mapping(operation.get("error")):
        return JobOutcome.FAILED
    return JobOutcome.COMPLETED if operation.get("done") is True else None


def _is_about_the_key(error: errors.APIError) -> bool:
    return error.code == 400 and "api key" in str(error.message).lower()


def _retry_delay_s(error: errors.APIError) -> float | None:
    """Return the delay that Google puts into an error's details, in seconds."""
    match = re.search(r"'retryDelay': '(\d+(?:\.\d+)?)s'", str(error.details))
    return float(match[1]) if match else None


def _within(timeout_s: float) -> types.HttpOptions:
    return types.HttpOptions(timeout=int(timeout_s * 1000))
