"""`cj trial` as a person at a terminal meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cj_pipeline.cli import app


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
    (kept,) = json.loads(history.stdout)
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
