"""`cj watch`: what a person sees of a batch, and what a script learns from its exit code."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from cj_pipeline.cli import app
from cj_pipeline.commands.watch import EXIT_CODES, screen_of
from cj_pipeline.emulator import change_settings
from cj_pipeline.emulator.config import EmulatorConfig
from cj_pipeline.errors import BatchProblemsError
from cj_pipeline.operations.cost_estimate import usual_time
from cj_pipeline.progress.events import is_cancel_requested, progress_of
from cj_pipeline.progress.follow import follow
from cj_pipeline.progress.text import duration
from cj_pipeline.progress.values import EventKind
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.next_step import unattended_since
from cj_pipeline.stopping.continuation import BatchOutcome
from tests.support.batches import begin, end, open_engine, write_batch

CJ = str(Path(sys.executable).parent / "cj")
SETTINGS: dict[str, Any] = {
    "judges": ["quality"],
    "score_stability_threshold": None,
    "max_pairwise_comparisons": 6,
    "wave_size": 3,
}


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """A runtime over an empty home, which is also that of `cj`."""
    monkeypatch.setenv("CJ_HOME", str(tmp_path / "home"))
    return open_engine(tmp_path / "home")


def begun(runtime: Runtime, folder: Path, **settings: object) -> str:
    """Take a batch in, ask its first wave, and return its name."""
    write_batch(folder, n_students=4, settings=SETTINGS | settings)
    return begin(runtime, folder)


def watch(*arguments: str, said: str = "") -> tuple[int, str]:
    """Run `cj watch` and return its exit code and what it printed."""
    result = CliRunner().invoke(app, ["watch", *arguments], input=said)
    return result.exit_code, result.output


def test_following_shows_every_event_and_ends_with_the_batch(
    runtime: Runtime, tmp_path: Path
) -> None:
    """Nothing is missed between two looks, and nothing is shown twice."""
    batch_id = begun(runtime, tmp_path / "batch")
    mover = threading.Thread(target=end, args=(open_engine(runtime.home), batch_id))
    mover.start()

    looks = list(follow(runtime, batch_id))

    mover.join()
    told = [event.sequence for look in looks for event in look.events]
    assert told == list(range(1, len(told) + 1))
    assert looks[-1].events[-1].kind is EventKind.ENDED


def test_a_log_has_one_line_per_event(runtime: Runtime, tmp_path: Path) -> None:
    """Without a terminal there is no screen to draw on."""
    batch_id = begun(runtime, tmp_path / "batch")
    end(runtime, batch_id)

    code, said = watch(batch_id, "--timeout", "0")

    assert code == 0
    lines = said.splitlines()
    assert [line.split()[1] for line in lines[:-1]] == [f"#{n}" for n in range(1, len(lines))]
    assert "6/6 (100%)" in lines[-2]
    assert lines[-1].startswith("batch: success (")


def test_the_exit_code_tells_the_outcome(runtime: Runtime, tmp_path: Path) -> None:
    """A script that goes on after a batch has to know how it came out."""
    change_settings(
        EmulatorConfig.from_environment(runtime.environment, runtime.home),
        judges={"quality": {"invalid_rate": 1.0}},
    )
    batch_id = begun(runtime, tmp_path / "batch", max_attempts=1)
    end(runtime, batch_id)

    code, said = watch(batch_id)

    assert (code, said.splitlines()[-1]) == (11, "batch: failure (no_successes)")


def test_every_outcome_has_a_code_of_its_own() -> None:
    """And none is one that errors, usage or interrupts use."""
    assert set(EXIT_CODES) == set(BatchOutcome)
    assert len(set(EXIT_CODES.values())) == len(BatchOutcome)
    assert not set(EXIT_CODES.values()) & {1, 2, 3, 130}


def test_a_rejected_batch_says_so(runtime: Runtime, tmp_path: Path) -> None:
    """It has no outcome, and waiting for one would never end."""
    folder = write_batch(tmp_path / "batch", n_students=1, settings=SETTINGS)
    with pytest.raises(BatchProblemsError):
        ingest(runtime, folder)

    code, said = watch("batch")

    assert code == 16
    assert "cj status batch" in said


@pytest.mark.parametrize(
    ("command", "code"), [("report", 2), ("assert", 0), ("regrade", 1), ("link", 1)]
)
def test_whatever_is_asked_of_a_rejected_batch_says_what_is_wrong(
    runtime: Runtime, tmp_path: Path, command: str, code: int
) -> None:
    """Its settings were never taken, so nothing may count on one."""
    settings = SETTINGS | {"release": "never"}
    with pytest.raises(BatchProblemsError):
        ingest(runtime, write_batch(tmp_path / "batch", n_students=3, settings=settings))
    words = ["--alone"] if command == "link" else []

    done = CliRunner().invoke(app, [command, "batch", *words])

    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    assert command == "assert" or "release: Input should be" in " ".join(done.output.split())


def test_an_unknown_batch_is_an_error(runtime: Runtime) -> None:
    """Also one whose name looks like a path out of the inbox."""
    assert watch("nobody")[0] == 1
    assert watch("..")[0] == 1


def test_a_batch_in_the_inbox_is_waited_for(runtime: Runtime) -> None:
    """The sensor takes a moment to find it at rest."""
    (runtime.inbox / "waiting").mkdir(parents=True)

    code, said = watch("waiting", "--timeout", "0")

    assert code == 3
    assert "in the inbox" in said


def test_watching_ends_after_its_time(runtime: Runtime, tmp_path: Path) -> None:
    """The batch goes on."""
    batch_id = begun(runtime, tmp_path / "batch")

    code, said = watch(batch_id, "--timeout", "0")

    assert code == 3
    assert "goes on" in said


@pytest.mark.parametrize(("answer", "is_cancelled"), [("y\n", True), ("n\n", False), ("", False)])
def test_cancelling_asks_first(
    runtime: Runtime,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    is_cancelled: bool,
) -> None:
    """A slip of the finger must not throw a day's judging away."""
    monkeypatch.setattr("cj_pipeline.commands.watch.is_attended", lambda: True)
    batch_id = begun(runtime, tmp_path / "batch")

    watch(batch_id, "--cancel", "--timeout", "0", said=answer)

    with runtime.store.read() as db:
        assert is_cancel_requested(db, batch_id) is is_cancelled


