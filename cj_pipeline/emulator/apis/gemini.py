"""Gemini's endpoints (the Developer API): generate content, batches, files."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cj_pipeline.emulator.http import (
    HTTPError,
    Response,
    json_answer,
    limit_in,
    list_in,
    object_in,
)
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
    list_open,
    load_job,
    result_lines,
)
from cj_pipeline.emulator.judges import JudgeReply, JudgeRequest
from cj_pipeline.emulator.random import identifier
from cj_pipeline.emulator.routing import RequestContext, Route, allows_ties, before_essays, text_of
from cj_pipeline.emulator.state import insert, next_number

_API = "gemini"
_WINDOW_S = 48 * 3600.0
_FILE_LIFE_S = 48 * 3600.0
_RESULTS_LIFE_S = 42 * 86_400.0
_LONGEST_FILE_NAME = 40
_CANCELLED, _INTERNAL = 1, 13  # google.rpc.Code
_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 10, 429: 8, 503: 14, 504: 4}
_STATES = {
    "validating": "BATCH_STATE_PENDING",
    "running": "BATCH_STATE_RUNNING",
    "finalizing": "BATCH_STATE_RUNNING",
    "cancelling": "BATCH_STATE_RUNNING",
    "completed": "BATCH_STATE_SUCCEEDED",
    "failed": "BATCH_STATE_FAILED",
    "cancelled": "BATCH_STATE_CANCELLED",
    "expired": "BATCH_STATE_EXPIRED",
}


def refused(error: HTTPError) -> Response:
    """Return an error as Google words it."""
    return json_answer({"error": _error(error)}, status=error.status, headers=error.headers)


def generate_content(context: RequestContext) -> Response:
    """Answer a single request."""
    judge_request = read_content(context.call.json(), context.groups["model"])
    reply, cost, took_s = context.answer_now(_API, judge_request)
    key = identifier("", context.now, context.account, context.state.count("requests"))
    return json_answer(content_body(judge_request.model, reply, cost, key), took_s=took_s)


def read_content(body: Mapping[str, Any], model: str) -> JudgeRequest:
    """Return what a request asks of a judge.

    Raises:
        RefusedError: If it cannot be used.
    """
    if not body.get("contents"):
        raise HTTPError(400, "* GenerateContentRequest.contents: contents is not specified")
    texts = [text_of(body.get("systemInstruction")), text_of(body["contents"])]
    prompt = "\n\n".join(filter(None, texts))
    config = object_in(body, "generationConfig")
    return JudgeRequest(
        model=model.removeprefix("models/"),
        prompt=prompt,
        prefix=before_essays(prompt),
        allow_ties=allows_ties(config.get("responseSchema") or config.get("responseJsonSchema")),
        max_tokens=limit_in(config, "maxOutputTokens"),
    )


def content_body(model: str, reply: JudgeReply, cost: Tokens, key: str) -> dict[str, Any]:
    """Return a response; its candidates' tokens leave out thoughts."""
    finish = {"truncated_answer": "MAX_TOKENS", "content_filter": "SAFETY"}.get(reply.kind, "STOP")
    candidate: dict[str, Any] = {"finishReason": finish, "index": 0}
    if reply.text:
        candidate["content"] = {"role": "model", "parts": [{"text": reply.text}]}
    usage = {
        "promptTokenCount": cost.prompt,
        "candidatesTokenCount": cost.completion - cost.reasoning,
        "totalTokenCount": cost.prompt + cost.completion,
    }
    if cost.cached:
        usage["cachedContentTokenCount"] = cost.cached
    if cost.reasoning:
        usage["thoughtsTokenCount"] = cost.reasoning
    return {
        "candidates": [candidate],
        "usageMetadata": usage,
        "modelVersion": model,
        "responseId": key,
    }


