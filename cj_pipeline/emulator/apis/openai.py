"""OpenAI's batches, beside its files (`files`), chat completions and responses (`completions`)."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cj_pipeline.emulator.apis.completions import (
    CHAT,
    RESPONSES,
    create_completion,
    create_response,
    list_models,
    read_chat,
    read_response_request,
)
from cj_pipeline.emulator.apis.files import (
    LEAST_LIFE_S,
    MOST_LIFE_S,
    create_file,
    cut,
    delete_file,
    error_body,
    file_content,
    find_file,
    list_files,
    list_object,
    numbered_lines,
    result_file_ids,
    retrieve_file,
    see_to_due_jobs,
    words_of,
)
from cj_pipeline.emulator.config import Limits
from cj_pipeline.emulator.http import HTTPError, Response, json_answer, object_in
from cj_pipeline.emulator.job_timeline import ENDED, JobPhase
from cj_pipeline.emulator.jobs import (
    Counts,
    Job,
    RequestLine,
    Tokens,
    cancel_job,
    count_rows,
    keep_job,
    list_jobs,
    list_open,
    load_job,
)
from cj_pipeline.emulator.random import identifier
from cj_pipeline.emulator.routing import RequestContext, routes

_API = "openai"
_METADATA_PAIRS, _METADATA_KEY, _METADATA_VALUE = 16, 64, 512
_MANY_ERRORS = 20
_PHASES = {"running": "in_progress"}


def refused(error: HTTPError) -> Response:
    """Return an error as OpenAI words it."""
    return json_answer(error_body(error), status=error.status, headers=error.headers)


def create_batch(context: RequestContext) -> Response:
    """Make a batch from an uploaded file; what is wrong with its lines shows only later."""
    body = context.call.json()
    _check_batch(body)
    _check_creations(context)
    source = find_file(context, str(body.get("input_file_id")), asked_for="input_file_id")
    if source["purpose"] != "batch":
        raise HTTPError(400, "The input file's purpose must be 'batch'.", code="invalid_file")
    path = context.state.file_path(source["path"])
    number = context.state.count("openai batches")
    job_id = identifier("batch_", context.seed, "batch", number, source["file_id"], context.now)
    checked = checked_lines(path, body["endpoint"], context.settings.limits)
    lines = () if checked.errors else request_lines(path, body["endpoint"])
    job_rows = context.answer_rows(lines, words_of(body["endpoint"], job_id, context.now), job_id)
    errors = checked.errors or _over_enqueued(context, checked.model, job_rows.prompt_tokens)
    plan = context.plan(job_rows.took_s, errors)
    request = {
        "endpoint": body["endpoint"],
        "input_file_id": source["file_id"],
        "completion_window": body["completion_window"],
        "metadata": body.get("metadata"),
        "output_life_s": object_in(body, "output_expires_after").get("seconds"),
        "names_undone": ["expired", *(["cancelled"] if context.settings.cancelled_rows else [])],
    }
    with context.state.write() as db:
        keep_job(
            db,
            job_rows,
            job_id=job_id,
            account=context.account,
            api=_API,
            model=checked.model,
            name=source["name"],
            request=request,
            plan=plan,
            now=context.now,
            content_sha256=source["sha256"],
        )
        job = load_job(db, _API, context.account, job_id, missing=_no_batch(job_id))
        # `create` always answers "validating", however fast the rest goes.
        shown = _batch_object(db, job, JobPhase("validating", 0.0), context.now)
    return json_answer(shown)


def retrieve_batch(context: RequestContext) -> Response:
    """Return a batch's status."""
    with context.state.write() as db:
        see_to_due_jobs(db, context.api, context.now)
        job = _find_batch(db, context)
        return json_answer(_batch_object(db, job, job.phase_at(context.now), context.now))


def list_batches(context: RequestContext) -> Response:
    """Return a page of the account's batches, newest first."""
    with context.state.write() as db:
        see_to_due_jobs(db, context.api, context.now)
        page, has_more = cut(
            list_jobs(db, _API, context.account, context.now), context, "job_id", most=100, usual=20
        )
        shown = [_batch_object(db, job, job.phase_at(context.now), context.now) for job in page]
    return json_answer(list_object(shown, has_more=has_more))


def cancel_batch(context: RequestContext) -> Response:
    """Tell a batch to stop."""
    with context.state.write() as db:
        see_to_due_jobs(db, context.api, context.now)
        job = _find_batch(db, context)
        progress = job.phase_at(context.now)
        if progress.phase in ENDED:
            raise HTTPError(409, f"Cannot cancel a batch with status '{progress.phase}'.")
        if progress.phase != "cancelling":
            job = cancel_job(db, job, context.now)
        shown = _batch_object(db, job, JobPhase("cancelling", job.done_at_cancel), context.now)
    return json_answer(shown)


