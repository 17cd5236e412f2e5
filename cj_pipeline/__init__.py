"""Comparative judgement of essays by LLM judges."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import polars as pl

    from cj_pipeline.queries.frames import FrameName

__all__ = ["open_published", "pandas_frame", "polars_frame"]


def open_published(home: Path | str | None = None) -> duckdb.DuckDBPyConnection:
    """Open the published, read-only copy of the store, for notebooks; see `store`."""
    from cj_pipeline.store import opening  # DuckDB is loaded only by callers of this

    return opening.open_published(home)


def pandas_frame(name: FrameName, batch_id: str, *, home: Path | str | None = None) -> pd.DataFrame:
    """Return one of a batch's data frames for pandas; see `frames`."""
    from cj_pipeline.queries import frames

    return frames.pandas_frame(name, batch_id, home=home)


def polars_frame(name: FrameName, batch_id: str, *, home: Path | str | None = None) -> pl.DataFrame:
    """Return one of a batch's data frames for polars; see `frames`."""
    from cj_pipeline.queries import frames

    return frames.polars_frame(name, batch_id, home=home)
