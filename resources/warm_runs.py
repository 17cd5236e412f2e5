"""A run launcher that forks each run from a process that has imported everything already.

Dagster's own launcher starts an interpreter for each run, which imports for longer than a wave's
steps work. Here each run is still a process of its own, killed and watched as one; only its
imports are done before it begins. `dagster.yaml` names this launcher; `docs/decisions/` weighs it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from resources.dagster_internals import (
    CheckRunHealthResult,
    ConfigurableClass,
    ConfigurableClassData,
    ExecuteRunArgs,
    LaunchRunContext,
    RunLauncher,
    WorkerStatus,
    execute_run,
    serialize_value,
)

PROCESS_TAG = "dagster/cj-process"
"""Where a run's process is: host, number and when it began, so that no other is taken for it."""

PRELOADED = ("resources.preload",)


class WarmRunLauncher(RunLauncher[dg.DagsterInstance], ConfigurableClass):
    """Starts each run as a fork of one warm process per daemon."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        self._inst_data = inst_data
        self._forks = multiprocessing.get_context("forkserver")
        super().__init__()  # type: ignore[no-untyped-call]

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """What `dagster.yaml` configures."""
        return self._inst_data

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """It takes no settings."""
        return {}

    @classmethod
    def from_config_value(
        cls,
        inst_data: ConfigurableClassData | None,
        config_value: Mapping[str, Any],  # noqa: ARG003
    ) -> WarmRunLauncher:
        """Return the launcher that `dagster.yaml` names."""
        return cls(inst_data)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Begin a run in a process of its own."""
        run = context.dagster_run
        if run.job_code_origin is None:
            msg = f"Run {run.run_id} does not say where its code is: launch it from the UI."
            raise dg.DagsterInvariantViolationError(msg)
        arguments = ExecuteRunArgs(run.job_code_origin, run.run_id, self._instance.get_ref())
        self._forks.set_forkserver_preload(list(PRELOADED))
        process = self._forks.Process(
            target=execute_in_fork,
            args=(serialize_value(arguments), list(arguments.get_command_args())),
            name=f"run-{run.run_id[:8]}",
        )
        process.start()
        self._instance.add_run_tags(run.run_id, {PROCESS_TAG: _described(process.pid)})

    def terminate(self, run_id: str) -> bool:
        """Interrupt a run, so that it ends as cancelled; False if it has no process any more."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        number = _process_of(run)
        if number is None:
            self._instance.report_engine_event(
                "Its process is not on this machine, or has ended: nothing to interrupt.", run
            )
            return False
        self._instance.report_run_canceling(run)
        os.kill(number, signal.SIGINT)
        return True

    @property
    def supports_check_run_worker_health(self) -> bool:
        """A run whose process has died is failed at the daemon's next check, and tried again."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Return whether a run's process is alive; of other machines that is not known here."""
        host = run.tags.get(PROCESS_TAG, "").split(":")[0]
        if host and host != socket.gethostname():
            return CheckRunHealthResult(WorkerStatus.RUNNING, f"on {host}, not looked at from here")
        number = _process_of(run)
        if number is None:
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "its process has ended")
        return CheckRunHealthResult(WorkerStatus.RUNNING, f"process {number}")


def execute_in_fork(arguments: str, command: list[str]) -> None:
    """Execute a run in this process; restart the interpreter if the code has changed meanwhile.

    Args:
        arguments: `ExecuteRunArgs`, as `dagster api execute_run` reads them.
        command: That command with the same arguments.
    """
    from resources.preload import is_stale

    if is_stale():
        # Its first word is `dagster`, which is not where a process looks that is handed a path.
        if command[0] == "dagster":
            command = [sys.executable, "-m", *command]
        os.execv(command[0], command)  # noqa: S606
    execute_run(arguments)


def _described(number: int | None) -> str:
    return f"{socket.gethostname()}:{number}:{_began(number or 0)}"


def _process_of(run: dg.DagsterRun) -> int | None:
    """Return the number of a run's process if it is alive on this machine."""
    host, _, rest = run.tags.get(PROCESS_TAG, "").partition(":")
    number, _, began = rest.partition(":")
    if host != socket.gethostname() or not number.isdigit() or not began:
        return None
    return int(number) if _began(int(number)) == began else None


def _began(number: int) -> str:
    """Return when a process began, in ticks since the machine did; empty if there is none.

    A zombie has ended: its parent has only not noticed yet.
    """
    try:
        stat = Path(f"/proc/{number}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]
