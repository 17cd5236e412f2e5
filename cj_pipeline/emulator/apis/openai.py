"""OpenAI's endpoints: files, batches, chat completions, responses."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cj_pipeline.emulator import judges
from cj_pipeline.emulator.config import Limits
from cj_pipeline.emulator.http import HTTPError, Response, json_answer, limit_in, object_in
from cj_pipeline.emulator.job_timeline import ENDED, JobPhase
from cj_pipeline.emulator.jobs import (
    Counts,
    Job,
    RequestLine,
    RowWords,
    Tokens,
    cancel_job,
    count_rows,
    keep_job,
    list_jobs,
    list_open,
    load_job,
    result_lines,
    result_size,
    take_due_jobs,
)
from cj_pipeline.emulator.judges import JudgeReply, JudgeRequest
from cj_pipeline.emulator.multipart import copy_part, part_text, read_form
from cj_pipeline.emulator.random import identifier
from cj_pipeline.emulator.routing import RequestContext, Route, allows_ties, before_essays, text_of
from cj_pipeline.emulator.state import State, insert, next_number

_API = "openai"
_CHAT, _RESPONSES = "/v1/chat/completions", "/v1/responses"
_DAY_S = 86_400
_FILE_LIFE_S = 30 * _DAY_S
_LEAST_LIFE_S, _MOST_LIFE_S = 3_600, 2_592_000
_METADATA_PAIRS, _METADATA_KEY, _METADATA_VALUE = 16, 64, 512
_MANY_ERRORS = 20
_PHASES = {"running": "in_progress"}


def refused(error: HTTPError) -> Response:
    """Return an error as OpenAI words it."""
    return json_answer(_error(error), status=error.status, headers=error.headers)


def create_file(context: RequestContext) -> Response:
    """Take in an upload."""
    body = context.call.body
    form = read_form(body, context.call.headers.get("content-type", ""))
    if "file" not in form or "purpose" not in form:
        raise HTTPError(400, "Both `file` and `purpose` are required.")
    part = form["file"]
    purpose = part_text(body, form["purpose"])
    expires_at = context.now + _FILE_LIFE_S if purpose == "batch" else None
    if "expires_after[seconds]" in form:
        lifetime = part_text(body, form["expires_after[seconds]"])
        if not lifetime.isdigit() or not _LEAST_LIFE_S <= int(lifetime) <= _MOST_LIFE_S:
            msg = f"expires_after.seconds must be {_LEAST_LIFE_S} to {_MOST_LIFE_S}."
            raise HTTPError(400, msg)
        expires_at = context.now + int(lifetime)
    with context.state.new_file() as (path, file):
        copy_part(body, part, file)
    with context.state.write() as db:
        seq = next_number(db, "files")
        kept = {
            "file_id": identifier("file-", context.seed, "file", seq, path),
            "seq": seq,
            "account": context.account,
            "api": _API,
            "purpose": purpose,
            "name": part.file_name or "upload",
            "bytes": part.end - part.start,
            "sha256": _sha256(context.state.file_path(path)),
            "created_at": context.now,
            "expires_at": expires_at,
            "path": path,
        }
        insert(db, "files", kept)
    return json_answer(_file_object(kept))


def list_files(context: RequestContext) -> Response:
    """Return a page of the account's files."""
    with context.state.write() as db:
        _see_to_due_jobs(db, context.now)
        rows = [
            row
            for row in db.execute(
                "SELECT * FROM files WHERE api = ? AND account = ? AND NOT is_deleted"
                " ORDER BY seq DESC",
                [_API, context.account],
            )
            if _is_visible(row, context)
        ]
    purpose = context.call.query.get("purpose")
    rows = [row for row in rows if purpose in {None, row["purpose"]}]
    if context.call.query.get("order") == "asc":
        rows.reverse()
    return _page([_file_object(row) for row in rows], context, most=10_000, usual=10_000)


def retrieve_file(context: RequestContext) -> Response:
    """Return one file's particulars."""
    return json_answer(_file_object(_find_file(context)))


