"""How far each batch that is not at its end has come, for whoever starts its steps from outside.

`next_step` says what comes next; this adds what tells one occasion from the next, so that a step
is asked for once per occasion, and finds batches that nothing will ever move again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from cj_pipeline.settings import Priority
from cj_pipeline.steps.cancel import stop_open_jobs
from cj_pipeline.steps.decide import WaveDecision, decide
from cj_pipeline.steps.engine import Engine
from cj_pipeline.steps.next_step import UNPUBLISHED, NextStep, next_steps
from cj_pipeline.steps.records import load_batch
from cj_pipeline.store import Session

COLLECT_AT_LATEST_AFTER = timedelta(minutes=10)
"""How long results wait for a wave's other jobs before they are brought home on their own."""


EXPIRES_SOON = timedelta(days=7)
"""Before a provider deletes results that nobody has brought home, people are told."""


@dataclass(frozen=True)
class Standing:
    """Where a batch stands.

    Attributes:
        batch_id: The batch.
        step: What it needs next.
        mark: Changes whenever anything about the batch has moved; alike on every machine.
        providers: Of its judges, sorted.
        priority: Of the batch, as its settings have it.
        waits_for_more_jobs: Whether some of a wave's jobs have ended, others still run, and there
            is no hurry to collect.
    """

    batch_id: str
    step: NextStep
    mark: str
    providers: tuple[str, ...]
    priority: Priority
    waits_for_more_jobs: bool


def standings(db: Session, now: datetime) -> list[Standing]:
    """Return every batch that is not published or has results to be brought home, by name."""
    steps = next_steps(db, now)
    rows = db.rows(
        f"""
        WITH wanted AS ({UNPUBLISHED}),
        asked AS (
            SELECT batch_id, count(*) AS n_attempts, count(outcome) AS n_outcomes
            FROM attempts WHERE batch_id IN (FROM wanted) GROUP BY batch_id
        ),
        ended AS (
            SELECT batch_id, count(*) AS n_ended FROM comparisons
            WHERE batch_id IN (FROM wanted) GROUP BY batch_id
        ),
        planned AS (
            SELECT batch_id, count(*) AS n_pairs FROM comparison_pairs
            WHERE batch_id IN (FROM wanted) GROUP BY batch_id
        ),
        decided AS (
            SELECT batch_id, count(*) AS n_decisions FROM wave_decisions
            WHERE batch_id IN (FROM wanted) GROUP BY batch_id
        ),
        graded AS (
            SELECT batch_id, max(revision) AS revision FROM grading_reports
            WHERE batch_id IN (FROM wanted) GROUP BY batch_id
        ),
        jobs AS (
            SELECT batch_id,
                   string_agg(
                       submission_key[:8] || state || coalesce(CAST(postponed AS VARCHAR), ''),
                       ' ' ORDER BY submission_key
                   ) FILTER (state <> 'settled') AS states,
                   count(*) FILTER (state IN ('submitted', 'adopted', 'running')) AS n_open,
                   min(ended_at) FILTER (state IN ('ended', 'collected')) AS waiting_since
            FROM (
                SELECT *, CASE WHEN provider_job_id IS NULL THEN next_poll_at END AS postponed
                FROM provider_jobs WHERE batch_id IN (FROM wanted)
            )
            GROUP BY batch_id
        ),
        judged_by AS (
            SELECT batch_id, list_sort(list(DISTINCT provider)) AS providers
            FROM judges WHERE batch_id IN (FROM wanted) GROUP BY batch_id
        )
        SELECT b.batch_id, judged_by.providers, n_open, waiting_since,
               coalesce(b.settings->>'priority', 'normal') AS priority,
               md5(concat_ws('|', b.state, b.content_sha256, n_pairs, n_attempts, n_outcomes,
                             ended.n_ended, n_decisions, revision, states)) AS mark
        FROM (FROM batches WHERE batch_id IN (FROM wanted)) b
        LEFT JOIN planned USING (batch_id)
        LEFT JOIN asked USING (batch_id)
        LEFT JOIN ended USING (batch_id)
        LEFT JOIN decided USING (batch_id)
        LEFT JOIN graded USING (batch_id)
        LEFT JOIN jobs USING (batch_id)
        LEFT JOIN judged_by USING (batch_id)
        ORDER BY b.batch_id
        """  # noqa: S608 -- a constant
    )
    return [
        Standing(
            batch_id=row["batch_id"],
            step=steps[row["batch_id"]],
            mark=row["mark"][:12],
            providers=tuple(row["providers"] or ()),
            priority=row["priority"],
            waits_for_more_jobs=bool(row["n_open"])
            and row["waiting_since"] is not None
            and now - row["waiting_since"] < COLLECT_AT_LATEST_AFTER,
        )
        for row in rows
    ]


@dataclass(frozen=True)
class Stalled:
    """A batch that waits for callbacks and has seen nothing for longer than it allows."""

    batch_id: str
    silent_since: datetime


def stalled_batches(db: Session, now: datetime) -> list[Stalled]:
    """Return the batches with requests in flight in which nothing has moved for `stall_after_s`.

    Being polled is no movement: only what was asked, and what came back, counts.
    """
    rows = db.rows(
        """
        SELECT b.batch_id, max(greatest(a.requested_at, a.completed_at)) AS silent_since,
               any_value(CAST(b.settings->>'stall_after_s' AS DOUBLE)) AS stall_after_s
        FROM batches b JOIN attempts a USING (batch_id)
        WHERE b.state = 'running'
        GROUP BY b.batch_id
        HAVING count(*) > count(a.outcome)
        ORDER BY b.batch_id
        """
    )
    return [
        Stalled(row["batch_id"], row["silent_since"])
        for row in rows
        if now - row["silent_since"] > timedelta(seconds=row["stall_after_s"])
    ]


def expiring_results(db: Session, now: datetime) -> list[tuple[str, datetime]]:
    """Return the batches with results not brought home that are deleted soon, and when."""
    rows = db.rows(
        "SELECT batch_id, min(results_expire_at) AS expiry FROM provider_jobs"
        " WHERE state IN ('submitted', 'adopted', 'running', 'ended') AND results_expire_at < ?"
        " GROUP BY batch_id ORDER BY batch_id",
        [now + EXPIRES_SOON],
    )
    return [(row["batch_id"], row["expiry"]) for row in rows]


def end_stalled(engine: Engine, batch_id: str) -> WaveDecision:
    """End a batch that has stalled and tell its provider jobs to stop; decide as usual otherwise.

    Nobody waits for those jobs any more; what they finished is brought home when they end, stored
    and billed, and counts for nothing.
    """
    with engine.store.read() as db:
        is_stalled = batch_id in {s.batch_id for s in stalled_batches(db, engine.clock())}
        record = load_batch(db, batch_id)
    decided = decide(engine, batch_id, is_stalled=is_stalled)
    if is_stalled:
        stop_open_jobs(engine, record)
    return decided
