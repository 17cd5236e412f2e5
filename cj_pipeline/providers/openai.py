"""OpenAI's files and batches through the official SDK, and other services with the same API.

The words of the two endpoints are `chat_completions` and `responses`. SDK retries are off
everywhere: after a lost reply they would create a second paid job without a word.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import IO, Any, Literal

import httpx2
import openai

from cj_pipeline.batch.comparisons import RequestOutcome, of_same_content
from cj_pipeline.errors import (
    AccountRefusedError,
    AmbiguousSubmissionError,
    ProviderRefusedError,
)
from cj_pipeline.judging.judges import Judge
from cj_pipeline.judging.pricing import Usage
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
from cj_pipeline.providers.transport import (
    CLOCK_SKEW,
    CREATE_TIMEOUT,
    MAX_PAGES,
    POLL_TIMEOUT,
    REQUESTS_OWN_FAULT,
    SINGLE_CALL,
    TRANSFER_TIMEOUT,
    Call,
    ErrorAnswer,
    count,
    count_or_none,
    created_id,
    error_meaning,
    error_within,
    failed_call,
    folded,
    is_out_of_credit,
    items,
    json_object,
    lost_call,
    mapping,
    plain_failures,
    raw_lines,
    refuse_error_within,
    refuse_for_all,
    require_list,
    require_rows,
    retry_after_s,
    row_without_credit,
    shortened,
    stream_events,
    text_or_none,
    unix_time,
)

LIMITS = ProviderLimits(
    max_requests=50_000,
    max_bytes=200_000_000,
    creates_per_hour=2_000,
    results_kept_s=30 * 24 * 3600,
)
"""OpenAI's batch guide; the tokens that may be enqueued depend on model and account."""

_RUNNING = frozenset(
    {
        *("validating", "in_progress", "finalizing", "cancelling", "canceling"),
        *("queued", "pending", "running", "processing", "cancellation_requested"),
    }
)
_ENDED = {
    "completed": JobOutcome.COMPLETED,
    "complete": JobOutcome.COMPLETED,
    "done": JobOutcome.COMPLETED,
    "finished": JobOutcome.COMPLETED,
    "ended": JobOutcome.COMPLETED,
    "succeeded": JobOutcome.COMPLETED,
    "success": JobOutcome.COMPLETED,
    "failed": JobOutcome.FAILED,
    "error": JobOutcome.FAILED,
    "expired": JobOutcome.EXPIRED,
    "timeout_exceeded": JobOutcome.EXPIRED,
    "cancelled": JobOutcome.CANCELLED,
    "canceled": JobOutcome.CANCELLED,
}
"""OpenAI's words, and what services that speak its API say in their place; compared folded."""

_ROW_ENDINGS = {
    "batch_expired": RequestOutcome.EXPIRED,
    "batch_cancelled": RequestOutcome.CANCELLED,
}

_FILES_GRACE = timedelta(minutes=10)
"""File ids were observed to come after the status; later than this they are not coming."""

_INPUT_KEPT_S = 14 * 24 * 3600
_OUTPUT_KEPT_S = 30 * 24 * 3600
"""Files bear their own expiry, so that a machine that never returns leaves nothing behind."""

PAGE = 100
"""Entries of a list in one answer."""

Method = Literal["get", "post", "delete"]


@dataclass(frozen=True)
class Page:
    """Some entries of a list, in OpenAI's words; `after` asks for the next ones, if there are."""

    entries: list[dict[str, Any]]
    after: str | None = None


