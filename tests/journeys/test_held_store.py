"""Somebody holds the store for eleven minutes: the inbox waits, and everybody's batch is judged.

The stranger is a process of its own with DuckDB alone, which knows no lock of ours. How long it
holds the store is told by the clock of the pipeline, not by waiting.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.automation import sensors
from assets.automation.sensors import inbox_sensor
from cj_pipeline.definitions import defs
from cj_pipeline.errors import StoreBusyError
from cj_pipeline.metrics import readings
from cj_pipeline.operations.execute import run_to_end
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.store.file_store import FileStore
from resources.runtime_resource import RuntimeResource
from tests.support.batches import TEST_RUN, ManualClock, write_batch

HELD_MINUTES = 11
SETTINGS = {"judges": ["quality"], "all_at_once": True, "canary_requests": 0}


def _hold(path: Path, begun: Any, ended: Any) -> None:
    import duckdb

    with duckdb.connect(str(path)):
        begun.set()
        ended.wait(300)


@contextmanager
def a_stranger_holds(path: Path) -> Iterator[None]:
    """Have another process keep the store's file open for writing."""
    context = multiprocessing.get_context("spawn")
    begun, ended = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(path, begun, ended))
    process.start()
    assert begun.wait(120)
    try:
        yield
    finally:
        ended.set()
        process.join(60)


def test_a_batch_handed_in_while_the_store_is_held_is_judged_once_it_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost, nothing is rejected, and each look says who has the store."""
    clock, home = ManualClock(), tmp_path / "home"
    runtime = Runtime(FileStore(home, lock_timeout_s=0.1), home, {}, TEST_RUN, clock)
    with runtime.store.write() as db:
        db.execute("SELECT 1")
    monkeypatch.setattr(sensors, "WATCH_FOR_S", 0.0)
    monkeypatch.setattr(readings, "SCRAPE_WAIT_S", 0.1)
    monkeypatch.setattr(RuntimeResource, "open", lambda _: runtime)
    requested: list[dg.RunRequest] = []
    told: list[str] = []

    with dg.DagsterInstance.ephemeral() as instance, a_stranger_holds(home / "cj.duckdb"):
        folder = write_batch(runtime.inbox / "spring-9", n_students=4, settings=SETTINGS)
        for _ in range(HELD_MINUTES):
            looked = _tick(instance)
            requested += looked.run_requests or []
            told.append(str(looked.skip_reason))
            with pytest.raises(StoreBusyError, match="PID"):
                ingest(runtime, folder)
            clock.now += timedelta(minutes=1)
        scraped = readings.scraped_metrics(runtime.store)
    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(5):
            requested += _tick(instance).run_requests or []
            clock.now += timedelta(seconds=30)

    assert all("not looked at" in each for each in told)
    assert "cj_store_available 0.0" in scraped
    assert "cj_store_held{" in scraped
    assert [(run.job_name, run.partition_key) for run in requested][:1] == [
        ("open_batch", "spring-9")
    ]
    batch_id = ingest(runtime, folder).batch_id
    assert run_to_end(runtime, batch_id, timeout_s=120).state == "succeeded"
    with runtime.store.read() as db:
        assert db.rows("SELECT state FROM batches") == [{"state": "succeeded"}]


def _tick(instance: dg.DagsterInstance) -> dg.SensorResult:
    resources = {"engine": RuntimeResource()}
    with dg.build_sensor_context(
        instance=instance, resources=resources, definitions=defs
    ) as context:
        looked = inbox_sensor(context)
    assert isinstance(looked, dg.SensorResult)
    return looked
