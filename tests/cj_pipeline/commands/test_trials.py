"""`cj trial` as a person at a terminal meets it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cj_pipeline.cli import app
from tests.support.batches import open_engine


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, which is this process's CJ_HOME."""
    monkeypatch.setenv("CJ_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("CJ_EMULATOR_URL", raising=False)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    return tmp_path / "home"


def test_the_list_shows_built_in_trials_and_ones_own(home: Path) -> None:
    """One that is wrong is listed with what is wrong with it."""
    (home / "trials").mkdir(parents=True)
    (home / "trials" / "mine.yaml").write_text("made_up: {students: 0}\n")

    shown = CliRunner().invoke(app, ["trial", "list"])

    assert shown.exit_code == 0
    for name in ("lower5", "regular", "provider-batch", "generic", "anchor", "mini", "mine"):
        assert name in shown.output
    assert "two essays make" in shown.output


def test_a_trial_that_does_not_come_out_ends_with_1_and_stays_in_the_history(home: Path) -> None:
    """So a build that runs it fails."""
    (home / "trials").mkdir(parents=True)
    (home / "trials" / "tiny.yaml").write_text(
        "based_on: minimum\nexpect: [completed == 99]\nsettings: {all_at_once: true}\n"
    )

    done = CliRunner().invoke(app, ["trial", "tiny", "--json"])
    history = CliRunner().invoke(app, ["trial", "history", "tiny", "--json"])

    assert done.exit_code == 1
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["findings"] == [{"expectation": "completed == 99", "found": 5, "holds": False}]
    (kept,) = json.loads(history.stdout)["runs"]
    assert kept["batch_id"] == told["batch_id"]
    assert kept["is_met"] is False


def test_an_unknown_trial_is_told_plainly(home: Path) -> None:
    """With those there are."""
    shown = CliRunner().invoke(app, ["trial", "lower6"])

    assert shown.exit_code == 1
    assert "lower5" in shown.output


def test_naming_none_asks_for_one(home: Path) -> None:
    """Running everything by accident could cost money."""
    shown = CliRunner().invoke(app, ["trial", "run"])

    assert shown.exit_code == 1
    assert "--quick" in shown.output


SLOW = """
based_on: minimum
expect: [completed == 5]
emulator: {latency_s: 6}
"""


def begun(home: Path, *names: str) -> subprocess.Popen[str]:
    """Begin trials in a process of their own, and return it once one waits for its provider."""
    program = str(Path(sys.executable).parent / "cj")
    process = subprocess.Popen(
        [program, "trial", "run", *names],
        env=os.environ | {"CJ_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    until = time.monotonic() + 300
    while time.monotonic() < until and process.poll() is None:
        if (home / "cj.duckdb").exists():
            with open_engine(home).store.read() as db:
                if db.rows("SELECT 1 FROM provider_jobs WHERE provider_job_id IS NOT NULL"):
                    return process
        time.sleep(0.2)
    process.kill()
    raise AssertionError(process.communicate()[0])


@pytest.mark.slow
@pytest.mark.parametrize("n_signals", [1, 2])
def test_a_trial_stops_when_asked_and_the_same_command_goes_on(home: Path, n_signals: int) -> None:
    """The next one is not begun, nothing is asked twice, and no traceback is shown."""
    (home / "trials").mkdir(parents=True)
    (home / "trials" / "slow.yaml").write_text(SLOW)

    process = begun(home, "slow", "mini")
    for _ in range(n_signals):
        process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[0]

    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in said
    if n_signals == 1:
        assert "Nothing is lost" in said
    with open_engine(home).store.read() as db:
        (batch,) = db.rows("SELECT batch_id, state FROM batches")
    assert batch["state"] == "running"

    done = CliRunner().invoke(app, ["trial", "slow", "--json"])

    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["batch_id"] == batch["batch_id"]
    with open_engine(home).store.read() as db:
        asked = db.one("SELECT count(*) AS n, count(DISTINCT custom_id) AS n_ids FROM attempts")
    assert asked == {"n": 5, "n_ids": 5}


@pytest.mark.slow
def test_an_interrupted_run_of_another_definition_is_ended(home: Path) -> None:
    """What it would come to can be compared with nothing any more."""
    (home / "trials").mkdir(parents=True)
    (home / "trials" / "slow.yaml").write_text(SLOW)
    process = begun(home, "slow")
    process.kill()
    process.wait()
    (home / "trials" / "slow.yaml").write_text(
        SLOW.replace("latency_s: 6", "latency_s: 0") + "settings: {seed: 5}\n"
    )

    done = CliRunner().invoke(app, ["trial", "slow", "--json"])

    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout.splitlines()[-1])
    with open_engine(home).store.read() as db:
        states = {r["batch_id"]: r for r in db.rows("SELECT * FROM batches")}
    old = next(row for name, row in states.items() if name != told["batch_id"])
    assert old["cancel_requested"] or old["state"] == "cancelled"
    assert states[told["batch_id"]]["state"] == "succeeded"


def test_a_broken_definition_is_an_error_of_its_own(home: Path) -> None:
    """Not a trial that did not come out: it was never run. Quick ones run beside it."""
    (home / "trials").mkdir(parents=True)
    (home / "trials" / "broken.yaml").write_text("made_up: {students: 0}\n")
    (home / "trials" / "empty.yaml").write_text(f"folder: {home / 'nowhere'}\n")

    broken = CliRunner().invoke(app, ["trial", "broken"])
    empty = CliRunner().invoke(app, ["trial", "empty"])

    assert (broken.exit_code, empty.exit_code) == (2, 2)
    assert "two essays make" in broken.output
    assert "nowhere" in empty.output
    assert "Traceback" not in empty.output
