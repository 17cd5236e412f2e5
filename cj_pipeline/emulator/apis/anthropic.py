"""Anthropic's endpoints: messages and message batches."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from cj_pipeline.batch.comparisons import CUSTOM_ID
from cj_pipeline.emulator.http import HTTPError, Response, json_answer, list_in, object_in
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
from cj_pipeline.emulator.routing import RequestContext, allows_ties, routes, text_of

_API = "anthropic"
_RESULTS_LIFE_S = 29 * 86_400
_LONG_CACHE_S, _SHORT_CACHE_S = 3600.0, 300.0
_KNOWN = frozenset(
    {
        "model", "max_tokens", "messages", "system", "temperature", "top_p", "top_k", "metadata",
        "stop_sequences", "thinking", "tools", "tool_choice", "output_config", "service_tier",
        "container", "inference_geo", "mcp_servers", "cache_control",
    }
)  # fmt: skip
_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    529: "overloaded_error",
}


def refused(error: HTTPError) -> Response:
    """Return an error as Anthropic words it."""
    return json_answer(_error(error), status=error.status, headers=error.headers)


def create_message(context: RequestContext) -> Response:
    """Answer a single message."""
    params = context.call.json()
    if params.pop("stream", False):
        raise HTTPError(400, "stream: the emulator does not stream.")
    judge_request = read_params(params)
    reply, cost, took_s = context.answer_now(_API, judge_request)
    request_id = identifier("req_", context.now, context.account, context.state.count("requests"))
    body = message_body(judge_request, reply, cost, request_id, tier="standard")
    return json_answer(body, headers={"request-id": request_id}, took_s=took_s)


def create_batch(context: RequestContext) -> Response:
    """Make a message batch; what is wrong with a request's parameters shows only in its row."""
    raw = context.call.raw()
    limits = context.settings.limits
    if len(raw) > limits.message_batch_bytes:
        raise HTTPError(413, f"Request exceeds the maximum size: {len(raw)} bytes.")
    requests = _checked_requests(context.call.json().get("requests"), limits.message_batch_requests)
    with context.state.read() as db:
        queued = sum(j.n_requests for j in list_open(db, _API, context.account, context.now))
    if queued + len(requests) > limits.message_batch_queue:
        msg = f"This would put more than {limits.message_batch_queue} requests in the queue."
        raise HTTPError(429, msg, headers={"retry-after": "60"})
    number = context.state.count("anthropic batches")
    job_id = identifier("msgbatch_", context.seed, "message batch", number, context.now)
    job_rows = context.answer_rows(map(_request_line, requests), _WORDS, job_id)
    plan = context.plan(job_rows.took_s)
    with context.state.write() as db:
        keep_job(
            db,
            job_rows,
            job_id=job_id,
            account=context.account,
            api=_API,
            model=str(requests[0]["params"].get("model", "")),
            name="",
            request={},
            plan=plan,
            now=context.now,
            content_sha256=hashlib.sha256(raw).hexdigest(),
        )
        job = load_job(db, _API, context.account, job_id, missing=_no_batch(job_id))
        shown = _batch_object(db, job, JobPhase("validating", 0.0), context)
    return json_answer(shown)


def retrieve_batch(context: RequestContext) -> Response:
    """Return a batch's status."""
    with context.state.read() as db:
        job = _find_batch(db, context)
        return json_answer(_batch_object(db, job, job.phase_at(context.now), context))


def list_batches(context: RequestContext) -> Response:
    """Return a page of the account's batches, newest first."""
    query = context.call.query
    limit = query.get("limit", "20")
    if not limit.isdigit() or not 1 <= int(limit) <= 1000:
        raise HTTPError(400, "limit: must be 1 to 1000.")
    with context.state.read() as db:
        jobs = list_jobs(db, _API, context.account, context.now)
        ids = [job.job_id for job in jobs]
        for name in ("after_id", "before_id"):
            if name in query and query[name] not in ids:
                raise HTTPError(400, f"{name}: no batch has this id.")
        if "before_id" in query:
            newer = jobs[: ids.index(query["before_id"])]
            page, has_more = newer[-int(limit) :], len(newer) > int(limit)
        else:
            older = jobs[ids.index(query["after_id"]) + 1 :] if "after_id" in query else jobs
            page, has_more = older[: int(limit)], len(older) > int(limit)
        shown = [_batch_object(db, job, job.phase_at(context.now), context) for job in page]
    return json_answer(
        {
            "data": shown,
            "has_more": has_more,
            "first_id": shown[0]["id"] if shown else None,
            "last_id": shown[-1]["id"] if shown else None,
        }
    )


