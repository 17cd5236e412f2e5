"""Webhooks of providers that have them: verified, taken once, and only a nudge to poll.

Both providers sign by the Standard Webhooks scheme, which OpenAI's SDK verifies. What a webhook
claims is trusted only as a hint to poll a job; polling finds its status.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Literal

import structlog
from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import Headers

from cj_pipeline.provider_jobs.ledger import poll_sooner
from cj_pipeline.runtime import Runtime
from cj_pipeline.service.dependencies import RuntimeDep
from cj_pipeline.service.problems import ProblemError, documented
from cj_pipeline.service.schemas import Nudged
from cj_pipeline.store.session import Session

log = structlog.get_logger()

router = APIRouter()

WebhookProvider = Literal["openai", "gemini"]

SECRET_VARIABLES: dict[WebhookProvider, str] = {
    "openai": "OPENAI_WEBHOOK_SECRET",
    "gemini": "GEMINI_WEBHOOK_SECRET",
}

MAX_WEBHOOK_BYTES = 256 * 1024

KEPT_FOR = timedelta(days=7)
"""Deliveries are repeated for up to three days."""


@router.post(
    "/webhooks/{provider}",
    responses=documented(404, 422),
    summary="Take a provider's webhook",
)
async def receive(request: Request, runtime: RuntimeDep, provider: WebhookProvider) -> Nudged:
    """Have the job that a verified webhook names polled next; a repeated one does nothing."""
    secret = runtime.environment.get(SECRET_VARIABLES[provider], "").strip()
    if not secret:
        raise ProblemError(
            404, f"No webhooks of {provider} are expected: set {SECRET_VARIABLES[provider]}."
        )
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_WEBHOOK_BYTES:
            raise ProblemError(413, "No webhook is that large.")
    if not await run_in_threadpool(is_genuine, body, request.headers, secret):
        log.warning("webhook_refused", provider=provider)
        raise ProblemError(401, "The webhook's signature is not the provider's.")
    n_jobs = await run_in_threadpool(take, runtime, provider, request.headers["webhook-id"], body)
    return Nudged(n_jobs=n_jobs)


def is_genuine(body: bytes, headers: Headers, secret: str) -> bool:
    """Return whether a body was signed with the secret within the last five minutes."""
    from openai import InvalidWebhookSignatureError, OpenAI

    client = OpenAI(api_key="none: only signatures are verified", webhook_secret=secret)
    try:
        client.webhooks.verify_signature(body, dict(headers))
    except (InvalidWebhookSignatureError, ValueError):
        # ValueError: a header is missing, or the body is not even text.
        return False
    return True


def take(runtime: Runtime, provider: WebhookProvider, webhook_id: str, body: bytes) -> int:
    """Keep a verified webhook's id and make its job due for polling, once.

    Returns:
        How many jobs are polled next: none for a repeated delivery, for a job that is not ours or
        has ended, and for events that are not about batch jobs.
    """
    kind, job_id = _named_job(body)
    now = runtime.clock()
    with runtime.store.write() as db:
        if db.one(
            "SELECT 1 AS known FROM webhooks WHERE provider = ? AND webhook_id = ?",
            [provider, webhook_id],
        ):
            return 0
        db.execute("DELETE FROM webhooks WHERE received_at < ?", [now - KEPT_FOR])
        jobs = [] if job_id is None else _open_jobs(db, provider, job_id)
        poll_sooner(db, jobs, now)
        db.insert(
            "webhooks",
            [
                {
                    "provider": provider,
                    "webhook_id": webhook_id,
                    "kind": kind,
                    "n_jobs": len(jobs),
                    "received_at": now,
                }
            ],
        )
    log.info("webhook_taken", provider=provider, kind=kind, n_jobs=len(jobs))
    return len(jobs)


def _named_job(body: bytes) -> tuple[str, str | None]:
    """Return an event's kind, and the batch job it names if it is about one."""
    try:
        event = json.loads(body)
        kind, job_id = event["type"], event["data"]["id"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "unreadable", None
    if not isinstance(kind, str) or not isinstance(job_id, str) or not kind.startswith("batch."):
        return "other", None
    return kind[:64], job_id


def _open_jobs(db: Session, provider: WebhookProvider, job_id: str) -> list[str]:
    """Return the submission keys of the open jobs that the provider calls by this id."""
    # Gemini's jobs are named `batches/ID`.
    name = job_id if provider == "openai" else f"batches/{job_id.removeprefix('batches/')}"
    found = db.rows(
        "SELECT submission_key FROM v_job_phases WHERE provider_job_id = ? AND phase = 'open'",
        [name],
    )
    return [row["submission_key"] for row in found]
