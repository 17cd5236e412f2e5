"""`cj ui` as it is started: Dagster behind a login, all of it gone when the command ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.dagster_dev import PATIENCE_S, free_port, wait_for
from tests.support.served_runtime import TOKEN


@pytest.mark.slow
def test_the_ui_asks_who_comes_and_ends_with_its_command(tmp_path: Path) -> None:
    """Whoever reaches Dagster can run anything; and nobody looks for a server left behind."""
    port = free_port()
    with (tmp_path / "ui.log").open("wb") as log:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("cj"), "ui", "--port", str(port)],
            env={**os.environ, "CJ_HOME": str(tmp_path / "home"), "CJ_SERVE_TOKEN": TOKEN},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_for(lambda: _asked(port, Authorization=f"Bearer {TOKEN}") == 200)

        assert _asked(port) == 401
        assert _asked(port, Authorization="Bearer wrong") == 401
        assert _asked(port, Authorization=f"Bearer {TOKEN}", Origin="https://evil.example") == 403
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)
        wait_for(lambda: not _of_session(process.pid))
        assert _asked(port) is None
    finally:
        if _of_session(process.pid):
            os.killpg(process.pid, signal.SIGKILL)


def _asked(port: int, **headers: str) -> int | None:
    """Return the status of a query; None while nothing listens."""
    try:
        return httpx2.post(
            f"http://127.0.0.1:{port}/graphql",
            json={"query": "{ version }"},
            headers=headers,
            timeout=30,
        ).status_code
    except httpx2.TransportError:
        return None


def _of_session(leader: int) -> list[Any]:
    """Return the processes that a command started, and have not ended."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(folder.name)
    return found
