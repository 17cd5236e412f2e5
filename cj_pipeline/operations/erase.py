"""Removing a batch or an essay for good, and keeping a line that says so.

Deleting rows is not enough: DuckDB leaves what was deleted in free blocks, and older published
copies still hold it. So the file is written anew and the copies are replaced. Connections that are
open on an older copy keep it until they are closed; backups are for their owner to prune.
"""

from __future__ import annotations

import secrets
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cj_pipeline.errors import UnknownBatchError
from cj_pipeline.live.journal import folder_of
from cj_pipeline.store.file_store import Store
from cj_pipeline.store.maintenance import CALLBACKS_FOLDER, compact_store
from cj_pipeline.store.session import Session

_ID_COLUMNS = (
    "essay_id",
    "essay_a",
    "essay_b",
    "winner_id",
    "loser_id",
    "primary_anchor_id",
)

_SHOWS_IT = """batch_id = $batch AND comparison_id IN (
    SELECT comparison_id FROM comparison_pairs
    WHERE batch_id = $batch AND $essay IN (essay_a, essay_b)
)"""
_ITS_CALLBACKS = f"""callbacks WHERE batch_id = $batch AND (
    custom_id IS NULL OR custom_id IN (SELECT custom_id FROM attempts WHERE {_SHOWS_IT})
)"""  # noqa: S608 - constants


@dataclass(frozen=True)
class Forgotten:
    """What was removed; `essay_alias` is the id that an essay's scores bear since."""

    batch_id: str
    essay_alias: str | None
    n_rows: int
    files: tuple[Path, ...]


def forget_batch(store: Store, batch_id: str, *, now: datetime) -> Forgotten:
    """Remove everything of a batch: texts, callbacks, scores, grades, exports.

    Raises:
        UnknownBatchError: If there is no such batch.
    """
    with store.write() as db:
        _refuse_unknown(db, batch_id)
        files = _exports(store, db, batch_id)
        n_rows = 0
        for table in _tables(db):
            n_rows += _count(db, table, batch_id)
            db.execute(f'DELETE FROM "{table}" WHERE batch_id = ?', [batch_id])  # noqa: S608
        forgotten = Forgotten(batch_id, None, n_rows, files)
        _record(db, forgotten, now)
    _erase(store, files)
    return forgotten


def forget_essay(store: Store, batch_id: str, essay_id: str, *, now: datetime) -> Forgotten:
    """Remove an essay's text, its callbacks and what judges wrote about it.

    Its scores and verdicts stay, since they carry the batch's scale, under a random id that says
    nothing of the old one. The batch's exports are removed; `cj report` writes them anew.

    Raises:
        UnknownBatchError: If there is no such essay in the batch.
    """
    alias = f"forgotten-{secrets.token_hex(6)}"
    with store.write() as db:
        _refuse_unknown(db, batch_id)
        keys = {"batch": batch_id, "essay": essay_id}
        if db.one("FROM essays WHERE batch_id = $batch AND essay_id = $essay", keys) is None:
            msg = f"Batch '{batch_id}' has no essay '{essay_id}'; nothing was removed."
            raise UnknownBatchError(msg)
        files = _exports(store, db, batch_id)
        n_rows = _remove_words(db, batch_id, essay_id) + _rename(db, batch_id, essay_id, alias)
        forgotten = Forgotten(batch_id, alias, n_rows, files)
        _record(db, forgotten, now)
    _erase(store, files)
    return forgotten


def _remove_words(db: Session, batch_id: str, essay_id: str) -> int:
    """Remove the text and everything that may quote it; return the rows touched."""
    keys = {"batch": batch_id, "essay": essay_id}
    row = db.one(f"SELECT count(*) AS n FROM {_ITS_CALLBACKS}", keys)  # noqa: S608
    for statement in (
        f"DELETE FROM {_ITS_CALLBACKS}",  # noqa: S608
        f"UPDATE comparisons SET justification = NULL WHERE {_SHOWS_IT}",  # noqa: S608
        f"UPDATE attempts SET error_message = NULL, prompt_sha256 = '' WHERE {_SHOWS_IT}",  # noqa: S608
    ):
        db.execute(statement, keys)
    db.execute(
        "UPDATE essays SET text = '', file_name = '', source_path = '', sha256 = '', n_bytes = 0 "
        "WHERE batch_id = $batch AND essay_id = $essay",
        keys,
    )
    return 1 + (row["n"] if row else 0)


