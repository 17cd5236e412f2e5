"""Looking after an embedded store: check, mend, back up, restore, compact, archive.

Each function holds the store's lock while it works, so nothing changes under it, and puts whole
files in place by `storage.file_swap`: an error or a kill leaves either the old state or the new
one. Removing people's data is `operations.personal_data.erase`.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from cj_pipeline.errors import StoreError
from cj_pipeline.storage.file_swap import (
    UNFINISHED,
    NotFlushedError,
    copy_file,
    give_second_name,
    put_in_place,
    require_room,
    unfinished_of,
)
from cj_pipeline.storage.private_files import PRIVATE_FOLDER, close_to_others, open_to_others
from cj_pipeline.store import snapshot
from cj_pipeline.store.file_store import FileStore, attach_file, connect_file, empty_instance
from cj_pipeline.store.identity import begin_epoch_of_restored, epochs_of, settle_identity
from cj_pipeline.store.migrations import known_migrations, migrate, refuse_newer, schema_version
from cj_pipeline.store.session import Session

CALLBACKS_FOLDER = "callbacks"
HALF_HANDED_IN_S = 3600.0
"""Nothing takes longer to be handed in than that, once its first byte is there."""
_ALLOWANCE_BYTES = 4 * 1024 * 1024
"""What a file rewritten may need beyond what the old one uses, for a log on the way."""

_ORPHANS = {
    "essays without their batch": "FROM essays ANTI JOIN batches USING (batch_id)",
    "comparisons without a planned pair": (
        "FROM comparisons ANTI JOIN comparison_pairs USING (batch_id, comparison_id)"
    ),
    "requests without their provider job": (
        "FROM attempts ANTI JOIN provider_jobs USING (batch_id, submission_key)"
        " WHERE submission_key <> 'people'"
    ),
    "settled provider jobs whose outcomes do not add up": (
        "FROM v_row_outcomes WHERE state IN ('settled', 'refused') AND (open <> 0 OR requested <>"
        " succeeded + invalid_output + refusal + truncated + content_filter + prompt_cut"
        " + provider_error + expired + cancelled + missing)"
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


def migrate_store(store: FileStore) -> tuple[str, ...]:
    """Bring the schema up to date and return the names of the migrations applied."""
    with store.opened() as connection:
        return tuple(migration.name for migration in migrate(connection))


def check_store(store: FileStore) -> StoreCheck:
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
    problems += [
        f"{path} is {what}: `cj store check --fix` removes it"
        for path, what in leftovers(store).items()
    ]
    published = store.published_path
    return StoreCheck(
        schema_version=version,
        rows=rows,
        live_bytes=store.path.stat().st_size,
        published_bytes=published.stat().st_size if published.exists() else 0,
        problems=tuple(problems),
    )


def backup_store(store: FileStore, target: Path, *, now: datetime | None = None) -> Path:
    """Write a whole copy of the store to `target`, prove that it holds every row, return its path.

    The store remembers where its backups were written, so that an erasure can name them.

    Raises:
        StoreError: If something is there already: backups are never overwritten. Or if the copy
            could not be written or proven; then nothing is left of it.
    """
    if target.exists():
        msg = f"{target} exists already; give the backup another name."
        raise StoreError(msg)
    settle_identity(store, now or datetime.now(UTC))
    with _plainly(f"Backing up to {target}"):
        target.parent.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        with store.folded():
            expected = _row_counts(store.path, store.key)
            put_in_place(
                target,
                write=lambda copy: copy_file(store.path, copy),
                prove=lambda copy: _prove(copy, store.key, expected),
                n_bytes=store.path.stat().st_size,
            )
    with store.write() as db:
        row = {"path": str(target.resolve()), "written_at": now or datetime.now(UTC)}
        db.insert("backups", [row], on_conflict="replace")
    return target


def restore_store(
    store: FileStore, source: Path, *, now: datetime, amend: Amend | None = None
) -> Path | None:
    """Put a backup in the live file's place; return where the file that was there lies now.

    A new epoch begins: jobs that were made since the backup are searched for before any is made.

    Args:
        store: Whose file it is.
        source: The backup.
        now: The time.
        amend: Finds what of the live file the backup must not lack, which is written into it
            before it is in place; nothing is, where the live file cannot be read.

    Raises:
        StoreError: If the backup cannot be opened, is newer than the code, or does not fit on the
            disk.
    """
    try:
        with closing(connect_file(source, read_only=True, key=store.key)) as backup:
            refuse_newer(schema_version(backup))
            expected = _counted(backup)
    except duckdb.Error as error:
        msg = f"{source} is no backup that can be opened: {error}. Nothing was changed."
        raise StoreError(msg) from error
    aside = store.path.with_name(f"{store.path.name}.before-{now:%Y%m%dT%H%M%S}")
    replaced: list[dict[str, Any]] = []
    if store.path.exists():
        with suppress(StoreError, duckdb.Error):  # it may be what is wrong with it
            replaced = epochs_of(store)
    with _plainly(f"Restoring {source}"), store.held():
        kept = _KeptAside(store, aside)
        try:
            put_in_place(
                store.path,
                write=lambda copy: _write_restored(
                    store,
                    source,
                    copy,
                    expected=expected,
                    amend=lambda restored: _amend(store, restored, replaced, now, amend),
                ),
                prove=lambda copy: _row_counts(copy, store.key),
                n_bytes=source.stat().st_size,
                keep=kept.lay_aside,
            )
        except NotFlushedError:
            raise
        except BaseException:
            kept.undo()
            raise
    store.publish()
    return aside if aside.exists() else None


Amend = Callable[[Session, Session], Mapping[str, Sequence[dict[str, Any]]]]
"""Is given the live file and the backup that is to replace it; returns rows for it, by table."""


class _KeptAside:
    """The live file, and its log if it has one, under a second name; the first stays in place.

    Opening and closing folds the log into the file. A log that is there after that belongs to a
    file that cannot be opened, and must never be replayed onto the backup: it goes last.
    """

    def __init__(self, store: FileStore, aside: Path) -> None:
        self._store = store
        self._aside = aside
        self._log = store.path.with_name(f"{store.path.name}.wal")
        self._aside_log = aside.with_name(f"{aside.name}.wal")

    def lay_aside(self) -> None:
        if not self._store.path.exists():
            return
        if self._log.exists():
            with suppress(duckdb.Error):
                connect_file(self._store.path, read_only=False, key=self._store.key).close()
        give_second_name(self._store.path, self._aside)
        if self._log.exists():
            self._log.replace(self._aside_log)

    def undo(self) -> None:
        """Leave everything as it was, where the file in place is still the old one."""
        if not self._aside.exists():
            return
        if self._aside_log.exists():
            self._aside_log.replace(self._log)
        self._aside.unlink()


def compact_store(store: FileStore) -> Compaction:
    """Write the live file anew, without the space and the remains of what was deleted.

    The old file is kept until the new one is published.

    Raises:
        StoreError: If there is too little room for that, or it could not be written or proven.
            Nothing was changed, unless the message says how far it came.
    """
    kept = kept_by_compaction(store)
    with _plainly("Compacting the store"), store.folded():
        before = store.path.stat().st_size
        expected = _row_counts(store.path, store.key)
        needed = _used_bytes(store) + _ALLOWANCE_BYTES
        spare = snapshot.spare_of(store.published_path)
        require_room(store.home, needed if spare.exists() else 2 * needed, "The store, rewritten,")
        try:
            put_in_place(
                store.path,
                write=lambda fresh: _write_anew(store.path, fresh, store.key),
                prove=lambda fresh: _prove(fresh, store.key, expected),
                n_bytes=needed,
                keep=lambda: give_second_name(store.path, kept),
            )
        except NotFlushedError:
            raise
        except BaseException:
            kept.unlink(missing_ok=True)
            raise
    try:
        store.publish()
    except StoreError as error:
        msg = (
            f"The store was rewritten and is whole; publishing it failed: {error} The old file"
            f" is kept as {kept} until `cj store compact` has come to its end."
        )
        raise StoreError(msg) from error
    kept.unlink(missing_ok=True)
    return Compaction(before, store.path.stat().st_size)


def kept_by_compaction(store: FileStore) -> Path:
    """Return where the file as it was lies while the store is rewritten."""
    return store.path.with_name(f"{store.path.name}.before-compact")


def rewrite_file(path: Path, key: str | None) -> None:
    """Write a database file anew that nobody has open, without the remains of what was deleted.

    Raises:
        duckdb.Error, OSError, StoreError: If that cannot be done; the file is as it was.
    """
    expected = _row_counts(path, key)
    put_in_place(
        path,
        write=lambda fresh: _write_anew(path, fresh, key),
        prove=lambda fresh: _prove(fresh, key, expected),
        n_bytes=path.stat().st_size,
    )


def _write_anew(path: Path, fresh: Path, key: str | None) -> None:
    """Copy all tables into a new file. Closing alone would leave them in a log, and say nothing."""
    spill_to = fresh.with_name(f"{fresh.name}.tmp")
    with closing(empty_instance(spill_to)) as connection:
        attach_file(connection, path, "live", read_only=True, key=key)
        attach_file(connection, fresh, "fresh", read_only=False, key=key)
        connection.execute("COPY FROM DATABASE live TO fresh")
        connection.execute("CHECKPOINT fresh")
        connection.execute("DETACH fresh")


def _copy_with_log(source: Path, copy: Path, key: str | None) -> None:
    """Copy a file, and fold in the log that lies beside it where nobody has done that yet."""
    copy_file(source, copy)
    log = source.with_name(f"{source.name}.wal")
    if log.exists():
        copy_file(log, copy.with_name(f"{copy.name}.wal"))
        with closing(connect_file(copy, read_only=False, key=key)) as connection:
            connection.execute("CHECKPOINT")


def _write_restored(
    store: FileStore,
    source: Path,
    copy: Path,
    *,
    expected: Mapping[str, int],
    amend: Callable[[Session], None],
) -> None:
    """Write a backup as it is put in place: up to date, and in a new epoch.

    It is done before the file is in place, so that no kill leaves a store that does not know that
    it was restored. A backup of another home becomes a copy of that home's store.
    """
    _copy_with_log(source, copy, store.key)
    _prove(copy, store.key, expected)
    with closing(connect_file(copy, read_only=False, key=store.key)) as connection:
        migrate(connection)
        connection.execute("BEGIN TRANSACTION")
        amend(Session(connection))
        connection.execute("COMMIT")
        connection.execute("CHECKPOINT")


def _amend(
    store: FileStore,
    restored: Session,
    replaced: Sequence[dict[str, Any]],
    now: datetime,
    amend: Amend | None,
) -> None:
    begin_epoch_of_restored(restored, store.place(), now, replaced)
    if amend is None or not store.path.exists():
        return
    lacks: Mapping[str, Sequence[dict[str, Any]]] = {}
    with (
        suppress(duckdb.Error),  # the live file may be what is wrong
        closing(connect_file(store.path, read_only=True, key=store.key)) as live,
    ):
        lacks = amend(Session(live), restored)
    for table, rows in lacks.items():
        restored.insert(table, rows)


def _prove(path: Path, key: str | None, expected: Mapping[str, int]) -> None:
    """Open a file read-only and count its rows.

    Raises:
        StoreError: If a table has other rows than it should.
    """
    found = _row_counts(path, key)
    if found != expected:
        wrong = sorted(
            name for name in {*found, *expected} if found.get(name) != expected.get(name)
        )
        msg = (
            f"{path.name} has {found.get(wrong[0], 'no')} rows of {wrong[0]} where"
            f" {expected.get(wrong[0], 'none')} should be. Nothing was changed."
        )
        raise StoreError(msg)


def _row_counts(path: Path, key: str | None) -> dict[str, int]:
    with closing(connect_file(path, read_only=True, key=key)) as connection:
        return _counted(connection)


def _counted(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Return how many rows each table has; views count as tables without any."""
    counts = dict.fromkeys(
        (
            name
            for (name,) in connection.execute(
                "SELECT view_name FROM duckdb_views() WHERE NOT internal"
                " AND database_name = current_database()"
            ).fetchall()
        ),
        0,
    )
    names = connection.execute(
        "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database()"
    ).fetchall()
    for (name,) in names:
        row = connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()  # noqa: S608
        counts[name] = int(row[0]) if row else 0
    return counts