def delete_file(context: RequestContext) -> Response:
    """Forget a file."""
    row = _find_file(context)
    with context.state.write() as db:
        db.execute("UPDATE files SET is_deleted = 1 WHERE file_id = ?", [row["file_id"]])
    if row["path"]:
        context.state.file_path(row["path"]).unlink(missing_ok=True)
    return json_answer({"id": row["file_id"], "object": "file", "deleted": True})


def file_content(context: RequestContext) -> Response:
    """Return what is in a file; a result file is put together while it is sent."""
    row = _find_file(context)
    if row["path"]:
        path = context.state.file_path(row["path"])
        return Response(200, _file_chunks(path), row["bytes"], _BINARY)
    with context.state.read() as db:
        job = load_job(db, _API, context.account, row["job_id"], missing=_no_file(row["file_id"]))
    lines = _result_lines(context.state, job, row["name"], context.now)
    return Response(200, _stream(context.state, row["file_id"], lines), row["bytes"], _BINARY)


def create_batch(context: RequestContext) -> Response:
    """Make a batch from an uploaded file; what is wrong with its lines shows only later."""
    body = context.call.json()
    _check_batch(body)
    _check_creations(context)
    source = _find_file(context, str(body.get("input_file_id")), asked_for="input_file_id")
    if source["purpose"] != "batch":
        raise HTTPError(400, "The input file's purpose must be 'batch'.", code="invalid_file")
    path = context.state.file_path(source["path"])
    number = context.state.count("openai batches")
    job_id = identifier("batch_", context.seed, "batch", number, source["file_id"], context.now)
    checked = _check_lines(path, body["endpoint"], context.settings.limits)
    lines = () if checked.errors else _request_lines(path, body["endpoint"])
    job_rows = context.answer_rows(lines, _words(body["endpoint"], job_id, context.now), job_id)
    errors = checked.errors or _over_enqueued(context, checked.model, job_rows.prompt_tokens)
    plan = context.plan(job_rows.took_s, errors)
    request = {
        "endpoint": body["endpoint"],
        "input_file_id": source["file_id"],
        "completion_window": body["completion_window"],
        "metadata": body.get("metadata"),
        "output_life_s": object_in(body, "output_expires_after").get("seconds"),
        "names_cancelled_rows": context.settings.cancelled_rows,
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
        _see_to_due_jobs(db, context.now)
        job = _find_batch(db, context)
        return json_answer(_batch_object(db, job, job.phase_at(context.now), context.now))


def list_batches(context: RequestContext) -> Response:
    """Return a page of the account's batches, newest first."""
    with context.state.write() as db:
        _see_to_due_jobs(db, context.now)
        page, has_more = _cut(
            list_jobs(db, _API, context.account, context.now), context, "job_id", most=100, usual=20
        )
        shown = [_batch_object(db, job, job.phase_at(context.now), context.now) for job in page]
    return json_answer(_list_object(shown, has_more=has_more))


def cancel_batch(context: RequestContext) -> Response:
    """Tell a batch to stop."""
    with context.state.write() as db:
        _see_to_due_jobs(db, context.now)
        job = _find_batch(db, context)
        progress = job.phase_at(context.now)
        if progress.phase in ENDED:
            raise HTTPError(409, f"Cannot cancel a batch with status '{progress.phase}'.")
        if progress.phase != "cancelling":
            job = cancel_job(db, job, context.now)
        shown = _batch_object(db, job, JobPhase("cancelling", job.done_at_cancel), context.now)
    return json_answer(shown)


def create_completion(context: RequestContext) -> Response:
    """Answer a chat completion."""
    judge_request = read_chat(context.call.json())
    reply, cost, took_s = context.answer_now(_API, judge_request)
    request_id = identifier("req_", context.now, context.account, context.state.count("requests"))
    body = chat_body(judge_request.model, reply, cost, request_id, context.now)
    return json_answer(body, headers=_call_headers(request_id, reply), took_s=took_s)


def create_response(context: RequestContext) -> Response:
    """Answer a response request."""
    judge_request = read_response_request(context.call.json())
    reply, cost, took_s = context.answer_now(_API, judge_request)
    request_id = identifier("req_", context.now, context.account, context.state.count("requests"))
    body = response_body(judge_request.model, reply, cost, request_id, context.now)
    return json_answer(body, headers=_call_headers(request_id, reply), took_s=took_s)


def list_models(context: RequestContext) -> Response:
    """Name the judges."""
    names = ["quality", "human-votes", "recorded", *judges.PROFILES, *context.settings.judges]
    models = [
        {"id": name, "object": "model", "created": 0, "owned_by": "emulator"}
        for name in dict.fromkeys(names)
    ]
    return json_answer({"object": "list", "data": models})


def read_chat(body: Mapping[str, Any]) -> JudgeRequest:
    """Return what a chat completion's body requests.

    Raises:
        RefusedError: If it cannot be used.
    """
    _refuse_streams(body)
    prompt = text_of(body.get("messages"))
    return JudgeRequest(
        model=_model(body),
        prompt=prompt,
        prefix=before_essays(prompt),
        allow_ties=allows_ties(body.get("response_format")),
        max_tokens=limit_in(body, "max_completion_tokens") or limit_in(body, "max_tokens"),
    )


def read_response_request(body: Mapping[str, Any]) -> JudgeRequest:
    """Return what a response request's body requests.

    Raises:
        RefusedError: If it cannot be used.
    """
    _refuse_streams(body)
    prompt = "\n\n".join(
        filter(None, [text_of(body.get("instructions")), text_of(body.get("input"))])
    )
    return JudgeRequest(
        model=_model(body),
        prompt=prompt,
        prefix=before_essays(prompt),
        allow_ties=allows_ties(body.get("text")),
        max_tokens=limit_in(body, "max_output_tokens"),
    )


def chat_body(model: str, reply: JudgeReply, cost: Tokens, key: str, now: float) -> dict[str, Any]:
    """Return a chat completion."""
    refusal = reply.text if reply.kind == "refusal" else None
    message = {"role": "assistant", "content": None if refusal else reply.text, "refusal": refusal}
    finish = {"truncated_answer": "length", "content_filter": "content_filter"}
    return {
        "id": identifier("chatcmpl-", key),
        "object": "chat.completion",
        "created": int(now),
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": None,
                "finish_reason": finish.get(reply.kind, "stop"),
            }
        ],
        "usage": {
            "prompt_tokens": cost.prompt,
            "completion_tokens": cost.completion,
            "total_tokens": cost.prompt + cost.completion,
            "prompt_tokens_details": {"cached_tokens": cost.cached, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": cost.reasoning},
        },
        "service_tier": "default",
    }


