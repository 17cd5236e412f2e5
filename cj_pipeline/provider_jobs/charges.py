"""What may have been paid for although no bill of ours shows it: counted, never left out.

A single call whose reply was lost may have been answered; a provider may count more tokens for a
job than its rows do. Either is kept beside the bill and counts against the spend cap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import structlog

from cj_pipeline.judging.pricing import Price, Usage, cost_usd
from cj_pipeline.queries.spending import ROUNDING_USD
from cj_pipeline.store.session import Session

log = structlog.get_logger()


def note_calls_in_doubt(
    db: Session, job: Mapping[str, Any], custom_ids: Sequence[str], now: datetime
) -> None:
    """Count each of these single calls once more, at the most it can cost: it may be paid for.

    They are asked again, and that is reserved already.
    """
    if not custom_ids:
        return
    row = db.one(
        "SELECT coalesce(sum(reserved_usd), 0) AS usd FROM attempts"
        " WHERE submission_key = ? AND custom_id IN (SELECT unnest(?))",
        [job["submission_key"], list(custom_ids)],
    )
    if row is not None:
        record_unconfirmed_charge(db, job, float(row["usd"]), now)


def keep_providers_count(
    db: Session, job: Mapping[str, Any], price: Price, billed_usd: float, now: datetime
) -> None:
    """Keep what a job comes to by its provider's own count, where it told one when it ended.

    What that is beyond the bill of the rows that came may have been paid for.
    """
    if job["provider_tokens_prompt"] is None:
        return
    usage = Usage(
        prompt=job["provider_tokens_prompt"],
        cached=job["provider_tokens_cached"] or 0,
        completion=job["provider_tokens_completion"] or 0,
    )
    counted = cost_usd(price, usage, batched=job["batching_mode"] == "provider_batch_api")
    db.execute(
        "UPDATE provider_jobs SET provider_usd = ? WHERE submission_key = ?",
        [counted, job["submission_key"]],
    )
    if abs(counted - billed_usd) > ROUNDING_USD:
        log.warning(
            "provider_counts_otherwise",
            batch_id=job["batch_id"],
            submission_key=job["submission_key"],
            billed_usd=billed_usd,
            provider_usd=counted,
        )
    if counted > billed_usd + ROUNDING_USD:
        record_unconfirmed_charge(db, job, counted - billed_usd, now)


def record_unconfirmed_charge(
    db: Session, job: Mapping[str, Any], usd: float, now: datetime
) -> None:
    """Add to what a job may have cost beyond its bill; in USD, for ever."""
    key = [job["submission_key"]]
    known = db.one("SELECT usd FROM ledger WHERE submission_key = ? AND kind = 'possible'", key)
    if known is None:
        entry = {
            "batch_id": job["batch_id"],
            "submission_key": job["submission_key"],
            "judge_id": job["judge_id"],
            "kind": "possible",
            "usd": usd,
            "entered_at": now,
        }
        db.insert("ledger", [entry])
    else:
        db.execute(
            "UPDATE ledger SET usd = usd + ? WHERE submission_key = ? AND kind = 'possible'",
            [usd, *key],
        )
    db.execute(
        "UPDATE provider_jobs SET possible_usd = coalesce(possible_usd, 0) + ?"
        " WHERE submission_key = ?",
        [usd, *key],
    )