def test_it_says_that_no_process_collects(runtime: Runtime, tmp_path: Path) -> None:
    """Otherwise one watches a bar that cannot move; with `--json` beside the events."""
    batch_id = begun(runtime, tmp_path / "batch")
    with runtime.store.write() as db:
        db.execute(
            "UPDATE provider_jobs SET next_poll_at = now() - INTERVAL 10 MINUTE, lease_until = NULL"
        )

    code, said = watch(batch_id, "--timeout", "0")
    told = CliRunner().invoke(app, ["watch", batch_id, "--timeout", "0", "--json"])
    shown = CliRunner().invoke(app, ["status", batch_id]).output

    assert code == told.exit_code == 3
    assert "No process collects batch" in said
    assert "No process collects batch" in told.stderr
    assert "No process collects batch" in " ".join(shown.split())
    kinds = [json.loads(line)["kind"] for line in told.stdout.splitlines()]
    assert kinds == ["opened", "asked"]


def test_the_status_of_one_batch_says_what_it_waits_for(runtime: Runtime, tmp_path: Path) -> None:
    """Where its job is, under which name, and when it was and is looked at."""
    batch_id = begun(runtime, tmp_path / "batch")

    told = json.loads(CliRunner().invoke(app, ["status", batch_id, "--json"]).stdout)
    shown = CliRunner().invoke(app, ["status", batch_id], env={"COLUMNS": "200"}).output

    (job,) = told["jobs"]
    assert (job["provider"], job["phase"], job["n_requests"]) == ("emulator", "open", 3)
    assert job["next_look"] is not None
    assert told["awaited"][0].startswith("1 provider job at emulator")
    assert [row["batch_id"] for row in told["batches"]] == [batch_id]
    assert job["provider_job_id"] in shown
    assert "next look" in shown