def response_body(
    model: str, reply: JudgeReply, cost: Tokens, key: str, now: float
) -> dict[str, Any]:
    """Return a response."""
    reasons = {"truncated_answer": "max_output_tokens", "content_filter": "content_filter"}
    reason = reasons.get(reply.kind)
    kind = "refusal" if reply.kind == "refusal" else "output_text"
    content: dict[str, Any] = {"type": kind, kind.removeprefix("output_"): reply.text}
    if kind == "output_text":
        content["annotations"] = []
    message = {
        "id": identifier("msg_", key),
        "type": "message",
        "role": "assistant",
        "status": "incomplete" if reason else "completed",
        "content": [content],
    }
    return {
        "id": identifier("resp_", key),
        "object": "response",
        "created_at": int(now),
        "status": "incomplete" if reason else "completed",
        "error": None,
        "incomplete_details": {"reason": reason} if reason else None,
        "instructions": None,
        "metadata": {},
        "model": model,
        "output": [message],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": {
            "input_tokens": cost.prompt,
            "input_tokens_details": {"cached_tokens": cost.cached},
            "output_tokens": cost.completion,
            "output_tokens_details": {"reasoning_tokens": cost.reasoning},
            "total_tokens": cost.prompt + cost.completion,
        },
    }


@dataclass(frozen=True)
class _Checked:
    model: str
    errors: tuple[tuple[str, str, int | None], ...]


def _check_lines(path: Path, endpoint: str, limits: Limits) -> _Checked:
    """Read a file's lines for what would make the batch fail; keeps the first few problems."""
    errors: list[tuple[str, str, int | None]] = []
    seen: set[str] = set()
    model, n_lines = "", 0
    if path.stat().st_size > limits.batch_bytes:
        msg = f"The batch input file is larger than {limits.batch_bytes} bytes."
        return _Checked("", (("file_too_large", msg, None),))
    for number, line in _numbered_lines(path):
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
    return _Checked(model, tuple(errors))


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


