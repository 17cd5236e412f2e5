"""The store under many hands: transactions, processes, kills, and the published copy."""

from __future__ import annotations

import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

import cj_pipeline
from cj_pipeline.errors import StoreBusyError, StoreError
from cj_pipeline.store.file_lock import hold, is_awaited
from cj_pipeline.store.file_store import FileStore
from cj_pipeline.store.opening import default_home, open_published
from cj_pipeline.store.session import Session
from tests.support import ROOT
from tests.support.store_workers import ROWS, ledger_rows


def _worker(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.store_workers", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def _write_then_fail(db: Session, transaction: int = 0) -> None:
    db.insert("ledger", ledger_rows("me", transaction))
    db.execute("DELETE FROM no_such_table")


def _write_once(store: FileStore) -> None:
    with store.write() as db:
        db.insert("ledger", ledger_rows("child", 0))


def _count(store: FileStore) -> int:
    with store.read() as db:
        row = db.one("SELECT count(*) AS n FROM ledger")
    assert row is not None
    return int(row["n"])


def _transactions(store: FileStore) -> dict[tuple[str, str], int]:
    """Return the number of rows per writer and transaction."""
    with store.read() as db:
        rows = db.rows("SELECT batch_id, judge_id, count(*) AS n FROM ledger GROUP BY ALL")
    return {(row["batch_id"], row["judge_id"]): row["n"] for row in rows}


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    """The plainest promise of a store."""
    store = FileStore(tmp_path / "home")

    with store.write() as db:
        db.insert("ledger", ledger_rows("me", 0))

    assert _count(FileStore(tmp_path / "home")) == ROWS


def test_an_error_rolls_the_whole_transaction_back(tmp_path: Path) -> None:
    """Half a wave must never be seen."""
    store = FileStore(tmp_path)

    with pytest.raises(duckdb.CatalogException), store.write() as db:
        _write_then_fail(db)

    assert _count(store) == 0


def test_a_store_in_memory_rolls_back_too() -> None:
    """Tests that use it rely on the same promises."""
    store = FileStore.in_memory()

    with pytest.raises(duckdb.CatalogException), store.write() as db:
        _write_then_fail(db)

    assert _count(store) == 0


def test_each_transaction_of_a_turn_commits_by_itself(tmp_path: Path) -> None:
    """What was stored first stays stored when reading it fails."""
    for store in (FileStore(tmp_path), FileStore.in_memory()):
        with store.turn() as transaction:
            with transaction() as db:
                db.insert("ledger", ledger_rows("me", 0))
            with pytest.raises(duckdb.CatalogException), transaction() as db:
                _write_then_fail(db, 1)
            with transaction() as db:
                db.insert("ledger", ledger_rows("me", 2))

        assert _transactions(store) == {("me", "0"): ROWS, ("me", "2"): ROWS}


def test_a_turn_opens_the_file_once(tmp_path: Path) -> None:
    """Opening and closing takes longer than most transactions do."""
    store = FileStore(tmp_path)
    with store.write():
        pass
    with store.turn() as transaction:
        with transaction() as db:
            db.insert("ledger", ledger_rows("me", 0))
        log = tmp_path / "cj.duckdb.wal"
        assert log.exists()  # closing would have folded it in
        with transaction() as db:
            db.insert("ledger", ledger_rows("me", 1))

    assert not log.exists()


def test_whoever_waits_comes_between_two_transactions_of_a_turn(tmp_path: Path) -> None:
    """A long turn keeps nobody waiting for longer than one of its transactions."""
    store = FileStore(tmp_path)
    with store.write():
        pass  # making its tables is a turn of its own

    def write() -> None:
        with store.write() as db:
            db.insert("ledger", ledger_rows("other", 0))

    other = threading.Thread(target=write)
    with store.turn() as transaction:
        with transaction() as db:
            db.insert("ledger", ledger_rows("me", 0))
            other.start()
            while not is_awaited(store.path):
                time.sleep(0.01)
        with transaction() as db:
            found = db.rows("SELECT DISTINCT batch_id FROM ledger ORDER BY 1")
    other.join()

    assert [row["batch_id"] for row in found] == ["me", "other"]


def test_a_forked_child_uses_the_store_too(tmp_path: Path) -> None:
    """What is kept between transactions has threads, and a child has none of its parent's."""
    store = FileStore(tmp_path)
    with store.write() as db:
        db.insert("ledger", ledger_rows("me", 0))

    child = multiprocessing.get_context("fork").Process(target=_write_once, args=(store,))
    child.start()
    child.join(60)

    assert child.exitcode == 0
    assert _count(store) == 2 * ROWS


def test_nobody_keeps_the_live_file_open(tmp_path: Path) -> None:
    """Any other process must be able to open it between two transactions."""
    store = FileStore(tmp_path)
    with store.write() as db:
        db.insert("ledger", ledger_rows("me", 0))
    code = f"import duckdb; duckdb.connect({str(store.path)!r}).close()"

    done = subprocess.run([sys.executable, "-c", code], check=False)

    assert done.returncode == 0


def test_writers_and_readers_of_many_processes_lose_nothing(tmp_path: Path) -> None:
    """Runs of many batches and sensors use the store at the same time."""
    store = FileStore(tmp_path)
    writers = [_worker("write", tmp_path, 8) for _ in range(4)]
    reader = _worker("read", tmp_path, 1.5)

    seen = [int(line) for line in reader.communicate()[0].split()]
    codes = [(writer.communicate(), writer.returncode)[1] for writer in writers]

    assert codes == [0] * 4
    assert reader.returncode == 0
    assert seen == sorted(seen)
    assert all(n % ROWS == 0 for n in seen)
    assert _count(store) == 4 * 8 * ROWS


def test_an_open_notebook_blocks_nobody_and_sees_one_state(tmp_path: Path) -> None:
    """Analysts leave connections open for days."""
    store = FileStore(tmp_path)
    with store.write() as db:
        db.insert("ledger", ledger_rows("me", 0))
    store.publish()
    with open_published(tmp_path) as notebook:
        for transaction in range(1, 4):
            with store.write() as db:
                db.insert("ledger", ledger_rows("me", transaction))
            store.publish()

        seen = notebook.execute("SELECT count(*) FROM ledger").fetchone()

    assert seen == (ROWS,)
    with open_published(tmp_path) as notebook:
        assert notebook.execute("SELECT count(*) FROM ledger").fetchone() == (4 * ROWS,)


def test_the_published_copy_cannot_be_written(tmp_path: Path) -> None:
    """It is replaced at any moment; what somebody wrote into it would be lost."""
    store = FileStore(tmp_path)
    store.publish()

    with (
        open_published(tmp_path) as notebook,
        pytest.raises(duckdb.InvalidInputException, match="read-only"),
    ):
        notebook.execute("DELETE FROM ledger")


@pytest.mark.parametrize("moment_s", [0.0, 0.03, 0.07, 0.15, 0.3])
def test_killing_a_writer_loses_nothing_committed(tmp_path: Path, moment_s: float) -> None:
    """Every commit that was reported is there, and every transaction is whole."""
    writer = _worker("write", tmp_path, 1000)
    assert writer.stdout is not None
    writer.stdout.readline()
    time.sleep(moment_s)
    writer.send_signal(signal.SIGKILL)
    reported = 1 + len(writer.communicate()[0].split())

    found = _transactions(FileStore(tmp_path))

    assert set(found.values()) == {ROWS}
    assert len(found) - reported in (0, 1)  # one may have been committed but not yet reported


def test_a_killed_holder_frees_the_lock_and_leaves_nothing(tmp_path: Path) -> None:
    """The kernel gives its lock back; what it had not committed never happened."""
    holder = _worker("hold", tmp_path)
    assert holder.stdout is not None
    holder.stdout.readline()
    holder.send_signal(signal.SIGKILL)
    holder.communicate()

    assert _count(FileStore(tmp_path, lock_timeout_s=5)) == 0


def test_publishing_after_a_kill_shows_what_was_committed(tmp_path: Path) -> None:
    """A killed writer's rows may still lie in its log, which is not copied."""
    writer = _worker("write", tmp_path, 1000)
    assert writer.stdout is not None
    for _ in range(3):
        writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    store = FileStore(tmp_path)

    store.publish()

    with open_published(tmp_path) as notebook:
        published = notebook.execute("SELECT count(*) FROM ledger").fetchone()
    assert published == (_count(store),)


def test_waiting_too_long_says_that_the_store_is_busy(tmp_path: Path) -> None:
    """A hanging process must not hang all others; trying again later may help."""
    holder = _worker("hold", tmp_path)
    assert holder.stdout is not None
    holder.stdout.readline()

    try:
        with (
            pytest.raises(StoreBusyError, match=rf"python.*PID {holder.pid}.*Nothing was changed"),
            FileStore(tmp_path, lock_timeout_s=0.2).write(),
        ):
            pass
    finally:
        holder.kill()
        holder.communicate()


def test_who_reads_waits_less_than_who_writes(tmp_path: Path) -> None:
    """A reader that gives up loses nothing; a writer may hold what was paid for."""
    store = FileStore(tmp_path)

    assert (store._read_timeout_s, store._lock_timeout_s) == (20.0, 120.0)
    for impatient in (store.waiting(0.2), FileStore(tmp_path).waiting(0.2)):  # before it is made
        with (
            hold(store.path, shared=False, timeout_s=1),
            pytest.raises(StoreBusyError, match=rf"PID {os.getpid()}") as raised,
            impatient.read(),
        ):
            pass
        assert [pid for _, pid in raised.value.holders] == [os.getpid()]


def test_a_stranger_on_the_live_file_is_named(tmp_path: Path) -> None:
    """Somebody opened cj.duckdb with another tool; the message says who and what to do."""
    store = FileStore(tmp_path, lock_timeout_s=0.2)
    with store.write():
        pass
    code = f"import duckdb; c = duckdb.connect({str(store.path)!r}); print(1, flush=True); input()"
    stranger = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    )
    assert stranger.stdout is not None
    stranger.stdout.readline()

    try:
        with (
            pytest.raises(StoreBusyError, match=rf"python.*PID {stranger.pid}.*open_published"),
            store.write(),
        ):
            pass
    finally:
        stranger.communicate(b"\n")