def _used_bytes(store: FileStore) -> int:
    """Return what of the live file is in use."""
    with closing(connect_file(store.path, read_only=True, key=store.key)) as connection:
        row = connection.execute(
            "SELECT block_size * used_blocks FROM pragma_database_size()"
            " WHERE database_name = current_database()"
        ).fetchone()
    return int(row[0]) if row else store.path.stat().st_size


@contextmanager
def _plainly(what: str) -> Iterator[None]:
    """Tell what the file system or DuckDB refused in words; nothing was changed by then."""
    try:
        yield
    except (OSError, duckdb.Error) as error:
        msg = f"{what} failed: {error}. Nothing was changed, and every row is where it was."
        raise StoreError(msg) from error


def leftovers(store: FileStore) -> dict[Path, str]:
    """Return what commands that were killed have left, and what each is.

    None of it is needed: the store's file is whole, or `check_store` says otherwise.
    """
    with ExitStack() as looking:
        folders: set[Path] = set()
        with suppress(duckdb.Error, StoreError):
            # While this has the file nobody writes: what is unfinished will not be finished.
            db = Session(looking.enter_context(store.opened()))
            folders = {Path(row["path"]).parent for row in db.rows("SELECT path FROM backups")}
        return dict(_leftovers(store, folders))


def _leftovers(store: FileStore, backup_folders: set[Path]) -> Iterator[tuple[Path, str]]:
    targets = [store.path, store.published_path]
    for folder in (store.home / CALLBACKS_FOLDER, *sorted(backup_folders)):
        targets += [
            path.with_name(path.name.removesuffix(UNFINISHED))
            for path in folder.glob(f"*{UNFINISHED}")
        ]
    for target in targets:
        for path in unfinished_of(target):
            if path.exists():
                yield path, "a file that was never finished"
    for path in half_handed_in(store.home):
        yield path, "essays that were being submitted by a process that was killed"
    kept = kept_by_compaction(store)
    if kept.exists():
        yield kept, "the store as it was before a compaction that did not come to its end"
    spill = store.path.with_name(f"{store.path.name}.tmp")
    if spill.exists() and any(spill.iterdir()):
        yield spill, "what a query that was killed had put on the disk"


