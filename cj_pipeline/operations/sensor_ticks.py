"""When each sensor last came to the end of a tick, so that their silence can raise an alert.

Dagster shows a sensor that fails on its own page only, and a daemon that is not there nowhere.
"""

from __future__ import annotations

from datetime import timedelta

from cj_pipeline.runtime import Runtime

_AT_MOST_EVERY = timedelta(minutes=1)
"""Every write is a change that those who watch the store look at."""


def record_tick(runtime: Runtime, sensor: str) -> None:
    """Store that a tick of a sensor ended without an error."""
    now = runtime.clock()
    with runtime.store.read() as db:
        row = db.one("SELECT ticked_at FROM sensor_ticks WHERE sensor = ?", [sensor])
    # A clock that was set back must not keep it from being written until it has caught up.
    if row is not None and timedelta(0) <= now - row["ticked_at"] < _AT_MOST_EVERY:
        return
    with runtime.store.write() as db:
        tick = {"sensor": sensor, "ticked_at": now}
        db.insert("sensor_ticks", [tick], on_conflict="replace")