@dataclass(frozen=True)
class Checked:
    """What a file's lines are: the model they name, and what is wrong with them."""

    model: str
    errors: tuple[tuple[str, str, int | None], ...]


def checked_lines(path: Path, endpoint: str, limits: Limits) -> Checked:
    """Read a file's lines for what would make the batch fail; keeps the first few problems."""
    errors: list[tuple[str, str, int | None]] = []
    seen: set[str] = set()
    model, n_lines = "", 0
    if path.stat().st_size > limits.batch_bytes:
        msg = f"The batch input file is larger than {limits.batch_bytes} bytes."
        return Checked("", (("file_too_large", msg, None),))
    for number, line in numbered_lines(path):
        n_lines += 1
        problem = _line_problem(line, endpoint, model, seen)
        if isinstance(problem, str):
            model = problem
        elif len(errors) < _MANY_ERRORS:
            errors.append((*problem, number))
    if n_lines == 0:
        errors.append(("empty_file", "The batch input file is empty.", None))
    if n_lines > limits.batch_requests:
        msg = f"The batch has {n_lines} requests, the limit is {limits.batch_requests}."
        errors.insert(0, ("too_many_tasks", msg, None))
    return Checked(model, tuple(errors))


def _line_problem(line: bytes, endpoint: str, model: str, seen: set[str]) -> tuple[str, str] | str:
    """Return (code, message) of what is wrong with a line, or the model it names."""
    try:
        row = json.loads(line)
    except ValueError:
        return "invalid_json_line", "This line is not parseable as valid JSON."
    if not isinstance(row, dict) or not isinstance(row.get("body"), dict):
        return "invalid_request", "A line must be an object with custom_id, method, url and body."
    custom_id, line_model = row.get("custom_id"), row["body"].get("model")
    missing = "missing_required_parameter"
    problems = (
        (not isinstance(custom_id, str) or not custom_id, missing, "'custom_id' is missing."),
        (custom_id in seen, "duplicate_custom_id", f"custom_id '{custom_id}' is not unique."),
        (row.get("method") != "POST", "invalid_method", "The only supported method is POST."),
        (row.get("url") != endpoint, "url_mismatch", f"The batch's endpoint is '{endpoint}'."),
        (not isinstance(line_model, str) or not line_model, missing, "'model' is missing."),
        (
            model and line_model != model,
            "model_mismatch",
            f"Other lines ask '{model}', not '{line_model}'.",
        ),
    )
    for is_so, code, message in problems:
        if is_so:
            return code, message
    seen.add(str(custom_id))
    return str(line_model)


def request_lines(path: Path, endpoint: str) -> Iterator[RequestLine]:
    """Yield the requests of a file whose lines are as they must be."""
    read = read_response_request if endpoint == RESPONSES else read_chat
    for _, line in numbered_lines(path):
        row = json.loads(line)
        try:
            yield RequestLine(row["custom_id"], read(row["body"]))
        except HTTPError as problem:
            yield RequestLine(row["custom_id"], None, problem)


def _batch_object(
    db: sqlite3.Connection, job: Job, progress: JobPhase, now: float
) -> dict[str, Any]:
    request, plan = job.request, job.plan
    counts = _counts(db, job, progress)
    status = _PHASES.get(progress.phase, progress.phase)
    if plan.status_word and progress.phase in {"running", "finalizing"}:
        status = plan.status_word
    output, errors = result_file_ids(db, job, progress, now)
    is_valid = not progress.is_unread
    validated = int(job.created_at + 0.05 * plan.duration_s)
    finalizing = progress.phase in {"finalizing", "completed"}
    shown: dict[str, Any] = {
        "id": job.job_id,
        "object": "batch",
        "endpoint": request["endpoint"],
        "model": job.model or None,
        "errors": _errors_object(job) if progress.phase == "failed" else None,
        "input_file_id": request["input_file_id"],
        "completion_window": request["completion_window"],
        "status": status,
        "output_file_id": output,
        "error_file_id": errors,
        "created_at": int(job.created_at),
        "in_progress_at": validated if is_valid else None,
        "expires_at": int(job.created_at + plan.window_s),
        "finalizing_at": int(job.created_at + 0.95 * plan.duration_s) if finalizing else None,
        "completed_at": None,
        "failed_at": None,
        "expired_at": None,
        "cancelling_at": None if job.cancel_at is None else int(job.cancel_at),
        "cancelled_at": None,
        "request_counts": _request_counts(job, progress, counts),
        "metadata": request["metadata"],
        "usage": _usage_object(counts.tokens) if progress.phase in ENDED else None,
    }
    if progress.ended_at is not None:
        shown[f"{progress.phase}_at"] = int(progress.ended_at)
    return shown


