"""Twelve hours of trials in minutes: the schedule's ticks, the sensors' ticks, and their runs.

The schedule and the sensors are the real ones, evaluated as the daemon would hour by hour; the runs
they ask for are executed in a real instance, whose event log grows as it would.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.automation.in_process import QUIET
from assets.automation.schedules import trial_schedules
from assets.automation.sensors import provider_jobs_sensor, watchdog_sensor
from cj_pipeline.definitions import defs
from cj_pipeline.runtime import Runtime
from cj_pipeline.trials.runs import trial_history
from resources.runtime_resource import RuntimeResource
from tests.support.batches import write_batch

MIDNIGHT = datetime(2026, 1, 5, tzinfo=UTC)
HOURS = 12
HOURLY = """
based_on: minimum
settings: {all_at_once: true}
drift: {duration_ratio: null}
schedule: {cron: "0 * * * *"}
"""


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance in files, so that its growth can be measured."""
    folder = tmp_path / "dagster"
    folder.mkdir()
    with dg.DagsterInstance.local_temp(str(folder)) as instance:
        yield instance


def asked_by_schedule(
    instance: dg.DagsterInstance, schedule: dg.ScheduleDefinition, at: datetime
) -> list[dg.RunRequest]:
    """Return what a schedule asks for at an hour."""
    with dg.build_schedule_context(
        instance=instance,
        scheduled_execution_time=at,
        resources={"engine": RuntimeResource()},
        repository_def=defs.get_repository_def(),
    ) as context:
        return list(schedule.evaluate_tick(context).run_requests or [])


def asked_by_sensor(
    instance: dg.DagsterInstance, sensor: dg.SensorDefinition
) -> list[dg.RunRequest]:
    """Return what a sensor asks for now."""
    with dg.build_sensor_context(
        instance=instance, resources={"engine": RuntimeResource()}, definitions=defs
    ) as context:
        result = sensor(context)
    assert isinstance(result, dg.SensorResult)
    for request in result.dynamic_partitions_requests or []:
        instance.add_dynamic_partitions("batches", list(request.partition_keys))
    return list(result.run_requests or [])


def execute(instance: dg.DagsterInstance, request: dg.RunRequest, job: str) -> None:
    """Execute a run that was asked for, with its tags, as the daemon's launcher would."""
    result = defs.resolve_job_def(job).execute_in_process(
        run_config={**QUIET, **request.run_config},
        instance=instance,
        partition_key=request.partition_key,
        tags=dict(request.tags),
    )
    assert result.success


def bytes_of(folder: Path) -> int:
    """Return the size of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
def test_every_hour_has_its_batch_its_outcome_and_its_comparison(
    runtime: Runtime, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """Twelve ticks, each evaluated twice as after a restart, make twelve batches and no more."""
    (runtime.home / "trials").mkdir(parents=True)
    (runtime.home / "trials" / "hourly.yaml").write_text(HOURLY)
    _, schedule = trial_schedules(runtime.home)
    seen: set[str] = set()
    sizes = []
    for hour in range(HOURS):
        due = MIDNIGHT + timedelta(hours=hour)
        for request in [r for _ in range(2) for r in asked_by_schedule(instance, schedule, due)]:
            assert request.run_key is not None
            if request.run_key not in seen:
                seen.add(request.run_key)
                execute(instance, request, "open_batch")
        while requests := asked_by_sensor(instance, provider_jobs_sensor):
            for request in requests:
                assert request.run_key not in seen
                seen.add(str(request.run_key))
                execute(instance, request, str(request.job_name))
        sizes.append((bytes_of(Path(instance.root_directory)), runtime.store.path.stat().st_size))

    with runtime.store.read() as db:
        runs = trial_history(db, "hourly")
    assert len(runs) == HOURS
    assert {run["state"] for run in runs} == {"succeeded"}
    assert all(run["is_met"] for run in runs)
    newest_first = [run["batch_id"] for run in runs]
    assert [run["drift"] and run["drift"]["compared_with"] for run in runs] == [
        *newest_first[1:],
        None,
    ]
    logged = (sizes[-1][0] - sizes[0][0]) / (HOURS - 1)
    stored = (sizes[-1][1] - sizes[0][1]) / (HOURS - 1)
    print(f"a batch of two runs adds {logged:,.0f} bytes of events and {stored:,.0f} of rows")
    # Pictures ride in the metadata; much more than this would fill a disk in a season.
    assert logged < 5_000_000


def test_a_stalled_batch_is_ended_through_dagster_with_its_reason(
    runtime: Runtime,
    instance: dg.DagsterInstance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The watchdog asks, the run it asked for ends the batch, and its report says why."""
    monkeypatch.setenv("CJ_EMULATOR_SETTINGS", '{"latency_s": 86400}')
    folder = write_batch(
        tmp_path / "spring-9",
        n_students=3,
        settings={"judges": ["cj-generic-batch"], "stall_after_s": 0.001},
    )
    instance.add_dynamic_partitions("batches", ["spring-9"])
    config: dict[str, Any] = {"ops": {"essays": {"config": {"folder": str(folder)}}}}
    execute(instance, dg.RunRequest(partition_key="spring-9", run_config=config), "open_batch")

    (request,) = asked_by_sensor(instance, watchdog_sensor)
    execute(instance, request, "finish_batch")

    with RuntimeResource().open().store.read() as db:
        row = db.one("SELECT state, end_reason FROM batches")
        published = db.one("SELECT count(*) AS n FROM batch_report")
    assert row == {"state": "failed", "end_reason": "stalled"}
    assert published == {"n": 1}
    assert asked_by_sensor(instance, watchdog_sensor) == []
    # What its jobs had finished before they were told to stop may still be brought home: once.
    for late in asked_by_sensor(instance, provider_jobs_sensor):
        assert late.job_name == "collect_wave"
        execute(instance, late, "collect_wave")
    assert asked_by_sensor(instance, provider_jobs_sensor) == []
    with RuntimeResource().open().store.read() as db:
        assert db.one("SELECT state, end_reason FROM batches") == row