def create_batch(context: RequestContext) -> Response:
    """Make a batch from inline requests or an uploaded file; creating twice makes two."""
    batch = object_in(context.call.json(), "batch")
    source = object_in(batch, "inputConfig")
    limits = context.settings.limits
    with context.state.read() as db:
        open_jobs = list_open(db, _API, context.account, context.now)
    if len(open_jobs) >= limits.gemini_open_jobs:
        raise HTTPError(429, f"Quota exceeded: {limits.gemini_open_jobs} concurrent batches.")
    if "fileName" in source:
        found = _find_file(context, str(source["fileName"]))
        if _file_state(context, found) != "ACTIVE":
            raise HTTPError(400, f"File {source['fileName']} is not in an ACTIVE state.")
        path = context.state.file_path(found["path"])
        lines, content = _file_lines(path, context.groups["model"]), found["sha256"]
    else:
        raw = context.call.raw()
        if len(raw) > limits.gemini_inline_bytes:
            raise HTTPError(400, f"Inline requests may be {limits.gemini_inline_bytes} bytes.")
        inline = list_in(object_in(source, "requests"), "requests")
        if not inline:
            raise HTTPError(400, "batch.inputConfig: no requests are given")
        lines = _inline_lines(inline, context.groups["model"])
        content = hashlib.sha256(json.dumps(inline, sort_keys=True).encode()).hexdigest()
    number = context.state.count("gemini batches")
    job_id = identifier("", context.seed, "batch", number, context.now)
    words = _file_words() if "fileName" in source else _INLINE_WORDS
    job_rows = context.answer_rows(lines, words, job_id)
    enqueued = job_rows.prompt_tokens + sum(job.prompt_tokens for job in open_jobs)
    if limits.enqueued_tokens is not None and enqueued > limits.enqueued_tokens:
        raise HTTPError(429, f"Quota exceeded: {limits.enqueued_tokens} enqueued tokens.")
    plan = context.plan(job_rows.took_s, window_s=_WINDOW_S)
    with context.state.write() as db:
        keep_job(
            db,
            job_rows,
            job_id=job_id,
            account=context.account,
            api=_API,
            model=context.groups["model"],
            name=str(batch.get("displayName", "")),
            request={"file_name": source.get("fileName")},
            plan=plan,
            now=context.now,
            content_sha256=content,
        )
        job = load_job(db, _API, context.account, job_id, missing=_no_batch(job_id))
        shown = _operation(db, job, JobPhase("validating", 0.0))
    return json_answer(shown)


def retrieve_batch(context: RequestContext) -> Response:
    """Return a batch's status, and once it has ended, its responses."""
    with context.state.write() as db:
        job = _find_batch(db, context)
        progress = job.phase_at(context.now)
        shown = _operation(db, job, progress)
        is_kept = context.now < job.created_at + _RESULTS_LIFE_S
        # A batch that expired has no results at all, a failed one has none either.
        if progress.phase in {"completed", "cancelled"} and is_kept:
            if (
                progress.ended_at is None
                or context.now >= progress.ended_at + job.plan.late_files_s
            ):
                output = _output(context, db, job, progress)
                shown["metadata"]["output"] = output
                shown["response"] = {"@type": _TYPE + "Output", **output}
            if not job.request["file_name"]:
                db.execute("UPDATE jobs SET n_read = n_read + 1 WHERE job_id = ?", [job.job_id])
    return json_answer(shown)


def list_batches(context: RequestContext) -> Response:
    """Return a page of the project's batches, without their responses."""
    if "filter" in context.call.query:
        raise HTTPError(400, "filter: not supported")
    with context.state.read() as db:
        jobs = list_jobs(db, _API, context.account, context.now)
        page, token = _cut(jobs, context)
        shown = [_operation(db, job, job.phase_at(context.now)) for job in page]
    return json_answer({"operations": shown, **({"nextPageToken": token} if token else {})})


def cancel_batch(context: RequestContext) -> Response:
    """Tell a batch to stop."""
    with context.state.write() as db:
        job = _find_batch(db, context)
        phase = job.phase_at(context.now).phase
        if phase in ENDED:
            raise HTTPError(400, f"batches/{job.job_id} is in state {_STATES[phase]}.")
        if phase != "cancelling":
            cancel_job(db, job, context.now)
    return json_answer({})


def delete_batch(context: RequestContext) -> Response:
    """Forget a batch; it does not stop it."""
    with context.state.write() as db:
        job = _find_batch(db, context)
        db.execute("UPDATE jobs SET is_deleted = 1 WHERE job_id = ?", [job.job_id])
    return json_answer({})


def start_upload(context: RequestContext) -> Response:
    """Open a resumable upload."""
    body_fields = object_in(context.call.json(), "file")
    upload_id = identifier("", context.seed, "upload", context.state.count("uploads"), context.now)
    path = context.state.file_path(upload_id)
    path.touch()
    # Its size counts from here: the place is kept until the last piece has come.
    with context.state.write() as db:
        seq = next_number(db, "files")
        insert(
            db,
            "files",
            {
                "file_id": str(body_fields.get("name") or f"files/{upload_id[:12]}"),
                "seq": seq,
                "account": context.account,
                "api": _API,
                "purpose": "uploading",
                "name": str(
                    body_fields.get("displayName") or body_fields.get("display_name") or ""
                ),
                "bytes": 0,
                "sha256": "",
                "created_at": context.now,
                "expires_at": context.now + _FILE_LIFE_S,
                "path": upload_id,
            },
        )
    url = (
        f"{context.call.origin}{context.call.path}?upload_id={upload_id}&upload_protocol=resumable"
    )
    headers = {"x-goog-upload-url": url, "x-goog-upload-status": "active"}
    return json_answer({}, headers=headers)