def half_handed_in(home: Path) -> Iterator[Path]:
    """Yield folders of the inbox that an upload or an unpacking left there when it was killed.

    They are named so by `service.uploads` and `operations.inbox`, for a moment; after an hour
    nobody is at work on one.
    """
    for name in (".handed-in-*", ".unpacking-*", ".replaced-*"):
        for path in sorted((home / "inbox").glob(name)):
            with suppress(OSError):
                if path.lstat().st_mtime < time.time() - HALF_HANDED_IN_S:
                    yield path


def mend_store(store: FileStore) -> tuple[Path, ...]:
    """Remove what killed commands left, and close the home to others; return what was changed.

    Raises:
        StoreError: If something of it is another account's.
    """
    with _plainly("Repairing the home"):
        changed = list(leftovers(store))
        with store.held():
            for path in changed:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
            changed += close_to_others(store.home, store.group_rights)
    return tuple(changed)


def archive_callbacks(store: FileStore, *, ended_before: datetime) -> tuple[Path, ...]:
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


def archive_of(home: Path, batch_id: str) -> Path:
    """Return where the raw callbacks of a batch lie once they are archived."""
    return home / CALLBACKS_FOLDER / f"{batch_id}.parquet"


def delete_archives(store: FileStore, *, written_before: datetime) -> tuple[Path, ...]:
    """Delete archived callbacks whose retention is over; return what was deleted."""
    folder = store.home / CALLBACKS_FOLDER
    old = [p for p in folder.glob("*.parquet") if p.stat().st_mtime < written_before.timestamp()]
    for path in old:
        path.unlink()
    return tuple(old)


