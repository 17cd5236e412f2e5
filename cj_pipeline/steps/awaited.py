"""What a batch waits for, in words for a person; `next_step` says only that it waits."""

from __future__ import annotations

from datetime import datetime

from cj_pipeline.store import Session


def what_is_awaited(db: Session, batch_id: str, now: datetime) -> str:
    """Return one line per kind of open provider job: where it is, how far, and what is wrong."""
    rows = db.rows(
        """
        SELECT provider, state, provider_status, error, count(*) AS n_jobs,
               sum(n_requests) AS n_requests,
               sum(coalesce(n_completed, 0) + coalesce(n_failed, 0)) AS n_done,
               min(next_poll_at) AS next_look, min(coalesce(submitted_at, intended_at)) AS since
        FROM provider_jobs
        WHERE batch_id = ? AND state NOT IN ('settled', 'refused')
        GROUP BY ALL ORDER BY since, provider, state
        """,
        [batch_id],
    )
    return "\n".join(_line(row, now) for row in rows)


_DOING = {
    "intent": "to be sent to",
    "uploaded": "to be created at",
    "ambiguous": "that may exist at",
    "ended": "to be collected from",
    "collected": "to be read, from",
}


def _line(row: dict[str, object], now: datetime) -> str:
    n_jobs, since, next_look = row["n_jobs"], row["since"], row["next_look"]
    assert isinstance(since, datetime)  # noqa: S101 - for the type checker
    jobs = "1 provider job" if n_jobs == 1 else f"{n_jobs} provider jobs"
    doing = _DOING.get(str(row["state"]), "at")
    words = [f"{jobs} {doing} {row['provider']}"]
    if row["state"] in {"submitted", "adopted", "running"}:
        status = f" ({row['provider_status']})" if row["provider_status"] else ""
        words[0] += f"{status}, {row['n_done']} of {row['n_requests']} done"
    words.append(f"for {_time(max(0.0, (now - since).total_seconds()))}")
    if isinstance(next_look, datetime) and next_look > now:
        words.append(f"next look in {_time((next_look - now).total_seconds())}")
    return ", ".join(words) + (f": {row['error']}" if row["error"] else "")


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
