"""A clock that was set back must not park what was put off until a time by the clock before.

A machine without power for long may start in another month, until it asks a time server. Whatever
was put off meanwhile would wait for that month: here it is made due instead.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from cj_pipeline.store.session import Session

FARTHEST = timedelta(days=2)
"""Nothing is ever put off for longer, whatever the reason: looks for late rows are half a day apart
and attempts to delete what is left at a provider a day."""

_PUT_OFF = (
    ("provider_jobs", "next_poll_at"),
    ("provider_jobs", "lease_until"),
    ("duplicate_jobs", "next_poll_at"),
    ("judge_holds", "next_try_at"),
    ("provider_leftovers", "next_try_at"),
    ("circuit_breakers", "open_until"),
)


def is_parked(db: Session, now: datetime) -> bool:
    """Return whether anything waits for a time that only a wrong clock can have set."""
    found = " UNION ALL ".join(
        f"SELECT 1 AS found FROM {table} WHERE {column} > $farthest"  # noqa: S608 -- constants
        for table, column in _PUT_OFF
    )
    return db.one(f"{found} LIMIT 1", {"farthest": now + FARTHEST}) is not None


def make_due(db: Session, now: datetime) -> None:
    """Let what waits for such a time be tried now."""
    for table, column in _PUT_OFF:
        db.execute(
            f"UPDATE {table} SET {column} = $now WHERE {column} > $farthest",  # noqa: S608
            {"now": now, "farthest": now + FARTHEST},
        )
