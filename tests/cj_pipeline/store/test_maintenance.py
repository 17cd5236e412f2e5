"""Check, back up, restore, compact and archive an embedded store."""

from __future__ import annotations

import errno
import os
import resource
import stat
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from cj_pipeline.errors import StoreError
from cj_pipeline.store import maintenance
from cj_pipeline.store.file_store import FileStore
from cj_pipeline.store.maintenance import (
    archive_callbacks,
    backup_store,
    check_store,
    compact_store,
    delete_archives,
    mend_store,
    migrate_store,
    restore_store,
)
from cj_pipeline.store.migrations import known_migrations, migrate
from cj_pipeline.store.opening import open_published
from tests.support.finished_batches import SPRING, fill
from tests.support.store_workers import ledger_rows

NOW = datetime(2026, 3, 3, 12, 0, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    """A store with finished batches."""
    store = FileStore(tmp_path / "home")
    with store.write() as db:
        fill(db)
    return store


def _comparisons(store: FileStore) -> int:
    with store.read() as db:
        row = db.one("SELECT count(*) AS n FROM comparisons")
    assert row is not None
    return int(row["n"])


def test_a_sound_store_has_no_problems(store: FileStore) -> None:
    """The check must not cry wolf."""
    store.publish()

    found = check_store(store)

    assert found.problems == ()
    assert found.schema_version == known_migrations()[-1].version
    assert found.rows["comparisons"] == _comparisons(store)
    assert found.live_bytes == found.published_bytes > 0


def test_rows_that_hang_in_the_air_are_counted(store: FileStore) -> None:
    """A half-restored or hand-edited store shows here first."""
    with store.write() as db:
        db.execute("DELETE FROM comparison_pairs WHERE batch_id = ?", [SPRING])

    assert "91 comparisons without a planned pair" in check_store(store).problems


def test_files_that_others_can_read_are_named(store: FileStore) -> None:
    """Essays are personal data."""
    store.path.chmod(0o644)

    assert any("can be read by others" in problem for problem in check_store(store).problems)

    assert mend_store(store) == (store.path,)
    assert check_store(store).problems == ()


def test_an_older_store_is_migrated_on_request(tmp_path: Path) -> None:
    """The names say what was done."""
    with duckdb.connect(str(tmp_path / "cj.duckdb")) as old:
        migrate(old, known_migrations()[:1])

    names = migrate_store(FileStore(tmp_path))

    assert names == tuple(m.name for m in known_migrations()[1:])


def test_a_backup_brings_everything_back(store: FileStore, tmp_path: Path) -> None:
    """The reason to have one."""
    backup = backup_store(store, tmp_path / "backups" / "monday.duckdb")
    before = _comparisons(store)
    with store.write() as db:
        db.execute("DELETE FROM comparisons")

    aside = restore_store(store, backup, now=NOW)

    assert _comparisons(store) == before
    assert aside is not None
    with duckdb.connect(str(aside), read_only=True) as old:
        assert old.execute("SELECT count(*) FROM comparisons").fetchone() == (0,)
    with open_published(store.home) as notebook:
        assert notebook.execute("SELECT count(*) FROM comparisons").fetchone() == (before,)


def test_a_backup_older_than_the_code_is_brought_up_to_date(
    store: FileStore, tmp_path: Path
) -> None:
    """Otherwise readers would look for tables that are not there yet."""
    with duckdb.connect(str(tmp_path / "old.duckdb")) as old:
        migrate(old, known_migrations()[:1])

    restore_store(store, tmp_path / "old.duckdb", now=NOW)

    with open_published(store.home) as notebook:
        assert notebook.execute("SELECT count(*) FROM v_batches").fetchone() == (0,)


def test_a_restore_that_is_killed_leaves_a_live_file(
    store: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no instant at which another process would find nothing and begin anew."""
    backup = backup_store(store, tmp_path / "backup.duckdb")
    n_comparisons = _comparisons(store)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        restore_store(store, backup, now=NOW)
    monkeypatch.undo()

    assert _comparisons(FileStore(store.home)) == n_comparisons
    assert restore_store(FileStore(store.home), backup, now=NOW) is not None


def test_a_restore_keeps_what_a_killed_writer_had_committed(
    store: FileStore, tmp_path: Path
) -> None:
    """The file that is laid aside is whole: its log was folded into it first."""
    backup = backup_store(store, tmp_path / "backup.duckdb")
    code = """
import os, sys, duckdb
db = duckdb.connect(sys.argv[1])
db.execute("PRAGMA disable_checkpoint_on_shutdown")
db.execute("CREATE TABLE committed AS SELECT 1 AS one")
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", code, store.path], check=True)
    assert store.path.with_name(f"{store.path.name}.wal").exists()

    aside = restore_store(store, backup, now=NOW)

    assert aside is not None
    with duckdb.connect(str(aside), read_only=True) as db:
        assert db.execute("FROM committed").fetchone() == (1,)


def test_a_backup_that_lacks_what_it_must_not_takes_no_place(
    store: FileStore, tmp_path: Path
) -> None:
    """What was erased since could not be written into it: then it would bring it all back."""
    backup = backup_store(store, tmp_path / "backup.duckdb")
    with store.write() as db:
        db.insert("ledger", ledger_rows("since", 0))

    with pytest.raises(StoreError, match="Nothing was changed"):
        restore_store(store, backup, now=NOW, amend=lambda *_: {"no_such_table": [{"a": 1}]})

    with store.read() as db:
        assert db.one("SELECT 1 AS found FROM ledger WHERE batch_id = 'since'") is not None


def test_a_torn_store_can_be_restored(store: FileStore, tmp_path: Path) -> None:
    """The message of a damaged store promises it."""
    backup = backup_store(store, tmp_path / "backup.duckdb")
    store.path.write_bytes(store.path.read_bytes()[:5000])

    restore_store(FileStore(store.home), backup, now=NOW)

    assert _comparisons(FileStore(store.home)) > 0


def test_a_backup_is_never_overwritten(store: FileStore, tmp_path: Path) -> None:
    """The older one may be the good one."""
    target = backup_store(store, tmp_path / "backup.duckdb")

    with pytest.raises(StoreError, match="another name"):
        backup_store(store, target)


def test_a_torn_backup_is_refused(store: FileStore, tmp_path: Path) -> None:
    """The live file must not be lost to a bad copy."""
    torn = tmp_path / "torn.duckdb"
    torn.write_bytes(store.path.read_bytes()[:5000])

    with pytest.raises(StoreError, match="Nothing was changed"):
        restore_store(store, torn, now=NOW)

    assert _comparisons(store) > 0


def test_compacting_gives_back_space_and_keeps_everything(store: FileStore) -> None:
    """Keys, views and comments included: the schema must still be the same."""
    with store.write() as db:
        db.execute(
            "INSERT INTO ledger SELECT 'filler', i::VARCHAR, md5(i::VARCHAR), 'reserved', "
            "random(), now() FROM range(20000) numbers(i)"
        )
    with store.write() as db:
        db.execute("DELETE FROM ledger")

    compaction = compact_store(store)

    assert compaction.bytes_after < compaction.bytes_before
    assert check_store(store).problems == ()
    with store.write() as db:
        db.insert("ledger", ledger_rows("me", 0))
        with pytest.raises(duckdb.ConstraintException):
            db.insert("ledger", ledger_rows("me", 0))


def test_a_store_of_an_older_version_shrinks_when_it_is_compacted(tmp_path: Path) -> None:
    """Files made as DuckDB 1.0 reads them hold a megabyte of statistics about no rows."""
    old, new = FileStore(tmp_path / "old"), FileStore(tmp_path / "new")
    old.home.mkdir()
    with duckdb.connect(str(old.path), config={"storage_compatibility_version": "v1.0.0"}) as made:
        migrate(made)
    for store in (old, new):
        with store.write() as db:
            fill(db)
    assert _storage_version(new) == "v1.2.0+"
    assert _storage_version(old) == "v1.0.0+"

    compact_store(old)

    assert _storage_version(old) == "v1.2.0+"
    assert old.path.stat().st_size < 2 * new.path.stat().st_size
    assert _comparisons(old) == _comparisons(new)


def _storage_version(store: FileStore) -> object:
    with store.read() as db:
        row = db.one("SELECT tags FROM duckdb_databases() WHERE database_name = 'cj'")
    assert row is not None
    return dict(row["tags"])["storage_version"]


def test_old_callbacks_move_to_parquet_and_go_when_their_time_is_over(store: FileStore) -> None:
    """Raw replies are most of a store; nobody updates them."""
    with store.read() as db:
        stored = db.one("SELECT count(*) AS n FROM callbacks WHERE batch_id = ?", [SPRING])

    archived = archive_callbacks(store, ended_before=datetime.now(UTC))

    parquet = store.home / "callbacks" / f"{SPRING}.parquet"
    assert parquet in archived
    assert parquet.stat().st_mode & 0o077 == 0
    assert stored == {"n": duckdb.read_parquet(str(parquet)).count("*").fetchall()[0][0]}
    with store.read() as db:
        assert db.one("FROM callbacks") is None
    assert archive_callbacks(store, ended_before=datetime.now(UTC)) == ()
    assert set(delete_archives(store, written_before=datetime.now(UTC) + timedelta(1))) == set(
        archived
    )
    assert not parquet.exists()


def test_callbacks_that_come_later_join_the_archive(store: FileStore) -> None:
    """What was archived before must not be written over by the few that came since."""
    with store.read() as db:
        rows = db.rows("FROM callbacks WHERE batch_id = ? ORDER BY ALL", [SPRING])
    archive_callbacks(store, ended_before=datetime.now(UTC))
    late = dict(rows[0]) | {"line": 99_999}
    with store.write() as db:
        db.insert("callbacks", [rows[1], late])  # one is there already, one is new

    archive_callbacks(store, ended_before=datetime.now(UTC))

    parquet = str(store.home / "callbacks" / f"{SPRING}.parquet")
    assert len(duckdb.read_parquet(parquet).fetchall()) == len(rows) + 1


def test_what_killed_commands_left_is_named_and_removed(store: FileStore) -> None:
    """Each may be as large as the store, and hold what was forgotten since."""
    left = [
        store.home / "cj.duckdb.unfinished",
        store.home / "cj.duckdb.unfinished.wal",
        store.home / "cj.duckdb.before-compact",
        store.home / "callbacks" / "spring-9.parquet.unfinished",
    ]
    (store.home / "callbacks").mkdir()
    for path in left:
        path.write_bytes(b"torn")

    named = " ".join(check_store(store).problems)
    mended = mend_store(store)

    assert all(str(path) in named for path in left)
    assert set(mended) == set(left)
    assert check_store(store).problems == ()


def test_a_backup_with_its_log_beside_it_is_restored_whole(
    store: FileStore, tmp_path: Path
) -> None:
    """A file that was copied by hand may have the newest rows in its log alone."""
    backup = backup_store(store, tmp_path / "backup.duckdb")
    code = """
import os, sys, duckdb
db = duckdb.connect(sys.argv[1])
db.execute("PRAGMA disable_checkpoint_on_shutdown")
db.execute("UPDATE batches SET title = 'in the log alone'")
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", code, backup], check=True)

    restore_store(store, backup, now=NOW)

    with store.read() as db:
        assert db.one("SELECT DISTINCT title FROM batches") == {"title": "in the log alone"}


def test_a_store_that_lost_rows_on_the_way_is_not_put_in_place(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As DuckDB does when it closes a file on a full disk: it says nothing, and rows are gone."""
    real = maintenance._write_anew

    def lossy(path: Path, fresh: Path, key: str | None) -> None:
        real(path, fresh, key)
        with duckdb.connect(str(fresh)) as db:
            db.execute("DELETE FROM essay_scores")

    monkeypatch.setattr(maintenance, "_write_anew", lossy)
    n_comparisons = _comparisons(store)

    with pytest.raises(StoreError, match="0 rows of essay_scores where"):
        compact_store(store)

    assert _comparisons(store) == n_comparisons
    assert check_store(store).problems == ()


@pytest.mark.parametrize("spare_mb", [0, 1, 2, 4, 8])
def test_nothing_is_lost_on_a_disk_that_fills_up(
    store: FileStore, spare_mb: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where files may not grow, DuckDB fails in the middle of its own writing."""
    monkeypatch.setattr(maintenance, "_ALLOWANCE_BYTES", 0)
    monkeypatch.setattr(maintenance, "require_room", lambda *_: None)
    n_comparisons = _comparisons(store)
    limit = store.path.stat().st_size * spare_mb // 8 + 100_000
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with suppress(StoreError):
            compact_store(store)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

    assert _comparisons(store) == n_comparisons
    mend_store(store)
    assert check_store(store).problems == ()


def test_a_backup_goes_to_another_file_system(
    store: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second disk is where backups belong; older kernels refuse to copy there by themselves."""

    def refuse(*_: object) -> int:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "copy_file_range", refuse)
    backup = backup_store(store, tmp_path / "backup.duckdb")
    restore_store(store, backup, now=NOW)

    assert _comparisons(store) > 0


def test_the_group_may_read_the_published_copy_where_it_is_let(store: FileStore) -> None:
    """And nothing else of the home."""
    opened = FileStore(store.home, group_may_read=True)
    opened.publish()
    opened.publish()

    modes = {
        path.relative_to(store.home).as_posix(): stat.S_IMODE(path.stat().st_mode)
        for path in (store.home, *store.home.rglob("*"))
    }

    assert {name: mode for name, mode in modes.items() if mode & 0o077} == {
        ".": 0o710,
        "published": 0o750,
        "published/cj.duckdb": 0o640,
        "published/cj.duckdb.spare": 0o640,
    }
    assert check_store(opened).problems == ()
