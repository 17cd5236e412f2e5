"""Runs forked from a warm process: each in a process of its own, watched and ended as one."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._cli import api as _api
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.launcher.base import LaunchRunContext, WorkerStatus
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin

from cj_pipeline.definitions import defs
from resources import preload, warm_runs
from resources.local_instance import local_instance
from resources.warm_runs import PROCESS_TAG, WarmRunLauncher, _began, _described
from tests.support.batches import write_batch

PATIENCE_S = 240.0


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """An instance as `cj ui` has it, over an empty home."""
    monkeypatch.setenv("CJ_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("CJ_EMULATOR_URL", raising=False)
    with local_instance(tmp_path / "home") as instance:
        yield instance


def made(instance: dg.DagsterInstance, folder: Path, **tags: str) -> dg.DagsterRun:
    """Return a run of `open_batch` that nobody has started."""
    instance.add_dynamic_partitions("batches", ["spring-9"])
    pointer = ModuleCodePointer("cj_pipeline.definitions", "defs", str(Path.cwd()))
    return instance.create_run_for_job(
        defs.resolve_job_def("open_batch"),
        run_config={"ops": {"essays": {"config": {"folder": str(folder)}}}},
        tags={"dagster/partition": "spring-9", **tags},
        job_code_origin=JobPythonOrigin(
            "open_batch", RepositoryPythonOrigin(sys.executable, pointer, entry_point=["dagster"])
        ),
    )


def launcher_of(instance: dg.DagsterInstance) -> WarmRunLauncher:
    """Return the launcher that `dagster.yaml` names."""
    launcher = instance.run_launcher
    assert isinstance(launcher, WarmRunLauncher)
    return launcher


@pytest.mark.slow
def test_a_run_is_executed_in_a_process_of_its_own(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """And is known to have ended when it has."""
    folder = write_batch(tmp_path / "b", n_students=3, settings={"judges": ["cj-generic-batch"]})
    launcher, run = launcher_of(instance), made(instance, folder)

    launcher.launch_run(LaunchRunContext(run, workspace=None))

    deadline = time.monotonic() + PATIENCE_S
    while not instance.get_run_by_id(run.run_id).is_finished:  # type: ignore[union-attr]
        assert time.monotonic() < deadline
        time.sleep(0.2)
    ended = instance.get_run_by_id(run.run_id)
    assert ended is not None
    assert ended.status is dg.DagsterRunStatus.SUCCESS
    number = int(ended.tags[PROCESS_TAG].split(":")[1])
    assert number != os.getpid()
    while _began(number):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert launcher.check_run_worker_health(ended).status is WorkerStatus.NOT_FOUND
    assert launcher.terminate(run.run_id) is False


def test_a_process_is_known_by_when_it_began(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    """Numbers are used again: another process of the same number is not the run's."""
    mine, launcher = _described(os.getpid()), launcher_of(instance)
    alive = made(instance, tmp_path, **{PROCESS_TAG: mine})
    another = made(instance, tmp_path, **{PROCESS_TAG: mine + "1"})

    assert launcher.check_run_worker_health(alive).status is WorkerStatus.RUNNING
    assert launcher.check_run_worker_health(another).status is WorkerStatus.NOT_FOUND


def test_of_another_machines_runs_nobody_here_can_tell(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """They are left to the longest time a run may take."""
    run = made(instance, tmp_path, **{PROCESS_TAG: "elsewhere:1:1"})

    assert launcher_of(instance).check_run_worker_health(run).status is WorkerStatus.RUNNING


def test_ending_a_run_interrupts_its_process(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Ctrl-C would: the run ends as cancelled, and what it paid for is kept."""
    told: list[tuple[int, int]] = []
    run = made(instance, tmp_path, **{PROCESS_TAG: _described(os.getpid())})
    monkeypatch.setattr(os, "kill", lambda number, how: told.append((number, how)))

    assert launcher_of(instance).terminate(run.run_id) is True
    assert told == [(os.getpid(), signal.SIGINT)]
    status = instance.get_run_by_id(run.run_id).status  # type: ignore[union-attr]
    assert status is dg.DagsterRunStatus.CANCELING


def test_changed_code_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the run starts an interpreter anew, so that nobody runs what they have just mended."""
    monkeypatch.setattr(preload, "IMPORTED_AT", time.time() + 60)
    assert not preload.is_stale()

    monkeypatch.setattr(preload, "IMPORTED_AT", 0.0)
    assert preload.is_stale()


def test_code_that_changed_is_run_by_a_new_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dagster names its program without a folder, which a process could not be started by."""
    started: list[list[str]] = []
    monkeypatch.setattr(preload, "is_stale", lambda: True)
    monkeypatch.setattr(os, "execv", lambda path, command: started.append([path, *command]))
    monkeypatch.setattr(_api.execute_run_command, "main", lambda **_: None)

    warm_runs.execute_in_fork("{}", ["dagster", "api", "execute_run", "{}"])

    assert started == [
        [sys.executable, sys.executable, "-m", "dagster", "api", "execute_run", "{}"]
    ]
