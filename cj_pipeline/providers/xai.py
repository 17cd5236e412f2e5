"""xAI's batches: a named batch of an uploaded file, that counts instead of having a state.

Words are `chat_completions`. From xai-org/xai-sdk-python (`proto/v6/batch_pb2.pyi`),
BerriAI/litellm (`llms/xai/batches`) and docs.x.ai/developers/advanced-api-usage/batch-api, read
2026-11-30.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cj_pipeline.errors import AccountRefusedError, ProviderRefusedError
from cj_pipeline.judging.provider_definitions import NO_WORDS, ErrorWords
from cj_pipeline.providers.base import ProviderLimits, RawLine, Reply
from cj_pipeline.providers.openai import PAGE, OpenAIBatches, Page, parse_row
from cj_pipeline.providers.transport import (
    CREATE_TIMEOUT,
    MAX_PAGES,
    TRANSFER_TIMEOUT,
    count,
    count_or_none,
    created_id,
    items,
    json_object,
    mapping,
    raw_lines,
    require_list,
    rfc3339_time,
    text_or_none,
)

LIMITS = ProviderLimits(max_requests=50_000, max_bytes=200_000_000, creates_per_hour=3_600)
"""Of one input file; results are kept, and no page says for how long."""

_BATCHES = "/batches"
_ROWS_A_PAGE = 1_000

_NOT_OURS = frozenset({1, 4, 8, 13, 14})
"""Codes of gRPC that say nothing against a request: cancelled, too late, exhausted, internal,
unavailable."""


@dataclass(frozen=True)
class XAIBatches(OpenAIBatches):
    """xAI's API, as one team sees it."""

    def parse_reply(self, line: str) -> Reply:
        """Parse a result of a batch, or the row of a single call."""
        return parse_result(line, self.words.read_body, self.error_words)

    def create(self, shard: Path, input_file_id: str | None, submission_key: str) -> str:
        """Create a batch whose name is its submission key."""
        del shard
        if input_file_id is None:
            msg = f"{self.name} makes a batch of an uploaded file: upload the shard first."
            raise ProviderRefusedError(msg)
        call = self.call("create a batch", creates=True)
        body = {"name": submission_key, "input_file_id": input_file_id, **self.batch_body}
        batch = self.ask(call, "post", _BATCHES, "batch_id", body=body, timeout=CREATE_TIMEOUT)
        return created_id(call, batch, "batch_id")

    def keeps_results(self, job_id: str) -> bool:
        """Whether a batch has results to give, or had none."""
        if not self.poll(job_id).n_completed:
            return True
        try:
            return bool(self._rows(job_id, None, 1).entries)
        except AccountRefusedError:
            raise
        except ProviderRefusedError:
            return False

    def shown(self, job_id: str) -> dict[str, Any]:
        """Return a batch as it is now."""
        call = self.call(f"show batch {job_id}")
        return as_batch(self.ask(call, "get", _path(job_id), "batch_id"), self.clock())

    def stopped(self, job_id: str) -> dict[str, Any]:
        """Ask for a batch to stop."""
        call = self.call(f"cancel batch {job_id}")
        return as_batch(self.ask(call, "post", f"{_path(job_id)}:cancel", "batch_id"), self.clock())

    def listed(self, since: datetime) -> Iterator[dict[str, Any]]:
        """Yield the team's batches; no order is stated."""
        call, now = self.call("list batches"), self.clock()

        def fetch(token: str | None) -> Page:
            page = self.ask(call, "get", _BATCHES, "batches", query=_page_query(PAGE, token))
            with self.failures(call):
                require_list(call, page, "batches")
            entries = [as_batch(entry, now) for entry in items(page.get("batches"))]
            return Page(entries, text_or_none(page.get("pagination_token")))

        return self.entries("list batches", fetch, since, is_newest_first=False)

    def listed_files(self, since: datetime) -> Iterator[dict[str, Any]]:
        """Yield the team's files; no order is stated."""
        call = self.call("list files")

        def fetch(token: str | None) -> Page:
            page = self.ask(call, "get", "/files", "data", query=_page_query(PAGE, token))
            with self.failures(call):
                require_list(call, page, "data")
            return Page(items(page.get("data")), text_or_none(page.get("pagination_token")))

        return self.entries("list files", fetch, since, is_newest_first=False)

    def collect(self, job_id: str) -> Iterator[RawLine]:
        """Yield the results of a batch, once all of their pages are here."""
        with tempfile.TemporaryFile() as file:
            token: str | None = None
            for _ in range(MAX_PAGES):
                page = self._rows(job_id, token, _ROWS_A_PAGE)
                for row in page.entries:
                    file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace"))
                    file.write(b"\n")
                if page.after is None or page.after == token or not page.entries:
                    break
                token = page.after
            file.seek(0)
            yield from raw_lines(file, "output")

    def _rows(self, job_id: str, token: str | None, limit: int) -> Page:
        call = self.call(f"send the results of {job_id}")
        path, query = f"{_path(job_id)}/results", _page_query(limit, token)
        page = self.ask(call, "get", path, "results", query=query, timeout=TRANSFER_TIMEOUT)
        with self.failures(call):
            require_list(call, page, "results")
        return Page(items(page.get("results")), text_or_none(page.get("pagination_token")))


