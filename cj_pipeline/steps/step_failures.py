"""A step that fails leaves its reason in the store, where `cj status` and the metrics find it.

Dagster's runs and `cj execute` take their steps inside `recorded`. A batch that keeps failing
before anything was sent would else be silent: nothing but a run's log knew why.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import structlog

from cj_pipeline.errors import CJError, StoreBusyError
from cj_pipeline.runtime import Runtime
from cj_pipeline.store.session import Session
from cj_pipeline.text import excerpt

log = structlog.get_logger()

_MAX_REASON = 500


@contextmanager
def recorded(
    runtime: Runtime, batch_id: str, step: str, *, failed_before: bool | None = None
) -> Iterator[None]:
    """Store why a step of a batch failed, and forget it once that step succeeds.

    The error itself goes on to the caller. A store that is busy is no failure of the batch.

    Args:
        runtime: The pipeline's connections.
        batch_id: The batch.
        step: The step, by its asset's name.
        failed_before: Whether the step failed last time; None to look it up.
    """
    try:
        yield
    except StoreBusyError:
        raise
    except Exception as error:
        # Of a fault nobody foresaw only its kind: its text may hold anything.
        reason = str(error) if isinstance(error, CJError) else f"a fault ({type(error).__name__})"
        _try_to_record(runtime, batch_id, step, reason)
        raise
    else:
        if failed_before is None:
            with runtime.store.read() as db:
                failed_before = failing_step(db, batch_id) == step
        if failed_before:
            _try_to_clear(runtime, batch_id, step)


def _try_to_record(runtime: Runtime, batch_id: str, step: str, reason: str) -> None:
    try:
        with runtime.store.write() as db:
            _record(db, batch_id, step, excerpt(reason, _MAX_REASON), runtime.clock())
    except CJError as error:
        log.warning("step_failure_not_recorded", batch_id=batch_id, step=step, error=str(error))


def _record(db: Session, batch_id: str, step: str, reason: str, now: datetime) -> None:
    is_under_way = db.one(
        "SELECT 1 FROM batches b WHERE batch_id = ? AND state <> 'rejected'"
        " AND NOT EXISTS (FROM batch_report r WHERE r.batch_id = b.batch_id)",
        [batch_id],
    )
    if is_under_way is None:
        return
    before = db.one(
        "SELECT n_failures, first_failed_at FROM step_failures"
        " WHERE batch_id = ? AND step = ? AND reason = ?",
        [batch_id, step, reason],
    )
    row = {
        "batch_id": batch_id,
        "step": step,
        "reason": reason,
        "n_failures": 1 + (before["n_failures"] if before else 0),
        "first_failed_at": before["first_failed_at"] if before else now,
        "last_failed_at": now,
    }
    db.insert("step_failures", [row], on_conflict="replace")


def _try_to_clear(runtime: Runtime, batch_id: str, step: str) -> None:
    try:
        with runtime.store.write() as db:
            db.execute(
                "DELETE FROM step_failures WHERE batch_id = ? AND step = ?", [batch_id, step]
            )
    except CJError as error:
        log.warning("step_failure_not_cleared", batch_id=batch_id, error=str(error))


def record_failed_run(runtime: Runtime, batch_id: str, step: str, reason: str) -> None:
    """Store that a run failed which could not say so itself, such as one that was killed."""
    with runtime.store.read() as db:
        known = failing_step(db, batch_id)
    if known is None:
        _try_to_record(runtime, batch_id, step, reason)


def failing_step(db: Session, batch_id: str) -> str | None:
    """Return the step that a batch failed at last; None where it did not."""
    row = db.one("SELECT step FROM step_failures WHERE batch_id = ?", [batch_id])
    return None if row is None else str(row["step"])