def _request_lines(path: Path, endpoint: str) -> Iterator[RequestLine]:
    read = read_response_request if endpoint == _RESPONSES else read_chat
    for _, line in _numbered_lines(path):
        row = json.loads(line)
        try:
            yield RequestLine(row["custom_id"], read(row["body"]))
        except HTTPError as problem:
            yield RequestLine(row["custom_id"], None, problem)


def _numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line


def _words(endpoint: str, job_id: str, now: float) -> RowWords:
    """Return how rows are worded for an endpoint."""
    wording = response_body if endpoint == _RESPONSES else chat_body

    def row(custom_id: str, row_id: str, response: Any, error: Any = None) -> dict[str, Any]:
        return {
            "id": identifier("batch_req_", row_id),
            "custom_id": custom_id,
            "response": response,
            "error": error,
        }

    def response(row_id: str, status: int, body: Any) -> dict[str, Any]:
        return {"status_code": status, "request_id": identifier("req_", row_id), "body": body}

    def answered(
        request: RequestLine, reply: JudgeReply, cost: Tokens, row_id: str
    ) -> dict[str, Any]:
        model = request.judge_request.model if request.judge_request else ""
        body = wording(model, reply, cost, row_id, now)
        return row(request.custom_id, row_id, response(row_id, 200, body))

    def failed(custom_id: str, problem: HTTPError, row_id: str) -> dict[str, Any]:
        # A failed row's own `error` is null: what went wrong is in its body.
        return row(custom_id, row_id, response(row_id, problem.status, _error(problem)))

    def untold(custom_id: str, row_id: str) -> dict[str, Any]:
        return row(custom_id, row_id, None)

    def undone(custom_id: str, phase: str) -> dict[str, Any]:
        code, message = _UNDONE[phase]
        row_id = f"{job_id}-{custom_id}"
        return row(custom_id, row_id, None, {"code": code, "message": message})

    return RowWords(answered, failed, untold, undone)


_UNDONE = {
    "expired": (
        "batch_expired",
        "This request could not be executed before the completion window expired.",
    ),
    "cancelled": ("batch_cancelled", "This request was not executed: the batch was cancelled."),
}


def _batch_object(
    db: sqlite3.Connection, job: Job, progress: JobPhase, now: float
) -> dict[str, Any]:
    request, plan = job.request, job.plan
    counts = _counts(db, job, progress)
    status = _PHASES.get(progress.phase, progress.phase)
    if plan.status_word and progress.phase in {"running", "finalizing"}:
        status = plan.status_word
    output, errors = _result_file_ids(db, job, progress, now)
    is_valid = progress.phase not in {"validating", "failed"}
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
        "total": 0 if progress.phase in {"validating", "failed"} else job.n_requests,
        "completed": counts.completed,
        "failed": counts.failed,
    }


def _counts(db: sqlite3.Connection, job: Job, progress: JobPhase) -> Counts:
    if progress.phase in {"validating", "failed"}:
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


def _result_file_ids(
    db: sqlite3.Connection, job: Job, progress: JobPhase, now: float
) -> tuple[str | None, str | None]:
    missing = "" if job.plan.empty_file_ids and progress.phase in ENDED else None
    if progress.ended_at is None or now < progress.ended_at + job.plan.late_files_s:
        return missing, missing
    ids = {
        row["name"]: row["file_id"]
        for row in db.execute("SELECT file_id, name FROM files WHERE job_id = ?", [job.job_id])
    }
    return (
        ids.get(_result_name(job.job_id, "output"), missing),
        ids.get(_result_name(job.job_id, "error"), missing),
    )


