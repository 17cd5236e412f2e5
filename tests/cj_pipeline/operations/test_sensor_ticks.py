"""Sensors' ticks are stored once a minute, whatever the clock does."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from cj_pipeline.operations.sensor_ticks import record_tick
from tests.support.batches import ManualClock, open_engine


@pytest.mark.parametrize(
    ("later", "is_written"),
    [
        (timedelta(seconds=59), False),
        (timedelta(seconds=60), True),
        (timedelta(days=-30), True),
    ],
    ids=["within a minute", "after a minute", "by a clock that was set back"],
)
def test_a_tick_is_stored_once_a_minute(
    tmp_path: Path, later: timedelta, *, is_written: bool
) -> None:
    """A write for each tick would be one every two seconds; a clock set back parks nothing."""
    clock = ManualClock()
    runtime, began = open_engine(tmp_path / "home", clock=clock), clock()
    record_tick(runtime, "inbox_sensor")
    clock.sleep(later.total_seconds())
    record_tick(runtime, "inbox_sensor")

    with runtime.store.read() as db:
        (row,) = db.rows("SELECT sensor, ticked_at FROM sensor_ticks")
    assert row == {"sensor": "inbox_sensor", "ticked_at": began + later if is_written else began}
