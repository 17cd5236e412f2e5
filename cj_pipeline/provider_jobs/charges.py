"""What is reserved, released, billed and possibly paid: the one writer of `ledger`; all in USD.

A job's reservation is its worst case, entered with its intent; it is released when the job ends.
A single call whose reply was lost may have been answered, and a provider may count more tokens for
a job than its rows do: either is an unconfirmed charge, kept beside the bill, and counts against
the spend cap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import structlog

from cj_pipeline.judging.pricing import Price, Usage, cost_usd
from cj_pipeline.provider_jobs import ledger
from cj_pipeline.provider_jobs.ledger import ProviderJob
from cj_pipeline.queries.spending import ROUNDING_USD
from cj_pipeline.store.session import Session

log = structlog.get_logger()


def reserve(db: Session, jobs: Sequence[ProviderJob], now: datetime) -> None:
    """Enter the most that jobs can cost, before anything of them leaves."""
    db.insert("ledger", [_entry(job, "reserved", job.reserved_usd, now) for job in jobs])


def release(db: Session, job: ProviderJob, now: datetime) -> None:
    """Release a job's reservation, once."""
    entry = _entry(job, "released", job.reserved_usd, now)
    db.insert("ledger", [entry], on_conflict="ignore")


def bill(db: Session, job: ProviderJob, billed_usd: float, now: datetime) -> None:
    """Turn a job's reservation into its bill; later rows make that another one."""
    release(db, job, now)
    db.insert("ledger", [_entry(job, "billed", billed_usd, now)], on_conflict="ignore")
    db.execute(
        "UPDATE ledger SET usd = ? WHERE submission_key = ? AND kind = 'billed' AND usd <> ?",
        [billed_usd, job.submission_key, billed_usd],
    )


def bill_duplicate(
    db: Session,
    provider_job_id: str,
    *,
    batch_id: str,
    judge_id: str,
    billed_usd: float,
    now: datetime,
) -> None:
    """Enter the bill of a job that was made beside the one intended, once, under its own id."""
    entry = {
        "batch_id": batch_id,
        "submission_key": provider_job_id,
        "judge_id": judge_id,
        "kind": "billed",
        "usd": billed_usd,
        "entered_at": now,
    }
    db.insert("ledger", [entry], on_conflict="ignore")


def rebill(db: Session, billed_usd: Mapping[str, float]) -> None:
    """Correct the bills of settled jobs, by submission key, to what their rows read as now."""
    for key, usd in billed_usd.items():
        ledger.rebill(db, key, usd)
        db.execute(
            "UPDATE ledger SET usd = ? WHERE submission_key = ? AND kind = 'billed'", [usd, key]
        )


def note_calls_in_doubt(
    db: Session, job: ProviderJob, custom_ids: Sequence[str], now: datetime
) -> None:
    """Count each of these single calls once more, at the most it can cost: it may be paid for.

    They are asked again, and that is reserved already.
    """
    if not custom_ids:
        return
    row = db.one(
        "SELECT coalesce(sum(reserved_usd), 0) AS usd FROM attempts"
        " WHERE submission_key = ? AND custom_id IN (SELECT unnest(?))",
        [job.submission_key, list(custom_ids)],
    )
    if row is not None:
        record_unconfirmed_charge(db, job, float(row["usd"]), now)


def note_rows_in_doubt(
    db: Session, job: ProviderJob, price: Price, billed_usd: float, now: datetime
) -> None:
    """Keep what a provider's job may have cost beyond its bill: rows in doubt, or its own count.

    The rows are those of `attempts` that bear an amount in doubt. Where the provider told what the
    whole job used, what that comes to beyond bill and rows in doubt may have been paid for as well.
    """
    row = db.one(
        "SELECT coalesce(sum(in_doubt_usd), 0) AS usd FROM attempts WHERE submission_key = ?",
        [job.submission_key],
    )
    in_doubt = float(row["usd"]) if row else 0.0
    counted = _providers_count(job, price)
    if counted is not None:
        ledger.record_providers_count(db, job.submission_key, counted)
        if abs(counted - billed_usd) > ROUNDING_USD:
            log.warning(
                "provider_counts_otherwise",
                batch_id=job.batch_id,
                submission_key=job.submission_key,
                billed_usd=billed_usd,
                provider_usd=counted,
            )
        if counted > billed_usd + in_doubt + ROUNDING_USD:
            in_doubt = counted - billed_usd
    _set_in_doubt(db, job, in_doubt, now)


def _providers_count(job: ProviderJob, price: Price) -> float | None:
    """Return what a job comes to by its provider's own count, in USD; None where it told none."""
    if job.provider_tokens_prompt is None:
        return None
    usage = Usage(
        prompt=job.provider_tokens_prompt,
        cached=job.provider_tokens_cached or 0,
        completion=job.provider_tokens_completion or 0,
    )
    return cost_usd(price, usage, batched=job.is_batched)


def _set_in_doubt(db: Session, job: ProviderJob, usd: float, now: datetime) -> None:
    """Enter what a provider's job may have cost beyond its bill, in place of what stood there."""
    known = db.one(
        "SELECT usd FROM ledger WHERE submission_key = ? AND kind = 'possible'",
        [job.submission_key],
    )
    if known is None:
        if usd > ROUNDING_USD:
            db.insert("ledger", [_entry(job, "possible", usd, now)])
            ledger.set_possible_usd(db, job.submission_key, usd)
        return
    db.execute(
        "UPDATE ledger SET usd = ? WHERE submission_key = ? AND kind = 'possible'",
        [usd, job.submission_key],
    )
    ledger.set_possible_usd(db, job.submission_key, usd)


def record_unconfirmed_charge(db: Session, job: ProviderJob, usd: float, now: datetime) -> None:
    """Add to what a job may have cost beyond its bill; in USD, for ever."""
    key = [job.submission_key]
    known = db.one("SELECT usd FROM ledger WHERE submission_key = ? AND kind = 'possible'", key)
    if known is None:
        db.insert("ledger", [_entry(job, "possible", usd, now)])
    else:
        db.execute(
            "UPDATE ledger SET usd = usd + ? WHERE submission_key = ? AND kind = 'possible'",
            [usd, *key],
        )
    ledger.add_possible_usd(db, job.submission_key, usd)


def _entry(job: ProviderJob, kind: str, usd: float, now: datetime) -> dict[str, object]:
    return {
        "batch_id": job.batch_id,
        "submission_key": job.submission_key,
        "judge_id": job.judge_id,
        "kind": kind,
        "usd": usd,
        "entered_at": now,
    }
