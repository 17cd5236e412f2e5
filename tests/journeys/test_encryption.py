"""The store's files under a key: DuckDB's own encryption at rest."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from cj_pipeline.errors import StoreError
from cj_pipeline.operations.personal_data.erase import forget_batch
from cj_pipeline.store.file_store import FileStore
from cj_pipeline.store.maintenance import backup_store, check_store, compact_store, restore_store
from cj_pipeline.store.opening import open_store
from tests.support.finished_batches import ARGUMENTS, SPRING, fill

KEY = "a key that tests may know, it's quoted"
WORDS = b"pupil-03"


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    """An encrypted store, published twice so that a spare lies beside the copy."""
    store = FileStore(tmp_path / "home", key=KEY)
    with store.write() as db:
        fill(db)
    store.publish()
    with store.write() as db:
        db.execute("UPDATE batches SET title = 'Changed' WHERE batch_id = ?", [SPRING])
    store.publish()
    return store


def _n_comparisons(connection: duckdb.DuckDBPyConnection) -> int:
    row = connection.execute("SELECT count(*) FROM comparisons").fetchone()
    return int(row[0]) if row else 0


def test_no_file_shows_what_is_in_it(store: FileStore, tmp_path: Path) -> None:
    """Live file, published copy, spare and backup: a stolen disk tells nothing."""
    backup_store(store, tmp_path / "home" / "backup.duckdb")
    files = [p for p in store.home.rglob("*") if p.is_file() and p.stat().st_size]

    assert len(files) >= 4
    assert [p for p in files if WORDS in p.read_bytes()] == []


def test_the_key_opens_the_live_file_and_the_published_copy(store: FileStore) -> None:
    """Publishing copies changed blocks; encrypted blocks must survive that too."""
    again = open_store(store.home, {"CJ_STORE_KEY": KEY})

    with again.read() as db, again.connect() as notebook:
        row = db.one("SELECT count(*) AS n FROM comparisons")
        assert row == {"n": _n_comparisons(notebook)}
        titles = notebook.execute("SELECT title FROM batches WHERE batch_id = ?", [SPRING])
        assert titles.fetchone() == ("Changed",)


@pytest.mark.parametrize("key", [None, "another key"])
def test_without_the_key_the_message_says_so(store: FileStore, key: str | None) -> None:
    """A forgotten variable must not look like a damaged file."""
    with pytest.raises(StoreError, match="CJ_STORE_KEY"), FileStore(store.home, key=key).read():
        pass


def test_care_works_under_a_key(store: FileStore, tmp_path: Path) -> None:
    """Backups, compaction and forgetting must neither fail nor write plain text."""
    backup = backup_store(store, tmp_path / "home" / "backup.duckdb")
    compact_store(store)
    forget_batch(store, ARGUMENTS, now=datetime(2026, 3, 3, tzinfo=UTC))
    restore_store(store, backup, now=datetime(2026, 3, 3, tzinfo=UTC))

    assert check_store(store).problems == ()
    files = [p for p in store.home.rglob("*") if p.is_file()]
    assert [p for p in files if WORDS in p.read_bytes()] == []
