"""Hosts for tests: worker processes with homes of their own over one store, to be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from cj_pipeline.store.leases import BusyBatch, Leases
from tests.support.object_server import BUCKET
from tests.support.postgres_server import free_port, postgres_server

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


@contextmanager
def _lake(folder: Path) -> Iterator[dict[str, str]]:
    del folder  # the hosts share none
    with postgres_server() as port:
        yield {
            "CJ_STORE": f"ducklake:postgres:host=127.0.0.1 port={port} user=cj dbname=postgres",
            "CJ_STORE_DATA": f"s3://{BUCKET}/lake",
        }


@contextmanager
def _served(folder: Path) -> Iterator[dict[str, str]]:
    token, port = "a-token-for-tests-alone", free_port()
    command = [sys.executable, "-c", CJ, "store", "serve", "--port", str(port)]
    own = {"CJ_HOME": str(folder / "store"), "CJ_STORE_TOKEN": token}
    with subprocess.Popen(
        command, env={**os.environ, **own}, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        next(line for line in server.stdout if "CJ_STORE=" in line)
        yield {"CJ_STORE": f"quack:127.0.0.1:{port}", "CJ_STORE_TOKEN": token}
        server.terminate()


STORES = {"lake": _lake, "served": _served}
"""The stores that hosts share, by name: each is given a folder, and gives the environment."""
