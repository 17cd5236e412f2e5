"""Looking after an embedded store: check, back up, restore, compact, archive.

Each function holds the store's lock while it works, so nothing changes under it, and puts whole
files in place by renaming: a kill leaves either the old state or the new one. Removing people's
data is `forgetting`.
"""

from __future__ import annotations

import stat
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb

from cj_pipeline.errors import StoreError
from cj_pipeline.store import snapshot
from cj_pipeline.store.file_store import Store, attach_file, connect_file
from cj_pipeline.store.migrations import known_migrations, migrate, refuse_newer, schema_version
from cj_pipeline.store.session import Session

CALLBACKS_FOLDER = "callbacks"

_ORPHANS = {
    "essays without their batch": "FROM essays ANTI JOIN batches USING (batch_id)",
    "comparisons without a planned pair": (
        "FROM comparisons ANTI JOIN comparison_pairs USING (batch_id, comparison_id)"
    ),
    "requests without their provider job": (
        "FROM attempts ANTI JOIN provider_jobs USING (batch_id, submission_key)"
    ),
    "settled provider jobs whose outcomes do not add up": (
        "FROM v_row_outcomes WHERE state IN ('settled', 'refused') AND (open <> 0 OR requested <>"
        " succeeded + invalid_output + refusal + truncated + content_filter + provider_error"
        " + expired + cancelled + missing)"
    ),
    "scores of essays that are not there": (
        "FROM essay_scores ANTI JOIN essays USING (batch_id, essay_id)"
    ),
}


@dataclass(frozen=True)
class StoreCheck:
    """What a check found; nothing is wrong if `problems` is empty.

    `rows` counts each table's; sizes are in bytes.
    """

    schema_version: int
    rows: dict[str, int]
    live_bytes: int
    published_bytes: int
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Compaction:
    """The live file's size before and after, in bytes."""

    bytes_before: int
    bytes_after: int


def migrate_store(store: Store) -> tuple[str, ...]:
    """Bring the schema up to date and return the names of the migrations applied."""
    with store.opened() as connection:
        return tuple(migration.name for migration in migrate(connection))


