"""Mistral's endpoints: files, batch jobs, chat completions.

After the official SDK's sources and docs.mistral.ai/studio-api/batch-processing, read 2026-11-30.
What a job did not come to has no row.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cj_pipeline.emulator.apis.completions import CHAT, create_completion, list_models, read_chat
from cj_pipeline.emulator.apis.files import (
    create_file,
    delete_file,
    error_body,
    file_content,
    file_object,
    find_file,
    known_files,
    numbered_lines,
    result_file_ids,
    retrieve_file,
    see_to_due_jobs,
    words_of,
)
from cj_pipeline.emulator.config import Limits
from cj_pipeline.emulator.http import HTTPError, Response, json_answer, list_in, object_in
from cj_pipeline.emulator.job_timeline import ENDED, JobPhase
from cj_pipeline.emulator.jobs import (
    Job,
    RequestLine,
    cancel_job,
    count_rows,
    keep_job,
    list_jobs,
    load_job,
)
from cj_pipeline.emulator.random import identifier
from cj_pipeline.emulator.routing import RequestContext, routes

_API = "mistral"
_STATES = {
    "validating": "QUEUED",
    "running": "RUNNING",
    "finalizing": "RUNNING",
    "cancelling": "CANCELLATION_REQUESTED",
    "completed": "SUCCESS",
    "failed": "FAILED",
    "expired": "TIMEOUT_EXCEEDED",
    "cancelled": "CANCELLED",
}
_MOST_HOURS = 168
_Problem = tuple[str, str, int | None]


def refused(error: HTTPError) -> Response:
    """Return an error as Mistral words it."""
    told = error_body(error)["error"]
    body = {"object": "error", "message": told["message"], "type": told["type"], "code": error.code}
    return json_answer(body, status=error.status, headers=error.headers)


def list_files(context: RequestContext) -> Response:
    """Return a page of the account's files, by its number."""
    files = [file_object(row) for row in known_files(context)]
    return _page(files, context)


def create_job(context: RequestContext) -> Response:
    """Make a job of uploaded files; what is wrong with its lines shows only later."""
    body = context.call.json()
    source = _checked_source(context, body)
    path = context.state.file_path(source["path"])
    job_id = identifier(
        "", context.seed, "mistral job", context.state.count("mistral jobs"), context.now
    )
    errors = _problems(path, context.settings.limits)
    lines = () if errors else _request_lines(path, str(body["model"]))
    rows = context.answer_rows(lines, words_of(CHAT, job_id, context.now), job_id)
    request = {
        "endpoint": CHAT,
        "input_files": [source["file_id"]],
        "metadata": object_in(body, "metadata"),
        "output_life_s": None,
        "names_undone": [],
    }
    plan = context.plan(rows.took_s, errors, 3600.0 * body.get("timeout_hours", 24))
    with context.state.write() as db:
        keep_job(
            db,
            rows,
            job_id=job_id,
            account=context.account,
            api=_API,
            model=str(body["model"]),
            name=source["name"],
            request=request,
            plan=plan,
            now=context.now,
            content_sha256=source["sha256"],
        )
        job = _find_job(db, context, job_id)
        shown = _job_object(db, job, JobPhase("validating", 0.0), context.now)
    return json_answer(shown)


def retrieve_job(context: RequestContext) -> Response:
    """Return a job's status."""
    with context.state.write() as db:
        see_to_due_jobs(db, _API, context.now)
        job = _find_job(db, context, context.groups["id"])
        return json_answer(_job_object(db, job, job.phase_at(context.now), context.now))


def list_all_jobs(context: RequestContext) -> Response:
    """Return a page of the account's jobs, by its number, newest first."""
    after = context.call.query.get("created_after")
    with context.state.write() as db:
        see_to_due_jobs(db, _API, context.now)
        jobs = [
            _job_object(db, job, job.phase_at(context.now), context.now)
            for job in list_jobs(db, _API, context.account, context.now)
            if after is None or datetime.fromtimestamp(job.created_at, UTC) > _moment(after)
        ]
    return _page(jobs, context)


def stop_job(context: RequestContext) -> Response:
    """Tell a job to stop."""
    with context.state.write() as db:
        see_to_due_jobs(db, _API, context.now)
        job = _find_job(db, context, context.groups["id"])
        progress = job.phase_at(context.now)
        if progress.phase in ENDED:
            raise HTTPError(400, f"Job {job.job_id} has ended and cannot be cancelled.")
        if progress.phase != "cancelling":
            job = cancel_job(db, job, context.now)
        progress = JobPhase("cancelling", job.done_at_cancel)
        return json_answer(_job_object(db, job, progress, context.now))


