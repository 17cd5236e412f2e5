"""The emulator behind a real socket, for tests that need real connections and real processes."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import uvicorn

from cj_pipeline.emulator import create_app
from cj_pipeline.emulator.config import EmulatorConfig


@contextmanager
def served_emulator(home: Path, *, token: str | None = None, **settings: Any) -> Iterator[str]:
    """Serve an emulator whose state is in `home`, and yield its address."""
    home.mkdir(parents=True, exist_ok=True)
    config = EmulatorConfig.model_validate({"state_path": home / "emulator.sqlite", **settings})
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(config, token=token), log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        # A fault may hold a connection open for longer than anybody wants to wait.
        server.should_exit = server.force_exit = True
        thread.join(timeout=5)


def books(address: str) -> dict[str, Any]:
    """Return what was really created, paid and delivered."""
    told: dict[str, Any] = httpx2.get(f"{address}/emulator/audit", timeout=60).json()
    return told
