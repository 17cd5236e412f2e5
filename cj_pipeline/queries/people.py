"""What people were given to judge in a batch, and how far they are."""

from __future__ import annotations

from dataclasses import dataclass

from cj_pipeline.queries.batch_record import BatchRecord
from cj_pipeline.store.session import Session

USUAL_AFTER = 10
"""Verdicts after which people's own median time is planned with."""


@dataclass(frozen=True)
class PeopleProgress:
    """How far a batch's people are.

    Attributes:
        n_tasks: Pairs given to them.
        n_done: Of these, judged.
        seconds_per_verdict: The median so far, of active time; as planned before there are ten.
        is_measured: Whether that is measured.
        seconds_used: Of active time, by all verdicts.
    """

    n_tasks: int
    n_done: int
    seconds_per_verdict: float
    is_measured: bool
    seconds_used: float

    @property
    def n_left(self) -> int:
        """Pairs not judged yet."""
        return self.n_tasks - self.n_done

    @property
    def minutes_left(self) -> float:
        """What the pairs left will take, in minutes of one person's time."""
        return self.n_left * self.seconds_per_verdict / 60


def people_progress(db: Session, record: BatchRecord) -> PeopleProgress:
    """Return how far a batch's people are."""
    tasks = db.one(
        "SELECT count(*) AS n, count(*) FILTER (n_verdicts > 0) AS n_done FROM v_judging_tasks"
        " WHERE batch_id = ?",
        [record.batch_id],
    )
    times = db.one(
        "SELECT count(active_s) AS n, median(active_s) AS median_s,"
        " coalesce(sum(active_s), 0) AS total_s"
        " FROM human_answers WHERE batch_id = ? AND kind = 'verdict' AND source = 'page'",
        [record.batch_id],
    )
    measured = times is not None and times["n"] >= USUAL_AFTER and times["median_s"] > 0
    return PeopleProgress(
        n_tasks=int(tasks["n"]) if tasks else 0,
        n_done=int(tasks["n_done"]) if tasks else 0,
        seconds_per_verdict=(
            float(times["median_s"])
            if measured and times
            else record.settings.people.seconds_per_verdict
        ),
        is_measured=bool(measured),
        seconds_used=float(times["total_s"]) if times else 0.0,
    )


def n_awaited(db: Session, record: BatchRecord) -> int:
    """Return how many verdicts of people a running batch waits for; 0 where it does not."""
    if record.has_ended or not record.people or not record.settings.people.wait:
        return 0
    row = db.one(
        "SELECT count(*) AS n FROM v_judging_tasks"
        " WHERE batch_id = ? AND n_verdicts = 0 AND part <> 'second'",
        [record.batch_id],
    )
    return int(row["n"]) if row else 0
