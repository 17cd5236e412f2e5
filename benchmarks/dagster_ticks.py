"""How long a sensor's tick takes with many batches: 200 open jobs over 1,000 partitions.

    python -m benchmarks.dagster_ticks [--open 200] [--ended 800] [--comparisons 300] [--runs 0]

A large installation: `--open 100 --ended 9900 --comparisons 40 --runs 80000`.

One batch is taken to its end and another to its first wave, through the real steps with the
emulator over HTTP; the rest are copies of their rows under other names. Then the real sensors are
evaluated against a real instance, and each tick's parts are timed.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from itertools import islice
from pathlib import Path

import dagster as dg

from assets.automation import sensors
from assets.automation.maintenance import MAX_RUNS_A_NIGHT, superseded_runs
from assets.automation.partitions import BATCHES
from assets.automation.pools import MARK_TAG
from assets.automation.sensors import (
    inbox_sensor,
    notification_sensor,
    provider_jobs_sensor,
    watchdog_sensor,
)
from cj_pipeline.definitions import defs
from cj_pipeline.emulator import change_settings
from cj_pipeline.emulator.config import EmulatorConfig
from cj_pipeline.emulator.serving import served
from cj_pipeline.intake.inbox import Look, items_in, known_of, write_arrivals
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.advance import advance_to_end
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.next_step import next_steps
from cj_pipeline.steps.plan_wave import plan_wave
from cj_pipeline.steps.submit_wave import submit_wave
from resources.runtime_resource import RuntimeResource
from tests.support.batches import write_batch

_KEYS = ("comparison_id", "custom_id", "submission_key")


def copy_batch(runtime: Runtime, batch_id: str, n: int, prefix: str) -> list[str]:
    """Copy a batch's rows under `n` other names and return the names."""
    with runtime.store.write() as db:
        columns = db.rows(
            "SELECT table_name, list(column_name ORDER BY column_index) AS names"
            " FROM duckdb_columns() JOIN duckdb_tables() USING (table_name, schema_name)"
            " WHERE NOT duckdb_tables.internal GROUP BY table_name"
            " HAVING list_contains(names, 'batch_id')"
        )
        for row in columns:
            changed = [f"'{prefix}-' || lpad(i::VARCHAR, 5, '0') AS batch_id"]
            changed += [f"{k} || '-{prefix}' || i AS {k}" for k in _KEYS if k in row["names"]]
            db.execute(
                # Names of our own tables and of no batch.
                f"INSERT INTO {row['table_name']} SELECT t.* REPLACE ({', '.join(changed)})"  # noqa: S608
                f" FROM (FROM {row['table_name']} WHERE batch_id = ?) t, range(?) r(i)",
                [batch_id, n],
            )
    return [f"{prefix}-{i:05d}" for i in range(n)]


def prepare(runtime: Runtime, folder: Path, n_open: int, n_ended: int, n_comparisons: int) -> None:
    """Fill the store: `n_ended` published batches, and `n_open` whose first wave is out."""
    judged = {"judges": ["cj-generic-batch"], "score_stability_threshold": None}
    budget = {"max_pairwise_comparisons": n_comparisons, "all_at_once": True}
    ended = write_batch(folder / "ended", n_students=25, settings=judged | budget)
    ingest(runtime, ended)
    for _ in advance_to_end(runtime, "ended", pause_s=0.05):
        pass
    config = EmulatorConfig.from_environment(runtime.environment, runtime.home)
    change_settings(config, latency_s=86_400.0)
    waiting = write_batch(folder / "waiting", n_students=25, settings=judged)
    ingest(runtime, waiting)
    plan_wave(runtime, "waiting")
    submit_wave(runtime, "waiting")
    copy_batch(runtime, "ended", n_ended - 1, "ended")
    copy_batch(runtime, "waiting", n_open - 1, "waiting")


@contextmanager
def timed(parts: dict[str, float], module: object, name: str) -> Iterator[None]:
    """Add up how long a function of a module takes, while the context lasts."""
    real: Callable[..., object] = getattr(module, name)

    def measured(*args: object, **more: object) -> object:
        started = time.perf_counter()
        try:
            return real(*args, **more)
        finally:
            parts[name] = parts.get(name, 0.0) + time.perf_counter() - started

    setattr(module, name, measured)
    try:
        yield
    finally:
        setattr(module, name, real)