def _see_to_due_jobs(db: sqlite3.Connection, now: float) -> None:
    """Make the result files of batches that have ended since anybody looked."""
    for job, progress in take_due_jobs(db, _API, now):
        if progress.phase == "failed" or progress.ended_at is None:
            continue
        life_s = job.request["output_life_s"] or _FILE_LIFE_S
        sizes = {
            "output": result_size(db, job, "ok", progress.done),
            "error": result_size(db, job, "failed", progress.done)
            + sum(map(len, _undone_rows(db, job, progress))),
        }
        for kind, size in sizes.items():
            if size == 0:
                continue
            insert(
                db,
                "files",
                {
                    "file_id": identifier("file-", job.job_id, kind),
                    "seq": next_number(db, "files"),
                    "account": job.account,
                    "api": _API,
                    "purpose": "batch_output",
                    "name": _result_name(job.job_id, kind),
                    "bytes": size,
                    "sha256": "",
                    "created_at": progress.ended_at,
                    "expires_at": progress.ended_at + life_s,
                    "job_id": job.job_id,
                },
            )


def _result_name(job_id: str, kind: str) -> str:
    return f"{job_id}_{kind}.jsonl"


def _result_lines(state: State, job: Job, name: str, now: float) -> Iterator[bytes]:
    progress = job.phase_at(now)
    if name.endswith("_output.jsonl"):
        yield from (line for _, line in result_lines(state, job, "ok", progress.done))
        return
    yield from (line for _, line in result_lines(state, job, "failed", progress.done))
    with state.read() as db:
        yield from _undone_rows(db, job, progress)


def _undone_rows(db: sqlite3.Connection, job: Job, progress: JobPhase) -> Iterator[bytes]:
    """Yield the error file's rows for requests that an ended batch did not come to."""
    if progress.phase not in _UNDONE or (
        progress.phase == "cancelled" and not job.request["names_cancelled_rows"]
    ):
        return
    words = _words(job.request["endpoint"], job.job_id, progress.ended_at or 0.0)
    for row in db.execute(
        "SELECT custom_id FROM rows WHERE job_id = ? AND finish >= ? AND counted"
        " ORDER BY finish, rowid",
        [job.job_id, progress.done],
    ):
        undone = words.undone(row["custom_id"], progress.phase)
        yield json.dumps(undone, ensure_ascii=False).encode("utf-8", errors="replace") + b"\n"


_BINARY = {"content-type": "application/octet-stream"}
_CHUNK = 1 << 18


def _file_chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _stream(state: State, file_id: str, lines: Iterator[bytes]) -> Iterator[bytes]:
    """Pass lines on in larger pieces; a file read to its end counts as delivered."""
    piece = bytearray()
    for line in lines:
        piece += line
        if len(piece) >= _CHUNK:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)
    with state.write() as db:
        db.execute("UPDATE files SET n_read = n_read + 1 WHERE file_id = ?", [file_id])


def _file_object(row: Mapping[str, Any] | sqlite3.Row) -> dict[str, Any]:
    expires_at = row["expires_at"]
    return {
        "id": row["file_id"],
        "object": "file",
        "bytes": row["bytes"],
        "created_at": int(row["created_at"]),
        "expires_at": None if expires_at is None else int(expires_at),
        "filename": row["name"],
        "purpose": row["purpose"],
        "status": "processed",
        "status_details": None,
    }


def _find_file(context: RequestContext, file_id: str = "", asked_for: str = "id") -> sqlite3.Row:
    wanted = file_id or context.groups["id"]
    with context.state.write() as db:
        _see_to_due_jobs(db, context.now)
        row: sqlite3.Row | None = db.execute(
            "SELECT * FROM files WHERE file_id = ? AND api = ? AND account = ? AND NOT is_deleted",
            [wanted, _API, context.account],
        ).fetchone()
    if row is None or not _is_visible(row, context):
        raise _no_file(wanted, asked_for)
    return row


def _is_visible(row: sqlite3.Row, context: RequestContext) -> bool:
    lag = context.settings.upload_lag_s if row["path"] else 0.0
    is_there: bool = row["created_at"] + lag <= context.now
    return is_there and (row["expires_at"] is None or context.now < row["expires_at"])


def _no_file(file_id: str, asked_for: str = "id") -> HTTPError:
    return HTTPError(404, f"No such File object: {file_id} ({asked_for}).", code="not_found")


