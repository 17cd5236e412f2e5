"""From "the provider's last job ended" to "grades in DuckDB": how long, and where the time goes.

    python -m benchmarks.dagster_latency [--batches 10] [--launcher warm|default] [--watch 4]
    python -m benchmarks.dagster_latency --execute

The first serves `dagster dev` as `cj ui` does and drops batches into its inbox one after another.
The emulator's jobs take a few seconds, so each ends while nobody expects it. Times are read back
from Dagster's event log and from the store's rows. The second gives each batch a `cj execute` of
its own. A job's end is taken from the emulator's own state. Through its API it tells the end as
providers do, in whole seconds; a total counted from that is half a second longer, and is printed
too.
"""

from __future__ import annotations

import argparse
import itertools
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

from cj_pipeline.steps import Engine
from resources.engine_resource import EngineResource
from resources.local_instance import prepare_dagster_home
from tests.batch_folders import write_batch

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


@dataclass(frozen=True)
class Latency:
    """Where one batch's seconds went, in the order they passed."""

    noticed: float
    run_asked: float
    dequeued: float
    process_started: float
    graded: float
    total: float
    total_as_told: float


@dataclass(frozen=True)
class Execution:
    """The same of a batch that `cj execute` took to its end."""

    noticed: float
    graded: float
    total: float
    total_as_told: float


def graded_folder(folder: Path) -> Path:
    """Write a batch that ends graded after one wave, and return it."""
    return write_batch(folder, n_students=6, n_anchors=9, settings=SETTINGS)


def stored_times(engine: Engine, batch_id: str) -> Mapping[str, datetime]:
    """Return when the last provider job ended, when that was seen, and when grades were kept.

    `told` is the end as the provider tells it, `ended` as its state has it.
    """
    with closing(sqlite3.connect(engine.home / "emulator.sqlite")) as emulator:
        due_at = dict(emulator.execute("SELECT job_id, due_at FROM jobs"))
    with engine.store.read() as db:
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


def latency_of(engine: Engine, instance: dg.DagsterInstance, batch_id: str) -> Latency:
    """Return where a published batch's seconds went, from rows and event log."""
    stored = stored_times(engine, batch_id)
    runs = instance.get_run_records(
        dg.RunsFilter(job_name="collect_wave", tags={"dagster/partition": batch_id})
    )
    last = max(runs, key=lambda record: record.create_timestamp)
    events = instance.get_records_for_run(last.dagster_run.run_id).records
    at = {
        record.event_log_entry.dagster_event.event_type: record.event_log_entry.timestamp
        for record in reversed(events)
        if record.event_log_entry.dagster_event is not None
    }
    asked = last.create_timestamp.replace(tzinfo=UTC).timestamp()
    marks = [
        stored["ended"].timestamp(),
        stored["noticed"].timestamp(),
        asked,
        at[dg.DagsterEventType.PIPELINE_STARTING],
        at[dg.DagsterEventType.PIPELINE_START],
        stored["graded"].timestamp(),
    ]
    steps = [after - before for before, after in itertools.pairwise(marks)]
    return Latency(*steps, total=marks[-1] - marks[0], total_as_told=_as_told(stored, marks[-1]))


@contextmanager
def dagster_dev(home: Path, launcher: str, watch_s: float) -> Iterator[None]:
    """Serve webserver, daemon and code server over a home."""
    dagster_home = prepare_dagster_home(home)
    if launcher == "default":
        file = dagster_home / "dagster.yaml"
        configured = yaml.safe_load(file.read_text())
        configured.pop("run_launcher", None)
        file.write_text(yaml.safe_dump(configured))
    code = (
        "import assets.batch_sensors as s\n"
        f"s.WATCH_FOR_S = {watch_s}\n"
        "from cj_pipeline.definitions import defs\n"
    )
    (home / "measured_location.py").write_text(code)
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