def _request_counts(job: Job, progress: JobPhase, counts: Counts) -> dict[str, int] | None:
    match job.plan.counts_word:
        case "none":
            return None
        case "zero":
            return {"total": 0, "completed": 0, "failed": 0}
    return {
        "total": 0 if progress.is_unread else job.n_requests,
        "completed": counts.completed,
        "failed": counts.failed,
    }


def _counts(db: sqlite3.Connection, job: Job, progress: JobPhase) -> Counts:
    if progress.is_unread:
        return Counts(0, 0, Tokens())
    return count_rows(db, job, progress.done)


def _usage_object(tokens: Tokens) -> dict[str, Any]:
    return {
        "input_tokens": tokens.prompt,
        "input_tokens_details": {"cached_tokens": tokens.cached},
        "output_tokens": tokens.completion,
        "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
        "total_tokens": tokens.prompt + tokens.completion,
    }


def _errors_object(job: Job) -> dict[str, Any]:
    data = [
        {"code": code, "message": message, "line": line, "param": None}
        for code, message, line in job.plan.errors
    ]
    return {"object": "list", "data": data}


def _check_batch(body: Mapping[str, Any]) -> None:
    for name in ("input_file_id", "endpoint", "completion_window"):
        if not isinstance(body.get(name), str) or not body[name]:
            raise HTTPError(400, f"Missing required parameter: '{name}'.")
    if body["completion_window"] != "24h":
        raise HTTPError(400, "Invalid completion_window: only '24h' is supported.")
    if body["endpoint"] not in {CHAT, RESPONSES}:
        raise HTTPError(400, f"Invalid endpoint: the emulator serves {CHAT} and {RESPONSES}.")
    metadata = object_in(body, "metadata")
    if len(metadata) > _METADATA_PAIRS or any(
        len(key) > _METADATA_KEY or not isinstance(value, str) or len(value) > _METADATA_VALUE
        for key, value in metadata.items()
    ):
        msg = "Invalid metadata: at most 16 pairs, keys of 64 and string values of 512 characters."
        raise HTTPError(400, msg)
    life = object_in(body, "output_expires_after").get("seconds", LEAST_LIFE_S)
    if not isinstance(life, int) or not LEAST_LIFE_S <= life <= MOST_LIFE_S:
        msg = f"output_expires_after.seconds must be {LEAST_LIFE_S} to {MOST_LIFE_S}."
        raise HTTPError(400, msg)


def _check_creations(context: RequestContext) -> None:
    with context.state.read() as db:
        recent = db.execute(
            "SELECT count(*), min(created_at) FROM jobs"
            " WHERE api = ? AND account = ? AND created_at > ?",
            [_API, context.account, context.now - 3600],
        ).fetchone()
    if recent[0] >= context.settings.limits.creations_per_hour:
        wait = max(1, int(recent[1] + 3600 - context.now))
        raise HTTPError(
            429,
            "Too many batches were created in the last hour.",
            code="rate_limit_exceeded",
            headers={"retry-after": str(wait)},
        )


def _over_enqueued(
    context: RequestContext, model: str, prompt_tokens: int
) -> tuple[tuple[str, str, int | None], ...]:
    limit = context.settings.limits.enqueued_tokens
    if limit is None:
        return ()
    with context.state.read() as db:
        jobs = list_open(db, _API, context.account, context.now)
    enqueued = sum(job.prompt_tokens for job in jobs if job.model == model)
    if enqueued + prompt_tokens <= limit:
        return ()
    msg = (
        f"Enqueued token limit reached for {model}. Limit: {limit:,} enqueued tokens. Please try "
        "again once some in_progress batches have been completed."
    )
    return (("token_limit_exceeded", msg, None),)


def _find_batch(db: sqlite3.Connection, context: RequestContext) -> Job:
    job_id = context.groups["id"]
    return load_job(db, _API, context.account, job_id, missing=_no_batch(job_id))


def _no_batch(job_id: str) -> HTTPError:
    return HTTPError(404, f"No batch found with id '{job_id}'.", code="not_found")


_ID = r"(?P<id>[^/]+)"
API = (
    _API,
    routes(
        ("files.create", "POST", "/v1/files", create_file),
        ("files.list", "GET", "/v1/files", list_files),
        ("files.content", "GET", f"/v1/files/{_ID}/content", file_content),
        ("files.retrieve", "GET", f"/v1/files/{_ID}", retrieve_file),
        ("files.delete", "DELETE", f"/v1/files/{_ID}", delete_file),
        ("batches.create", "POST", "/v1/batches", create_batch),
        ("batches.list", "GET", "/v1/batches", list_batches),
        ("batches.retrieve", "GET", f"/v1/batches/{_ID}", retrieve_batch),
        ("batches.cancel", "POST", f"/v1/batches/{_ID}/cancel", cancel_batch),
        ("chat.create", "POST", CHAT, create_completion),
        ("responses.create", "POST", RESPONSES, create_response),
        ("models.list", "GET", "/v1/models", list_models),
    ),
    refused,
)