def tick(
    sensor: dg.SensorDefinition, instance: dg.DagsterInstance, cursor: str | None = None
) -> tuple[float, dict[str, float], int, str | None]:
    """Evaluate a sensor once: seconds, seconds by part, runs requested, cursor."""
    parts: dict[str, float] = {}
    sensors.WATCH_FOR_S = 0.0
    with ExitStack() as stack:
        for name in ("poll", "standings", "_batches_with_runs", "_attempts", "_result"):
            stack.enter_context(timed(parts, sensors, name))
        context = stack.enter_context(
            dg.build_sensor_context(
                instance=instance,
                cursor=cursor,
                resources={"engine": RuntimeResource()},
                definitions=defs,
            )
        )
        started = time.perf_counter()
        found = sensor(context)
        seconds = time.perf_counter() - started
    assert isinstance(found, dg.SensorResult)
    return seconds, parts, len(found.run_requests or []), found.cursor


def show(what: str, measured: tuple[float, dict[str, float], int, str | None]) -> None:
    """Print one tick."""
    seconds, parts, n_runs, _ = measured
    listed = ", ".join(f"{name.strip('_')} {part:.2f}" for name, part in parts.items())
    print(f"{what:<58} {seconds:6.2f} s  {n_runs:3d} runs   {listed}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--open", type=int, default=200)
    parser.add_argument("--ended", type=int, default=800)
    parser.add_argument("--comparisons", type=int, default=300)
    parser.add_argument("--runs", type=int, default=0, help="finished runs in Dagster's history")
    parser.add_argument("--ticks", type=int, default=20, help="repetitions of what is steady")
    parser.add_argument("--resting", type=int, default=2000, help="folders kept in the inbox")
    given = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CJ_HOME"] = str(Path(folder) / "home")
        config = EmulatorConfig.from_environment({}, Path(folder) / "home")
        config.state_path.parent.mkdir(parents=True)
        with served(config) as address, dg.DagsterInstance.local_temp(folder) as instance:
            os.environ["CJ_EMULATOR_URL"] = address
            runtime = RuntimeResource().open()
            prepare(runtime, Path(folder), given.open, given.ended, given.comparisons)
            with runtime.store.read() as db:
                names = [row["batch_id"] for row in db.rows("SELECT batch_id FROM batches")]
                n_rows = db.rows("SELECT count(*) AS n FROM attempts")[0]["n"]
            instance.add_dynamic_partitions(BATCHES, names)
            size = runtime.store.path.stat().st_size / 1e6
            print(f"{len(names)} partitions, {n_rows} requests, store {size:.0f} MB")
            if given.runs:
                add_history(instance, names, given.runs)
                print(f"{instance.get_runs_count()} runs")
            tick(provider_jobs_sensor, instance)
            steady(runtime, instance, given.ticks)
            resting(runtime, instance, given.resting, given.ticks)
            measure(runtime, instance)


def add_history(instance: dg.DagsterInstance, names: list[str], n_runs: int) -> None:
    """Record finished runs of the batches, as a year leaves them: runs alone, without events."""
    jobs = ("open_batch", "collect_wave")
    for number in range(n_runs):
        batch_id = names[number % len(names)]
        job = jobs[0] if number < len(names) else jobs[1]
        instance.run_storage.add_run(
            dg.DagsterRun(
                job_name=job,
                run_id=str(uuid.UUID(int=number + 1)),
                status=dg.DagsterRunStatus.SUCCESS,
                tags={
                    "dagster/partition": batch_id,
                    MARK_TAG: f"{number:012d}",
                    "dagster/cj-provider-emulator": "yes",
                },
            )
        )


def often(what: str, n_ticks: int, measured: Callable[[], float]) -> None:
    """Print the median and the 95th percentile of ticks that are repeated."""
    seconds = sorted(measured() for _ in range(n_ticks))
    at_95 = seconds[min(len(seconds) - 1, round(0.95 * len(seconds)))]
    print(f"{what:<58} {seconds[len(seconds) // 2]:6.2f} s  p95 {at_95:.2f} s of {n_ticks}")