def _check_batch(body: Mapping[str, Any]) -> None:
    for name in ("input_file_id", "endpoint", "completion_window"):
        if not isinstance(body.get(name), str) or not body[name]:
            raise HTTPError(400, f"Missing required parameter: '{name}'.")
    if body["completion_window"] != "24h":
        raise HTTPError(400, "Invalid completion_window: only '24h' is supported.")
    if body["endpoint"] not in {_CHAT, _RESPONSES}:
        raise HTTPError(400, f"Invalid endpoint: the emulator serves {_CHAT} and {_RESPONSES}.")
    metadata = object_in(body, "metadata")
    if len(metadata) > _METADATA_PAIRS or any(
        len(key) > _METADATA_KEY or not isinstance(value, str) or len(value) > _METADATA_VALUE
        for key, value in metadata.items()
    ):
        msg = "Invalid metadata: at most 16 pairs, keys of 64 and string values of 512 characters."
        raise HTTPError(400, msg)
    life = object_in(body, "output_expires_after").get("seconds", _LEAST_LIFE_S)
    if not isinstance(life, int) or not _LEAST_LIFE_S <= life <= _MOST_LIFE_S:
        msg = f"output_expires_after.seconds must be {_LEAST_LIFE_S} to {_MOST_LIFE_S}."
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


def _page(
    objects: list[dict[str, Any]], context: RequestContext, *, most: int, usual: int
) -> Response:
    page, has_more = _cut(objects, context, "id", most=most, usual=usual)
    return json_answer(_list_object(page, has_more=has_more))


def _cut(
    entries: list[Any], context: RequestContext, id_name: str, *, most: int, usual: int
) -> tuple[list[Any], bool]:
    """Return the page that `after` and `limit` select, and whether more follow."""
    query = context.call.query
    limit = query.get("limit", str(usual))
    if not limit.isdigit() or not 1 <= int(limit) <= most:
        raise HTTPError(400, f"Invalid 'limit': must be 1 to {most}.")
    if after := query.get("after"):
        ids = [e[id_name] if isinstance(e, dict) else getattr(e, id_name) for e in entries]
        if after not in ids:
            raise HTTPError(400, f"Invalid 'after': no object has the id '{after}'.")
        entries = entries[ids.index(after) + 1 :]
    return entries[: int(limit)], len(entries) > int(limit)


def _list_object(data: list[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": has_more,
    }


def _model(body: Mapping[str, Any]) -> str:
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise HTTPError(400, "Missing required parameter: 'model'.")
    return model


def _refuse_streams(body: Mapping[str, Any]) -> None:
    if body.get("stream"):
        raise HTTPError(400, "The emulator does not stream.", code="unsupported_parameter")


def _call_headers(request_id: str, reply: JudgeReply) -> dict[str, str]:
    return {"x-request-id": request_id, "openai-processing-ms": str(round(reply.took_s * 1000))}


def _error(error: HTTPError) -> dict[str, Any]:
    kinds = {429: "rate_limit_error", 401: "authentication_error"}
    usual = "server_error" if error.status >= 500 else "invalid_request_error"
    return {
        "error": {
            "message": error.message,
            "type": kinds.get(error.status, usual),
            "param": None,
            "code": error.code,
        }
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_ID = r"(?P<id>[^/]+)"
API = (
    _API,
    tuple(
        Route(name, method, re.compile(path), handler)
        for name, method, path, handler in (
            ("files.create", "POST", "/v1/files", create_file),
            ("files.list", "GET", "/v1/files", list_files),
            ("files.content", "GET", f"/v1/files/{_ID}/content", file_content),
            ("files.retrieve", "GET", f"/v1/files/{_ID}", retrieve_file),
            ("files.delete", "DELETE", f"/v1/files/{_ID}", delete_file),
            ("batches.create", "POST", "/v1/batches", create_batch),
            ("batches.list", "GET", "/v1/batches", list_batches),
            ("batches.retrieve", "GET", f"/v1/batches/{_ID}", retrieve_batch),
            ("batches.cancel", "POST", f"/v1/batches/{_ID}/cancel", cancel_batch),
            ("chat.create", "POST", _CHAT, create_completion),
            ("responses.create", "POST", _RESPONSES, create_response),
            ("models.list", "GET", "/v1/models", list_models),
        )
    ),
    refused,
)
