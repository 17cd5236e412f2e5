"""Files as OpenAI has them, those of results among them, and the rows that are in those.

Mistral and xAI have the same: whose file it is, is told by the API that its route belongs to.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cj_pipeline.emulator.apis.completions import RESPONSES, chat_body, response_body
from cj_pipeline.emulator.http import HTTPError, Response, json_answer
from cj_pipeline.emulator.job_timeline import ENDED, JobPhase
from cj_pipeline.emulator.jobs import (
    Job,
    RequestLine,
    RowWords,
    Tokens,
    load_job,
    result_lines,
    result_size,
    take_due_jobs,
)
from cj_pipeline.emulator.judges import JudgeReply
from cj_pipeline.emulator.multipart import copy_part, part_text, read_form
from cj_pipeline.emulator.random import identifier
from cj_pipeline.emulator.routing import RequestContext
from cj_pipeline.emulator.state import State, insert, next_number

FILE_LIFE_S = 30 * 86_400
LEAST_LIFE_S, MOST_LIFE_S = 3_600, 2_592_000


def create_file(context: RequestContext) -> Response:
    """Take in an upload."""
    body = context.call.body
    form = read_form(body, context.call.headers.get("content-type", ""))
    if "file" not in form or "purpose" not in form:
        raise HTTPError(400, "Both `file` and `purpose` are required.")
    part = form["file"]
    purpose = part_text(body, form["purpose"])
    expires_at = context.now + FILE_LIFE_S if purpose == "batch" else None
    if "expires_after[seconds]" in form:
        lifetime = part_text(body, form["expires_after[seconds]"])
        if not lifetime.isdigit() or not LEAST_LIFE_S <= int(lifetime) <= MOST_LIFE_S:
            msg = f"expires_after.seconds must be {LEAST_LIFE_S} to {MOST_LIFE_S}."
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
            "api": context.api,
            "purpose": purpose,
            "name": part.file_name or "upload",
            "bytes": part.end - part.start,
            "sha256": _sha256(context.state.file_path(path)),
            "created_at": context.now,
            "expires_at": expires_at,
            "path": path,
        }
        insert(db, "files", kept)
    return json_answer(file_object(kept))


def known_files(context: RequestContext) -> list[sqlite3.Row]:
    """Return the account's files, newest first."""
    with context.state.write() as db:
        see_to_due_jobs(db, context.api, context.now)
        return [
            row
            for row in db.execute(
                "SELECT * FROM files WHERE api = ? AND account = ? AND NOT is_deleted"
                " ORDER BY seq DESC",
                [context.api, context.account],
            )
            if _is_visible(row, context)
        ]


def list_files(context: RequestContext) -> Response:
    """Return a page of the account's files."""
    purpose = context.call.query.get("purpose")
    rows = [row for row in known_files(context) if purpose in {None, row["purpose"]}]
    if context.call.query.get("order") == "asc":
        rows.reverse()
    return page_of([file_object(row) for row in rows], context, most=10_000, usual=10_000)


def retrieve_file(context: RequestContext) -> Response:
    """Return one file's particulars."""
    return json_answer(file_object(find_file(context)))


def delete_file(context: RequestContext) -> Response:
    """Forget a file."""
    row = find_file(context)
    with context.state.write() as db:
        db.execute("UPDATE files SET is_deleted = 1 WHERE file_id = ?", [row["file_id"]])
    if row["path"]:
        context.state.file_path(row["path"]).unlink(missing_ok=True)
    return json_answer({"id": row["file_id"], "object": "file", "deleted": True})


def file_content(context: RequestContext) -> Response:
    """Return what is in a file; a result file is put together while it is sent."""
    row = find_file(context)
    if row["path"]:
        path = context.state.file_path(row["path"])
        return Response(200, _file_chunks(path), row["bytes"], _BINARY)
    with context.state.read() as db:
        job = load_job(
            db, context.api, context.account, row["job_id"], missing=no_file(row["file_id"])
        )
    lines = _result_lines(context.state, job, row["name"], context.now)
    return Response(200, _stream(context.state, row["file_id"], lines), row["bytes"], _BINARY)


def see_to_due_jobs(db: sqlite3.Connection, api: str, now: float) -> None:
    """Make the result files of batches that have ended since anybody looked."""
    for job, progress in take_due_jobs(db, api, now):
        has_files = "names_undone" in job.request
        if not has_files or progress.is_unread or progress.ended_at is None:
            continue
        life_s = job.request["output_life_s"] or FILE_LIFE_S
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
                    "api": api,
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
    if progress.phase not in job.request["names_undone"]:
        return
    words = words_of(job.request["endpoint"], job.job_id, progress.ended_at or 0.0)
    for row in db.execute(
        "SELECT custom_id FROM rows WHERE job_id = ? AND finish >= ? AND counted"
        " ORDER BY finish, rowid",
        [job.job_id, progress.done],
    ):
        undone = words.undone(row["custom_id"], progress.phase)
        yield json.dumps(undone, ensure_ascii=False).encode("utf-8", errors="replace") + b"\n"


def words_of(endpoint: str, job_id: str, now: float) -> RowWords:
    """Return how rows are worded for an endpoint."""
    wording = response_body if endpoint == RESPONSES else chat_body

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
        return row(custom_id, row_id, response(row_id, problem.status, error_body(problem)))

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


def result_file_ids(
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


def file_object(row: Mapping[str, Any] | sqlite3.Row) -> dict[str, Any]:
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


def find_file(context: RequestContext, file_id: str = "", asked_for: str = "id") -> sqlite3.Row:
    wanted = file_id or context.groups["id"]
    with context.state.write() as db:
        see_to_due_jobs(db, context.api, context.now)
        row: sqlite3.Row | None = db.execute(
            "SELECT * FROM files WHERE file_id = ? AND api = ? AND account = ? AND NOT is_deleted",
            [wanted, context.api, context.account],
        ).fetchone()
    if row is None or not _is_visible(row, context):
        raise no_file(wanted, asked_for)
    return row


def _is_visible(row: sqlite3.Row, context: RequestContext) -> bool:
    lag = context.settings.upload_lag_s if row["path"] else 0.0
    is_there: bool = row["created_at"] + lag <= context.now
    return is_there and (row["expires_at"] is None or context.now < row["expires_at"])


def no_file(file_id: str, asked_for: str = "id") -> HTTPError:
    return HTTPError(404, f"No such File object: {file_id} ({asked_for}).", code="not_found")


def page_of(
    objects: list[dict[str, Any]], context: RequestContext, *, most: int, usual: int
) -> Response:
    page, has_more = cut(objects, context, "id", most=most, usual=usual)
    return json_answer(list_object(page, has_more=has_more))


def cut(
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


def list_object(data: list[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": has_more,
    }


def error_body(error: HTTPError) -> dict[str, Any]:
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


_BINARY = {"content-type": "application/octet-stream"}


_CHUNK = 1 << 18


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield a file's lines that have anything in them, with their numbers from 1."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line
