"""What a batch needs next, read from its rows alone, so that nothing has to be remembered."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from cj_pipeline.store import Session


class NextStep(StrEnum):
    """The step that moves a batch along."""

    PLAN = "plan"
    SUBMIT = "submit"
    POLL = "poll"
    COLLECT = "collect"
    DECIDE = "decide"
    PROJECT = "project"
    PUBLISH = "publish"
    NOTHING = "nothing"


UNPUBLISHED = """
    SELECT batch_id FROM batches b WHERE b.state <> 'rejected'
    AND (NOT EXISTS (FROM batch_report r WHERE r.batch_id = b.batch_id)
         OR EXISTS (FROM provider_jobs p WHERE p.batch_id = b.batch_id
                    AND p.state IN ('ended', 'collected')))
"""
"""The batches that something is still to be done for; those that are done grow for ever.

One that is published may have paid results to come, from a job that ended after it."""

_FACTS = """
wave AS (
    SELECT batch_id, max(wave) AS wave FROM comparison_pairs
    WHERE batch_id IN (FROM wanted) GROUP BY batch_id
),
open_comparisons AS (
    SELECT p.batch_id,
           count(a.comparison_id) AS n_in_flight,
           count(*) FILTER (a.comparison_id IS NULL) AS n_unasked
    FROM (FROM comparison_pairs WHERE batch_id IN (FROM wanted)) p
    ANTI JOIN (FROM comparisons WHERE batch_id IN (FROM wanted)) c USING (comparison_id)
    LEFT JOIN (
        SELECT DISTINCT comparison_id FROM attempts
        WHERE outcome IS NULL AND batch_id IN (FROM wanted)
    ) a ON a.comparison_id = p.comparison_id
    GROUP BY p.batch_id
),
jobs AS (
    SELECT batch_id,
           count(*) FILTER (is_unsent AND coalesce(next_poll_at, $now) <= $now) AS n_to_send,
           count(*) FILTER (is_unsent AND next_poll_at > $now) AS n_postponed,
           count(*) FILTER (state IN ('ended', 'collected')) AS n_ended
    FROM (
        SELECT *,
               -- Single calls that were cut short have no job at the provider to wait for.
               state IN ('intent', 'uploaded', 'ambiguous')
               OR (state = 'running' AND batching_mode <> 'provider_batch_api') AS is_unsent
        FROM provider_jobs WHERE batch_id IN (FROM wanted)
    )
    GROUP BY batch_id
)
SELECT b.batch_id, b.state,
       coalesce(b.metadata->>'spend_cap_reached', 'false') = 'true' AS spend_cap_reached,
       coalesce(b.metadata->>'canary_failed', 'false') = 'true' AS canary_failed,
       coalesce(b.metadata->>'cancel_requested', 'false') = 'true' AS cancel_requested,
       coalesce(b.metadata->>'nothing_left_to_ask', 'false') = 'true' AS nothing_left_to_ask,
       coalesce(w.wave, 0) AS wave,
       d.decision,
       coalesce(o.n_in_flight, 0) AS n_in_flight,
       coalesce(o.n_unasked, 0) AS n_unasked,
       coalesce(j.n_to_send, 0) AS n_to_send,
       coalesce(j.n_postponed, 0) AS n_postponed,
       coalesce(j.n_ended, 0) AS n_ended,
       EXISTS (FROM grading_reports g WHERE g.batch_id = b.batch_id) AS is_projected,
       EXISTS (FROM batch_report r WHERE r.batch_id = b.batch_id) AS is_published
FROM (FROM batches WHERE batch_id IN (FROM wanted)) b
LEFT JOIN wave w USING (batch_id)
LEFT JOIN wave_decisions d ON d.batch_id = b.batch_id AND d.wave = w.wave
LEFT JOIN open_comparisons o ON o.batch_id = b.batch_id
LEFT JOIN jobs j ON j.batch_id = b.batch_id
"""


def next_steps(db: Session, now: datetime) -> dict[str, NextStep]:
    """Return what each batch needs next that is not published or has paid results to come."""
    rows = db.rows(f"WITH wanted AS ({UNPUBLISHED}), {_FACTS}", {"now": now})
    return {row["batch_id"]: _next(row) for row in rows}


def next_step(db: Session, batch_id: str, now: datetime) -> NextStep:
    """Return what one batch needs next; nothing when it is published or unknown."""
    wanted = "WITH wanted AS (SELECT $batch AS batch_id), "
    row = db.one(wanted + _FACTS, {"batch": batch_id, "now": now})
    return _next(row) if row else NextStep.NOTHING


def _next(row: dict[str, object]) -> NextStep:  # noqa: PLR0911 -- one line per rule reads best
    if row["state"] == "rejected":
        return NextStep.NOTHING
    if row["n_ended"]:
        # Also of a batch that has ended: what was paid for is stored and billed, however late.
        return NextStep.COLLECT
    if row["is_published"]:
        return NextStep.NOTHING
    if row["state"] != "running":
        return NextStep.PUBLISH if row["is_projected"] else NextStep.PROJECT
    if row["n_to_send"]:
        return NextStep.SUBMIT
    if row["n_in_flight"] or row["n_postponed"]:
        # What has to be asked again goes out together, once nothing is in flight.
        return NextStep.POLL
    if row["cancel_requested"]:
        return NextStep.DECIDE
    if row["n_unasked"] and not (row["spend_cap_reached"] or row["canary_failed"]):
        return NextStep.SUBMIT
    if row["nothing_left_to_ask"] or (row["wave"] and row["decision"] is None):
        return NextStep.DECIDE
    return NextStep.PLAN
