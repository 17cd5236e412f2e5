"""What a batch needs next, read from its rows alone, so that nothing has to be remembered."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from cj_pipeline.batch.options import Priority
from cj_pipeline.progress.text import AwaitedJobs, describe_awaited
from cj_pipeline.queries.job_states import ROWS_ARE_DUE
from cj_pipeline.store.session import Session


class NextStep(StrEnum):
    """The step that moves a batch along."""

    PLAN = "plan"
    SUBMIT = "submit"
    POLL = "poll"
    COLLECT = "collect"
    DECIDE = "decide"
    PROJECT = "project"
    PUBLISH = "publish"
    RESCORE = "rescore"
    NOTHING = "nothing"


UNPUBLISHED = f"""
    SELECT batch_id FROM batches b WHERE b.state <> 'rejected'
    AND (NOT EXISTS (FROM batch_report r WHERE r.batch_id = b.batch_id)
         OR EXISTS (FROM v_job_phases p WHERE p.batch_id = b.batch_id AND {ROWS_ARE_DUE})
         OR EXISTS (FROM v_human_changes h WHERE h.batch_id = b.batch_id AND h.changed_at >
                    (SELECT max(projected_at) FROM grading_reports g
                     WHERE g.batch_id = b.batch_id)))
"""  # noqa: S608 -- a constant
"""The batches that something is still to be done for; those that are done grow for ever.

One that is published may have paid results to come, from a job that ended after it, rows that it
was settled without, or verdicts of people that its grades do not know of."""

_FACTS = f"""
wave AS (
    SELECT batch_id, max(wave) AS wave FROM comparison_pairs
    WHERE batch_id IN (FROM wanted) GROUP BY batch_id
),
open_comparisons AS (
    SELECT p.batch_id,
           count(a.comparison_id) AS n_in_flight,
           count(*) FILTER (a.comparison_id IS NULL AND h.judge_id IS NULL) AS n_unasked,
           count(*) FILTER (a.comparison_id IS NULL AND h.judge_id IS NOT NULL) AS n_held
    FROM (FROM comparison_pairs WHERE batch_id IN (FROM wanted)) p
    ANTI JOIN (FROM comparisons WHERE batch_id IN (FROM wanted)) c USING (comparison_id)
    LEFT JOIN (
        SELECT DISTINCT comparison_id FROM attempts
        WHERE outcome IS NULL AND batch_id IN (FROM wanted)
    ) a ON a.comparison_id = p.comparison_id
    LEFT JOIN (
        FROM v_judge_holds WHERE coalesce(next_try_at > $now, TRUE)
    ) h ON h.batch_id = p.batch_id AND h.judge_id = p.judge_id
    GROUP BY p.batch_id
),
jobs AS (
    SELECT batch_id,
           count(*) FILTER (is_unsent AND coalesce(next_poll_at, $now) <= $now) AS n_to_send,
           count(*) FILTER (is_unsent AND next_poll_at > $now) AS n_postponed,
           count(*) FILTER ({ROWS_ARE_DUE}) AS n_ended,
           count(*) FILTER (phase <> 'done') AS n_not_done,
           count(*) FILTER (phase = 'open' AND waiting_for = 'key') AS n_out_of_reach
    FROM (
        -- Single calls that were cut short have no job at the provider to wait for.
        SELECT *, phase IN ('unsent', 'calling') AS is_unsent
        FROM v_job_phases WHERE batch_id IN (FROM wanted)
    )
    GROUP BY batch_id
),
-- What people owe a batch that waits for them; and what they did that its grades do not know of.
owed AS (
    SELECT t.batch_id, count(*) FILTER (n_verdicts = 0) AS n_owed
    FROM v_judging_tasks t WHERE t.batch_id IN (FROM wanted) AND t.part <> 'second'
    GROUP BY t.batch_id
),
late AS (
    SELECT h.batch_id, h.changed_at FROM v_human_changes h
    WHERE h.batch_id IN (FROM wanted) AND h.changed_at >
        (SELECT max(projected_at) FROM grading_reports g WHERE g.batch_id = h.batch_id)
)
SELECT b.batch_id, b.state,
       b.spend_cap_reached,
       b.canary_failed,
       b.cancel_requested,
       b.nothing_left_to_ask,
       CASE WHEN b.settings->'people'->>'wait' = 'true' THEN coalesce(owed.n_owed, 0)
            ELSE 0 END AS n_owed,
       owed.n_owed AS n_open_for_people,
       late.changed_at AS late_since,
       coalesce(w.wave, 0) AS wave,
       d.decision,
       coalesce(o.n_in_flight, 0) AS n_in_flight,
       coalesce(o.n_unasked, 0) AS n_unasked,
       coalesce(o.n_held, 0) AS n_held,
       coalesce(j.n_to_send, 0) AS n_to_send,
       coalesce(j.n_postponed, 0) AS n_postponed,
       coalesce(j.n_ended, 0) AS n_ended,
       coalesce(j.n_out_of_reach = j.n_not_done, FALSE) AS is_out_of_reach,
       EXISTS (FROM grading_reports g WHERE g.batch_id = b.batch_id
               AND (b.late_rows_at IS NULL OR g.projected_at >= b.late_rows_at)) AS is_projected,
       EXISTS (FROM batch_report r WHERE r.batch_id = b.batch_id) AS is_published
