"""The emulator's own endpoints: what was really done, and what it shall do next.

They need no key, because they show no text and bill nothing; do not serve them to others.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from pydantic import ValidationError

from cj_pipeline.emulator.http import HTTPError, Response, json_answer
from cj_pipeline.emulator.jobs import Job, count_rows, every_job
from cj_pipeline.emulator.routing import RequestContext, routes

_API = "emulator"
_MANY = 100


def refused(error: HTTPError) -> Response:
    """Return an error in plain words."""
    return json_answer({"error": error.message}, status=error.status, headers=error.headers)


def audit(context: RequestContext) -> Response:
    """Tell what was really created, paid for and delivered, over all accounts."""
    with context.state.read() as db:
        jobs = [_audited(db, job, context.now) for job in every_job(db)]
        files = [dict(row) for row in db.execute(_FILES)]
        calls = dict(db.execute(_CALLS).fetchone())
        paid_twice = [row["custom_id"] for row in db.execute(_PAID_TWICE)]
        alike = [dict(row) for row in db.execute(_ALIKE)]
    tokens = {
        name: sum(job["paid_tokens"][name] for job in jobs) + calls[f"{name}_tokens"]
        for name in ("prompt", "cached", "written", "completion", "reasoning")
    }
    totals = {
        "jobs": len(jobs),
        "requests_paid": sum(job["paid"] for job in jobs) + calls["paid"],
        "tokens": tokens,
        "custom_ids_paid_twice": len(paid_twice),
    }
    return json_answer(
        {
            "totals": totals,
            "jobs": jobs,
            "jobs_with_the_same_content": alike,
            "files": files,
            "calls": {"asked": calls["asked"], "paid": calls["paid"]},
            "paid_twice": paid_twice[:_MANY],
        }
    )


def put_qualities(context: RequestContext) -> Response:
    """Take in latent qualities: an object from text to logits."""
    qualities = context.call.json()
    if not all(isinstance(q, (int, float)) for q in qualities.values()):
        raise HTTPError(400, "Give an object from each text to its quality in logits.")
    context.state.register_qualities(qualities)
    return json_answer({"registered": len(qualities)})


def get_settings(context: RequestContext) -> Response:
    """Show the settings in force."""
    return json_answer(context.settings.model_dump(mode="json"))


def put_settings(context: RequestContext) -> Response:
    """Change some settings, faults among them, for every process that shares the state."""
    try:
        changed = context.state.change_settings(context.call.json())
    except ValidationError as error:
        raise HTTPError(400, str(error)) from None
    return json_answer(changed.model_dump(mode="json"))


def advance_clock(context: RequestContext) -> Response:
    """Put the emulator's clock forward, so that a day need not be waited for."""
    seconds = context.call.json().get("seconds")
    if not isinstance(seconds, (int, float)) or seconds < 0:
        raise HTTPError(400, "Give `seconds`, 0 or more.")
    return json_answer({"offset_s": context.state.advance_clock(seconds)})


def health(context: RequestContext) -> Response:
    """Say that the emulator is there, and what time it thinks it is."""
    return json_answer({"status": "ok", "now": context.now})


def _audited(db: sqlite3.Connection, job: Job, now: float) -> dict[str, Any]:
    progress = job.phase_at(now)
    counts = count_rows(db, job, progress.done)
    # Gemini gives nothing for a batch that expired, and bills nothing.
    is_billed = not (job.api == "gemini" and progress.phase == "expired")
    read = db.execute(
        "SELECT coalesce(max(n_read), 0) FROM files WHERE job_id = ?", [job.job_id]
    ).fetchone()[0]
    return {
        "job_id": job.job_id,
        "api": job.api,
        "account": job.account,
        "model": job.model,
        "name": job.name,
        "metadata": job.request.get("metadata"),
        "created_at": job.created_at,
        "phase": progress.phase,
        "requests": job.n_requests,
        "paid": counts.completed if is_billed else 0,
        "failed": counts.failed,
        "paid_tokens": vars(counts.tokens) if is_billed else dict.fromkeys(vars(counts.tokens), 0),
        "times_delivered": read + job.n_read,
        "is_deleted": job.is_deleted,
    }


_FILES = (
    "SELECT file_id, api, account, purpose, name, bytes, created_at, is_deleted, n_read,"
    " job_id FROM files ORDER BY seq"
)
_CALLS = """
SELECT count(*) AS asked, coalesce(sum(ok), 0) AS paid,
    coalesce(sum(prompt), 0) AS prompt_tokens, coalesce(sum(cached), 0) AS cached_tokens,
    coalesce(sum(written), 0) AS written_tokens,
    coalesce(sum(completion), 0) AS completion_tokens,
    coalesce(sum(reasoning), 0) AS reasoning_tokens
FROM single_calls
"""
_PAID_TWICE = """
WITH paid AS (
    SELECT j.account, j.api, r.custom_id
    FROM rows r JOIN jobs j USING (job_id)
    WHERE r.ok AND r.counted
        AND r.finish < CASE
            WHEN j.cancel_at IS NOT NULL THEN j.done_at_cancel
            WHEN json_extract(j.plan, '$.fate') = 'fails' THEN 0
            ELSE json_extract(j.plan, '$.done_share') END
    UNION ALL
    SELECT account, api, custom_id FROM single_calls WHERE ok AND custom_id IS NOT NULL
)
SELECT custom_id FROM paid GROUP BY account, api, custom_id HAVING count(*) > 1 ORDER BY custom_id
"""
_ALIKE = """
SELECT api, account, content_sha256, count(*) AS jobs, group_concat(job_id) AS job_ids
FROM jobs GROUP BY api, account, content_sha256 HAVING count(*) > 1
"""
API = (
    _API,
    routes(
        ("health", "GET", "/emulator/health", health),
        ("audit", "GET", "/emulator/audit", audit),
        ("qualities", "POST", "/emulator/qualities", put_qualities),
        ("settings.show", "GET", "/emulator/settings", get_settings),
        ("settings.change", "PUT", "/emulator/settings", put_settings),
        ("clock", "POST", "/emulator/clock", advance_clock),
    ),
    refused,
)