def is_published(engine: Engine, batch_id: str) -> bool:
    """Whether a batch's report is written."""
    with engine.store.read() as db:
        return (
            db.one("SELECT 1 AS there FROM batch_report WHERE batch_id = ?", [batch_id]) is not None
        )


def through_dagster(folder: Path, n: int, launcher: str, watch_s: float) -> list[Latency]:
    """Take batches through a daemon, one after another, and return where their time went."""
    engine = EngineResource().open()
    found: list[Latency] = []
    before: dict[str, int] = {}
    with dagster_dev(engine.home, launcher, watch_s):
        engine.inbox.mkdir(parents=True)
        for number in range(n + 1):
            name = f"batch-{number}"
            graded_folder(folder / name).rename(engine.inbox / name)
            while not is_published(engine, name):
                time.sleep(1)
            with dg.DagsterInstance.from_config(str(engine.home / "dagster")) as instance:
                latency = latency_of(engine, instance, name)
            if not number:  # it also waits for processes and makes tables that are made once
                before = sizes(engine)
            else:
                found.append(latency)
                print(f"  {name}: " + told(latency), flush=True)
            time.sleep(random.uniform(0, 5))  # noqa: S311 -- another phase of the daemon's loop
        for name, size in sizes(engine).items():
            grown = (size - before[name]) / n
            print(f"  {name}: {grown / 1e6:.2f} MB a batch, now {size / 1e6:.1f} MB")
    return found


def sizes(engine: Engine) -> dict[str, int]:
    """Return the bytes of Dagster's event log and of the store."""
    history = engine.home / "dagster" / "history"
    return {
        "event log": sum(path.stat().st_size for path in history.rglob("*.db")),
        "store": engine.store.path.stat().st_size,
    }


def through_execute(folder: Path, n: int) -> list[Execution]:
    """Take each batch through a `cj execute` of its own and return where its seconds went."""
    engine = EngineResource().open()
    found: list[Execution] = []
    for number in range(n + 1):
        name = f"batch-{number}"
        command = [str(Path(sys.executable).with_name("cj"))]
        command += ["execute", "--again", "--await-completion"]
        subprocess.run(
            [*command, str(graded_folder(folder / name))],
            cwd=ROOT,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        times = stored_times(engine, name)
        ended, noticed, graded = (times[key].timestamp() for key in ("ended", "noticed", "graded"))
        if number:  # the first makes tables that are made once
            found.append(
                Execution(
                    noticed - ended, graded - noticed, graded - ended, _as_told(times, graded)
                )
            )
            print(f"  {name}: {told(found[-1])}", flush=True)
    return found


def _as_told(times: Mapping[str, datetime], graded: float) -> float:
    return graded - times["told"].timestamp()


def told(spent: Latency | Execution) -> str:
    """Return a batch's seconds on one line."""
    return "  ".join(f"{f.name} {getattr(spent, f.name):.2f}" for f in fields(spent))


def print_medians(what: str, found: Sequence[Latency | Execution]) -> None:
    """Print the median and the longest of each of the parts."""
    print(f"{what}, {len(found)} batches:")
    for each in fields(found[0]):
        values = [getattr(spent, each.name) for spent in found]
        print(f"  {each.name:<16} {statistics.median(values):6.2f} s  most {max(values):.2f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--launcher", choices=("warm", "default"), default="warm")
    parser.add_argument("--watch", type=float, default=4.0)
    parser.add_argument("--execute", action="store_true")
    parser.add_argument("--latency", type=float, default=8.0, help="of a provider job, in seconds")
    given = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores at the start")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CJ_HOME"] = str(Path(folder) / "home")
        os.environ["CJ_EMULATOR_SETTINGS"] = f'{{"latency_s": {given.latency}}}'
        if given.execute:
            print_medians("cj execute", through_execute(Path(folder), given.batches))
        else:
            found = through_dagster(Path(folder), given.batches, given.launcher, given.watch)
            print_medians(f"{given.launcher} launcher, watching {given.watch:g} s", found)
    print(f"load average {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