def test_a_torn_file_is_refused_with_a_way_out(tmp_path: Path) -> None:
    """A copy that broke off must not be taken for an empty store."""
    store = FileStore(tmp_path)
    with store.write() as db:
        db.insert("ledger", ledger_rows("me", 0))
    store.path.write_bytes(store.path.read_bytes()[:5000])

    with pytest.raises(StoreError, match="cj store restore"), FileStore(tmp_path).read():
        pass


def test_a_full_disk_loses_nothing_committed_and_says_what_to_do(tmp_path: Path) -> None:
    """A limit on file sizes stands for the full disk: the same write fails in the same way."""
    worker = _worker("fill", tmp_path, 12_000_000)
    committed, message = worker.communicate()[0].split("\n", 1)

    assert "Free space" in message
    assert _count(FileStore(tmp_path)) == int(committed) * ROWS


def test_whether_a_text_is_in_a_store_can_be_seen_in_its_bytes(tmp_path: Path) -> None:
    """Else nobody could search a file for what was erased."""
    store = FileStore(tmp_path)
    text = "My summer began in a town by the sea. " * 400
    with store.write() as db:
        db.insert("ledger", [row | {"judge_id": text} for row in ledger_rows("f", 0)])

    assert text[:3000].encode() in store.path.read_bytes()


