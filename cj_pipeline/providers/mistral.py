"""Mistral's batch jobs: a job of uploaded files, that bears metadata; words are `chat_completions`.

From the official SDK's sources (mistralai/client-python, `batchjob`, `jobs_api_routes_batch_*`) and
docs.mistral.ai/studio-api/batch-processing, read 2026-11-30.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cj_pipeline.errors import ProviderRefusedError
from cj_pipeline.judging.judges import Judge
from cj_pipeline.judging.prompts import Prompt
from cj_pipeline.providers.base import ProviderLimits
from cj_pipeline.providers.openai import PAGE, OpenAIBatches, Page
from cj_pipeline.providers.transport import (
    CLOCK_SKEW,
    CREATE_TIMEOUT,
    count_or_none,
    created_id,
    items,
    mapping,
    require_list,
    text_or_none,
)

LIMITS = ProviderLimits(max_requests=100_000, max_bytes=512_000_000, results_kept_s=2 * 24 * 3600)
"""Its pages disagree on requests (100,000 or a million): the fewer. Results are kept for a day
after the job's end, which is within a day of its creation."""

_JOBS = "/batch/jobs"
_WINDOW_H = 24


@dataclass(frozen=True)
class MistralBatches(OpenAIBatches):
    """Mistral's API, as one account sees it."""

    def build_request(
        self, prompt: Prompt, judge: Judge, custom_id: str, *, cache_prefix: bool = False
    ) -> dict[str, Any]:
        """Return one line of a batch file; the job says which endpoint it goes to."""
        del cache_prefix
        return {"custom_id": custom_id, "body": self.words.build_body(prompt, judge)}

    def create(self, shard: Path, input_file_id: str | None, submission_key: str) -> str:
        """Create a job that bears its submission key, by which it can be found again."""
        if input_file_id is None:
            msg = f"{self.name} makes a batch of an uploaded file: upload the shard first."
            raise ProviderRefusedError(msg)
        with shard.open("rb") as file:
            model = json.loads(next(iter(file)))["body"]["model"]
        call = self.call("create a batch job", creates=True)
        body = {
            "endpoint": self.words.ENDPOINT,
            "model": model,
            "input_files": [input_file_id],
            "metadata": {"submission_key": submission_key},
            "timeout_hours": _WINDOW_H,
            **self.batch_body,
        }
        job = self.ask(call, "post", _JOBS, "id", body=body, timeout=CREATE_TIMEOUT)
        return created_id(call, job, "id")

    def shown(self, job_id: str) -> dict[str, Any]:
        """Return a job as it is now."""
        call = self.call(f"show batch job {job_id}")
        return as_batch(self.ask(call, "get", _path(job_id), "id"))

    def stopped(self, job_id: str) -> dict[str, Any]:
        """Ask for a job to stop."""
        call = self.call(f"cancel batch job {job_id}")
        return as_batch(self.ask(call, "post", f"{_path(job_id)}/cancel", "id"))

    def listed(self, since: datetime) -> Iterator[dict[str, Any]]:
        """Yield the account's jobs, newest first.

        Its list can be asked for one value of the metadata. That is not done: a key may end
        otherwise and still be ours, and a filter that a server reads in another way hides a paid
        job.
        """
        after = {"created_after": (since - CLOCK_SKEW).isoformat(), "order_by": "-created"}
        for job in self._numbered("list batch jobs", _JOBS, since, after):
            yield as_batch(job)

    def listed_files(self, since: datetime) -> Iterator[dict[str, Any]]:
        """Yield the account's batch files; no order is stated."""
        return self._numbered("list files", "/files", since, {"purpose": "batch"})

    def _numbered(
        self, action: str, path: str, since: datetime, query: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """Yield the entries of a list whose pages are numbered from 0."""
        call = self.call(action)

        def fetch(after: str | None) -> Page:
            number = int(after or 0)
            asked = {**query, "page": number, "page_size": PAGE}
            page = self.ask(call, "get", path, "data", query=asked)
            with self.failures(call):
                require_list(call, page, "data")
            entries = items(page.get("data"))
            return Page(entries, str(number + 1) if entries else None)

        return self.entries(action, fetch, since, is_newest_first=False)


def as_batch(job: dict[str, Any]) -> dict[str, Any]:
    """Return a job in the words of OpenAI's batches; pure."""
    ended_at = job.get("completed_at")
    return {
        "id": job.get("id"),
        "status": job.get("status"),
        "created_at": job.get("created_at"),
        "input_file_id": next(iter(_texts(job.get("input_files"))), None),
        "output_file_id": job.get("output_file"),
        "error_file_id": job.get("error_file"),
        "metadata": mapping(job.get("metadata")),
        "request_counts": {
            "total": count_or_none(job.get("total_requests")),
            "completed": count_or_none(job.get("succeeded_requests")),
            "failed": count_or_none(job.get("failed_requests")),
        },
        "errors": {"data": [{"message": e.get("message")} for e in items(job.get("errors"))]},
        **{f"{end}_at": ended_at for end in ("completed", "failed", "expired", "cancelled")},
    }


def _texts(value: object) -> list[str]:
    sent = value if isinstance(value, list) else []
    return [text for text in sent if text_or_none(text)]


def _path(job_id: str) -> str:
    return f"{_JOBS}/{quote(job_id, safe='')}"
