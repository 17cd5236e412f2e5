"""`dagster dev` over a home: webserver, daemon and code server, as an operator starts them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from resources.local_instance import prepare_dagster_home
from tests.support import ROOT

PATIENCE_S = 300.0


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_for(what: Callable[[], Any]) -> Any:
    """Return the first true answer, asked every half second."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if answer := what():
            return answer
        time.sleep(0.5)
    pytest.fail(f"nothing for {PATIENCE_S:.0f} s")


def query(port: int, text: str) -> dict[str, Any]:
    """Ask the webserver as the UI does; empty while it is not up."""
    try:
        reply = httpx2.post(f"http://127.0.0.1:{port}/graphql", json={"query": text}, timeout=10)
    except httpx2.TransportError:
        return {}
    answer: dict[str, Any] = reply.json()["data"]
    return answer


@contextmanager
def dagster_dev(home: Path) -> Iterator[int]:
    """Serve a home and give the webserver's port once it answers."""
    port = free_port()
    environment = {
        **os.environ,
        "CJ_HOME": str(home),
        "DAGSTER_HOME": str(prepare_dagster_home(home)),
    }
    workspace = str(ROOT / "workspace.yaml")
    with (home / "dagster-dev.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "dagster", "dev"),
                *("--port", str(port), "--workspace", workspace),
            ],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # Dagster ends its own children by SIGINT, which they ignore if we were started so.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
        )
        try:
            wait_for(lambda: query(port, "{ version }"))
            yield port
        finally:
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
