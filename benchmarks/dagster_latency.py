"""From "the provider's last job ended" to "grades in DuckDB": how long, and where the time goes.

    python -m benchmarks.dagster_latency [--batches 10] [--launcher warm|default|both] [--watch 4]
    python -m benchmarks.dagster_latency --execute

The first serves `dagster dev` as `cj ui` does and drops batches into its inbox one after another.
After each it also has a run of one step that does nothing, requested by a plain sensor as soon as a
file is there: the floor, below which nothing can be that Dagster starts with that launcher.
The emulator's jobs take a few seconds, so each ends at a time nothing expects. Times are read back
from Dagster's event log and from the store's rows. The second gives each batch a `cj execute` of
its own. A job's end is taken from the emulator's own state. Through its API it reports the end as
providers do, in whole seconds; a total counted from that is half a second longer, and is printed
too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import yaml

from cj_pipeline.runtime import Runtime
from resources.local_instance import prepare_dagster_home
from resources.runtime_resource import RuntimeResource
from tests.support.batches import write_batch

ROOT = Path(__file__).parents[1]
SETTINGS = {
    "judges": ["quality"],
    "scale": "eng5_np_national_9_step",
    "all_at_once": True,
    "max_pairwise_comparisons": 60,
    "score_stability_threshold": None,
    # Without known qualities a simulated judge ranks texts by what it makes of them, and anchors
    # that are made up are in no order: there would be no grades to wait for.
    "emulator_qualities": {
        **{f"student-{n:03d}": n - 3.5 for n in range(1, 7)},
        **{f"anchor-{n:03d}": n - 5.0 for n in range(1, 10)},
    },
    # One batch in some would be refused its grades for what chance did to its anchors.
    "max_anchor_disagreement": 9.0,
    "max_extrapolated_share": 1.0,
}


FLOOR = "floor"
LOCATION = """
from pathlib import Path
import dagster as dg
import assets.automation.sensors
import cj_pipeline.definitions

assets.automation.sensors.WATCH_FOR_S = {watch_s}

@dg.op
def nothing(): ...

@dg.job
def floor():
    nothing()

@dg.sensor(
    job=floor, minimum_interval_seconds=2, default_status=dg.DefaultSensorStatus.RUNNING
)
def floor_sensor():
    return [dg.RunRequest(run_key=file.name) for file in Path("{folder}").iterdir()]

defs = dg.Definitions.merge(
    cj_pipeline.definitions.defs, dg.Definitions(jobs=[floor], sensors=[floor_sensor])
)
"""
"""The project's code location, with a job next to it that does nothing."""


@dataclass(frozen=True)
class Latency:
    """Where one batch's seconds went, in the order they passed."""

    noticed: float
    run_asked: float
    dequeued: float
    process_started: float
    graded: float
    total: float
    total_as_reported: float


@dataclass(frozen=True)
class Floor:
    """The same of a run with nothing to do; `run_asked` is from the file it is asked for by."""

    run_asked: float
    dequeued: float
    process_started: float
    done: float
    total: float


@dataclass(frozen=True)
class Execution:
    """The same of a batch that `cj execute` took to its end."""

    noticed: float
    graded: float
    total: float
    total_as_reported: float


def graded_folder(folder: Path) -> Path:
    """Write a batch that ends graded after one wave, and return it."""
    return write_batch(folder, n_students=6, n_anchors=9, settings=SETTINGS)


def stored_times(runtime: Runtime, batch_id: str) -> Mapping[str, datetime]:
    """Return when the last provider job ended, when that was noticed, and when grades were stored.

    `told` is the end as the provider reports it, `ended` as its state has it.
    """
    with closing(sqlite3.connect(runtime.home / "emulator.sqlite")) as emulator:
        due_at = dict(emulator.execute("SELECT job_id, due_at FROM jobs"))
    with runtime.store.read() as db:
        jobs = db.rows("SELECT provider_job_id FROM provider_jobs WHERE batch_id = ?", [batch_id])
        row = db.one(
            "SELECT max(ended_at) AS told, max(polled_at) AS noticed,"
            " (SELECT max(projected_at) FROM grade_projections WHERE batch_id = $batch) AS graded"
            " FROM provider_jobs WHERE batch_id = $batch",
            {"batch": batch_id},
        )
    assert row is not None, batch_id
    assert row["graded"] is not None, f"{batch_id} has no grades"
    ended = max(due_at[job["provider_job_id"]] for job in jobs)
    return row | {"ended": datetime.fromtimestamp(ended, UTC)}


