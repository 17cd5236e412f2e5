"""xAI's endpoints: files, batches that count instead of having a state, chat completions.

After xai-org/xai-sdk-python and docs.x.ai/developers/advanced-api-usage/batch-api, read 2026-11-30.
What a batch did not come to has no result. Reasoning is beside the completion's tokens.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from cj_pipeline.emulator.apis.completions import CHAT, chat_body, list_models
from cj_pipeline.emulator.apis.completions import create_completion as answer_chat
from cj_pipeline.emulator.apis.files import (
    create_file,
    delete_file,
    file_content,
    file_object,
    find_file,
    known_files,
    retrieve_file,
)
from cj_pipeline.emulator.apis.openai import checked_lines, request_lines
from cj_pipeline.emulator.http import HTTPError, Response, json_answer
from cj_pipeline.emulator.job_timeline import ENDED, JobPhase
from cj_pipeline.emulator.jobs import (
    Job,
    RequestLine,
    RowWords,
    Tokens,
    cancel_job,
    count_rows,
    keep_job,
    list_jobs,
    load_job,
    result_lines,
)
from cj_pipeline.emulator.judges import JudgeReply
from cj_pipeline.emulator.random import identifier
from cj_pipeline.emulator.routing import RequestContext, routes

_API = "xai"
_MOST_ROWS = 1_000
_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 429: 8, 500: 13, 503: 14}
"""gRPC's numbers for what HTTP says otherwise."""


def refused(error: HTTPError) -> Response:
    """Return an error as xAI words it."""
    body = {"code": error.code or "error", "error": error.message}
    return json_answer(body, status=error.status, headers=error.headers)


def create_completion(context: RequestContext) -> Response:
    """Answer a chat completion."""
    return answer_chat(context, _with_reasoning_beside)


def list_files(context: RequestContext) -> Response:
    """Return a page of the team's files."""
    return _page("data", [file_object(row) for row in known_files(context)], context)


def create_batch(context: RequestContext) -> Response:
    """Make a batch from an uploaded file; what is wrong with its lines shows only later."""
    body = context.call.json()
    if not isinstance(body.get("name"), str) or not body["name"]:
        raise HTTPError(400, "name: missing")
    source = find_file(context, str(body.get("input_file_id")), asked_for="input_file_id")
    path = context.state.file_path(source["path"])
    number = context.state.count("xai batches")
    job_id = identifier("batch_", context.seed, "xai batch", number, context.now)
    checked = checked_lines(path, CHAT, context.settings.limits)
    lines = () if checked.errors else request_lines(path, CHAT)
    rows = context.answer_rows(lines, _words(context.now), job_id)
    plan = context.plan(rows.took_s, checked.errors)
    with context.state.write() as db:
        keep_job(
            db,
            rows,
            job_id=job_id,
            account=context.account,
            api=_API,
            model=checked.model,
            name=body["name"],
            request={"input_file_id": source["file_id"]},
            plan=plan,
            now=context.now,
            content_sha256=source["sha256"],
        )
        job = _find_batch(db, context, job_id)
        return json_answer(_batch_object(db, job, JobPhase("validating", 0.0)))


def retrieve_batch(context: RequestContext) -> Response:
    """Return a batch's counts."""
    with context.state.read() as db:
        job = _find_batch(db, context, context.groups["id"])
        return json_answer(_batch_object(db, job, job.phase_at(context.now)))


def list_batches(context: RequestContext) -> Response:
    """Return a page of the team's batches, oldest first: no order is promised."""
    with context.state.read() as db:
        jobs = list_jobs(db, _API, context.account, context.now)
        shown = [_batch_object(db, job, job.phase_at(context.now)) for job in reversed(jobs)]
    return _page("batches", shown, context)


def cancel_batch(context: RequestContext) -> Response:
    """Tell a batch to stop; one that has ended stays as it is."""
    with context.state.write() as db:
        job = _find_batch(db, context, context.groups["id"])
        progress = job.phase_at(context.now)
        if progress.phase not in ENDED and progress.phase != "cancelling":
            job = cancel_job(db, job, context.now)
            progress = job.phase_at(context.now)
        return json_answer(_batch_object(db, job, progress))


def batch_results(context: RequestContext) -> Response:
    """Return a page of the results so far."""
    with context.state.read() as db:
        job = _find_batch(db, context, context.groups["id"])
    progress = job.phase_at(context.now)
    ended_at = progress.ended_at
    is_late = ended_at is not None and context.now < ended_at + job.plan.late_files_s
    rows = [] if is_late or progress.phase == "failed" else list(_rows(context, job, progress))
    answer = _page("results", rows, context, most=_MOST_ROWS)
    with context.state.write() as db:
        db.execute("UPDATE jobs SET n_read = n_read + 1 WHERE job_id = ?", [job.job_id])
    return answer