def cancel_batch(context: RequestContext) -> Response:
    """Tell a batch to stop."""
    with context.state.write() as db:
        job = _find_batch(db, context)
        progress = job.phase_at(context.now)
        if progress.phase in ENDED:
            raise HTTPError(400, f"Batch {job.job_id} has ended and cannot be canceled.")
        if progress.phase != "cancelling":
            job = cancel_job(db, job, context.now)
        shown = _batch_object(db, job, JobPhase("cancelling", job.done_at_cancel), context)
    return json_answer(shown)


def delete_batch(context: RequestContext) -> Response:
    """Forget a batch that has ended."""
    with context.state.write() as db:
        job = _find_batch(db, context)
        if job.phase_at(context.now).phase not in ENDED:
            msg = f"Batch {job.job_id} cannot be deleted while it is processed: cancel it first."
            raise HTTPError(400, msg)
        db.execute("UPDATE jobs SET is_deleted = 1 WHERE job_id = ?", [job.job_id])
    return json_answer({"id": job.job_id, "type": "message_batch_deleted"})


def batch_results(context: RequestContext) -> Response:
    """Return an ended batch's rows."""
    with context.state.read() as db:
        job = _find_batch(db, context)
    progress = job.phase_at(context.now)
    if not _has_results(job, progress, context.now):
        raise HTTPError(404, f"No results are available for batch {job.job_id}.")
    size = sum(map(len, _lines(context, job, progress)))
    headers = {"content-type": "application/x-jsonl"}
    return Response(200, _stream(context, job, progress), size, headers)


def read_params(params: Mapping[str, Any]) -> JudgeRequest:
    """Return what a message's parameters request.

    Raises:
        RefusedError: If they cannot be used.
    """
    if unknown := sorted(set(params) - _KNOWN):
        raise HTTPError(400, f"{unknown[0]}: Extra inputs are not permitted")
    for name in ("model", "max_tokens", "messages"):
        if name not in params:
            raise HTTPError(400, f"{name}: Field required")
    if not isinstance(params["max_tokens"], int) or params["max_tokens"] < 1:
        raise HTTPError(400, "max_tokens: Input should be greater than or equal to 1")
    blocks = list(_blocks(params))
    marked = [i for i, (_, control) in enumerate(blocks) if control]
    prefix, kept_s = "", 0.0
    if marked:
        prefix = "\n\n".join(text for text, _ in blocks[: marked[-1] + 1])
        control = blocks[marked[-1]][1]
        kept_s = _LONG_CACHE_S if control.get("ttl") == "1h" else _SHORT_CACHE_S
    choice = object_in(params, "tool_choice")
    return JudgeRequest(
        model=str(params["model"]),
        prompt="\n\n".join(text for text, _ in blocks),
        prefix=prefix,
        allow_ties=allows_ties([params.get("output_config"), params.get("tools")]),
        max_tokens=params["max_tokens"],
        cache_for_s=kept_s,
        uses_tool=str(choice.get("name", "")) if choice.get("type") == "tool" else "",
    )


