"""OpenRouter's endpoints: batches whose requests travel with the create, chat completions.

After OpenRouterTeam/python-sdk and openrouter.ai/docs/batch-quickstart, read 2026-11-30. A
completed batch shows its results; any ended one gives them page by page. What it did not come to
has none.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any

from cj_pipeline.emulator.apis.completions import CHAT, list_models, read_chat
from cj_pipeline.emulator.apis.completions import create_completion as answer_chat
from cj_pipeline.emulator.apis.files import cut, error_body, list_object, words_of
from cj_pipeline.emulator.http import HTTPError, Response, json_answer
from cj_pipeline.emulator.job_timeline import ENDED, JobPhase
from cj_pipeline.emulator.jobs import (
    Job,
    RequestLine,
    RowWords,
    Tokens,
    count_rows,
    keep_job,
    list_jobs,
    load_job,
    result_lines,
)
from cj_pipeline.emulator.judges import JudgeReply
from cj_pipeline.emulator.random import identifier
from cj_pipeline.emulator.routing import RequestContext, routes

_API = "openrouter"
_MOST_REQUESTS, _MOST_BYTES = 5_000, 200_000_000
_RESULTS_LIFE_S = 30 * 86_400
_MOST_ROWS = 1_000
_PHASES = {"running": "in_progress"}
_USD = {"prompt": 0.5e-6, "completion": 2e-6}
"""What a token is said to cost in a batch: half of the nominal price."""


def refused(error: HTTPError) -> Response:
    """Return an error as OpenRouter words it: its code is the status."""
    told = {"code": error.status, "message": error.message, "metadata": {"type": error.code}}
    return json_answer({"error": told}, status=error.status, headers=error.headers)


def create_completion(context: RequestContext) -> Response:
    """Answer a chat completion, with what it cost."""
    return answer_chat(context, _priced)


def create_batch(context: RequestContext) -> Response:
    """Make a batch of the requests in the body; one that cannot be used fails them all, later."""
    raw = context.call.raw()
    if len(raw) > _MOST_BYTES:
        raise HTTPError(413, f"Payload too large: {len(raw)} bytes.")
    body = context.call.json()
    requests = _checked_requests(body)
    number = context.state.count("openrouter batches")
    job_id = identifier("batch-", context.seed, "openrouter batch", number, context.now)
    errors = _problems(requests, body["model"])
    lines = [] if errors else [_request_line(request, body["model"]) for request in requests]
    rows = context.answer_rows(lines, _words(job_id, context.now), job_id)
    plan = context.plan(rows.took_s, errors)
    with context.state.write() as db:
        keep_job(
            db,
            rows,
            job_id=job_id,
            account=context.account,
            api=_API,
            model=body["model"],
            name="",
            request={},
            plan=plan,
            now=context.now,
            content_sha256=hashlib.sha256(raw).hexdigest(),
        )
        job = _find_batch(db, context, job_id)
        return json_answer(_batch_object(db, job, JobPhase("validating", 0.0)), status=202)


def retrieve_batch(context: RequestContext) -> Response:
    """Return a batch's status, and with a completed one its results."""
    with context.state.read() as db:
        job = _find_batch(db, context, context.groups["id"])
        progress = job.phase_at(context.now)
        shown = _batch_object(db, job, progress)
    if progress.phase == "completed" and _has_results(job, progress, context.now):
        shown["results"] = list(_rows(context, job, progress))
        _count_reading(context, job)
    return json_answer(shown)


def list_batches(context: RequestContext) -> Response:
    """Return a page of the workspace's batches, newest first, without results."""
    with context.state.read() as db:
        jobs = list_jobs(db, _API, context.account, context.now)
        page, has_more = cut(jobs, context, "job_id", most=100, usual=20)
        shown = [_batch_object(db, job, job.phase_at(context.now)) for job in page]
    return json_answer(list_object(shown, has_more=has_more))


def batch_results(context: RequestContext) -> Response:
    """Return a page of an ended batch's results."""
    with context.state.read() as db:
        job = _find_batch(db, context, context.groups["id"])
    progress = job.phase_at(context.now)
    if not _has_results(job, progress, context.now):
        raise HTTPError(404, f"Batch {job.job_id} has no results.")
    rows, query = list(_rows(context, job, progress)), context.call.query
    limit, start = query.get("limit", "100"), query.get("cursor", "0")
    if not limit.isdigit() or not 1 <= int(limit) <= _MOST_ROWS or not start.isdigit():
        raise HTTPError(400, f"limit must be 1 to {_MOST_ROWS}, cursor one that was given.")
    end = int(start) + int(limit)
    _count_reading(context, job)
    more = end < len(rows)
    page = {"object": "list", "data": rows[int(start) : end], "has_more": more}
    return json_answer({**page, "next_cursor": str(end) if more else None})


def delete_batch(context: RequestContext) -> Response:
    """Forget an ended batch."""
    with context.state.write() as db:
        job = _find_batch(db, context, context.groups["id"])
        if job.phase_at(context.now).phase not in ENDED:
            raise HTTPError(409, f"Batch {job.job_id} is in progress.")
        db.execute("UPDATE jobs SET is_deleted = 1 WHERE job_id = ?", [job.job_id])
    return json_answer({"id": job.job_id, "object": "batch.deleted", "deleted": True})


