"""A batch as data frames, by its name, from the published copy of the store.

    >>> import cj_pipeline
    >>> cj_pipeline.pandas_frame("scores", "spring-9")

Most frames are the analysts' views `v_<name>`, whose columns are kept stable and explained by
`DESCRIBE` and comments in the store. Anything else is SQL on `cj_pipeline.open_published()`.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from cj_pipeline.errors import SettingsError, UnknownBatchError
from cj_pipeline.ids import nearest
from cj_pipeline.store.opening import open_published

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

FrameName = Literal[
    "scores",
    "wave_scores",
    "grades",
    "probabilities",
    "boundaries",
    "ranks",
    "reliability",
    "near_boundary",
    "gradings",
    "grade_history",
    "linked_scores",
    "drifts",
    "comparisons",
    "positions",
    "waves",
    "judges",
    "costs",
]
FRAME_NAMES: tuple[FrameName, ...] = get_args(FrameName)

_QUERIES: dict[FrameName, str] = {
    "scores": "SELECT * EXCLUDE (batch_id) FROM v_scores WHERE batch_id = $batch"
    " ORDER BY rank, essay_id",
    # Every wave, where `scores` has the last one: how the scale settled.
    "wave_scores": "SELECT * EXCLUDE (batch_id) FROM essay_scores WHERE batch_id = $batch"
    " ORDER BY wave, rank, essay_id",
    "grades": "SELECT g.* EXCLUDE (batch_id), v.given_grade, v.decision, v.status"
    " FROM v_grades g JOIN v_given_grades v USING (batch_id, revision, essay_id)"
    " WHERE batch_id = $batch ORDER BY rank, essay_id",
    "probabilities": "SELECT * EXCLUDE (batch_id, revision) FROM v_grade_probabilities"
    " WHERE batch_id = $batch",
    "boundaries": "SELECT * EXCLUDE (batch_id, revision) FROM grade_boundaries"
    " WHERE batch_id = $batch AND revision ="
    " (SELECT max(revision) FROM grading_reports WHERE batch_id = $batch) ORDER BY position",
    "ranks": "SELECT * EXCLUDE (batch_id) FROM essay_ranks WHERE batch_id = $batch"
    " ORDER BY rank, essay_id",
    "reliability": "SELECT * EXCLUDE (batch_id) FROM v_reliability WHERE batch_id = $batch",
    "near_boundary": "SELECT * EXCLUDE (batch_id) FROM v_near_boundary WHERE batch_id = $batch"
    " ORDER BY abs(distance), essay_id",
    "gradings": "SELECT * EXCLUDE (batch_id) FROM v_gradings WHERE batch_id = $batch"
    " ORDER BY revision",
    "grade_history": "SELECT * EXCLUDE (batch_id) FROM v_grade_history WHERE batch_id = $batch"
    " ORDER BY revision, essay_id",
    # On the scale of the batch linked to, where `scores` are on the batch's own zero.
    "linked_scores": "SELECT * EXCLUDE (batch_id, revision) FROM linked_scores"
    " WHERE batch_id = $batch AND revision ="
    " (SELECT max(revision) FROM grading_reports WHERE batch_id = $batch) ORDER BY essay_id",
    "drifts": "SELECT * EXCLUDE (batch_id, revision) FROM anchor_drifts"
    " WHERE batch_id = $batch AND revision ="
    " (SELECT max(revision) FROM grading_reports WHERE batch_id = $batch)"
    " ORDER BY position, essay_id",
    "comparisons": "SELECT * EXCLUDE (batch_id) FROM v_comparisons WHERE batch_id = $batch"
    " ORDER BY sequence",
    "positions": "SELECT * EXCLUDE (batch_id) FROM v_positions WHERE batch_id = $batch"
    " ORDER BY essay_id",
    "waves": """
        SELECT
            w.* EXCLUDE (batch_id),
            (d.details ->> '$.bt_se_summary.mean_se')::DOUBLE AS mean_standard_error,
            (d.details ->> '$.empirical_bayes_reliability')::DOUBLE AS empirical_bayes_reliability
        FROM v_waves w LEFT JOIN wave_decisions d USING (batch_id, wave)
        WHERE batch_id = $batch ORDER BY wave
    """,
    "judges": "SELECT * EXCLUDE (batch_id) FROM v_judges WHERE batch_id = $batch ORDER BY name",
    "costs": "SELECT * EXCLUDE (batch_id) FROM v_costs WHERE batch_id = $batch"
    " ORDER BY wave, submission_key",
}


def arrow_table(name: FrameName, batch_id: str, *, home: Path | str | None = None) -> pa.Table:
    """Return one of a batch's frames as an Arrow table.

    Args:
        name: Which; see `FRAME_NAMES`.
        batch_id: The batch.
        home: The store's folder; CJ_HOME, or `.cj` in the current folder, if left out.

    Raises:
        SettingsError: If there is no such frame.
        UnknownBatchError: If the published copy has no batch of that name.
        StoreError: If nothing has been published there yet.
    """
    if name not in _QUERIES:
        msg = f"There is no frame '{name}'{nearest(name, FRAME_NAMES)} See docs/analysts.md."
        raise SettingsError(msg)
    with closing(open_published(home)) as connection:
        rows = connection.execute("SELECT batch_id FROM batches ORDER BY batch_id").fetchall()
        known = [row[0] for row in rows]
        if batch_id not in known:
            msg = (
                f"No batch '{batch_id}' is in the published copy of the store; there are:"
                f" {', '.join(known) or 'none'}{nearest(batch_id, known, at_least=0.6) or '.'}"
            )
            raise UnknownBatchError(msg)
        return connection.execute(_QUERIES[name], {"batch": batch_id}).to_arrow_table()


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