def message_body(
    judge_request: JudgeRequest, reply: JudgeReply, cost: Tokens, key: str, *, tier: str
) -> dict[str, Any]:
    """Return a message; its input tokens leave out those read from or written to the cache."""
    stops = {
        "truncated_answer": "max_tokens",
        "refusal": "refusal",
        "content_filter": "refusal",
    }
    is_long = judge_request.cache_for_s == _LONG_CACHE_S
    return {
        "id": identifier("msg_", key),
        "type": "message",
        "role": "assistant",
        "model": judge_request.model,
        "content": _content(judge_request, reply, key),
        "stop_reason": stops.get(reply.kind, "tool_use" if judge_request.uses_tool else "end_turn"),
        "stop_sequence": None,
        "usage": {
            "input_tokens": cost.prompt - cost.cached - cost.written,
            "cache_creation_input_tokens": cost.written,
            "cache_read_input_tokens": cost.cached,
            "cache_creation": {
                "ephemeral_5m_input_tokens": 0 if is_long else cost.written,
                "ephemeral_1h_input_tokens": cost.written if is_long else 0,
            },
            "output_tokens": cost.completion,
            "output_tokens_details": {"thinking_tokens": cost.reasoning},
            "service_tier": tier,
        },
    }


def _content(judge_request: JudgeRequest, reply: JudgeReply, key: str) -> list[dict[str, Any]]:
    if not reply.text:
        return []
    if not judge_request.uses_tool or reply.kind != "verdict":
        return [{"type": "text", "text": reply.text}]
    used = {"type": "tool_use", "id": identifier("toolu_", key), "name": judge_request.uses_tool}
    return [{**used, "input": json.loads(reply.text)}]