def as_batch(batch: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """Return a batch in the words of OpenAI's; pure. Its state follows from its counts.

    Counts that do not come to the whole though nothing is left to do say nothing.
    """
    state = mapping(batch.get("state"))
    total = count_or_none(state.get("num_requests"))
    made = _time(batch.get("create_time"))
    rejection = text_or_none(batch.get("cancel_by_xai_message"))
    n_pending, n_done = _left(state), _done(state)
    tells = bool(total) and (n_pending > 0 or n_done >= count(total))
    return {
        "id": batch.get("batch_id"),
        "status": "failed" if rejection else _word(batch, state, now),
        "created_at": None if made is None else made.timestamp(),
        "input_file_id": text_or_none(batch.get("input_file_id")),
        "metadata": {"submission_key": text_or_none(batch.get("name"))},
        "request_counts": {
            "total": total or None,
            "completed": count_or_none(state.get("num_success")) if tells else None,
            "failed": count_or_none(state.get("num_error")) if tells else None,
        },
        "errors": {"data": [{"message": rejection}]} if rejection else None,
    }


def _word(batch: Mapping[str, Any], state: Mapping[str, Any], now: datetime) -> str:
    """Return the state that the counts mean.

    They are all 0 before a file is read as well as after it was refused, so that nothing left to do
    is an end only of a batch that had something to do.
    """
    total = count(state.get("num_requests"))
    is_stopped = batch.get("cancel_time") is not None
    if total > 0 and _left(state) == 0:
        return "cancelled" if count(state.get("num_cancelled")) else "completed"
    expires = rfc3339_time(batch.get("expire_time"))
    if expires is not None and now >= expires:
        return "expired"
    if is_stopped:
        return "cancelling" if total > 0 else "cancelled"
    return "in_progress" if total > 0 else "validating"


def _done(state: Mapping[str, Any]) -> int:
    return sum(count(state.get(f"num_{how}")) for how in ("success", "error", "cancelled"))


def _left(state: Mapping[str, Any]) -> int:
    """Return how many requests are still to be done."""
    told = count_or_none(state.get("num_pending"))
    return max(0, count(state.get("num_requests")) - _done(state)) if told is None else told


def parse_result(
    line: str, read_body: Callable[[dict[str, Any]], Reply], words: ErrorWords = NO_WORDS
) -> Reply:
    """Parse a result of a batch, which holds an answer under its endpoint's name; pure."""
    try:
        row = json_object(line)
    except ValueError:
        row = {}
    if "batch_result" not in row and "batch_request_id" not in row:
        return parse_row(line, read_body, words)  # of a single call
    result = mapping(row.get("batch_result"))
    answers = mapping(result.get("response") or row.get("response"))
    body = next((answer for answer in answers.values() if isinstance(answer, dict)), None)
    error = result.get("error") or row.get("error") or row.get("error_message")
    plain: dict[str, Any] = {"custom_id": row.get("batch_request_id"), "error": None}
    if body is not None:
        plain["response"] = {"status_code": 200, "request_id": body.get("id"), "body": body}
    elif error:
        plain["error"] = _error(error)
    return parse_row(json.dumps(plain), read_body, words)


def _error(error: object) -> dict[str, Any]:
    """Return an error whose code is a number of gRPC, in the words of OpenAI's rows."""
    details = mapping(error)
    code = details.get("code")
    number = count_or_none(code)
    message = details.get("message") or (error if isinstance(error, str) else None)
    if number is None:
        return {"code": text_or_none(code), "message": message}
    may_retry = number in _NOT_OURS or 500 <= number <= 599 or number in {408, 409, 429}
    word = f"code_{number}" if may_retry else "invalid_request_error"
    return {"code": word, "message": message}


def _time(sent: object) -> datetime | None:
    """Return a time; a bare date, as some answers have, means its last moment, never too old."""
    moment = rfc3339_time(sent)
    if moment is not None and re.fullmatch(r"\d{4}-\d\d-\d\d", str(sent)):
        return moment.replace(tzinfo=UTC) + timedelta(days=1)
    return moment


def _page_query(limit: int, token: str | None) -> dict[str, Any]:
    return {"limit": limit} if token is None else {"limit": limit, "pagination_token": token}


def _path(job_id: str) -> str:
    return f"{_BATCHES}/{quote(job_id, safe='')}"
