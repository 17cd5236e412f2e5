"""A PostgreSQL server of our own, for the tests that need a real one."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def postgres_server() -> Iterator[int]:
    """Yield the port of a fresh server on this machine; user `cj`, database `postgres`.

    PostgreSQL refuses to run as root, so root starts it as `nobody`.
    """
    binaries = _programs()
    with tempfile.TemporaryDirectory() as folder:
        account = {"user": "nobody"} if os.geteuid() == 0 else {}
        if account:
            shutil.chown(folder, "nobody")

        def run(*command: str) -> None:
            subprocess.run(command, check=True, capture_output=True, cwd="/", **account)  # type: ignore[call-overload]

        data, port = f"{folder}/data", free_port()
        run(f"{binaries}/initdb", "-D", data, "-U", "cj", "-A", "trust")
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
        run(f"{binaries}/pg_ctl", "-D", data, "-o", options, "-l", f"{folder}/log", "-w", "start")
        try:
            yield port
        finally:
            run(f"{binaries}/pg_ctl", "-D", data, "-m", "fast", "-w", "stop")


def _programs() -> Path:
    """Return the folder of PostgreSQL's programs; Debian keeps them off the search path."""
    found = shutil.which("initdb")
    kept = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return (Path(found).resolve() if found else kept[-1]).parent


def free_port() -> int:
    """Return a port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
