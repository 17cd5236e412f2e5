"""The published copy: whole, cheap, and harmless to whoever still has an older one open."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cj_pipeline.store.file_store import FileStore
from cj_pipeline.store.opening import open_published
from cj_pipeline.store.snapshot import publish
from tests.support.store_workers import ROWS, ledger_rows


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    """A store with rows enough for many blocks."""
    store = FileStore(tmp_path)
    with store.write() as db:
        db.execute(
            "INSERT INTO ledger SELECT 'filler', i::VARCHAR, md5(i::VARCHAR), 'reserved', "
            "random(), now() FROM range(20000) numbers(i)"
        )
    return store


def _write_and_publish(store: FileStore, transaction: int) -> None:
    with store.write() as db:
        db.insert("ledger", ledger_rows("me", transaction))
    store.publish()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_every_publication_equals_the_live_file(store: FileStore) -> None:
    """Copying only what changed must leave nothing out, growing and shrinking included."""
    for transaction in range(6):
        _write_and_publish(store, transaction)
        assert _digest(store.published_path) == _digest(store.path)

    with store.write() as db:
        db.execute("DELETE FROM ledger WHERE batch_id = 'filler'")
    for transaction in range(6, 9):
        _write_and_publish(store, transaction)
        assert _digest(store.published_path) == _digest(store.path)


def test_blocks_that_differ_under_one_checksum_are_copied(tmp_path: Path) -> None:
    """DuckDB's checksum of a block does not see two of its words change places."""
    live, published = tmp_path / "live", tmp_path / "published" / "copy"
    headers, rest = bytes(3 * 4096), bytes(256 * 1024 - 24)
    words = [b"checksum", b"one word", b"another."]
    for _ in range(2):
        live.write_bytes(headers + b"".join(words) + rest)
        publish(live, published)

    live.write_bytes(headers + b"".join([words[0], words[2], words[1]]) + rest)
    publish(live, published)

    assert _digest(published) == _digest(live)


def test_the_copy_before_last_is_used_again(store: FileStore) -> None:
    """The same two files take turns: nothing is copied whole once both exist."""
    inodes = []
    for transaction in range(6):
        _write_and_publish(store, transaction)
        inodes.append(store.published_path.stat().st_ino)

    assert inodes[2:] == inodes[:2] * 2


def test_a_copy_open_in_this_process_is_left_alone(store: FileStore) -> None:
    """Locks do not hold within one process, so this case needs its own care."""
    _write_and_publish(store, 0)
    with open_published(store.home) as notebook:
        for transaction in range(1, 5):
            _write_and_publish(store, transaction)

        seen = notebook.execute("SELECT count(*), count(DISTINCT judge_id) FROM ledger").fetchone()

    assert seen == (20_000 + ROWS, 20_001)


def test_a_copy_open_in_another_process_is_left_alone(store: FileStore) -> None:
    """An analyst's notebook sees one state however often others publish."""
    _write_and_publish(store, 0)
    query = "SELECT count(*), sum(length(judge_id)) FROM ledger"
    code = (
        "import sys; from cj_pipeline import open_published\n"
        "notebook = open_published(sys.argv[1])\n"
        "print('open', flush=True); sys.stdin.readline()\n"
        "print(notebook.execute(sys.argv[2]).fetchone())"
    )
    notebook = subprocess.Popen(
        [sys.executable, "-c", code, str(store.home), query],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert notebook.stdout is not None
    notebook.stdout.readline()
    for transaction in range(1, 5):
        _write_and_publish(store, transaction)

    seen = notebook.communicate("\n")[0].strip()

    assert seen == str((20_000 + ROWS, 20_000 * 32 + ROWS))


def test_a_publisher_killed_between_its_renames_does_no_harm(store: FileStore) -> None:
    """The spare is then the published file itself, which must not be written into."""
    _write_and_publish(store, 0)
    _write_and_publish(store, 1)
    spare = store.published_path.with_name(f"{store.published_path.name}.spare")
    spare.unlink()
    spare.hardlink_to(store.published_path)
    with open_published(store.home) as notebook:
        _write_and_publish(store, 2)

        assert notebook.execute("SELECT count(*) FROM ledger").fetchone() == (20_000 + 2 * ROWS,)
    assert _digest(store.published_path) == _digest(store.path)


def test_an_unfinished_copy_is_never_continued(store: FileStore) -> None:
    """A killed publisher may have torn it in the middle of a block."""
    _write_and_publish(store, 0)
    unfinished = store.published_path.with_name(f"{store.published_path.name}.unfinished")
    torn = bytearray(store.path.read_bytes())
    torn[300_000:310_000] = os.urandom(10_000)
    unfinished.write_bytes(torn)

    publish(store.path, store.published_path)

    assert _digest(store.published_path) == _digest(store.path)