def check_store(store: Store) -> StoreCheck:
    """Read every value of the store once, and say everything that is wrong with it."""
    problems: list[str] = []
    rows: dict[str, int] = {}
    with store.opened() as connection:
        version = schema_version(connection)
        refuse_newer(version)
        if version < known_migrations()[-1].version:
            problems.append(f"the schema is at version {version}: `cj store migrate` updates it")
        names = connection.execute("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall()
        for (name,) in names:
            try:
                rows[name] = _read_all(connection, name)
            except duckdb.Error as error:
                problems.append(f"table {name} cannot be read: {error}")
        problems += _orphans(connection) if not problems else []
    problems += _open_to_others(store)
    published = store.published_path
    return StoreCheck(
        schema_version=version,
        rows=rows,
        live_bytes=store.path.stat().st_size,
        published_bytes=published.stat().st_size if published.exists() else 0,
        problems=tuple(problems),
    )


def backup_store(store: Store, target: Path) -> Path:
    """Write a whole copy of the store to `target`, verify that it opens, and return its path.

    Raises:
        StoreError: If something is there already: backups are never overwritten.
    """
    if target.exists():
        msg = f"{target} exists already; give the backup another name."
        raise StoreError(msg)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = target.with_name(f"{target.name}.unfinished")
    with store.folded():
        snapshot.copy_file(store.path, unfinished)
    with closing(connect_file(unfinished, read_only=True, key=store.key)) as copy:
        schema_version(copy)
    unfinished.rename(target)
    return target


def restore_store(store: Store, source: Path, *, now: datetime) -> Path | None:
    """Put a backup in the live file's place; return where the file that was there lies now.

    Raises:
        StoreError: If the backup cannot be opened, or is newer than the code.
    """
    try:
        with closing(connect_file(source, read_only=True, key=store.key)) as backup:
            refuse_newer(schema_version(backup))
    except duckdb.Error as error:
        msg = f"{source} is no backup that can be opened: {error}. Nothing was changed."
        raise StoreError(msg) from error
    aside = store.path.with_name(f"{store.path.name}.before-{now:%Y%m%dT%H%M%S}")
    unfinished = store.path.with_name(f"{store.path.name}.unfinished")
    with store.held():
        snapshot.copy_file(source, unfinished)
        _lay_aside(store, aside)
        unfinished.replace(store.path)
    migrate_store(store)  # the backup may be older than the code
    store.publish()
    return aside if aside.exists() else None


def _lay_aside(store: Store, aside: Path) -> None:
    """Give the live file, and its log if it has one, a second name; the first stays in place.

    Opening and closing folds the log into the file. A log that is there after that belongs to a
    file that cannot be opened, and must never be replayed onto the backup: it goes last.
    """
    log = store.path.with_name(f"{store.path.name}.wal")
    if store.path.exists():
        if log.exists():
            with suppress(duckdb.Error):
                connect_file(store.path, read_only=False, key=store.key).close()
        aside.unlink(missing_ok=True)  # of a restore that was killed within the same second
        aside.hardlink_to(store.path)
    if log.exists():
        log.replace(aside.with_name(f"{aside.name}.wal"))


def compact_store(store: Store) -> Compaction:
    """Write the live file anew, without the space and the remains of what was deleted."""
    fresh = store.path.with_name(f"{store.path.name}.unfinished")
    fresh.unlink(missing_ok=True)
    with store.folded():
        before = store.path.stat().st_size
        with closing(connect_file(Path(":memory:"), read_only=False)) as connection:
            attach_file(connection, store.path, "live", read_only=True, key=store.key)
            attach_file(connection, fresh, "fresh", read_only=False, key=store.key)
            connection.execute("COPY FROM DATABASE live TO fresh")
        fresh.chmod(0o600)
        fresh.rename(store.path)
    store.publish()
    return Compaction(before, store.path.stat().st_size)


def archive_callbacks(store: Store, *, ended_before: datetime) -> tuple[Path, ...]:
    """Move the raw callbacks of batches that ended before a moment into Parquet.

    One compressed file per batch, `callbacks/BATCH.parquet`, readable with DuckDB's
    `read_parquet`. The file is whole before the rows are deleted; doing it again is harmless.
    """
    with store.read() as db:
        batches = [
            row["batch_id"]
            for row in db.rows(
                "SELECT batch_id FROM batches WHERE ended_at < ? "
                "AND batch_id IN (SELECT batch_id FROM callbacks)",
                [ended_before],
            )
        ]
    return tuple(_archive(store, batch_id) for batch_id in batches)


def delete_archives(store: Store, *, written_before: datetime) -> tuple[Path, ...]:
    """Delete archived callbacks whose retention is over; return what was deleted."""
    folder = store.home / CALLBACKS_FOLDER
    old = [p for p in folder.glob("*.parquet") if p.stat().st_mtime < written_before.timestamp()]
    for path in old:
        path.unlink()
    return tuple(old)


def _archive(store: Store, batch_id: str) -> Path:
    folder = store.home / CALLBACKS_FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    target = folder / f"{batch_id}.parquet"
    unfinished = target.with_name(f"{target.name}.unfinished")
    with store.write() as db:
        db.execute(
            f"COPY (FROM callbacks WHERE batch_id = ? ORDER BY submission_key, source, line) "
            f"TO '{_quoted(unfinished)}' (FORMAT parquet, COMPRESSION zstd)",
            [batch_id],
        )
        unfinished.chmod(0o600)
        unfinished.rename(target)
        db.execute("DELETE FROM callbacks WHERE batch_id = ?", [batch_id])
    return target


def _read_all(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    """Return the number of rows, having read every value, which verifies each block."""
    row = connection.execute(
        f'SELECT count(*), bit_xor(hash(t)) FROM "{table}" t'  # noqa: S608 - from the catalog
    ).fetchone()
    return int(row[0]) if row else 0


def _orphans(connection: duckdb.DuckDBPyConnection) -> list[str]:
    session = Session(connection)
    counts = {what: session.one(f"SELECT count(*) AS n {rows}") for what, rows in _ORPHANS.items()}
    return [f"{row['n']} {what}" for what, row in counts.items() if row and row["n"]]


def _open_to_others(store: Store) -> list[str]:
    paths = [store.home, store.path, store.published_path]
    return [
        f"{path} can be read by others: chmod go-rwx {path}"
        for path in paths
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077
    ]


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
