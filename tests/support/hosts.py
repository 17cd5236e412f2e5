"""Hosts for tests: worker processes with homes of their own over one store, to be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from cj_pipeline.store.leases import BusyBatch, Leases

T = TypeVar("T")

CJ = "from cj_pipeline.cli import app; app()"
"""The program `cj`, for an interpreter's option `-c`."""


class Host:
    """One worker, as `cj work` runs on a host of this name.

    Args:
        name: The host's.
        home: Its own folder.
        environment: What names the store and the provider.
    """

    def __init__(self, name: str, home: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = home.parent / f"{name}.log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", CJ, "work", "--until-done"],
                env={**os.environ, **environment, "CJ_HOME": str(home), "CJ_HOST": name},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def signal(self, number: signal.Signals) -> None:
        """Kill, stop or continue it."""
        self.process.send_signal(number)

    def end(self, within_s: float) -> int:
        """Wait for its end; return its exit code."""
        return self.process.wait(within_s)

    def holds(self, leases: Leases) -> list[BusyBatch]:
        """Return the batches that it has now."""
        return [each for each in leases.busy() if (each.holder or "").startswith(f"{self.name}:")]


def until(found: Callable[[], T | None], within_s: float) -> T:
    """Return what a call finds, once it finds something.

    Raises:
        TimeoutError: If it does not in time.
    """
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if result := found():
            return result
        time.sleep(0.02)
    msg = f"nothing was found within {within_s} s"
    raise TimeoutError(msg)
