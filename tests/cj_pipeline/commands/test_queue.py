"""`cj queue` and `cj execute --priority`: whose turn it is, as a person sees and says it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cj_pipeline.cli import app
from cj_pipeline.emulator import change_settings
from cj_pipeline.emulator.config import EmulatorConfig
from cj_pipeline.errors import TransientError
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.plan_wave import plan_wave
from cj_pipeline.steps.submit_wave import submit_wave
from tests.support.batches import open_engine, write_batch


def run(home: Path, *words: str) -> tuple[int, str]:
    """Run `cj` and return its exit code and output."""
    result = CliRunner().invoke(app, words, env={"CJ_HOME": str(home), "COLUMNS": "160"})
    return result.exit_code, result.output


def test_what_waits_is_shown_with_what_it_waits_for(tmp_path: Path) -> None:
    """And nothing is shown as waiting where nothing does."""
    assert run(tmp_path / "home", "queue") == (0, "No single call waits.\n")
    engine = open_engine(tmp_path / "home")
    busy = {"kind": "status", "on": "*chat.create", "status": 429, "retry_after": "3600"}
    change_settings(EmulatorConfig.from_environment({}, engine.home), faults=[busy])
    settings = {
        "llm_batching_mode": "per_request",
        "priority": "high",
        "wave_size": 3,
        "profile_set": {"wait_timeout_seconds": 1, "timeout_seconds": 1},
    }
    folder = write_batch(tmp_path / "waits", n_students=5, settings=settings)
    batch_id = ingest(engine, folder).batch_id
    plan_wave(engine, batch_id)
    with pytest.raises(TransientError):
        submit_wave(engine, batch_id)

    code, shown = run(tmp_path / "home", "queue")

    assert code == 0
    row, why = [line.split() for line in shown.splitlines() if "waits" in line]
    assert why[:4] == ["waits:", "put", "off", "until"], "and why, with the time"
    assert row[:5] == ["waits", "high", "quality", "3", "0"]


def test_a_priority_given_by_hand_wins_over_the_folders(tmp_path: Path) -> None:
    """And is kept, so that every later wave goes by it."""
    folder = write_batch(tmp_path / "urgent", n_students=3, settings={"priority": "low"})

    code, shown = run(tmp_path / "home", "execute", str(folder), "--priority", "high")

    assert code == 0, shown
    engine = open_engine(tmp_path / "home")
    with engine.store.read() as db:
        (kept,) = db.rows(
            "SELECT settings->>'priority' AS value, settings_origins->>'priority' AS origin"
            " FROM batches"
        )
    assert kept == {"value": "high", "origin": "explicit"}
