"""Which store a home has, opened: a file, a served DuckDB, or a lake."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import duckdb

from cj_pipeline.errors import StoreError
from cj_pipeline.installation import read_installation
from cj_pipeline.store.base import Store
from cj_pipeline.store.file_store import FileStore


def default_home(environment: Mapping[str, str]) -> Path:
    """Return where the store lives: CJ_HOME, or `.cj` in the current folder."""
    return Path(environment.get("CJ_HOME") or ".cj")


def open_store(home: Path, environment: Mapping[str, str]) -> Store:
    """Return the store that CJ_STORE names, or the one in the home folder if it names none.

    Args:
        home: Where this machine keeps its files, whatever holds the tables.
        environment: Read for CJ_STORE (`quack:HOST:PORT` or `ducklake:postgres:...`), and for
            CJ_STORE_TOKEN or CJ_STORE_DATA with it; CJ_STORE_KEY encrypts the local file, and
            CJ_HOST is what this machine is called, where its own name changes.

    Raises:
        StoreError: If the address cannot be used.
        SettingsError: If the home's `installation.yaml` cannot be.
    """
    address = environment.get("CJ_STORE")
    if not address:
        return FileStore(
            home,
            key=environment.get("CJ_STORE_KEY") or None,
            group_may_read=read_installation(home).published == "group",
            host=environment.get("CJ_HOST") or None,
        )
    if address.startswith("quack"):
        from cj_pipeline.store.quack_store import ServedStore

        return ServedStore(address, home, environment.get("CJ_STORE_TOKEN", ""))
    if address.startswith("ducklake"):
        from cj_pipeline.store.ducklake_store import LakeStore

        data = environment.get("CJ_STORE_DATA", "")
        return LakeStore(address, data, home, environment=environment)
    msg = (
        f"CJ_STORE is {address!r}; give quack:HOST:PORT or ducklake:postgres:..., "
        "or leave it out for the local file."
    )
    raise StoreError(msg)


def open_published(home: Path | str | None = None) -> duckdb.DuckDBPyConnection:
    """Open the published copy, read-only; keep it open as long as you like.

    It shows the store as it was when it was opened; open it again to see what came since.
    Where CJ_STORE names a server, the connection sees that server's tables instead.

    Args:
        home: The store's folder; what the environment says, or `.cj` here, if left out.

    Raises:
        StoreError: If nothing has been published there yet.
    """
    if home is not None:
        return FileStore(Path(home), key=os.environ.get("CJ_STORE_KEY") or None).connect()
    return open_store(default_home(os.environ), os.environ).connect()