def _checked_source(context: RequestContext, body: Mapping[str, Any]) -> sqlite3.Row:
    """Return the file that a job is made of, if the request is as it must be."""
    if body.get("endpoint") != CHAT:
        raise HTTPError(422, f"endpoint: the emulator serves {CHAT}.")
    if not isinstance(body.get("model"), str):
        raise HTTPError(422, "model: Field required")
    hours = body.get("timeout_hours", 24)
    if not isinstance(hours, int) or not 1 <= hours <= _MOST_HOURS:
        raise HTTPError(422, f"timeout_hours: 1 to {_MOST_HOURS}.")
    files = list_in(body, "input_files")
    if len(files) != 1:
        raise HTTPError(422, "input_files: the emulator takes exactly one.")
    if not all(isinstance(value, str) for value in object_in(body, "metadata").values()):
        raise HTTPError(422, "metadata: values must be texts.")
    return find_file(context, str(files[0]), asked_for="input_files")


def _problems(path: Path, limits: Limits) -> tuple[_Problem, ...]:
    """Return what makes a job fail: Mistral's lines have no method and no address."""
    seen: set[str] = set()
    problems: list[_Problem] = []
    for number, line in numbered_lines(path):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        told = None
        if not isinstance(row, dict) or not isinstance(row.get("body"), dict):
            told = "a line must have a custom_id and a body"
        elif unknown := sorted(set(row) - {"custom_id", "body"}):
            told = f"{unknown[0]}: Extra inputs are not permitted"
        elif str(row.get("custom_id")) in seen:
            told = f"custom_id {row['custom_id']} is not unique"
        else:
            seen.add(str(row.get("custom_id")))
        if told:
            problems.append(("invalid_line", told, number))
    if len(seen) > limits.batch_requests:
        problems.insert(0, ("too_many", f"more than {limits.batch_requests} requests", None))
    return tuple(problems[:20])


def _request_lines(path: Path, model: str) -> Iterator[RequestLine]:
    for _, line in numbered_lines(path):
        row = json.loads(line)
        try:
            yield RequestLine(row["custom_id"], read_chat({"model": model, **row["body"]}))
        except HTTPError as problem:
            yield RequestLine(row["custom_id"], None, problem)


def _job_object(db: sqlite3.Connection, job: Job, progress: JobPhase, now: float) -> dict[str, Any]:
    has_begun = not progress.is_unread
    counts = count_rows(db, job, progress.done if has_begun else 0.0)
    output, errors = result_file_ids(db, job, progress, now)
    state = _STATES[progress.phase]
    if job.plan.status_word and state == "RUNNING":
        state = job.plan.status_word
    totals = {
        "total_requests": job.n_requests if has_begun else 0,
        "completed_requests": counts.completed + counts.failed,
        "succeeded_requests": counts.completed,
        "failed_requests": counts.failed,
    }
    if job.plan.counts_word:
        totals = dict.fromkeys(totals, 0) if job.plan.counts_word == "zero" else {}
    is_refused = progress.phase == "failed"
    return {
        "id": job.job_id,
        "object": "batch",
        "input_files": job.request["input_files"],
        "metadata": job.request["metadata"],
        "endpoint": job.request["endpoint"],
        "model": job.model,
        "agent_id": None,
        "output_file": output,
        "error_file": errors,
        "errors": [{"message": m, "count": 1} for _, m, _ in job.plan.errors] if is_refused else [],
        "outputs": None,
        "status": state,
        "created_at": int(job.created_at),
        **totals,
        "started_at": int(job.created_at) if has_begun else None,
        "completed_at": None if progress.ended_at is None else int(progress.ended_at),
    }


def _find_job(db: sqlite3.Connection, context: RequestContext, job_id: str) -> Job:
    missing = HTTPError(404, f"Job {job_id} not found.")
    return load_job(db, _API, context.account, job_id, missing=missing)


def _page(entries: list[dict[str, Any]], context: RequestContext) -> Response:
    number, size = context.call.query.get("page", "0"), context.call.query.get("page_size", "100")
    if not number.isdigit() or not size.isdigit():
        raise HTTPError(422, "page, page_size: not numbers")
    start = int(number) * int(size)
    shown = entries[start : start + int(size)]
    return json_answer({"data": shown, "object": "list", "total": len(entries)})


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise HTTPError(422, "created_after: not a time") from None


_JOB = "/mistral/v1/batch/jobs/(?P<id>[^/]+)"
_FILE = "/mistral/v1/files/(?P<id>[^/]+)"
API = (
    _API,
    routes(
        ("files.create", "POST", "/mistral/v1/files", create_file),
        ("files.list", "GET", "/mistral/v1/files", list_files),
        ("files.content", "GET", f"{_FILE}/content", file_content),
        ("files.retrieve", "GET", _FILE, retrieve_file),
        ("files.delete", "DELETE", _FILE, delete_file),
        ("batches.create", "POST", "/mistral/v1/batch/jobs", create_job),
        ("batches.list", "GET", "/mistral/v1/batch/jobs", list_all_jobs),
        ("batches.retrieve", "GET", _JOB, retrieve_job),
        ("batches.cancel", "POST", f"{_JOB}/cancel", stop_job),
        ("chat.create", "POST", f"/mistral{CHAT}", create_completion),
        ("models.list", "GET", "/mistral/v1/models", list_models),
    ),
    refused,
)