def _rename(db: Session, batch_id: str, essay_id: str, alias: str) -> int:
    """Replace the essay's id wherever it stands: ids are made from file names, often names."""
    n_rows = 0
    columns = db.rows(
        "SELECT table_name, column_name, data_type FROM duckdb_columns() JOIN duckdb_tables() "
        "USING (database_name, schema_name, table_name) WHERE database_name = current_database() "
        "AND (column_name IN (SELECT unnest(?)) OR data_type = 'JSON')",
        [list(_ID_COLUMNS)],
    )
    tables = set(_tables(db))
    for column in columns:
        if column["table_name"] not in tables:
            continue
        name, table = f'"{column["column_name"]}"', f'"{column["table_name"]}"'
        if column["data_type"] == "JSON":
            db.execute(
                f"UPDATE {table} SET {name} = replace({name}::VARCHAR, $old, $new)::JSON "  # noqa: S608
                f"WHERE batch_id = $batch AND contains({name}::VARCHAR, $old)",
                {"old": f'"{essay_id}"', "new": f'"{alias}"', "batch": batch_id},
            )
        else:
            keys = {"old": essay_id, "batch": batch_id}
            where = f"{table} WHERE batch_id = $batch AND {name} = $old"
            row = db.one(f"SELECT count(*) AS n FROM {where}", keys)  # noqa: S608
            n_rows += row["n"] if row else 0
            db.execute(
                f"UPDATE {table} SET {name} = $new "  # noqa: S608
                f"WHERE batch_id = $batch AND {name} = $old",
                keys | {"new": alias},
            )
    return n_rows


def _exports(store: Store, db: Session, batch_id: str) -> tuple[Path, ...]:
    """Return the files and folders that were written for a batch."""
    written = db.rows(
        "SELECT path FROM run_artefact WHERE batch_id = $batch "
        "UNION ALL SELECT path FROM batch_report WHERE batch_id = $batch",
        {"batch": batch_id},
    )
    candidates = [
        *(Path(row["path"]) for row in written),
        store.home / "batches" / batch_id,
        store.home / "dry-runs" / batch_id,
        store.home / CALLBACKS_FOLDER / f"{batch_id}.parquet",
        folder_of(store.home, batch_id),
    ]
    return tuple(dict.fromkeys(path for path in candidates if path.exists()))


def _erase(store: Store, files: tuple[Path, ...]) -> None:
    """Remove the files, and what deletion left in the database files."""
    for path in files:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    compact_store(store)
    store.published_path.with_name(f"{store.published_path.name}.spare").unlink(missing_ok=True)


def _tables(db: Session) -> list[str]:
    rows = db.rows(
        "SELECT DISTINCT table_name FROM duckdb_columns() JOIN duckdb_tables() "
        "USING (database_name, schema_name, table_name) WHERE database_name = current_database() "
        "AND column_name = 'batch_id' AND table_name <> 'forgotten' ORDER BY 1"
    )
    return [row["table_name"] for row in rows]


def _count(db: Session, table: str, batch_id: str) -> int:
    row = db.one(f'SELECT count(*) AS n FROM "{table}" WHERE batch_id = ?', [batch_id])  # noqa: S608
    return int(row["n"]) if row else 0


def _refuse_unknown(db: Session, batch_id: str) -> None:
    if db.one("SELECT 1 AS found FROM batches WHERE batch_id = ?", [batch_id]) is None:
        msg = f"No batch '{batch_id}' is in the store; nothing was removed."
        raise UnknownBatchError(msg)


def _record(db: Session, forgotten: Forgotten, now: datetime) -> None:
    row = {
        "forgotten_at": now,
        "batch_id": forgotten.batch_id,
        "essay_alias": forgotten.essay_alias,
        "n_rows": forgotten.n_rows,
        "n_files": len(forgotten.files),
    }
    db.insert("forgotten", [row])