def _rows(context: RequestContext, job: Job, progress: JobPhase) -> Iterator[dict[str, Any]]:
    """Yield the results; one that a fault has garbled or lost is an empty one, or none."""
    for _, line in result_lines(context.state, job, "done", progress.done):
        try:
            row = json.loads(line or b"null")
        except ValueError:
            row = {}
        if row is not None:
            yield row


def _words(now: float) -> RowWords:
    """Return how results are worded."""

    def row(custom_id: str, result: Mapping[str, Any]) -> dict[str, Any]:
        return {"batch_request_id": custom_id, "batch_result": result}

    def answered(
        request: RequestLine, reply: JudgeReply, cost: Tokens, row_id: str
    ) -> dict[str, Any]:
        model = request.judge_request.model if request.judge_request else ""
        body = chat_body(model, reply, cost, row_id, now)
        _with_reasoning_beside(body)
        return row(request.custom_id, {"response": {"chat_get_completion": body}})

    def failed(custom_id: str, problem: HTTPError, row_id: str) -> dict[str, Any]:
        del row_id
        error = {"code": _CODES.get(problem.status, 13), "message": problem.message}
        return row(custom_id, {"error": error})

    def untold(custom_id: str, row_id: str) -> dict[str, Any]:
        del row_id
        return row(custom_id, {})

    # Of a request that an ended batch did not come to there is no row.
    return RowWords(answered, failed, untold, undone=untold)


def _with_reasoning_beside(body: dict[str, Any]) -> None:
    """Count the reasoning of an answer beside its completion; the total stays."""
    usage = body["usage"]
    usage["completion_tokens"] -= usage["completion_tokens_details"]["reasoning_tokens"]


def _batch_object(db: sqlite3.Connection, job: Job, progress: JobPhase) -> dict[str, Any]:
    is_read = not progress.is_unread
    counts = count_rows(db, job, progress.done if is_read else 0.0)
    has_stopped = progress.phase == "cancelled"
    n_left = job.n_requests - counts.completed - counts.failed
    state = {
        "num_requests": job.n_requests if is_read else 0,
        "num_pending": 0 if has_stopped or not is_read else n_left,
        "num_success": counts.completed,
        "num_error": counts.failed,
        "num_cancelled": n_left if has_stopped else 0,
    }
    if job.plan.counts_word == "zero":
        state = {**dict.fromkeys(state, 0), "num_requests": state["num_requests"]}
    is_refused = progress.phase == "failed"
    stopped_at = progress.ended_at if is_refused or has_stopped else job.cancel_at
    expires_at = job.created_at + job.plan.window_s
    if progress.phase == "expired" and progress.ended_at is not None:
        expires_at = progress.ended_at
    return {
        "batch_id": job.job_id,
        "name": job.name,
        "create_time": _time(job.created_at),
        "expire_time": _time(expires_at),
        "create_api_key_id": "key",
        "cancel_time": _time(stopped_at),
        "cancel_by_xai_message": job.plan.errors[0][1] if is_refused else None,
        "state": state,
        "input_file_id": job.request["input_file_id"],
    }


def _find_batch(db: sqlite3.Connection, context: RequestContext, job_id: str) -> Job:
    missing = HTTPError(404, f"Batch {job_id} not found.", code="not_found")
    return load_job(db, _API, context.account, job_id, missing=missing)


def _page(
    name: str, entries: list[dict[str, Any]], context: RequestContext, most: int = 100
) -> Response:
    query = context.call.query
    limit, start = query.get("limit", str(most)), query.get("pagination_token", "0")
    if not limit.isdigit() or not start.isdigit():
        raise HTTPError(400, "limit, pagination_token: not valid")
    end = int(start) + max(1, min(most, int(limit)))
    token = str(end) if end < len(entries) else None
    return json_answer({name: entries[int(start) : end], "pagination_token": token})


def _time(moment: float | None) -> str | None:
    if moment is None:
        return None
    return datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")


_BATCH = "/xai/v1/batches/(?P<id>[^/:]+)"
_FILE = "/xai/v1/files/(?P<id>[^/]+)"
API = (
    _API,
    routes(
        ("files.create", "POST", "/xai/v1/files", create_file),
        ("files.list", "GET", "/xai/v1/files", list_files),
        ("files.content", "GET", f"{_FILE}/content", file_content),
        ("files.retrieve", "GET", _FILE, retrieve_file),
        ("files.delete", "DELETE", _FILE, delete_file),
        ("batches.create", "POST", "/xai/v1/batches", create_batch),
        ("batches.list", "GET", "/xai/v1/batches", list_batches),
        ("batches.retrieve", "GET", _BATCH, retrieve_batch),
        ("batches.cancel", "POST", f"{_BATCH}:cancel", cancel_batch),
        ("batches.results", "GET", f"{_BATCH}/results", batch_results),
        ("chat.create", "POST", f"/xai{CHAT}", create_completion),
        ("models.list", "GET", "/xai/v1/models", list_models),
    ),
    refused,
)
