"""When a provider job is polled next, and since when one has shown no progress.

Pure, but for the one reading of how long such jobs took lately. Polling itself is `steps.poll`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from cj_pipeline.provider_jobs.ledger import ProviderJob
from cj_pipeline.store.session import Session

MOST_A_SECOND = 20.0
"""Requests that all open jobs together make, in the long run."""

LEAST_WAIT_FOR_ROOM = timedelta(seconds=30)
"""Before a shard its provider had no room for is sent again; longer for older submissions."""

SHORTEST_S, LONGEST_S = 0.2, 10.0
"""Between two looks at a job: later, that wait would be most of what lies between its end and its
grades."""

LONGEST_BEFORE_ITS_TIME_S = 300.0
"""The same for a job that is much younger than such jobs become."""

LONGEST_AFTER_FAILURES = timedelta(minutes=10)
AFTER_REFUSAL = timedelta(minutes=5)
"""Between two looks that get no answer, and after one that a person has to mend."""

SHORTEST_FOR_ROWS, LONGEST_FOR_ROWS = timedelta(seconds=1), timedelta(minutes=10)
"""Between two looks for rows of an ended job that its batch waits for."""

SHORTEST_FOR_LATE_ROWS, LONGEST_FOR_LATE_ROWS = timedelta(minutes=30), timedelta(hours=12)
"""The same once nobody waits for them any more."""

FARTHEST = 1.5 * LONGEST_FOR_LATE_ROWS
"""No next look is farther away than this, whatever the reason: else the clock was set back."""

UNCHANGED_FOR = timedelta(hours=6)
"""A job whose provider counts, and whose counts stay, has stalled: a person should know."""

OVERDUE_AFTER = timedelta(hours=26)
"""Every provider promises an end within a day; beyond this a job has stalled whatever it counts."""

HISTORY = timedelta(days=14)
LEAST_HISTORY = 3
"""How far back, and from how many jobs, it is told how long a provider usually takes."""


def usual_durations(db: Session, now: datetime) -> dict[tuple[str, str], timedelta]:
    """Return how long three in four of an account's jobs took at least, by account and model."""
    rows = db.rows(
        """
        SELECT account, model, quantile_cont(epoch(ended_at - submitted_at), 0.25) AS seconds
        FROM provider_jobs
        WHERE batching_mode = 'provider_batch_api' AND outcome = 'completed'
          AND submitted_at > $since AND ended_at > submitted_at
        GROUP BY account, model HAVING count(*) >= $least
        """,
        {"since": now - HISTORY, "least": LEAST_HISTORY},
    )
    return {(r["account"], r["model"]): timedelta(seconds=r["seconds"]) for r in rows}


def poll_interval(age: timedelta, n_open: int = 1, usual: timedelta | None = None) -> timedelta:
    """Return how long to wait before the next look at a job that runs.

    A tenth of its age, so that looking late costs little of what was waited anyway; but never more
    than ten seconds, for then that wait would be most of what lies between a job's end and its
    grades. A job that is younger than such jobs become is left alone for half of the rest, up to
    five minutes.

    Args:
        age: Of the job.
        n_open: How many jobs are open: each waits until its turn among `MOST_A_SECOND`.
        usual: How long such jobs take at least; None where nobody knows yet.
    """
    wait_s = min(LONGEST_S, max(SHORTEST_S, age.total_seconds() / 10))
    if usual is not None and age < usual:
        rest_s = (usual - age).total_seconds() / 2
        wait_s = max(wait_s, min(LONGEST_BEFORE_ITS_TIME_S, rest_s))
    return timedelta(seconds=max(n_open / MOST_A_SECOND, wait_s))


@dataclass(frozen=True)
class PollSchedule:
    """What the next look depends on beside a job's age."""

    n_open: int
    usual: Mapping[tuple[str, str], timedelta]

    def wait(self, job: ProviderJob, now: datetime) -> timedelta:
        """Return how long to wait before the next look at a job."""
        usual = self.usual.get((job.account, job.model))
        return poll_interval(now - job.made_at, self.n_open, usual)


def backoff(age: timedelta, job: ProviderJob) -> timedelta:
    """Return a tenth of a job's age, doubled for each look without an answer, and jittered."""
    longer = max(timedelta(seconds=1), age / 10) * (1 << min(job.n_poll_failures or 0, 6))
    jitter = random.uniform(0.8, 1.2)  # noqa: S311 - no secret
    return min(LONGEST_AFTER_FAILURES, longer) * jitter


def rows_wait(missing_for: timedelta, *, is_awaited: bool) -> timedelta:
    """Return how long to wait before missing rows are looked for again: half of the time so far.

    Args:
        missing_for: Since when they are missing.
        is_awaited: Whether their batch waits for them.
    """
    shortest, longest = (
        (SHORTEST_FOR_ROWS, LONGEST_FOR_ROWS)
        if is_awaited
        else (SHORTEST_FOR_LATE_ROWS, LONGEST_FOR_LATE_ROWS)
    )
    return min(longest, max(shortest, missing_for / 2))


def stalled_since(job: ProviderJob, now: datetime) -> datetime | None:
    """Return since when a running job has shown no progress, if that is longer than it should be.

    Counts that a provider tells only at the end say nothing; then the job's age does.
    """
    if job.submitted_at is None:
        return None
    changed = job.counts_changed_at or job.submitted_at
    if (job.n_completed or job.n_failed) and now - changed > UNCHANGED_FOR:
        return changed
    return job.submitted_at if now - job.submitted_at > OVERDUE_AFTER else None
