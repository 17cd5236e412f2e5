"""Rows of an ended job that may have been paid for and are not here: waited for, then in doubt.

How many they can be is `row_counts`; here is how long they are waited for, and what they are
entered at meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from cj_pipeline.batch.comparisons import RequestOutcome
from cj_pipeline.batch.options import WaitingFor
from cj_pipeline.provider_jobs.ledger import AwaitedRows, JobState, ProviderJob
from cj_pipeline.provider_jobs.poll_schedule import rows_wait
from cj_pipeline.provider_jobs.row_counts import CameHome, rows_owed
from cj_pipeline.store.session import Session

LONGEST_KEPT = timedelta(days=45)
"""Of no provider's results is it known that they are kept longer."""

IN_DOUBT = "in_doubt"
"""The error code of a request whose row may have been paid for and never came."""

PAID_FOR = (
    RequestOutcome.SUCCEEDED,
    RequestOutcome.INVALID_OUTPUT,
    RequestOutcome.REFUSAL,
    RequestOutcome.TRUNCATED,
    RequestOutcome.CONTENT_FILTER,
    RequestOutcome.PROMPT_CUT,
)
"""The model wrote something, so it was paid for, whether or not there is a verdict in it."""


@dataclass(frozen=True)
class Trouble:
    """Why an ended job's results could not be had.

    Attributes:
        problem: In words.
        waits_for: What has to come before they can.
        wait: How long until they are asked for again; by default by how long they are missing.
        may_give_up: Whether rows are given up after a time; not where a person has to act first.
    """

    problem: str
    waits_for: WaitingFor | None = WaitingFor.ROWS
    wait: timedelta | None = None
    may_give_up: bool = True


@dataclass(frozen=True)
class MissingRows:
    """What is missing of a job's rows.

    Attributes:
        awaited: How many, why, and when they are looked for again.
        n_owed: How many of them the provider may have been paid for.
        are_given_up: Whether nobody waits for them any more.
    """

    awaited: AwaitedRows
    n_owed: int
    are_given_up: bool


def came_home(db: Session, job: ProviderJob) -> CameHome:
    """Return what came of a job's requests, by its attempts and its stored lines."""
    row = db.one(
        """
        SELECT count(*) FILTER (outcome IN (SELECT unnest($paid)) OR cost_usd > 0) AS n_answered,
               count(*) FILTER (outcome IS NULL OR in_doubt_usd IS NOT NULL) AS n_open,
               count(*) AS n_requests,
               (SELECT count(*) FROM callbacks
                WHERE submission_key = $key AND kind IN ('garbled', 'foreign')) AS n_unmatched
        FROM attempts WHERE submission_key = $key
        """,
        {"key": job.submission_key, "paid": [outcome.value for outcome in PAID_FOR]},
    )
    if row is None:
        return CameHome(0, 0, 0)
    return CameHome(
        n_answered=int(row["n_answered"]),
        n_failed=int(row["n_requests"] - row["n_answered"] - row["n_open"]),
        n_open=int(row["n_open"]),
        n_unmatched=int(row["n_unmatched"]),
    )


def missing_rows(
    db: Session,
    job: ProviderJob,
    now: datetime,
    *,
    trouble: Trouble | None,
    wait_for: timedelta,
) -> MissingRows | None:
    """Return which rows of a collected job may still come; None where none is missing or paid for.

    Args:
        db: A session that sees every row that came.
        job: The job, with its provider's counts.
        now: By the pipeline's clock.
        trouble: Why its results could not be had this time.
        wait_for: How long its batch waits for them.
    """
    came = came_home(db, job)
    n_owed = rows_owed(came, job.outcome, job.n_completed, job.n_failed)
    if not n_owed or not job.is_batched:
        return None
    since = job.incomplete_since or now
    expiry = _expiry(job)
    deadline = min(since + wait_for, expiry)
    is_hopeless = now >= expiry
    was_given_up = job.state is JobState.SETTLED
    patient = trouble is None or trouble.may_give_up
    are_given_up = was_given_up or is_hopeless or (patient and now >= deadline)
    wait = trouble.wait if trouble is not None else None
    if wait is None:
        wait = rows_wait(now - since, is_awaited=not are_given_up)
    next_try_at = now + wait
    if patient and not are_given_up:
        next_try_at = min(next_try_at, deadline)
    awaited = AwaitedRows(
        n_rows=came.n_open,
        reason=_reason(job, came, trouble),
        waits_for=trouble.waits_for if trouble is not None else WaitingFor.ROWS,
        next_try_at=None if is_hopeless else next_try_at,
    )
    return MissingRows(awaited, n_owed, are_given_up)


def put_in_doubt(db: Session, job: ProviderJob, n_owed: int) -> None:
    """Enter a job's missing rows at the most they can cost.

    Where fewer were paid for than are missing, nobody knows which: the dearest of them are taken,
    and their sum is spread over all.
    """
    rows = db.rows(
        "SELECT coalesce(reserved_usd, 0) AS usd FROM attempts"
        " WHERE submission_key = ? AND (outcome IS NULL OR in_doubt_usd IS NOT NULL)"
        " ORDER BY usd DESC",
        [job.submission_key],
    )
    whole = sum(row["usd"] for row in rows)
    dearest = sum(row["usd"] for row in rows[:n_owed])
    db.execute(
        "UPDATE attempts SET in_doubt_usd = coalesce(reserved_usd, 0) * ?"
        " WHERE submission_key = ? AND (outcome IS NULL OR in_doubt_usd IS NOT NULL)",
        [dearest / whole if whole else 0.0, job.submission_key],
    )


def clear_doubt(db: Session, job: ProviderJob) -> None:
    """Record that none of a job's missing rows was paid for after all."""
    db.execute(
        "UPDATE attempts SET in_doubt_usd = NULL WHERE submission_key = ?", [job.submission_key]
    )


def _expiry(job: ProviderJob) -> datetime:
    """Return when a job's results are gone for good."""
    if job.results_expire_at is not None:
        return job.results_expire_at
    return (job.ended_at or job.made_at) + LONGEST_KEPT


def _reason(job: ProviderJob, came: CameHome, trouble: Trouble | None) -> str:
    if trouble is not None:
        return trouble.problem
    n_here = came.n_answered + came.n_failed
    counted = (
        f"does not say how many of {came.n_requests} requests are done"
        if job.n_completed is None and job.n_failed is None
        else f"counts {job.n_completed or 0} of {came.n_requests} requests done"
        f" and {job.n_failed or 0} failed"
    )
    strange = f", and {came.n_unmatched} that belong to no request" if came.n_unmatched else ""
    return (
        f"{job.provider} {counted}, and {n_here} rows have come{strange}:"
        " the rest is collected again, and nothing is deleted there"
    )