def _checked_requests(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a batch's requests, if what is looked at at once is as it must be."""
    names = list(body)
    for name in ("endpoint", "model", "requests"):
        if name not in body:
            raise HTTPError(400, f"{name}: required")
    if names.index("requests") < max(names.index("endpoint"), names.index("model")):
        raise HTTPError(400, "`endpoint` and `model` must come before `requests`.")
    if body["endpoint"] != CHAT:
        raise HTTPError(400, f"endpoint: the emulator serves {CHAT}.")
    if body.get("completion_window", "24h") != "24h":
        raise HTTPError(400, "completion_window: only 24h.")
    requests = body["requests"]
    if not isinstance(requests, list) or not 1 <= len(requests) <= _MOST_REQUESTS:
        raise HTTPError(400, f"requests: 1 to {_MOST_REQUESTS}.")
    return requests


def _problems(
    requests: list[dict[str, Any]], model: str
) -> tuple[tuple[str, str, int | None], ...]:
    """Return why a batch fails once its requests are looked at; the first is told."""
    seen: set[str] = set()
    for number, request in enumerate(requests):
        body = request.get("body") if isinstance(request, dict) else None
        custom_id = request.get("custom_id") if isinstance(request, dict) else None
        told = None
        if not isinstance(custom_id, str) or custom_id in seen:
            told = "custom_id must be a text of its own"
        elif not isinstance(body, dict):
            told = "body is missing"
        elif body.get("model", model) != model or body.get("stream"):
            told = "body names another model, or streams"
        if told:
            return (("invalid_request", f"requests[{number}]: {told}", None),)
        seen.add(str(custom_id))
    return ()


def _request_line(request: Mapping[str, Any], model: str) -> RequestLine:
    try:
        asked = read_chat({"model": model, **request["body"]})
    except HTTPError as problem:
        return RequestLine(request["custom_id"], None, problem)
    return RequestLine(request["custom_id"], asked)


def _words(job_id: str, now: float) -> RowWords:
    """Return how results are worded: as OpenAI's rows, but a failure is told in `error`."""
    plain = words_of(CHAT, job_id, now)

    def answered(
        request: RequestLine, reply: JudgeReply, cost: Tokens, row_id: str
    ) -> dict[str, Any]:
        row = plain.answered(request, reply, cost, row_id)
        _priced(row["response"]["body"])
        return row

    def failed(custom_id: str, problem: HTTPError, row_id: str) -> dict[str, Any]:
        told = error_body(problem)["error"]
        error = {"code": told["code"] or told["type"], "message": problem.message}
        if problem.status < 500 and problem.status != 429:
            error["code"] = "invalid_request_error"
        return {**plain.untold(custom_id, row_id), "error": error}

    return RowWords(answered, failed, plain.untold, plain.undone)


def _priced(body: dict[str, Any]) -> None:
    """Add to an answer what it cost."""
    usage = body["usage"]
    usage["cost"] = sum(usage[f"{name}_tokens"] * usd for name, usd in _USD.items())


def _rows(context: RequestContext, job: Job, progress: JobPhase) -> Iterator[dict[str, Any]]:
    """Yield the results; one that a fault has garbled or lost is an empty one, or none."""
    for _, line in result_lines(context.state, job, "done", progress.done):
        try:
            row = json.loads(line or b"null")
        except ValueError:
            row = {}
        if row is not None:
            yield row


def _has_results(job: Job, progress: JobPhase, now: float) -> bool:
    return (
        progress.ended_at is not None
        and progress.phase != "failed"
        and now >= progress.ended_at + job.plan.late_files_s
        and now < job.created_at + _RESULTS_LIFE_S
    )


def _count_reading(context: RequestContext, job: Job) -> None:
    with context.state.write() as db:
        db.execute("UPDATE jobs SET n_read = n_read + 1 WHERE job_id = ?", [job.job_id])


def _batch_object(db: sqlite3.Connection, job: Job, progress: JobPhase) -> dict[str, Any]:
    is_read = not progress.is_unread
    counts = count_rows(db, job, progress.done if is_read else 0.0)
    status = _PHASES.get(progress.phase, progress.phase)
    if job.plan.status_word and status in {"in_progress", "finalizing"}:
        status = job.plan.status_word
    shown_counts: dict[str, int] | None = {
        "total": job.n_requests if is_read else 0,
        "completed": counts.completed,
        "failed": counts.failed,
    }
    if job.plan.counts_word:
        zeros = {"total": 0, "completed": 0, "failed": 0}
        shown_counts = zeros if job.plan.counts_word == "zero" else None
    is_refused = progress.phase == "failed"
    return {
        "id": job.job_id,
        "object": "batch",
        "endpoint": CHAT,
        "model": job.model,
        "completion_window": "24h",
        "status": status,
        "created_at": int(job.created_at),
        "finalized_at": None if progress.ended_at is None else int(progress.ended_at),
        "request_counts": shown_counts,
        "error": {"message": job.plan.errors[0][1]} if is_refused else None,
        "results": None,
        "usage": None,
    }


def _find_batch(db: sqlite3.Connection, context: RequestContext, job_id: str) -> Job:
    missing = HTTPError(404, f"Batch job {job_id} not found.")
    return load_job(db, _API, context.account, job_id, missing=missing)


_ROOT = "/openrouter/api/v1"
_BATCH = f"{_ROOT}/batches/(?P<id>[^/]+)"
API = (
    _API,
    routes(
        ("batches.create", "POST", f"{_ROOT}/batches", create_batch),
        ("batches.list", "GET", f"{_ROOT}/batches", list_batches),
        ("batches.retrieve", "GET", _BATCH, retrieve_batch),
        ("batches.results", "GET", f"{_BATCH}/results", batch_results),
        ("batches.delete", "DELETE", _BATCH, delete_batch),
        ("chat.create", "POST", f"{_ROOT}/chat/completions", create_completion),
        ("models.list", "GET", f"{_ROOT}/models", list_models),
    ),
    refused,
)