FROM (FROM batches WHERE batch_id IN (FROM wanted)) b
LEFT JOIN wave w USING (batch_id)
LEFT JOIN wave_decisions d ON d.batch_id = b.batch_id AND d.wave = w.wave
LEFT JOIN open_comparisons o ON o.batch_id = b.batch_id
LEFT JOIN jobs j ON j.batch_id = b.batch_id
LEFT JOIN owed ON owed.batch_id = b.batch_id
LEFT JOIN late ON late.batch_id = b.batch_id
"""  # noqa: S608 -- a constant

QUIET = timedelta(minutes=5)
"""How long people are left in peace before their late verdicts are scored: not one at a time."""


def next_steps(db: Session, now: datetime) -> dict[str, NextStep]:
    """Return what each batch needs next that is not published or has paid results to come."""
    rows = db.rows(f"WITH wanted AS ({UNPUBLISHED}), {_FACTS}", {"now": now})
    return {row["batch_id"]: _next(row, now) for row in rows}


def next_step(db: Session, batch_id: str, now: datetime) -> NextStep:
    """Return what one batch needs next; nothing when it is published or unknown."""
    wanted = "WITH wanted AS (SELECT $batch AS batch_id), "
    row = db.one(wanted + _FACTS, {"batch": batch_id, "now": now})
    return _next(row, now) if row else NextStep.NOTHING


def _next(row: dict[str, Any], now: datetime) -> NextStep:  # noqa: PLR0911 -- one line per rule reads best
    if row["state"] == "rejected":
        return NextStep.NOTHING
    if row["n_ended"]:
        # Also of a batch that has ended: what was paid for is stored and billed, however late.
        return NextStep.COLLECT
    if row["is_published"]:
        since = row["late_since"]
        is_due = since is not None and (not row["n_open_for_people"] or now - since >= QUIET)
        return NextStep.RESCORE if is_due else NextStep.NOTHING
    if row["state"] != "running":
        return NextStep.PUBLISH if row["is_projected"] else NextStep.PROJECT
    if row["n_to_send"]:
        return NextStep.SUBMIT
    if row["cancel_requested"] and row["is_out_of_reach"]:
        # Nobody can see what is still out: it is asked for later, and the batch ends without it.
        return NextStep.DECIDE
    if row["n_in_flight"] or row["n_postponed"]:
        # What has to be asked again goes out together, once nothing is in flight.
        return NextStep.POLL
    if row["cancel_requested"]:
        return NextStep.DECIDE
    if row["n_unasked"] and not (row["spend_cap_reached"] or row["canary_failed"]):
        return NextStep.SUBMIT
    if row["wave"] and row["decision"] is None and row["n_owed"]:
        return NextStep.POLL
    if row["n_held"] and not (row["spend_cap_reached"] or row["canary_failed"]):
        # A person is waited for: what is held is neither asked nor given up.
        return NextStep.POLL
    if row["nothing_left_to_ask"] or (row["wave"] and row["decision"] is None):
        return NextStep.DECIDE
    return NextStep.PLAN


def late_verdicts(db: Session, batch_id: str) -> bool:
    """Return whether people's verdicts have changed since a batch was last graded."""
    row = db.one(
        "SELECT 1 AS found FROM v_human_changes WHERE batch_id = $batch AND changed_at >"
        " (SELECT max(projected_at) FROM grading_reports WHERE batch_id = $batch)",
        {"batch": batch_id},
    )
    return row is not None


COLLECT_AT_LATEST_AFTER = timedelta(minutes=10)
"""How long results wait for a wave's other jobs before they are brought home on their own."""


@dataclass(frozen=True)
class PendingStep:
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