def _blocks(params: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the prompt's blocks in order, each with its cache mark (empty for none)."""
    messages = [m for m in list_in(params, "messages") if isinstance(m, dict)]
    for holder, name in [(params, "system"), *((message, "content") for message in messages)]:
        is_text = isinstance(holder.get(name), str)
        for block in [holder[name]] if is_text else list_in(holder, name):
            control = object_in(block, "cache_control") if isinstance(block, dict) else {}
            yield text_of(block), control


def _checked_requests(requests: object, most: int) -> list[dict[str, Any]]:
    """Return a batch's requests if their ids are as they must be; this much is checked at once."""
    if not isinstance(requests, list) or not requests:
        raise HTTPError(400, "requests: Field required, with at least one request")
    if len(requests) > most:
        raise HTTPError(400, f"requests: at most {most} requests, not {len(requests)}")
    seen: set[str] = set()
    for number, request in enumerate(requests):
        custom_id = request.get("custom_id") if isinstance(request, dict) else None
        if not isinstance(custom_id, str) or CUSTOM_ID.fullmatch(custom_id) is None:
            msg = f"requests.{number}.custom_id: must match '^[a-zA-Z0-9_-]{{1,64}}$'"
            raise HTTPError(400, msg)
        if custom_id in seen:
            raise HTTPError(400, f"requests.{number}.custom_id: '{custom_id}' is not unique")
        if not isinstance(request.get("params"), dict):
            raise HTTPError(400, f"requests.{number}.params: Field required")
        seen.add(custom_id)
    return requests


def _request_line(request: Mapping[str, Any]) -> RequestLine:
    params = request["params"]
    try:
        if "stream" in params:
            raise HTTPError(400, "stream: not supported in batches")
        return RequestLine(request["custom_id"], read_params(params))
    except HTTPError as problem:
        return RequestLine(request["custom_id"], None, problem)


def _answered(request: RequestLine, reply: JudgeReply, cost: Tokens, row_id: str) -> dict[str, Any]:
    assert request.judge_request is not None  # noqa: S101  only what was requested is answered
    message = message_body(request.judge_request, reply, cost, row_id, tier="batch")
    return _row(request.custom_id, {"type": "succeeded", "message": message})


def _failed(custom_id: str, problem: HTTPError, row_id: str) -> dict[str, Any]:
    error = {**_error(problem), "request_id": identifier("req_", row_id)}
    return _row(custom_id, {"type": "errored", "error": error})


def _untold(custom_id: str, row_id: str) -> dict[str, Any]:
    error = {"type": "error", "error": {"type": "", "message": ""}, "request_id": row_id}
    return _row(custom_id, {"type": "errored", "error": error})


def _undone(custom_id: str, phase: str) -> dict[str, Any]:
    if phase == "failed":
        return _failed(custom_id, HTTPError(500, "Internal server error"), custom_id)
    return _row(custom_id, {"type": "canceled" if phase == "cancelled" else "expired"})


def _row(custom_id: str, result: dict[str, Any]) -> dict[str, Any]:
    return {"custom_id": custom_id, "result": result}


_WORDS = RowWords(_answered, _failed, _untold, _undone)


def _lines(context: RequestContext, job: Job, progress: JobPhase) -> Iterator[bytes]:
    yield from (line for _, line in result_lines(context.state, job, "done", progress.done))
    for custom_id, _ in result_lines(context.state, job, "undone", progress.done):
        row = json.dumps(_undone(custom_id, progress.phase), ensure_ascii=False)
        yield row.encode("utf-8", errors="replace") + b"\n"


def _stream(context: RequestContext, job: Job, progress: JobPhase) -> Iterator[bytes]:
    """Send the rows; results read to their end count as delivered."""
    yield from _lines(context, job, progress)
    with context.state.write() as db:
        db.execute("UPDATE jobs SET n_read = n_read + 1 WHERE job_id = ?", [job.job_id])


def _has_results(job: Job, progress: JobPhase, now: float) -> bool:
    return (
        progress.ended_at is not None
        and now >= progress.ended_at + job.plan.late_files_s
        and now < job.created_at + _RESULTS_LIFE_S
    )


def _batch_object(
    db: sqlite3.Connection, job: Job, progress: JobPhase, context: RequestContext
) -> dict[str, Any]:
    has_ended = progress.phase in ENDED
    status = "ended" if has_ended else "in_progress"
    if progress.phase == "cancelling":
        status = "canceling"
    elif job.plan.status_word and not has_ended:
        status = job.plan.status_word
    archived_at = job.created_at + _RESULTS_LIFE_S
    url = f"{context.call.origin}/v1/messages/batches/{job.job_id}/results"
    missing = "" if job.plan.empty_file_ids and has_ended else None
    return {
        "id": job.job_id,
        "type": "message_batch",
        "processing_status": status,
        "request_counts": _request_counts(db, job, progress),
        "created_at": _time(job.created_at),
        "expires_at": _time(job.created_at + job.plan.window_s),
        "ended_at": _time(progress.ended_at),
        "cancel_initiated_at": _time(job.cancel_at),
        "archived_at": _time(archived_at) if context.now >= archived_at else None,
        "results_url": url if _has_results(job, progress, context.now) else missing,
    }


def _request_counts(db: sqlite3.Connection, job: Job, progress: JobPhase) -> dict[str, int]:
    """Return the counts: nothing but `processing` until the whole batch has ended."""
    counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
    if progress.phase not in ENDED:
        return {**counts, "processing": job.n_requests}
    if job.plan.counts_word:
        return {} if job.plan.counts_word == "none" else counts
    done = count_rows(db, job, progress.done)
    left = job.n_requests - done.completed - done.failed
    kinds = {"cancelled": "canceled", "failed": "errored"}
    counts[kinds.get(progress.phase, "expired")] += left
    counts["succeeded"] += done.completed
    counts["errored"] += done.failed
    return counts


def _find_batch(db: sqlite3.Connection, context: RequestContext) -> Job:
    job_id = context.groups["id"]
    return load_job(db, _API, context.account, job_id, missing=_no_batch(job_id))


def _no_batch(job_id: str) -> HTTPError:
    return HTTPError(404, f"No message batch has the id {job_id}.")


def _error(error: HTTPError) -> dict[str, Any]:
    kind = _KINDS.get(error.status, "api_error" if error.status >= 500 else _KINDS[400])
    return {"type": "error", "error": {"type": kind, "message": error.message}, "request_id": None}


def _time(moment: float | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat()


_BATCH = r"/v1/messages/batches/(?P<id>[^/]+)"
API = (
    _API,
    routes(
        ("messages.create", "POST", "/v1/messages", create_message),
        ("batches.create", "POST", "/v1/messages/batches", create_batch),
        ("batches.list", "GET", "/v1/messages/batches", list_batches),
        ("batches.retrieve", "GET", _BATCH, retrieve_batch),
        ("batches.results", "GET", f"{_BATCH}/results", batch_results),
        ("batches.cancel", "POST", f"{_BATCH}/cancel", cancel_batch),
        ("batches.delete", "DELETE", _BATCH, delete_batch),
    ),
    refused,
)
