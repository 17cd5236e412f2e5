"""A batch as data frames, by its name, from the published copy of the store.

    >>> from cj_pipeline.frames import pandas_frame
    >>> pandas_frame("scores", "spring-9")

Each frame is one query in `sql/frames/`; its columns are kept stable. Anything else is SQL on
`cj_pipeline.open_published()`.
"""

from __future__ import annotations

import functools
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from cj_pipeline.errors import UnknownBatchError
from cj_pipeline.store import open_published

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

FrameName = Literal[
    "scores",
    "grades",
    "probabilities",
    "boundaries",
    "comparisons",
    "waves",
    "wave_scores",
    "judges",
]
"""What there is of a batch; the first lines of each file in `sql/frames/` say what it holds."""

FRAME_NAMES: tuple[FrameName, ...] = get_args(FrameName)


def arrow_table(name: FrameName, batch_id: str, *, home: Path | str | None = None) -> pa.Table:
    """Return one of a batch's frames as an Arrow table.

    Args:
        name: Which; see `FRAME_NAMES`.
        batch_id: The batch.
        home: The store's folder; CJ_HOME, or `.cj` in the current folder, if left out.

    Raises:
        UnknownBatchError: If the published copy has no batch of that name.
        StoreError: If nothing has been published there yet.
    """
    with closing(open_published(home)) as connection:
        rows = connection.execute("SELECT batch_id FROM batches ORDER BY batch_id").fetchall()
        known = [row[0] for row in rows]
        if batch_id not in known:
            msg = (
                f"No batch '{batch_id}' is in the published copy of the store; there are:"
                f" {', '.join(known) or 'none'}."
            )
            raise UnknownBatchError(msg)
        return connection.execute(_query(name), {"batch": batch_id}).to_arrow_table()


def pandas_frame(name: FrameName, batch_id: str, *, home: Path | str | None = None) -> pd.DataFrame:
    """Return one of a batch's frames for pandas; arguments and errors as `arrow_table`."""
    frame: pd.DataFrame = arrow_table(name, batch_id, home=home).to_pandas()
    return frame


def polars_frame(name: FrameName, batch_id: str, *, home: Path | str | None = None) -> pl.DataFrame:
    """Return one of a batch's frames for polars; arguments and errors as `arrow_table`."""
    import polars as pl

    frame = pl.from_arrow(arrow_table(name, batch_id, home=home))
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 -- a table never becomes a Series
    return frame


def export_parquet(
    batch_id: str, folder: Path, *, home: Path | str | None = None
) -> tuple[Path, ...]:
    """Write every frame of a batch as `<folder>/<name>.parquet`; errors as `arrow_table`."""
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in FRAME_NAMES:
        path = folder / f"{name}.parquet"
        pq.write_table(arrow_table(name, batch_id, home=home), path)
        written.append(path)
    return tuple(written)


@functools.cache
def _query(name: FrameName) -> str:
    path = files("cj_pipeline") / "sql" / "frames" / f"{name}.sql"
    return path.read_text(encoding="utf-8")
