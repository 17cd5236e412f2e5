"""Comparative judgement of essays by LLM judges."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

__all__ = ["open_published"]


def open_published(home: Path | str | None = None) -> duckdb.DuckDBPyConnection:
    """Open the published, read-only copy of the store, for notebooks; see `store`."""
    from cj_pipeline import store  # DuckDB is loaded only by whoever looks

    return store.open_published(home)
