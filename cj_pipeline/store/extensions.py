"""DuckDB's extensions, from their wheels: nothing is fetched while a store is in use."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import duckdb

from cj_pipeline.errors import StoreError


def load_extension(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    """Load the extension that the wheel `duckdb-extension-NAME` brings.

    Raises:
        StoreError: If the wheel is not installed, or is for another DuckDB.
    """
    package = find_spec(f"duckdb_extension_{name}")
    files = (
        Path(package.origin or "").parent.glob(
            f"extensions/v{duckdb.__version__}/*.duckdb_extension"
        )
        if package
        else ()
    )
    path = next(iter(files), None)
    if path is None:
        wheel = f"duckdb-extension-{name.replace('_', '-')}=={duckdb.__version__}"
        msg = f"DuckDB's extension {name} is missing: install {wheel}."
        raise StoreError(msg)
    connection.load_extension(str(path))