def test_a_batch_that_was_just_looked_at_is_attended(runtime: Runtime, tmp_path: Path) -> None:
    """No false alarm: also where a process holds a job, and where the batch has ended."""
    batch_id = begun(runtime, tmp_path / "batch")
    now = runtime.clock()
    late = now + timedelta(hours=1)

    def since(at: datetime) -> datetime | None:
        with runtime.store.read() as db:
            return unattended_since(db, batch_id, at)

    assert since(now) is None
    assert since(late) is not None
    with runtime.store.write() as db:
        db.execute("UPDATE provider_jobs SET lease_until = ?", [late + timedelta(minutes=1)])
    assert since(late) is None
    with runtime.store.write() as db:
        db.execute("UPDATE batches SET state = 'failed'")
        db.execute("UPDATE provider_jobs SET lease_until = NULL")
    assert since(late) is None


def test_the_screen_shows_each_judge_and_says_what_is_unknown(
    runtime: Runtime, tmp_path: Path
) -> None:
    """An ETA that nobody can know is not made up."""
    batch_id = begun(runtime, tmp_path / "batch")
    with runtime.store.read() as db:
        progress = progress_of(db, batch_id, runtime.clock())
        usual = usual_time(db, batch_id)
    console = Console(width=160, record=True, file=Path(os.devnull).open("w"))  # noqa: SIM115

    console.print(screen_of(progress, usual))

    shown = " ".join(console.export_text().split())
    assert "no answers yet: speed, time left and final cost are not known; it takes" in shown
    assert f"it takes {usual} at most" in shown
    assert "quality" in shown
    assert "asking" in shown


def test_durations_are_told_to_the_precision_that_matters() -> None:
    """Nobody plans by the second over hours."""
    assert [duration(s) for s in (3.4, 600, 20_000)] == ["3 s", "10 min", "5.6 h"]


def wait_for(what: Callable[[], bool], seconds: float = 60) -> None:
    """Return once something is so."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_ctrl_c_leaves_the_batch_running(runtime: Runtime, tmp_path: Path) -> None:
    """Watching is not holding."""
    batch_id = begun(runtime, tmp_path / "batch")
    process = subprocess.Popen(
        [CJ, "watch", batch_id],
        env={**os.environ, "CJ_HOME": str(runtime.home), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )
    assert process.stdout is not None
    first = process.stdout.readline()

    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)

    assert "opened" in first
    assert "goes on" in rest
    assert process.returncode == 130
    with runtime.store.read() as db:
        assert not is_cancel_requested(db, batch_id)


@pytest.mark.slow
def test_the_key_c_asks_and_then_cancels(runtime: Runtime, tmp_path: Path) -> None:
    """At a terminal, while the screen is live."""
    batch_id = begun(runtime, tmp_path / "batch")
    child, terminal = pty.fork()
    if child == 0:  # pragma: no cover - the other process
        os.environ |= {"CJ_HOME": str(runtime.home), "TERM": "xterm", "COLUMNS": "120"}
        os.execv(CJ, [CJ, "watch", batch_id])  # noqa: S606
    shown = _Shown(terminal)
    wait_for(lambda: "Ctrl-C" in shown())

    os.write(terminal, b"c")
    wait_for(lambda: "End batch now?" in shown())
    os.write(terminal, b"y\n")

    wait_for(lambda: "asked to stop" in shown())
    end(runtime, batch_id)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == EXIT_CODES[BatchOutcome.CANCELLED]


class _Shown:
    """Everything a terminal has shown so far."""

    def __init__(self, terminal: int) -> None:
        self._text = b""
        self._reader = threading.Thread(target=self._read, args=(terminal,), daemon=True)
        self._reader.start()

    def __call__(self) -> str:
        return self._text.decode(errors="replace")

    def _read(self, terminal: int) -> None:
        while True:
            try:
                found = os.read(terminal, 4096)
            except OSError:
                return
            if not found:
                return
            self._text += found
