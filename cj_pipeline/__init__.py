"""Comparative judgement of essays by LLM judges.

For researchers: `fit`, `reliability`, `grade`, `choose_pairs`, `link` and `changes` over plain data
frames (see `api`). For analysts: `open_published`, `pandas_frame` and `polars_frame` over a home.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import polars as pl

    from cj_pipeline.api import changes, choose_pairs, fit, grade, link, reliability
    from cj_pipeline.queries.frames import FrameName

__all__ = [
    "changes",
    "choose_pairs",
    "fit",
    "grade",
    "link",
    "open_published",
    "pandas_frame",
    "polars_frame",
    "reliability",
]


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


def __getattr__(name: str) -> Any:
    """Return a function of `api`, loaded by whoever uses it: `import cj_pipeline` stays light."""
    if name in __all__:
        from cj_pipeline import api

        return getattr(api, name)
    msg = f"module 'cj_pipeline' has no attribute '{name}'"
    raise AttributeError(msg)
