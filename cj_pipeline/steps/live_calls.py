"""A wave judged by single calls instead of a provider's batch endpoint.

Each chunk of replies is committed before the next goes out, so a wave that is killed asks again
only what has no stored callback: at most one chunk of paid answers is lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog

from cj_pipeline.errors import CJError, FinalError, UncertainOutcomeError
from cj_pipeline.judges import Judge
from cj_pipeline.prompt_caching import plan_caching
from cj_pipeline.providers import JobOutcome, Provider
from cj_pipeline.steps.engine import Engine
from cj_pipeline.steps.note_progress import note_progress
from cj_pipeline.steps.possible_costs import note_calls_in_doubt
from cj_pipeline.steps.records import BatchRecord
from cj_pipeline.steps.requests import Ask, asks_of_job, requests_sha256

log = structlog.get_logger()

CONCURRENCY = {"per_request": 4, "serial_bundle": 1}
"""Calls in flight at once; a serial bundle goes in series to keep its shared prefix warm."""

CHUNK = {"per_request": 4, "serial_bundle": 16}
"""How many replies are committed together."""

CALL_TIMEOUT_S = 120.0


def make_calls(
    engine: Engine, record: BatchRecord, job: Mapping[str, Any], judge: Judge, provider: Provider
) -> None:
    """Make every call of a job that has no stored callback, then mark the job ended.

    Raises:
        TransientError: If some calls got no answer; those that did are kept.
        FinalError: If the provider answered none, and will not answer any such call. Where it
            had answered some before it began to refuse, the job ends with what it answered.
    """
    key = job["submission_key"]
    with engine.store.read() as db:
        asks = asks_of_job(db, record, judge, key)
        answered = {
            row["custom_id"]
            for row in db.rows("SELECT custom_id FROM callbacks WHERE submission_key = ?", [key])
        }
    numbered = [
        (line, ask) for line, ask in enumerate(asks, start=1) if ask.custom_id(key) not in answered
    ]
    mode = job["batching_mode"]
    trouble: CJError | None = None
    n_answered = len(answered)
    cache_prefix = (
        bool(numbered)
        and plan_caching(
            judge,
            numbered[0][1].prompt,
            n_requests=len(numbered),
            mode=mode,
            concurrency=CONCURRENCY[mode],
        ).marks_prefix
    )

    def call(pair: tuple[int, Ask]) -> str | CJError:
        return _call(provider, judge, pair[1], key, cache_prefix=cache_prefix)

    with ThreadPoolExecutor(CONCURRENCY[mode]) as pool:
        for chunk in _chunks(numbered, CHUNK[mode]):
            replies = list(pool.map(call, chunk))
            _keep(engine, job, chunk, replies)
            trouble = next((r for r in replies if isinstance(r, CJError)), trouble)
            n_answered += sum(isinstance(reply, str) for reply in replies)
            if isinstance(trouble, FinalError):
                break
    if trouble is not None and not (isinstance(trouble, FinalError) and n_answered):
        raise trouble
    now = engine.clock()
    with engine.store.write() as db:
        db.execute(
            "UPDATE provider_jobs SET state = 'ended', outcome = ?, error = ?, ended_at = ?,"
            " submitted_at = coalesce(submitted_at, ?), content_sha256 = ?,"
            " lease_owner = NULL, lease_until = NULL WHERE submission_key = ?",
            [
                JobOutcome.FAILED if trouble else JobOutcome.COMPLETED,
                str(trouble) if trouble else None,
                now,
                now,
                requests_sha256(asks, judge, provider, key),
                key,
            ],
        )


def _call(
    provider: Provider, judge: Judge, ask: Ask, key: str, *, cache_prefix: bool
) -> str | CJError:
    request = provider.build_request(
        ask.prompt, judge, ask.custom_id(key), cache_prefix=cache_prefix
    )
    try:
        return provider.single(request, timeout_s=CALL_TIMEOUT_S)
    except CJError as error:
        # Returned, not raised: its neighbours' answers are paid for and have to be kept first.
        return error


def _keep(
    engine: Engine,
    job: Mapping[str, Any],
    chunk: Sequence[tuple[int, Ask]],
    replies: Sequence[str | CJError],
) -> None:
    now = engine.clock()
    rows = [
        {
            "batch_id": job["batch_id"],
            "wave": job["wave"],
            "submission_key": job["submission_key"],
            "source": "single",
            "line": line,
            "custom_id": ask.custom_id(job["submission_key"]),
            "kind": "matched",
            "body": reply,
            "received_at": now,
        }
        for (line, ask), reply in zip(chunk, replies, strict=True)
        if isinstance(reply, str)
    ]
    in_doubt = [
        ask.custom_id(job["submission_key"])
        for (_, ask), reply in zip(chunk, replies, strict=True)
        if isinstance(reply, UncertainOutcomeError)
    ]
    with engine.store.write() as db:
        db.insert("callbacks", rows, on_conflict="ignore")
        note_calls_in_doubt(db, job, in_doubt, now)
        db.execute(
            "UPDATE provider_jobs SET state = 'running', submitted_at = coalesce(submitted_at, ?)"
            " WHERE submission_key = ?",
            [now, job["submission_key"]],
        )
        note_progress(db, job["batch_id"], now)


def _chunks(items: Sequence[tuple[int, Ask]], size: int) -> list[Sequence[tuple[int, Ask]]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
