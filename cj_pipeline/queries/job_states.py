"""The states of provider jobs, and which of them changed since they were last looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cj_pipeline.store.session import Session

MOST_AT_ONCE = 100
"""Changes that are returned at a time; the others come next time."""


ROWS_ARE_DUE = """(
    (phase = 'collectable' AND (state <> 'incomplete' OR next_poll_at <= $now))
    OR (state = 'settled' AND n_in_doubt > 0 AND next_poll_at <= $now)
)"""
"""Of `v_job_phases`, at `$now`: a job's rows are to be brought home now, the late ones too."""


@dataclass(frozen=True)
class KnownStates:
    """What was known of provider jobs at the last look.

    Attributes:
        since: Jobs recorded from then on are looked at even if they are done; None at first.
        states: By submission key, of the jobs that are not done or were recorded since.
    """

    since: datetime | None = None
    states: Mapping[str, str] = field(default_factory=dict)


def changed_job_states(
    db: Session, known: KnownStates, now: datetime
) -> tuple[list[dict[str, Any]], KnownStates]:
    """Return the jobs whose state is another than was known, the oldest first, and what is now.

    A job that was done before the first look is never among them, so a long history costs nothing.
    """
    rows = db.rows(
        """
        SELECT submission_key, batch_id, provider, model, batching_mode, provider_job_id, state,
               phase, provider_status, waiting_for, n_requests, n_completed, n_failed, intended_at
        FROM v_job_phases
        WHERE phase <> 'done' OR submission_key IN (SELECT unnest($known::VARCHAR[]))
           OR intended_at >= $since
        ORDER BY intended_at, submission_key
        """,
        {"known": list(known.states), "since": known.since},
    )
    changed = [row for row in rows if known.states.get(row["submission_key"]) != row["state"]]
    told = changed[:MOST_AT_ONCE]
    states = dict(known.states) | {row["submission_key"]: row["state"] for row in told}
    since = known.since or now
    if len(told) == len(changed):
        # Not before all are told: one that is done by then would not be found any more.
        since = max([since, *(row["intended_at"] for row in rows)])
    going_on = {
        row["submission_key"]
        for row in rows
        if row["phase"] != "done" or row["intended_at"] >= since or row in changed[MOST_AT_ONCE:]
    }
    return told, KnownStates(since, {key: states[key] for key in states if key in going_on})