def steady(runtime: Runtime, instance: dg.DagsterInstance, n_ticks: int) -> None:
    """Time what happens all day while nothing does: ticks, a partition's page, upkeep's look."""

    def of(sensor: dg.SensorDefinition) -> Callable[[], float]:
        return lambda: tick(sensor, instance)[0]

    for sensor in (provider_jobs_sensor, watchdog_sensor, inbox_sensor, notification_sensor):
        often(f"{sensor.name}, nothing to do", n_ticks, of(sensor))

    def page() -> float:
        """What Dagster reads for the page of an asset's partitions, and one of them."""
        started = time.perf_counter()
        key = dg.AssetKey("batch_report")
        instance.get_dynamic_partitions(BATCHES)
        instance.get_materialized_partitions(key)
        instance.get_run_records(dg.RunsFilter(tags={"dagster/partition": "ended-00001"}), limit=20)
        instance.fetch_materializations(
            dg.AssetRecordsFilter(key, asset_partitions=["ended-00001"]), limit=20
        )
        return time.perf_counter() - started

    often("a partition's page", n_ticks, page)
    started = time.perf_counter()
    with runtime.store.read() as db:
        going_on = set(next_steps(db, runtime.clock()))
    found = islice(superseded_runs(instance, runtime.clock(), going_on), MAX_RUNS_A_NIGHT)
    n_found = sum(1 for _ in found)
    print(f"upkeep finds {n_found} runs to delete in {time.perf_counter() - started:.1f} s")


def measure(runtime: Runtime, instance: dg.DagsterInstance) -> None:
    """Time the ticks that matter."""

    def all_due() -> None:
        with runtime.store.write() as db:
            db.execute("UPDATE provider_jobs SET next_poll_at = NULL WHERE state = 'running'")

    show("provider_jobs_sensor, every open job due", tick(provider_jobs_sensor, instance))
    show("provider_jobs_sensor, at once again", tick(provider_jobs_sensor, instance))
    all_due()
    show("provider_jobs_sensor, every open job due", tick(provider_jobs_sensor, instance))
    show("watchdog_sensor, nothing stalled", tick(watchdog_sensor, instance))
    with runtime.store.write() as db:
        db.execute("UPDATE attempts SET requested_at = requested_at - ?", [timedelta(days=9)])
    show("watchdog_sensor, every open batch stalled", tick(watchdog_sensor, instance))
    config = EmulatorConfig.from_environment(runtime.environment, runtime.home)
    with runtime.store.write() as db:
        db.execute(
            "UPDATE provider_jobs SET state = 'ended', ended_at = now() WHERE state = 'running'"
        )
    change_settings(config, latency_s=0.0)
    show("provider_jobs_sensor, every job has ended", tick(provider_jobs_sensor, instance))
    inbox = runtime.inbox
    inbox.mkdir(exist_ok=True)
    for number in range(200):
        write_batch(inbox / f"drop-{number:03d}", n_students=25, settings={})
    first = tick(inbox_sensor, instance)
    show("inbox_sensor, 200 folders of 25 essays seen first", first)
    show("inbox_sensor, the same at rest", tick(inbox_sensor, instance, first[3]))


def resting(runtime: Runtime, instance: dg.DagsterInstance, n_folders: int, n_ticks: int) -> None:
    """Time ticks over an inbox that keeps folders, of which nothing is new."""
    runtime.inbox.mkdir(exist_ok=True)
    for number in range(n_folders):
        write_batch(runtime.inbox / f"kept-{number:05d}", n_students=4, settings={})
    with runtime.store.write() as db:
        known = known_of(db)
        look = Look(known=known, now=runtime.clock(), busy=(), rest_of=lambda _: (0.0, None))
        seen, _ = look.at(items_in(runtime.inbox))
        rows = [
            replace(row, state="rejected", reason="instructions.md is missing") for row in seen.rows
        ]
        write_arrivals(db, rows, known)
    cursor: list[str | None] = [None]

    def one() -> float:
        seconds, _, n_runs, cursor[0] = tick(inbox_sensor, instance, cursor[0])
        assert n_runs == 0
        return seconds

    often(f"inbox_sensor, {n_folders} folders at rest", n_ticks, one)


if __name__ == "__main__":
    main()