def continue_upload(context: RequestContext) -> Response:
    """Take in a piece of an upload; the last one makes the file."""
    if "upload_id" not in context.call.query:
        return start_upload(context)
    upload_id = context.call.query["upload_id"]
    with context.state.read() as db:
        row = db.execute(
            "SELECT * FROM files WHERE path = ? AND purpose = 'uploading'", [upload_id]
        ).fetchone()
    if row is None:
        raise HTTPError(404, "No upload has this id, or it has ended.")
    path = context.state.file_path(row["path"])
    with path.open("r+b") as file:
        file.seek(int(context.call.headers.get("x-goog-upload-offset", "0")))
        file.write(context.call.raw())
        file.truncate()
    if "finalize" not in context.call.headers.get("x-goog-upload-command", ""):
        return json_answer({}, headers={"x-goog-upload-status": "active"})
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    with context.state.write() as db:
        db.execute(
            "UPDATE files SET purpose = 'uploaded', bytes = ?, sha256 = ?, created_at = ?"
            " WHERE file_id = ?",
            [path.stat().st_size, sha256, context.now, row["file_id"]],
        )
    made = _find_file(context, row["file_id"], account=row["account"])
    shown = {"file": _file_object(context, made)}
    return json_answer(shown, headers={"x-goog-upload-status": "final"})


def retrieve_file(context: RequestContext) -> Response:
    """Return one file's particulars."""
    return json_answer(_file_object(context, _find_file(context, "files/" + context.groups["id"])))


def list_files(context: RequestContext) -> Response:
    """Return a page of the project's uploads."""
    with context.state.read() as db:
        rows = db.execute(
            "SELECT * FROM files WHERE api = ? AND account = ? AND NOT is_deleted"
            " AND purpose = 'uploaded' AND expires_at > ? ORDER BY seq DESC",
            [_API, context.account, context.now],
        ).fetchall()
    page, token = _cut(rows, context)
    shown = [_file_object(context, row) for row in page]
    return json_answer({"files": shown, **({"nextPageToken": token} if token else {})})


def delete_file(context: RequestContext) -> Response:
    """Forget a file; a result file's name is too long for that."""
    row = _find_file(context, "files/" + context.groups["id"])
    if len(context.groups["id"]) > _LONGEST_FILE_NAME:
        msg = f"File name may be at most {_LONGEST_FILE_NAME} characters long."
        raise HTTPError(400, msg)
    with context.state.write() as db:
        db.execute("UPDATE files SET is_deleted = 1 WHERE file_id = ?", [row["file_id"]])
    context.state.file_path(row["path"]).unlink(missing_ok=True)
    return json_answer({})


def download_file(context: RequestContext) -> Response:
    """Return what is in a result file; uploads cannot be read back."""
    row = _find_file(context, "files/" + context.groups["id"])
    if row["purpose"] != "result":
        raise HTTPError(400, "Only generated files can be downloaded.")
    with context.state.read() as db:
        job = load_job(db, _API, context.account, row["job_id"], missing=_no_batch(row["job_id"]))
    lines = _stream(context, row["file_id"], _lines(context, job, job.phase_at(context.now)))
    return Response(200, lines, row["bytes"], {"content-type": "application/octet-stream"})


def _inline_lines(requests: Iterable[Any], model: str) -> Iterator[RequestLine]:
    for number, entry in enumerate(requests, start=1):
        if not isinstance(entry, dict):
            raise HTTPError(400, f"Request {number} is no object.")
        metadata = object_in(entry, "metadata")
        # What identifies a row travels as text; unusual metadata goes as the JSON it was.
        key = str(metadata["key"]) if list(metadata) == ["key"] else json.dumps(metadata)
        yield _request_line(key if metadata else f"request-{number}", entry, model)


def _file_lines(path: Path, model: str) -> Iterator[RequestLine]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
                key = str(entry.get("key", f"request-{number}"))
            except (ValueError, AttributeError):
                problem = HTTPError(400, f"Line {number} is no JSON object.")
                yield RequestLine(f"request-{number}", None, problem)
                continue
            yield _request_line(key, entry, model)


def _request_line(key: str, entry: Mapping[str, Any], model: str) -> RequestLine:
    try:
        return RequestLine(key, read_content(object_in(entry, "request"), model))
    except HTTPError as problem:
        return RequestLine(key, None, problem)