@dataclass(frozen=True)
class OpenAIBatches:
    """OpenAI's API, or another service with the same API, as one account sees it.

    Attributes:
        client: The official SDK's, with its address, key and `max_retries=0`.
        name: The provider's name, as judges give it.
        account: See `account_fingerprint`.
        words: `chat_completions` or `responses`.
        limits: What one job may hold.
        has_jobs: False for servers that only answer single calls.
        clock: Gives the time.
        batch_body: Fields that uploads and creates have besides.
        may_expire: Whether files and batches may bear an expiry.
        error_words: What its errors say.
        streaming: Whether single calls are asked for as streams.
    """

    client: openai.OpenAI
    name: str
    account: str
    words: ModuleType
    limits: ProviderLimits
    has_jobs: bool
    clock: Callable[[], datetime]
    batch_body: Mapping[str, Any] = field(default_factory=dict)
    may_expire: bool = True
    error_words: ErrorWords = NO_WORDS
    streaming: bool = False

    def build_request(
        self, prompt: Prompt, judge: Judge, custom_id: str, *, cache_prefix: bool = False
    ) -> dict[str, Any]:
        """Return one line of a batch file; this provider caches prefixes by itself."""
        del cache_prefix
        return {
            "custom_id": custom_id,
            "method": "POST",
            "url": self.words.ENDPOINT,
            "body": self.words.build_body(prompt, judge),
        }

    def parse_reply(self, line: str) -> Reply:
        """Parse a line of an output or error file."""
        return parse_row(line, self.words.read_body, self.error_words)

    def upload(self, shard: Path, submission_key: str) -> str | None:
        """Send a shard's file, streamed, under a name by which it can be found again."""
        call = self.call("store a batch file", creates=True)
        kept_s = {"anchor": "created_at", "seconds": _INPUT_KEPT_S}
        with self.failures(call), shard.open("rb") as file:

            def send(**expiry: Any) -> Any:
                file.seek(0)
                return self.client.files.with_raw_response.create(
                    file=(f"{submission_key}.jsonl", file, "application/jsonl"),
                    purpose="batch",
                    extra_body=dict(self.batch_body) or None,
                    timeout=TRANSFER_TIMEOUT,
                    **expiry,
                )

            raw = _with_expiry_if_known(send, expires_after=kept_s) if self.may_expire else send()
            answer = json_object(raw.text)
            refuse_error_within(call, answer, "id")
            return created_id(call, answer, "id")

    def create(self, shard: Path, input_file_id: str | None, submission_key: str) -> str:
        """Create a batch that bears its submission key, by which it can be found again."""
        del shard
        if input_file_id is None:
            msg = f"{self.name} makes a batch of an uploaded file: upload the shard first."
            raise ProviderRefusedError(msg)
        call = self.call("create a batch", creates=True)
        with self.failures(call):

            def send(**expiry: Any) -> Any:
                return self.client.batches.with_raw_response.create(
                    input_file_id=input_file_id,
                    endpoint=self.words.ENDPOINT,
                    completion_window="24h",
                    metadata={"submission_key": submission_key},
                    extra_body=dict(self.batch_body) or None,
                    timeout=CREATE_TIMEOUT,
                    **expiry,
                )

            kept_s = {"anchor": "created_at", "seconds": _OUTPUT_KEPT_S}
            expiry = {"output_expires_after": kept_s}
            raw = _with_expiry_if_known(send, **expiry) if self.may_expire else send()
            answer = json_object(raw.text)
            refuse_error_within(call, answer, "id")
            return created_id(call, answer, "id")

    def find(self, submission_key: str, since: datetime, n_requests: int) -> tuple[FoundJob, ...]:
        """Return the jobs whose key, or whose file's, begins as this one.

        One whose input was refused is left out: it judged nothing, and adopting it would end a
        submission that was put off for want of room.
        """
        del n_requests
        named = {
            file.file_id: file.filename.removesuffix(".jsonl") for file in self.list_files(since)
        }
        found = []
        for job in self.list_jobs(since):
            key = job.submission_key or named.get(job.input_file_id or "")
            if job.outcome is not JobOutcome.FAILED and of_same_content(key, submission_key):
                made = FoundJob(job.job_id, True, job.is_running, key, job.input_file_id)
                found.append((job.created_at, made))
        found.sort(key=lambda made: (made[0], made[1].job_id))
        return tuple(job for _, job in found)

    def is_of(self, job_id: str, submission_key: str, n_requests: int, since: datetime) -> bool:
        """Whether a batch, or the file it was made of, bears this key."""
        del n_requests, since
        try:
            batch = self.shown(job_id)
            key = text_or_none(mapping(batch.get("metadata")).get("submission_key"))
            if key is None and (file_id := text_or_none(batch.get("input_file_id"))):
                with self.failures(self.call(f"show file {file_id}")):
                    file = self.client.files.with_raw_response.retrieve(
                        file_id, timeout=POLL_TIMEOUT
                    )
                    key = str(json_object(file.text).get("filename")).removesuffix(".jsonl")
        except AccountRefusedError:
            raise
        except ProviderRefusedError:
            return False
        return key == submission_key

    def keeps_results(self, job_id: str) -> bool:
        """Whether a batch's result files are there; one that named none had nothing."""
        status = self.poll(job_id)
        file_ids = [f for f in (status.output_file_id, status.error_file_id) if f is not None]
        return not file_ids or any(self._has_content(file_id) for file_id in file_ids)

    def _has_content(self, file_id: str) -> bool:
        """Whether a file can be downloaded; only a plain "not found" says that it cannot."""
        with self.failures(self.call(f"send file {file_id}")):
            try:
                with self.client.files.with_streaming_response.content(
                    file_id, timeout=POLL_TIMEOUT
                ):
                    return True
            except openai.NotFoundError:
                return False

    def models(self) -> tuple[str, ...] | None:
        """Return the names of the models that are listed; None where there is no such list."""
        call = self.call("list models")
        with self.failures(call):
            try:
                raw = self.client.models.with_raw_response.list(timeout=POLL_TIMEOUT)
            except openai.NotFoundError:
                return None
            page = json_object(raw.text)
            require_list(call, page, "data")
            return tuple(str(entry["id"]) for entry in items(page["data"]) if entry.get("id"))

    def list_jobs(self, since: datetime) -> Iterator[ListedJob]:
        """Yield the account's batches, newest first."""
        for entry in self.listed(since):
            yield ListedJob(
                job_id=str(entry["id"]),
                created_at=unix_time(entry.get("created_at")) or since,
                outcome=ended_as(entry),
                submission_key=text_or_none(mapping(entry.get("metadata")).get("submission_key")),
                input_file_id=text_or_none(entry.get("input_file_id")),
                n_requests=count_or_none(mapping(entry.get("request_counts")).get("total")),
            )

    def list_files(self, since: datetime) -> Iterator[ListedFile]:
        """Yield the account's files, newest first."""
        for entry in self.listed_files(since):
            yield ListedFile(
                file_id=str(entry["id"]),
                filename=str(entry.get("filename")),
                created_at=unix_time(entry.get("created_at")) or since,
                n_bytes=count(entry.get("bytes")),
            )

    def poll(self, job_id: str) -> JobStatus:
        """Return a batch's status, by one GET."""
        return self.read(self.shown(job_id))

    def collect(self, job_id: str) -> Iterator[RawLine]:
        """Yield the lines of both result files; either may be missing or empty."""
        status = self.poll(job_id)
        with contextlib.ExitStack() as stack:
            files: list[tuple[Any, IO[bytes]]] = []
            for source, file_id in (
                ("output", status.output_file_id),
                ("error", status.error_file_id),
            ):
                if file_id is not None and not (files and file_id == status.output_file_id):
                    file: IO[bytes] = stack.enter_context(tempfile.TemporaryFile())
                    self.download(file_id, file)
                    files.append((source, file))
            for source, whole in files:
                whole.seek(0)
                yield from raw_lines(whole, source)

    def cancel(self, job_id: str) -> JobStatus:
        """Ask for a batch to stop; it may go on for up to ten minutes."""
        try:
            return self.read(self.stopped(job_id))
        except ProviderRefusedError:
            # An ended batch refuses to be cancelled; one that does not exist refuses the poll.
            return self.poll(job_id)

    def discard(self, job_id: str | None, file_ids: Iterable[str]) -> None:
        """Delete files; a batch itself cannot be deleted."""
        del job_id
        for file_id in file_ids:
            with (
                self.failures(self.call(f"delete file {file_id}")),
                contextlib.suppress(openai.NotFoundError),
            ):
                self.client.files.with_raw_response.delete(file_id, timeout=POLL_TIMEOUT)

    def single(self, request: Mapping[str, Any], *, timeout_s: float) -> str:
        """Send one request at once; return its reply as a line of an output file."""
        call = self.call(SINGLE_CALL, creates=True)
        with self.failures(call):
            try:
                response = self.client.post(**self.one_call(request, timeout_s))
            except openai.APIStatusError as error:
                response = _of_this_request(error, call.words)
            return _answer_row(call, request, response, self.words)

    def one_call(self, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Return what the SDK is to post for a line of a batch file, as a single call."""
        body = {**request["body"], **(self.words.AS_STREAM if self.streaming else {})}
        return _one_call(self.words.ENDPOINT, body, request["custom_id"], timeout_s)

    def live(self, http: httpx2.AsyncClient) -> LiveOpenAI:
        """Return what makes single calls, many at once, over one pool of connections."""
        client = openai.AsyncOpenAI(
            api_key=self.client.api_key,
            base_url=self.client.base_url,
            max_retries=0,
            http_client=http,
        )
        return LiveOpenAI(self, client)

    def download(self, file_id: str, file: IO[bytes]) -> None:
        """Stream a file's content to disk.

        Raises:
            ProviderUnavailableError: If what came is no result file.
        """
        with (
            self.failures(self.call(f"send file {file_id}")),
            self.client.files.with_streaming_response.content(
                file_id, timeout=TRANSFER_TIMEOUT
            ) as answer,
        ):
            for piece in answer.iter_bytes():
                file.write(piece)
        require_rows(self.name, f"file {file_id}", file)

    def call(self, action: str, *, creates: bool = False) -> Call:
        """Return a call as failures name it."""
        return Call(self.name, action, creates, self.error_words)

    def shown(self, job_id: str) -> dict[str, Any]:
        """Return a batch as it is now, in OpenAI's words; here and below another service's adapter
        asks in its own way."""
        call = self.call(f"show batch {job_id}")
        with self.failures(call):
            raw = self.client.batches.with_raw_response.retrieve(job_id, timeout=POLL_TIMEOUT)
            batch = json_object(raw.text)
            refuse_error_within(call, batch, "id")
            return batch

    def stopped(self, job_id: str) -> dict[str, Any]:
        """Ask for a batch to stop; return it as it is then."""
        with self.failures(self.call(f"cancel batch {job_id}")):
            raw = self.client.batches.with_raw_response.cancel(job_id, timeout=POLL_TIMEOUT)
            return json_object(raw.text)

    def listed(self, since: datetime) -> Iterator[dict[str, Any]]:
        """Yield the account's batches, newest first."""
        return self._pages("list batches", self.client.batches.with_raw_response, since)

    def listed_files(self, since: datetime) -> Iterator[dict[str, Any]]:
        """Yield the account's files, newest first."""
        return self._pages("list files", self.client.files.with_raw_response, since)

    def read(self, batch: Mapping[str, Any]) -> JobStatus:
        """Return a batch's status.

        Raises:
            CJError: If it is not a batch.
        """
        with self.failures(self.call("show a batch")):
            return read_status(batch, self.clock())

    def ask(self, call: Call, method: Method, path: str, wanted: str, **said: Any) -> Any:
        """Send a request that the SDK has no words for; return the JSON object that comes back.

        Args:
            call: What failures name it as.
            method: Of HTTP.
            path: Below the service's address.
            wanted: The field that an answer has, and an error in its place has not.
            said: `body`, `query` and `timeout`, by default that of a poll.
        """
        options: dict[str, Any] = {"timeout": said.get("timeout", POLL_TIMEOUT)}
        if said.get("query"):
            options["params"] = said["query"]
        body = {"body": said["body"]} if "body" in said else {}
        with self.failures(call):
            send = getattr(self.client, method)
            response = send(path, cast_to=httpx2.Response, options=options, **body)
            answer = json_object(response.text)
            refuse_error_within(call, answer, wanted)
            return answer

    def _pages(self, action: str, resource: Any, since: datetime) -> Iterator[dict[str, Any]]:
        """Yield the entries of a list whose pages begin after an entry of the last one."""
        call = self.call(action)

        def fetch(after: str | None) -> Page:
            with self.failures(call):
                cursor = {} if after is None else {"after": after}
                page = json_object(resource.list(limit=PAGE, timeout=POLL_TIMEOUT, **cursor).text)
                require_list(call, page, "data")
            entries = items(page.get("data"))
            ids = [entry["id"] for entry in entries if text_or_none(entry.get("id"))]
            return Page(entries, ids[-1] if ids and page.get("has_more") else None)

        return self.entries(action, fetch, since)

    def entries(
        self,
        action: str,
        fetch: Callable[[str | None], Page],
        since: datetime,
        *,
        is_newest_first: bool = True,
    ) -> Iterator[dict[str, Any]]:
        """Yield a list's entries, down to `since`; never round in a circle.

        Raises:
            AmbiguousSubmissionError: If the list does not end.
        """
        known_ids: set[str] = set()
        after: str | None = None
        oldest = since - CLOCK_SKEW
        for _ in range(MAX_PAGES):
            page = fetch(after)
            named = [entry for entry in page.entries if text_or_none(entry.get("id"))]
            fresh = [entry for entry in named if entry["id"] not in known_ids]
            for entry in fresh:
                created = unix_time(entry.get("created_at"))
                if created is None or created >= oldest:
                    yield entry
            known_ids |= {entry["id"] for entry in fresh}
            ages = [unix_time(entry.get("created_at")) for entry in fresh]
            is_past = is_newest_first and any(age is not None and age < oldest for age in ages)
            # A server that ignores where to go on sends one page for ever: then it has shown all.
            if not fresh or is_past or page.after is None:
                return
            after = page.after
        msg = f"{self.name} did not finish the request to {action}: check its console."
        raise AmbiguousSubmissionError(msg)

    @contextlib.contextmanager
    def failures(self, call: Call) -> Iterator[None]:
        """Turn what the SDK raises into this project's errors."""
        with plain_failures(call):
            try:
                yield
            except openai.APIStatusError as error:
                answer = ErrorAnswer(
                    status=error.status_code,
                    code=error.code or error.type,
                    message=_words_of(error),
                    retry_after_s=retry_after_s(error.response.headers, self.clock()),
                )
                raise failed_call(call, answer) from None
            except openai.OpenAIError as error:
                raise lost_call(call, error) from None


@dataclass(frozen=True)
class LiveOpenAI:
    """Single calls to an OpenAI API, many at once."""

    adapter: OpenAIBatches
    client: openai.AsyncOpenAI

    async def single(self, request: Mapping[str, Any], *, timeout_s: float) -> str:
        """Send one request at once; see `Provider.single`."""
        call = self.adapter.call(SINGLE_CALL, creates=True)
        with self.adapter.failures(call):
            try:
                response = await self.client.post(**self.adapter.one_call(request, timeout_s))
            except openai.APIStatusError as error:
                response = _of_this_request(error, call.words)
            return _answer_row(call, request, response, self.adapter.words)


def _words_of(error: openai.APIStatusError) -> str:
    """Return what an error answer says: in an object, as some services do under another name, or as
    a text in its place."""
    sent = error.body
    told = mapping(sent)
    said = told.get("message") or told.get("detail") or sent
    return text_or_none(said) or error.message


def _with_expiry_if_known(send: Callable[..., Any], **expiry: Any) -> Any:
    """Send a request with an expiry, and without it where a service refuses that very field."""
    try:
        return send(**expiry)
    except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
        # It was refused whole, so nothing was created; a service that knows the field objects
        # to its value instead.
        if not any(field in error.response.text for field in expiry):
            raise
        if any(f"{field}." in error.response.text for field in expiry):
            raise
        return send()


def _one_call(
    endpoint: str, body: Mapping[str, Any], custom_id: str, timeout_s: float
) -> dict[str, Any]:
    return {
        "path": endpoint.removeprefix("/v1"),
        "body": body,
        "cast_to": httpx2.Response,
        "options": {
            "timeout": httpx2.Timeout(timeout_s, connect=min(10, timeout_s)),
            # Ours to name, so that a call without a reply can be looked up.
            "headers": {"X-Client-Request-Id": custom_id},
        },
    }


def _of_this_request(error: openai.APIStatusError, words: ErrorWords) -> httpx2.Response:
    """Return an error answer that says something is wrong with this request alone, not the judge.

    Raises:
        APIStatusError: If it says something else.
    """
    if error.status_code not in REQUESTS_OWN_FAULT or error_meaning(
        words, error.code, _words_of(error)
    ):
        raise error
    return error.response


def _answer_row(
    call: Call, request: Mapping[str, Any], response: httpx2.Response, words: ModuleType
) -> str:
    """Return an answer as the line of an output file it would be."""
    if response.headers.get("content-type", "").startswith("text/event-stream"):
        body = words.joined(stream_events(response.text))
    else:
        body = json_object(response.text)
    if response.is_success:
        refuse_for_all(call, body, words.WANTED)
    row = {
        "custom_id": request["custom_id"],
        "response": {
            "status_code": response.status_code,
            "request_id": response.headers.get("x-request-id"),
            "body": body,
        },
        "error": None,
    }
    return json.dumps(row, ensure_ascii=False)


def parse_row(
    line: str, read_body: Callable[[dict[str, Any]], Reply], words: ErrorWords = NO_WORDS
) -> Reply:
    """Parse a line of an output or error file; pure.

    A row succeeded only if its status is 2xx and its body reads as an answer. Its failure may be
    reported in the row, in the body, or nowhere.
    """
    try:
        row = json_object(line)
    except ValueError:
        return Reply(None, RequestOutcome.PROVIDER_ERROR, error_code="garbled", may_retry=True)
    custom_id = text_or_none(row.get("custom_id"))
    response = mapping(row.get("response"))
    request_id = text_or_none(response.get("request_id"))
    if row.get("error"):
        reply = _failed_row(row["error"], words, status=None)
    else:
        reply = _answered_row(response, read_body, words)
    return replace(reply, custom_id=custom_id, request_id=request_id)


def read_status(batch: Mapping[str, Any], now: datetime) -> JobStatus:
    """Return a batch's status, from its JSON; pure.

    Raises:
        ValueError: If it is not a batch.
    """
    job_id, status = text_or_none(batch.get("id")), text_or_none(batch.get("status"))
    if job_id is None or status is None:
        msg = "not a batch"
        raise ValueError(msg)
    word = folded(status)
    outcome = ended_as(batch)
    n_completed, n_failed = _counted(batch, outcome)
    problem = _first_problem(batch.get("errors"))
    job = JobStatus(
        job_id=job_id,
        state="ended" if outcome else "running",
        provider_status=status,
        outcome=outcome,
        n_completed=n_completed,
        n_failed=n_failed,
        output_file_id=text_or_none(batch.get("output_file_id")),
        error_file_id=text_or_none(batch.get("error_file_id")),
        error_code=OUT_OF_CREDIT if is_out_of_credit(*problem) else problem[0],
        error=problem[1],
        usage=_job_usage(batch.get("usage")),
        created_at=unix_time(batch.get("created_at")),
        ended_at=unix_time(batch.get(f"{outcome.value}_at")) if outcome else None,
    )
    if outcome is None and word not in _RUNNING:
        warning = f"unknown status '{shortened(status, 60)}'; it counts as running"
        return replace(job, warning=warning)
    if _files_are_late(job, now):
        warning = f"'{status}', but the id of a result file is still missing"
        return replace(job, state="running", outcome=None, warning=warning)
    return job


def _counted(batch: Mapping[str, Any], outcome: JobOutcome | None) -> tuple[int | None, int | None]:
    """Return how many requests are done and how many failed; None where that is not told.

    Some services leave every count at 0, also that of all requests: such counts say nothing.
    """
    counts = mapping(batch.get("request_counts"))
    total, *told = (count_or_none(counts.get(name)) for name in ("total", "completed", "failed"))
    if outcome is not None and total == 0 and not any(told):
        return None, None
    return told[0], told[1]


def ended_as(batch: Mapping[str, Any]) -> JobOutcome | None:
    """Return how a batch ended; None while it runs; pure.

    A word nobody knows is an end where the batch tells of an error, or has its output and counts
    every request.
    """
    word = folded(batch.get("status"))
    if word in _ENDED or word in _RUNNING:
        return _ENDED.get(word)
    if _first_problem(batch.get("errors"))[0] is not None:
        return JobOutcome.FAILED
    counts = mapping(batch.get("request_counts"))
    total = count(counts.get("total"))
    n_counted = count(counts.get("completed")) + count(counts.get("failed"))
    is_whole = 0 < total <= n_counted
    return JobOutcome.COMPLETED if is_whole and text_or_none(batch.get("output_file_id")) else None


def _answered_row(
    response: dict[str, Any], read_body: Callable[[dict[str, Any]], Reply], words: ErrorWords
) -> Reply:
    status = response.get("status_code")
    sent = response.get("body")
    try:
        body = json_object(sent) if isinstance(sent, str) else mapping(sent)
    except ValueError:
        body = {}
    is_2xx = isinstance(status, int) and 200 <= status < 300
    if body.get("error") or not is_2xx:
        within = error_within(body, "") if is_2xx else None
        told = within.status if within is not None else status
        error = body.get("error") or (None if is_2xx else body)
        return _failed_row(error, words, status=told if isinstance(told, int) else None)
    if not body:
        return Reply(None, RequestOutcome.PROVIDER_ERROR, error_code="no_body", may_retry=True)
    return read_body(body)


def _failed_row(error: object, words: ErrorWords, *, status: int | None) -> Reply:
    details = mapping(error)
    code = text_or_none(details.get("code")) or text_or_none(details.get("type"))
    message = details.get("message") or (error if isinstance(error, str) else None)
    outcome = _ROW_ENDINGS.get(code or "", RequestOutcome.PROVIDER_ERROR)
    meaning = error_meaning(words, code, message, status=status)
    if meaning == "out_of_credit":
        return row_without_credit(message)
    is_ours = meaning != "rate_limit" and (code == "invalid_request_error" or _is_refusal(status))
    is_ours = is_ours or meaning == "not_for_plan"
    return Reply(
        custom_id=None,
        outcome=outcome,
        error_code=code or (f"status_{status}" if status is not None else "no_response"),
        error_message=shortened(message) if message else None,
        may_retry=not is_ours,
    )


def _is_refusal(status: int | None) -> bool:
    """Whether a status says that asking the same again cannot help."""
    return status is not None and 400 <= status < 500 and status not in {408, 409, 429}


def _files_are_late(status: JobStatus, now: datetime) -> bool:
    """Whether an ended batch counts rows whose file has no id yet, and not for long."""
    if status.outcome in {None, JobOutcome.FAILED} or status.ended_at is None:
        return False
    no_output = bool(status.n_completed) and status.output_file_id is None
    no_errors = bool(status.n_failed) and status.error_file_id is None
    nothing = status.output_file_id is None and status.error_file_id is None
    return (no_output or (no_errors and nothing)) and now - status.ended_at < _FILES_GRACE


def _first_problem(errors: object) -> tuple[str | None, str | None]:
    """Return code and words of why a batch failed; lines are named, for mending."""
    problems = items(mapping(errors).get("data"))
    if not problems:
        return None, None
    words = [
        f"{problem.get('message')}" + (f" (line {problem['line']})" if problem.get("line") else "")
        for problem in problems[:5]
    ]
    more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
    return text_or_none(problems[0].get("code")), shortened("; ".join(words)) + more


def _job_usage(sent: object) -> Usage | None:
    """Return a whole batch's usage; only newer batches report it."""
    if not isinstance(sent, dict) or not count(sent.get("total_tokens")):
        return None
    return Usage(
        prompt=count(sent.get("input_tokens")),
        cached=count(mapping(sent.get("input_tokens_details")).get("cached_tokens")),
        completion=count(sent.get("output_tokens")),
        reasoning=count(mapping(sent.get("output_tokens_details")).get("reasoning_tokens")),
    )