def latency_of(runtime: Runtime, instance: dg.DagsterInstance, batch_id: str) -> Latency:
    """Return where a published batch's seconds went, from rows and event log."""
    stored = stored_times(runtime, batch_id)
    runs = instance.get_run_records(
        dg.RunsFilter(job_name="collect_wave", tags={"dagster/partition": batch_id})
    )
    last = max(runs, key=lambda record: record.create_timestamp)
    at = event_times(instance, last)
    marks = [
        stored["ended"].timestamp(),
        stored["noticed"].timestamp(),
        asked_at(last),
        at[dg.DagsterEventType.PIPELINE_STARTING],
        at[dg.DagsterEventType.PIPELINE_START],
        stored["graded"].timestamp(),
    ]
    steps = [after - before for before, after in itertools.pairwise(marks)]
    return Latency(
        *steps, total=marks[-1] - marks[0], total_as_reported=_as_reported(stored, marks[-1])
    )


def event_times(
    instance: dg.DagsterInstance, record: dg.RunRecord
) -> Mapping[dg.DagsterEventType, float]:
    """Return when the first event of each type happened in a run."""
    events = instance.get_records_for_run(record.dagster_run.run_id).records
    return {
        event.event_log_entry.dagster_event.event_type: event.event_log_entry.timestamp
        for event in reversed(events)
        if event.event_log_entry.dagster_event is not None
    }


def asked_at(record: dg.RunRecord) -> float:
    """Return when a run was requested."""
    return record.create_timestamp.replace(tzinfo=UTC).timestamp()


def floor_of(instance: dg.DagsterInstance, home: Path, name: str) -> Floor:
    """Have a run that does nothing, and return where its seconds went."""
    began = time.time()
    (home / FLOOR / name).touch()
    wanted = dg.RunsFilter(
        job_name=FLOOR, tags={"dagster/run_key": name}, statuses=[dg.DagsterRunStatus.SUCCESS]
    )
    while not (records := instance.get_run_records(wanted)):
        time.sleep(0.5)
    at = event_times(instance, records[0])
    marks = [
        began,
        asked_at(records[0]),
        at[dg.DagsterEventType.PIPELINE_STARTING],
        at[dg.DagsterEventType.PIPELINE_START],
        at[dg.DagsterEventType.STEP_SUCCESS],
    ]
    steps = [after - before for before, after in itertools.pairwise(marks)]
    return Floor(*steps, total=marks[-1] - marks[0])


@contextmanager
def dagster_dev(home: Path, launcher: str, watch_s: float) -> Iterator[None]:
    """Serve webserver, daemon and code server over a home."""
    dagster_home = prepare_dagster_home(home)
    if launcher == "default":
        file = dagster_home / "dagster.yaml"
        configured = yaml.safe_load(file.read_text())
        configured.pop("run_launcher", None)
        file.write_text(yaml.safe_dump(configured))
    (home / FLOOR).mkdir(parents=True)
    (home / "measured_location.py").write_text(
        LOCATION.format(watch_s=watch_s, folder=home / FLOOR)
    )
    environment = {**os.environ, "DAGSTER_HOME": str(dagster_home), "PYTHONPATH": str(home)}
    command = [sys.executable, "-m", "dagster", "dev", "--port", "0"]
    with (home / "dagster-dev.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "-m", "measured_location"],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
        )
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def is_published(runtime: Runtime, batch_id: str) -> bool:
    """Whether a batch's report is written."""
    with runtime.store.read() as db:
        return (
            db.one("SELECT 1 AS there FROM batch_report WHERE batch_id = ?", [batch_id]) is not None
        )