def _inline_row(key: str, outcome: dict[str, Any]) -> dict[str, Any]:
    metadata = json.loads(key) if key.startswith("{") else {"key": key}
    return {**outcome, "metadata": metadata}


def _file_row(key: str, outcome: dict[str, Any]) -> dict[str, Any]:
    return {"key": key, **outcome}


def _words_over(row: Any) -> RowWords:
    def answered(
        request: RequestLine, reply: JudgeReply, cost: Tokens, row_id: str
    ) -> dict[str, Any]:
        model = request.judge_request.model if request.judge_request else ""
        response = content_body(model, reply, cost, identifier("", row_id))
        worded: dict[str, Any] = row(request.custom_id, {"response": response})
        return worded

    def failed(key: str, problem: HTTPError, row_id: str) -> dict[str, Any]:
        del row_id
        code = _CODES.get(problem.status, _INTERNAL)
        worded: dict[str, Any] = row(key, {"error": {"code": code, "message": problem.message}})
        return worded

    def untold(key: str, row_id: str) -> dict[str, Any]:
        del row_id
        worded: dict[str, Any] = row(key, {})
        return worded

    def undone(key: str, phase: str) -> dict[str, Any]:
        error = {"code": _CANCELLED, "message": f"The request was not run: {phase}."}
        worded: dict[str, Any] = row(key, {"error": error})
        return worded

    return RowWords(answered, failed, untold, undone)


_INLINE_WORDS = _words_over(_inline_row)


def _file_words() -> RowWords:
    return _words_over(_file_row)


def _lines(context: RequestContext, job: Job, progress: JobPhase) -> Iterator[bytes]:
    words = _file_words() if job.request["file_name"] else _INLINE_WORDS
    yield from (line for _, line in result_lines(context.state, job, "done", progress.done))
    for key, _ in result_lines(context.state, job, "undone", progress.done):
        row = json.dumps(words.undone(key, progress.phase), ensure_ascii=False)
        yield row.encode("utf-8", errors="replace") + b"\n"


def _stream(context: RequestContext, file_id: str, lines: Iterator[bytes]) -> Iterator[bytes]:
    """Send lines; a file read to its end counts as delivered."""
    yield from lines
    with context.state.write() as db:
        db.execute("UPDATE files SET n_read = n_read + 1 WHERE file_id = ?", [file_id])


_TYPE = "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch"


def _operation(db: sqlite3.Connection, job: Job, progress: JobPhase) -> dict[str, Any]:
    name = f"batches/{job.job_id}"
    state = _STATES[progress.phase]
    if job.plan.status_word and progress.phase == "running":
        state = job.plan.status_word
    counts = count_rows(db, job, 0.0 if progress.phase == "failed" else progress.done)
    stats = {
        "requestCount": str(job.n_requests),
        "successfulRequestCount": str(counts.completed),
        "failedRequestCount": str(counts.failed),
        "pendingRequestCount": str(job.n_requests - counts.completed - counts.failed),
    }
    if job.plan.counts_word:
        kept = ("requestCount",) if job.plan.counts_word == "none" else tuple(stats)
        stats = {name: stats[name] if name == "requestCount" else "0" for name in kept}
    metadata = {
        "@type": _TYPE,
        "name": name,
        "model": f"models/{job.model}",
        "displayName": job.name,
        "state": state,
        "createTime": _time(job.created_at),
        "updateTime": _time(progress.ended_at or job.created_at),
        "batchStats": stats,
    }
    if progress.ended_at is not None:
        metadata["endTime"] = _time(progress.ended_at)
    shown: dict[str, Any] = {"name": name, "metadata": metadata}
    if progress.phase in ENDED:
        shown["done"] = True
    if progress.phase == "failed":
        shown["error"] = {"code": _INTERNAL, "message": job.plan.errors[0][1]}
    return shown


def _output(
    context: RequestContext, db: sqlite3.Connection, job: Job, progress: JobPhase
) -> dict[str, Any]:
    """Return a batch's responses, or the name of the file that holds them."""
    if job.request["file_name"]:
        return {"responsesFile": _result_file(context, db, job, progress)}
    responses = []
    for line in _lines(context, job, progress):
        try:
            responses.append(json.loads(line or b"null"))
        except ValueError:
            responses.append({})
    return {"inlinedResponses": {"inlinedResponses": [r for r in responses if r is not None]}}