def _archive(store: FileStore, batch_id: str) -> Path:
    folder = store.home / CALLBACKS_FOLDER
    folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    target = archive_of(store.home, batch_id)
    with _plainly(f"Archiving the callbacks of batch '{batch_id}'"), store.write() as db:
        rows = _ROWS_OF_ARCHIVE
        if target.exists():
            # Rows that came after the first time, or a process killed before it deleted its own.
            rows = f"{_ROWS_OF_ARCHIVE} UNION ALL BY NAME {_rows_archived_before(target)}"
        n_rows, n_bytes = _extent(db, rows, batch_id)
        put_in_place(
            target,
            write=lambda fresh: db.execute(
                f"COPY (FROM ({rows}) ORDER BY submission_key, source, line) "
                f"TO '{_quoted(fresh)}' (FORMAT parquet, COMPRESSION zstd)",
                {"batch": batch_id},
            ),
            prove=lambda fresh: _prove_parquet(fresh, n_rows),
            n_bytes=n_bytes,
        )
        db.execute("DELETE FROM callbacks WHERE batch_id = ?", [batch_id])
    return target


_ROWS_OF_ARCHIVE = "FROM callbacks WHERE batch_id = $batch"


def _rows_archived_before(archive: Path) -> str:
    """Return the query for rows that an archive has and the store has not, by their key."""
    return (
        f"SELECT * FROM read_parquet('{_quoted(archive)}') a WHERE NOT EXISTS (SELECT 1 "  # noqa: S608
        "FROM callbacks c WHERE c.submission_key = a.submission_key AND c.source = a.source "
        "AND c.line = a.line)"
    )