def standings(db: Session, now: datetime) -> list[PendingStep]:
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
                   ) FILTER (state <> 'settled' OR n_in_doubt > 0) AS states,
                   count(*) FILTER (phase IN ('open', 'calling')) AS n_open,
                   min(ended_at) FILTER (phase = 'collectable') AS waiting_since
            FROM (
                SELECT *, CASE WHEN provider_job_id IS NULL OR n_in_doubt > 0
                               THEN next_poll_at END AS postponed
                FROM v_job_phases WHERE batch_id IN (FROM wanted)
            )
            GROUP BY batch_id
        ),
        people AS (
            SELECT batch_id, changed_at FROM v_human_changes WHERE batch_id IN (FROM wanted)
        ),
        judged_by AS (
            SELECT batch_id, list_sort(list(DISTINCT provider)) AS providers
            FROM judges WHERE batch_id IN (FROM wanted) GROUP BY batch_id
        )
        SELECT b.batch_id, judged_by.providers, n_open, waiting_since,
               coalesce(b.settings->>'priority', 'normal') AS priority,
               md5(concat_ws('|', b.state, b.content_sha256, n_pairs, n_attempts, n_outcomes,
                             ended.n_ended, n_decisions, revision, states, changed_at)) AS mark
        FROM (FROM batches WHERE batch_id IN (FROM wanted)) b
        LEFT JOIN planned USING (batch_id)
        LEFT JOIN asked USING (batch_id)
        LEFT JOIN ended USING (batch_id)
        LEFT JOIN decided USING (batch_id)
        LEFT JOIN graded USING (batch_id)
        LEFT JOIN jobs USING (batch_id)
        LEFT JOIN people USING (batch_id)
        LEFT JOIN judged_by USING (batch_id)
        ORDER BY b.batch_id
        """,  # noqa: S608 -- a constant
        {"now": now},
    )
    return [
        PendingStep(
            batch_id=row["batch_id"],
            step=steps[row["batch_id"]],
            mark=row["mark"][:12],
            providers=tuple(row["providers"] or ()),
            priority=row["priority"],
            waits_for_more_jobs=bool(row["n_open"])
            and row["waiting_since"] is not None
            # A clock that was set back must not keep it from being collected.
            and timedelta(0) <= now - row["waiting_since"] < COLLECT_AT_LATEST_AFTER,
        )
        for row in rows
    ]


def what_is_awaited(db: Session, batch_id: str, now: datetime) -> str:
    """Return one line per kind of open provider job: where it is, how far, and what is wrong."""
    awaited = db.records(
        AwaitedJobs,
        """
        SELECT provider, state, phase, provider_status, error, count(*) AS n_jobs,
               sum(n_requests) AS n_requests,
               sum(coalesce(n_completed, 0) + coalesce(n_failed, 0)) AS n_done,
               min(next_poll_at) AS next_look, min(coalesce(submitted_at, intended_at)) AS since
        FROM v_job_phases WHERE batch_id = ? AND phase <> 'done'
        GROUP BY ALL ORDER BY since, provider, state
        """,
        [batch_id],
    )
    lines = [describe_awaited(jobs, now) for jobs in awaited]
    owed = db.one(
        f"WITH wanted AS (SELECT $batch AS batch_id), {_FACTS}",
        {"batch": batch_id, "now": now},
    )
    if not lines and owed is not None and owed["n_owed"]:
        lines.append(f"people: {owed['n_owed']} verdicts are still to be given")
    return "\n".join(lines)


UNATTENDED_AFTER = timedelta(minutes=3)
"""Sensors tick every half minute, and a command that waits polls as soon as a poll is due."""


def unattended_since(db: Session, batch_id: str, now: datetime) -> datetime | None:
    """Return since when a step of a batch is due that no process takes; None where one does.

    A process at work shows: it holds a lease, or has polled and set the next time.
    """
    step = next_step(db, batch_id, now)
    row = db.one(
        """
        SELECT b.state, coalesce(j.is_at_work, FALSE) AS is_at_work, j.due,
               greatest(
                   b.created_at,
                   (SELECT max(planned_at) FROM comparison_pairs p WHERE p.batch_id = b.batch_id),
                   (SELECT max(greatest(requested_at, completed_at)) FROM attempts a
                    WHERE a.batch_id = b.batch_id),
                   (SELECT max(decided_at) FROM wave_decisions d WHERE d.batch_id = b.batch_id)
               ) AS moved_at
        FROM batches b
        LEFT JOIN (
            SELECT batch_id, bool_or(lease_until > $now) AS is_at_work,
                   min(coalesce(next_poll_at, ended_at, intended_at)) AS due
            FROM v_job_phases WHERE batch_id = $batch AND phase <> 'done' GROUP BY batch_id
        ) j USING (batch_id)
        WHERE b.batch_id = $batch
        """,
        {"batch": batch_id, "now": now},
    )
    if row is None or row["state"] != "running" or row["is_at_work"] or step is NextStep.NOTHING:
        return None
    if row["due"] is None and step is NextStep.POLL:
        return None  # people are waited for, not a process
    due: datetime = row["due"] or row["moved_at"]
    return due if now - due > UNATTENDED_AFTER else None
