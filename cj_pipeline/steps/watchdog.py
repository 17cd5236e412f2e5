"""Batches whose provider jobs make no progress are ended with a reason, instead of never."""

from __future__ import annotations

from datetime import timedelta

import structlog

from cj_pipeline.steps.decide import decide
from cj_pipeline.steps.engine import Engine

log = structlog.get_logger()


def end_stalled_batches(engine: Engine) -> tuple[str, ...]:
    """End every batch that has waited longer than its `stall_after_s`, and return their names.

    The clock starts with the oldest submission that has not come home. What was asked stays on
    record, so a job that ends after all can still be looked at by hand.
    """
    now = engine.clock()
    with engine.store.read() as db:
        waiting = db.rows(
            """
            SELECT b.batch_id, min(j.intended_at) AS since,
                   CAST(b.settings->>'stall_after_s' AS DOUBLE) AS stall_after_s
            FROM batches b JOIN provider_jobs j USING (batch_id)
            WHERE b.state = 'running' AND j.state NOT IN ('settled', 'refused')
            GROUP BY ALL
            """
        )
    stalled = tuple(
        row["batch_id"]
        for row in waiting
        if now - row["since"] > timedelta(seconds=row["stall_after_s"])
    )
    for batch_id in stalled:
        log.error("batch_stalled", batch_id=batch_id)
        decide(engine, batch_id, is_stalled=True)
    return stalled
