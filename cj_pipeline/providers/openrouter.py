"""OpenRouter's batches: requests travel with the create, and nothing on a batch is ours.

Words are `chat_completions`. From OpenRouterTeam/python-sdk (`batchlistitem`, `listbatches`) and
openrouter.ai/docs/batch-quickstart with its API reference, read 2026-11-30.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from cj_pipeline.errors import AccountRefusedError, ProviderRefusedError
from cj_pipeline.judging.judges import Judge
from cj_pipeline.judging.prompts import Prompt
from cj_pipeline.providers.base import (
    FoundJob,
    JobOutcome,
    JobStatus,
    ListedFile,
    ListedJob,
    ProviderLimits,
    RawLine,
)
from cj_pipeline.providers.openai import PAGE, OpenAIBatches, Page, ended_as
from cj_pipeline.providers.transport import (
    CLOCK_SKEW,
    CREATE_TIMEOUT,
    MAX_PAGES,
    TRANSFER_TIMEOUT,
    count,
    created_id,
    items,
    mapping,
    raw_lines,
    require_list,
    text_or_none,
    unix_time,
)

LIMITS = ProviderLimits(max_requests=5_000, max_bytes=64_000_000, results_kept_s=30 * 24 * 3600)
"""OpenRouter takes 200 MB; requests travel in one body, held in memory, so ours are smaller."""

_BATCHES = "/batches"
_ROWS_A_PAGE = 1_000


@dataclass(frozen=True)
class OpenRouterBatches(OpenAIBatches):
    """OpenRouter's API, as one workspace sees it."""

    def build_request(
        self, prompt: Prompt, judge: Judge, custom_id: str, *, cache_prefix: bool = False
    ) -> dict[str, Any]:
        """Return one request of a batch."""
        del cache_prefix
        return {"custom_id": custom_id, "body": self.words.build_body(prompt, judge)}

    def upload(self, shard: Path, submission_key: str) -> str | None:
        """Send nothing: requests travel with `create`."""
        del shard, submission_key
        return None

    def create(self, shard: Path, input_file_id: str | None, submission_key: str) -> str:
        """Create a batch of the shard's requests."""
        del input_file_id, submission_key
        with shard.open("rb") as file:
            requests = [json.loads(line) for line in file]
        # The body is read as it comes: what stands after `requests` is refused.
        body = {
            "endpoint": self.words.ENDPOINT,
            "model": requests[0]["body"]["model"],
            "completion_window": "24h",
            **self.batch_body,
            "requests": requests,
        }
        call = self.call("create a batch", creates=True)
        batch = self.ask(call, "post", _BATCHES, "id", body=body, timeout=CREATE_TIMEOUT)
        return created_id(call, batch, "id")

    def find(self, submission_key: str, since: datetime, n_requests: int) -> tuple[FoundJob, ...]:
        """Return the batches made since the intent of as many requests, oldest first.

        An ended one is certain if its results bear our custom ids, and left out if they do not; of
        a running one it is not known. One whose requests were refused judged nothing.
        """
        found = []
        for job in self.list_jobs(since):
            if job.outcome is JobOutcome.FAILED or job.n_requests not in {None, n_requests}:
                continue
            if job.is_running:
                found.append(FoundJob(job.job_id, is_certain=False, is_running=True))
            elif self._bears_key(job.job_id, submission_key):
                found.append(FoundJob(job.job_id, is_certain=True, is_running=False))
        return tuple(reversed(found))

    def is_of(self, job_id: str, submission_key: str, n_requests: int, since: datetime) -> bool:
        """Whether a batch has as many requests and was made since the intent; its id is known.

        A batch is seen from its own workspace only. Once it has ended and has results, they must
        bear our custom ids as well.
        """
        try:
            job = _listed(self.shown(job_id), since)
            if job.n_requests not in {None, n_requests} or job.created_at < since - CLOCK_SKEW:
                return False
            is_open = job.is_running or job.outcome is JobOutcome.FAILED
            return is_open or self._bears_key(job_id, submission_key)
        except AccountRefusedError:
            raise
        except ProviderRefusedError:
            return False

    def keeps_results(self, job_id: str) -> bool:
        """Whether a batch that has ended has results to give, or had none."""
        if not self.poll(job_id).n_completed:
            return True
        try:
            return any(True for _ in self._rows(job_id))
        except AccountRefusedError:
            raise
        except ProviderRefusedError:
            return False

    def list_jobs(self, since: datetime) -> Iterator[ListedJob]:
        """Yield the workspace's batches, newest first."""
        return (_listed(entry, since) for entry in self.listed(since))

    def list_files(self, since: datetime) -> Iterator[ListedFile]:
        """Yield nothing: batches here have no files."""
        del since
        return iter(())

    def listed(self, since: datetime) -> Iterator[dict[str, Any]]:
        """Yield the workspace's batches, newest first."""
        call = self.call("list batches")

        def fetch(after: str | None) -> Page:
            query = {"limit": PAGE} if after is None else {"limit": PAGE, "after": after}
            page = self.ask(call, "get", _BATCHES, "data", query=query)
            with self.failures(call):
                require_list(call, page, "data")
            entries = [as_batch(entry) for entry in items(page.get("data"))]
            ids = [entry["id"] for entry in entries if text_or_none(entry.get("id"))]
            return Page(entries, ids[-1] if ids and page.get("has_more") else None)

        return self.entries("list batches", fetch, since)

    def shown(self, job_id: str) -> dict[str, Any]:
        """Return a batch as it is now."""
        call = self.call(f"show batch {job_id}")
        return as_batch(self.ask(call, "get", _path(job_id), "id"))

    def cancel(self, job_id: str) -> JobStatus:
        """Return a batch as it is: none can be stopped, and what it does is paid for."""
        status = self.poll(job_id)
        if status.state == "ended":
            return status
        return replace(status, warning=f"{self.name} has no way to stop a batch: it goes on")

    def read(self, batch: Mapping[str, Any]) -> JobStatus:
        """Return a batch's status; it has no files whose ids could come later."""
        return replace(super().read(batch), ended_at=unix_time(batch.get("finalized_at")))

    def collect(self, job_id: str) -> Iterator[RawLine]:
        """Yield the results of a batch, once all of them are here."""
        with tempfile.TemporaryFile() as file:
            for row in self._rows(job_id):
                _write(file, row)
            file.seek(0)
            yield from raw_lines(file, "output")

    def discard(self, job_id: str | None, file_ids: Iterable[str]) -> None:
        """Delete an ended batch with its requests and results."""
        del file_ids
        if job_id is None:
            return
        call = self.call(f"delete batch {job_id}")
        try:
            self.ask(call, "delete", _path(job_id), "id")
        except AccountRefusedError:
            raise
        except ProviderRefusedError:
            return  # it is gone, or will be after its 30 days

    def _rows(self, job_id: str) -> Iterator[dict[str, Any]]:
        """Yield the results: those that a batch shows, or page by page."""
        call = self.call(f"send the results of {job_id}")
        batch = self.ask(call, "get", _path(job_id), "id", timeout=TRANSFER_TIMEOUT)
        if isinstance(batch.get("results"), list):
            yield from items(batch["results"])
            return
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            limits = {"limit": _ROWS_A_PAGE}
            query = limits if cursor is None else {**limits, "cursor": cursor}
            path = f"{_path(job_id)}/results"
            page = self.ask(call, "get", path, "data", query=query, timeout=TRANSFER_TIMEOUT)
            with self.failures(call):
                require_list(call, page, "data")
            rows, before = items(page.get("data")), cursor
            yield from rows
            cursor = text_or_none(page.get("next_cursor"))
            if cursor in {None, before} or not rows:
                return

    def _bears_key(self, job_id: str, submission_key: str) -> bool:
        """Whether any result of an ended batch bears our custom ids."""
        prefix = f"{submission_key[:16]}-"
        return any(str(row.get("custom_id")).startswith(prefix) for row in self._rows(job_id))


def as_batch(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return a batch in the words of OpenAI's; pure. Its counts are 0 until it was read."""
    message = text_or_none(mapping(batch.get("error")).get("message"))
    counts = mapping(batch.get("request_counts"))
    return {
        "id": batch.get("id"),
        "status": batch.get("status"),
        "created_at": batch.get("created_at"),
        "finalized_at": batch.get("finalized_at"),
        "request_counts": dict(counts) if count(counts.get("total")) else {},
        "errors": {"data": [{"message": message}]} if message else None,
    }


def _listed(batch: Mapping[str, Any], since: datetime) -> ListedJob:
    return ListedJob(
        job_id=str(batch["id"]),
        created_at=unix_time(batch.get("created_at")) or since,
        outcome=ended_as(batch),
        n_requests=count(mapping(batch.get("request_counts")).get("total")) or None,
    )


def _write(file: IO[bytes], row: Mapping[str, Any]) -> None:
    file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n")


def _path(job_id: str) -> str:
    return f"{_BATCHES}/{quote(job_id, safe='')}"