def _extent(db: Session, rows: str, batch_id: str) -> tuple[int, int]:
    """Return how many callbacks a query has, and how many bytes they come to."""
    row = db.one(
        f"SELECT count(*) AS n, sum(length(body)) AS n_bytes FROM ({rows})",  # noqa: S608
        {"batch": batch_id},
    )
    return (int(row["n"]), int(row["n_bytes"] or 0)) if row else (0, 0)


def _prove_parquet(path: Path, n_rows: int) -> None:
    """Read a Parquet file's rows.

    Raises:
        StoreError: If there are not as many as there should be.
    """
    with closing(connect_file(Path(":memory:"), read_only=False)) as connection:
        row = connection.execute(
            f"SELECT count(*), bit_xor(hash(t)) FROM read_parquet('{_quoted(path)}') t"  # noqa: S608
        ).fetchone()
    if row is None or row[0] != n_rows:
        msg = f"{path.name} has {row and row[0]} rows where {n_rows} should be."
        raise StoreError(msg)


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


def _open_to_others(store: FileStore) -> list[str]:
    found = list(open_to_others(store.home, store.group_rights))
    if not found:
        return []
    others = f", and {len(found) - 1} more in the home," if len(found) > 1 else ""
    return [f"{found[0]}{others} can be read by others: `cj store check --fix` closes it"]


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