def _result_file(
    context: RequestContext, db: sqlite3.Connection, job: Job, progress: JobPhase
) -> str:
    # Such names are longer than the API itself takes where a file is to be deleted.
    file_id = f"files/batch-{job.job_id}-responses"
    known = db.execute("SELECT 1 FROM files WHERE file_id = ?", [file_id]).fetchone()
    if known is None:
        insert(
            db,
            "files",
            {
                "file_id": file_id,
                "seq": next_number(db, "files"),
                "account": job.account,
                "api": _API,
                "purpose": "result",
                "name": "",
                "bytes": sum(map(len, _lines(context, job, progress))),
                "sha256": "",
                "created_at": progress.ended_at,
                "expires_at": job.created_at + _RESULTS_LIFE_S,
                "job_id": job.job_id,
            },
        )
    return file_id


def _file_state(context: RequestContext, row: sqlite3.Row) -> str:
    lag = context.settings.upload_lag_s
    return "ACTIVE" if row["created_at"] + lag <= context.now else "PROCESSING"


def _file_object(context: RequestContext, row: sqlite3.Row) -> dict[str, Any]:
    is_result = row["purpose"] == "result"
    uri = f"{context.call.origin}/v1beta/{row['file_id']}"
    shown = {
        "name": row["file_id"],
        "displayName": row["name"],
        "mimeType": "application/jsonl",
        "sizeBytes": str(row["bytes"]),
        "createTime": _time(row["created_at"]),
        "updateTime": _time(row["created_at"]),
        "expirationTime": _time(row["expires_at"]),
        "sha256Hash": base64.b64encode(bytes.fromhex(row["sha256"])).decode(),
        "uri": uri,
        "state": _file_state(context, row),
        "source": "GENERATED" if is_result else "UPLOADED",
    }
    return {**shown, "downloadUri": f"{uri}:download?alt=media"} if is_result else shown


def _find_file(context: RequestContext, file_id: str, account: str = "") -> sqlite3.Row:
    with context.state.read() as db:
        row: sqlite3.Row | None = db.execute(
            "SELECT * FROM files WHERE file_id = ? AND api = ? AND account = ?"
            " AND NOT is_deleted AND purpose <> 'uploading' AND expires_at > ?",
            [file_id, _API, account or context.account, context.now],
        ).fetchone()
    if row is None:
        raise HTTPError(404, f"File {file_id} does not exist, or it is not yours.")
    return row


def _find_batch(db: sqlite3.Connection, context: RequestContext) -> Job:
    job_id = context.groups["id"]
    return load_job(db, _API, context.account, job_id, missing=_no_batch(job_id))


def _no_batch(job_id: str) -> HTTPError:
    return HTTPError(404, f"Could not find the batch batches/{job_id}.")


def _cut(entries: list[Any], context: RequestContext) -> tuple[list[Any], str]:
    """Return the page requested, and the token of the next one; empty when there is none."""
    query = context.call.query
    size, start = query.get("pageSize", "50"), query.get("pageToken", "0")
    if not size.isdigit() or not start.isdigit():
        raise HTTPError(400, "pageSize or pageToken: not valid")
    end = int(start) + max(1, min(100, int(size)))
    return entries[int(start) : end], str(end) if end < len(entries) else ""


def _error(error: HTTPError) -> dict[str, Any]:
    return {
        "code": error.status,
        "message": error.message,
        "status": _STATUSES.get(error.status, "INTERNAL"),
    }


def _time(moment: float | None) -> str | None:
    if moment is None:
        return None
    return datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")


_VERSION = r"/v1(?:beta|alpha)?"
_BATCH = _VERSION + r"/batches/(?P<id>[^/:]+)"
_FILE = _VERSION + r"/files/(?P<id>[^/:]+)"
_MODEL = _VERSION + r"/models/(?P<model>[^/]+)"
API = (
    _API,
    tuple(
        Route(name, method, re.compile(path), handler, needs_key="upload" not in path)
        for name, method, path, handler in (
            ("content.generate", "POST", f"{_MODEL}:generateContent", generate_content),
            ("batches.create", "POST", f"{_MODEL}:batchGenerateContent", create_batch),
            ("batches.list", "GET", f"{_VERSION}/batches", list_batches),
            ("batches.retrieve", "GET", _BATCH, retrieve_batch),
            ("batches.cancel", "POST", f"{_BATCH}:cancel", cancel_batch),
            ("batches.delete", "DELETE", _BATCH, delete_batch),
            ("files.create", "POST", rf"/upload{_VERSION}/files", continue_upload),
            ("files.list", "GET", f"{_VERSION}/files", list_files),
            ("files.retrieve", "GET", _FILE, retrieve_file),
            ("files.delete", "DELETE", _FILE, delete_file),
            ("files.content", "GET", f"{_FILE}:download", download_file),
        )
    ),
    refused,
)