def test_a_folder_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    """A read-only mount, a wrong owner, or, as here, a file in the way."""
    (tmp_path / "file").touch()

    with pytest.raises(StoreError, match="CJ_HOME"), FileStore(tmp_path / "file" / "home").read():
        pass


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    """Essays are personal data."""
    store = FileStore(tmp_path / "home")
    store.publish()

    modes = {
        path: stat.S_IMODE(path.stat().st_mode) & 0o077
        for path in [tmp_path / "home", *(tmp_path / "home").rglob("*")]
    }

    assert set(modes.values()) == {0}


def test_home_is_named_by_the_environment() -> None:
    """CJ_HOME wins; without it the store lies in the current folder."""
    assert default_home({"CJ_HOME": "/data/cj"}) == Path("/data/cj")
    assert default_home({}) == Path(".cj")


def test_nothing_published_says_what_to_do(tmp_path: Path) -> None:
    """The first thing a newcomer gets wrong is the folder."""
    with pytest.raises(StoreError, match="CJ_HOME"):
        cj_pipeline.open_published(tmp_path)


def test_importing_the_package_loads_no_database() -> None:
    """Command completion and Dagster's loading wait for every import."""
    code = "import sys, cj_pipeline; sys.exit('duckdb' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_times_come_back_in_utc(tmp_path: Path) -> None:
    """A naive time, or one in the machine's zone, would be compared wrongly."""
    moment = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
    store = FileStore(tmp_path)
    with store.write() as db:
        db.insert("ledger", [row | {"entered_at": moment} for row in ledger_rows("me", 0)])

    with store.read() as db:
        row = db.one("SELECT entered_at FROM ledger LIMIT 1")

    assert row is not None
    assert row["entered_at"] == moment
    assert row["entered_at"].utcoffset() == moment.utcoffset()