def through_dagster(
    folder: Path, n: int, launcher: str, watch_s: float
) -> tuple[list[Latency], list[Floor]]:
    """Take batches through a daemon, one after another, and return where their time went."""
    runtime = RuntimeResource(home=str(folder / "home")).open()
    found: list[Latency] = []
    floors: list[Floor] = []
    before: dict[str, int] = {}
    with dagster_dev(runtime.home, launcher, watch_s):
        runtime.inbox.mkdir(parents=True)
        for number in range(n + 1):
            name = f"batch-{number}"
            graded_folder(folder / name).rename(runtime.inbox / name)
            while not is_published(runtime, name):
                time.sleep(1)
            with dg.DagsterInstance.from_config(str(runtime.home / "dagster")) as instance:
                latency = latency_of(runtime, instance, name)
                if not number:  # it also waits for processes and makes tables that are made once
                    before = sizes(runtime)
                else:
                    found.append(latency)
                    print(f"  {name}: " + describe(latency), flush=True)
                time.sleep(random.uniform(0, 5))  # noqa: S311 -- another phase of the daemon's loop
                if number:
                    floors.append(floor_of(instance, runtime.home, name))
        for name, size in sizes(runtime).items():
            grown = (size - before[name]) / n
            print(f"  {name}: {grown / 1e6:.2f} MB a batch, now {size / 1e6:.1f} MB")
    return found, floors


def sizes(runtime: Runtime) -> dict[str, int]:
    """Return the bytes of Dagster's event log and of the store."""
    history = runtime.home / "dagster" / "history"
    return {
        "event log": sum(path.stat().st_size for path in history.rglob("*.db")),
        "store": runtime.store.path.stat().st_size,
    }


def through_execute(folder: Path, n: int) -> list[Execution]:
    """Take each batch through a `cj execute` of its own and return where its seconds went."""
    runtime = RuntimeResource(home=str(folder / "home")).open()
    found: list[Execution] = []
    for number in range(n + 1):
        name, log = f"batch-{number}", folder / f"{number}.log"
        command = [str(Path(sys.executable).with_name("cj"))]
        command += ["execute", "--again", "--await-completion", "--log-file", str(log)]
        subprocess.run(
            [*command, str(graded_folder(folder / name))],
            cwd=ROOT,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        times = stored_times(runtime, name)
        ended, noticed = (times[key].timestamp() for key in ("ended", "noticed"))
        graded = logged_at(log, "assessment_results_hydrated")
        if number:  # the first makes tables that are made once
            found.append(
                Execution(
                    noticed - ended, graded - noticed, graded - ended, _as_reported(times, graded)
                )
            )
            print(f"  {name}: {describe(found[-1])}", flush=True)
    return found


def logged_at(log: Path, event: str) -> float:
    """Return when an event was logged: this one comes once the grades are committed."""
    lines = map(json.loads, log.read_text().splitlines())
    (found,) = (line["timestamp"] for line in lines if line["event"] == event)
    return datetime.fromisoformat(found).timestamp()


def _as_reported(times: Mapping[str, datetime], graded: float) -> float:
    return graded - times["told"].timestamp()


def describe(spent: Latency | Floor | Execution) -> str:
    """Return a batch's seconds on one line."""
    return "  ".join(f"{f.name} {getattr(spent, f.name):.2f}" for f in fields(spent))


def print_medians(what: str, found: Sequence[Latency | Floor | Execution]) -> None:
    """Print the median and the longest of each of the parts."""
    print(f"{what}, {len(found)} batches:")
    for each in fields(found[0]):
        values = [getattr(spent, each.name) for spent in found]
        print(f"  {each.name:<16} {statistics.median(values):6.2f} s  most {max(values):.2f}")


@contextmanager
def a_home() -> Iterator[Path]:
    """Give a folder whose `home` is CJ_HOME for whatever is started meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CJ_HOME"] = str(Path(folder) / "home")
        yield Path(folder)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--launcher", choices=("warm", "default", "both"), default="warm")
    parser.add_argument("--watch", type=float, default=4.0)
    parser.add_argument("--execute", action="store_true")
    parser.add_argument("--latency", type=float, default=8.0, help="of a provider job, in seconds")
    given = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores at the start")
    os.environ["CJ_EMULATOR_SETTINGS"] = f'{{"latency_s": {given.latency}}}'
    if given.execute:
        with a_home() as folder:
            print_medians("cj execute", through_execute(folder, given.batches))
    else:
        both = ("default", "warm")
        for launcher in both if given.launcher == "both" else (given.launcher,):
            with a_home() as folder:
                found, floors = through_dagster(folder, given.batches, launcher, given.watch)
            print_medians(f"{launcher} launcher, a run that does nothing", floors)
            print_medians(f"{launcher} launcher, watching {given.watch:g} s", found)
    print(f"load average {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
