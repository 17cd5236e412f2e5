"""What a provider would not delete is deleted in the end, and counted until it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cj_pipeline.cli import app
from cj_pipeline.emulator import change_settings, in_process_client
from cj_pipeline.emulator.config import EmulatorConfig
from cj_pipeline.operations.personal_data.erase import forget_batch
from cj_pipeline.provider_jobs.leftovers import count_leftovers, delete_leftovers
from cj_pipeline.queries.history import read_history
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.collect_wave import collect_wave
from cj_pipeline.steps.poll import poll
from cj_pipeline.store.file_store import own_file
from tests.support.batches import ManualClock, begin, open_engine, write_batch

KEPT = ("openai", "mistral", "xai")
"""APIs whose batches cannot be deleted."""

REFUSED = {"kind": "status", "on": "*.delete", "status": 500}


def emulate(runtime: Runtime, *faults: dict[str, Any]) -> None:
    """Let these things go wrong from now on."""
    change_settings(EmulatorConfig.from_environment({}, runtime.home), faults=list(faults))


def n_left(runtime: Runtime) -> int:
    """Return how many files and jobs the emulator really keeps."""
    config = EmulatorConfig.from_environment({}, runtime.home)
    books = in_process_client(config).get("http://emulator.invalid/emulator/audit").json()
    files = [file for file in books["files"] if not file["is_deleted"]]
    jobs = [job for job in books["jobs"] if job["api"] not in KEPT and not job["is_deleted"]]
    return len(files) + len(jobs)


@pytest.mark.parametrize(
    "judge",
    [
        *("quality", "quality-messages", "quality-gemini"),
        *("quality-mistral", "quality-xai", "quality-openrouter"),
    ],
)
def test_what_could_not_be_deleted_is_counted_and_goes_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, judge: str
) -> None:
    """It holds every essay; one failed request is no reason to leave it there for weeks."""
    clock = ManualClock()
    runtime = open_engine(tmp_path / "home", clock=clock)
    folder = write_batch(tmp_path / "spring", n_students=3, settings={"judges": [judge]})
    batch_id = begin(runtime, folder)
    emulate(runtime, REFUSED)
    poll(runtime)
    collect_wave(runtime, batch_id)
    with runtime.store.read() as db:
        counted = count_leftovers(db, clock(), batch_id)
    monkeypatch.setenv("CJ_HOME", str(runtime.home))
    shown = CliRunner().invoke(app, ["cost"]).output
    with runtime.store.read() as db:
        in_report = sum(job["n_left_over"] for job in read_history(db, batch_id).jobs)
    still_refused = delete_leftovers(runtime, due_only=False)
    emulate(runtime)

    clock.sleep(3600)
    poll(runtime)

    assert counted == in_report >= 1
    assert "could not be deleted at the provider yet" in shown
    assert still_refused == 0
    with runtime.store.read() as db:
        assert count_leftovers(db, clock()) == 0
    assert n_left(runtime) == 0


def test_one_refused_request_does_not_leave_the_other_files(tmp_path: Path) -> None:
    """Each is deleted by itself."""
    runtime = open_engine(tmp_path / "home", clock=ManualClock())
    folder = write_batch(tmp_path / "spring", n_students=3, settings={"judges": ["quality"]})
    batch_id = begin(runtime, folder)
    emulate(runtime, {**REFUSED, "at": [1]})
    poll(runtime)

    collect_wave(runtime, batch_id)

    with runtime.store.read() as db:
        assert count_leftovers(db, runtime.clock()) == n_left(runtime) == 1


def test_a_file_whose_id_came_late_is_deleted_too(tmp_path: Path) -> None:
    """A job without counts was seen to end, and names its result file only when it is collected."""
    runtime = open_engine(tmp_path / "home", clock=ManualClock())
    folder = write_batch(tmp_path / "spring", n_students=3, settings={"judges": ["quality"]})
    batch_id = begin(runtime, folder)
    poll(runtime)
    with runtime.store.write() as db:
        db.execute("UPDATE provider_jobs SET output_file_id = NULL, n_completed = NULL")

    collect_wave(runtime, batch_id)

    assert n_left(runtime) == 0


def test_who_is_killed_before_deleting_leaves_nothing_unsaid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is to be deleted is recorded with the bill; the next look at the provider deletes it."""
    clock = ManualClock()
    runtime = open_engine(tmp_path / "home", clock=clock)
    folder = write_batch(tmp_path / "spring", n_students=3, settings={"judges": ["quality"]})
    batch_id = begin(runtime, folder)
    poll(runtime)
    with monkeypatch.context() as patch:
        patch.setattr("cj_pipeline.steps.collect_wave.discard_job", lambda *_: None)
        collect_wave(runtime, batch_id)
    with runtime.store.read() as db:
        being_deleted = count_leftovers(db, clock())
    clock.sleep(3600)
    with runtime.store.read() as db:
        left = count_leftovers(db, clock())
    poll(runtime)

    assert being_deleted == 0
    assert left > 0
    assert n_left(runtime) == 0
    with runtime.store.read() as db:
        assert not db.rows("FROM provider_leftovers")


def test_a_batch_that_is_forgotten_leaves_nothing_at_the_provider_either(tmp_path: Path) -> None:
    """Its rows are gone, and what is left to delete is still known, under no batch's name."""
    clock = ManualClock()
    runtime = open_engine(tmp_path / "home", clock=clock)
    folder = write_batch(tmp_path / "spring", n_students=3, settings={"judges": ["quality"]})
    batch_id = begin(runtime, folder)
    emulate(runtime, REFUSED)
    poll(runtime)
    collect_wave(runtime, batch_id)
    with runtime.store.read() as db:
        before = count_leftovers(db, clock())
    forget_batch(own_file(runtime.store), batch_id, now=clock(), unsettled=True)

    with runtime.store.read() as db:
        assert count_leftovers(db, clock()) == before
