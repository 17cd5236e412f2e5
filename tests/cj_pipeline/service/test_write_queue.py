"""Many small writes share a transaction, and none pays for another's refusal."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cj_pipeline.errors import SettingsError
from cj_pipeline.service.write_queue import WriteQueue
from cj_pipeline.store.file_store import FileStore
from cj_pipeline.store.session import Session


class _Counting(FileStore):
    n_writes = 0

    def write(self) -> Any:
        """Count the transactions."""
        self.n_writes += 1
        return super().write()


def test_writes_that_wait_together_are_committed_together(tmp_path: Path) -> None:
    """Twelve callers, one of them refused: eleven rows, and far fewer transactions."""
    store = _Counting(tmp_path / "home")
    with store.write() as db:
        db.execute("CREATE TABLE told (n INTEGER PRIMARY KEY)")
    store.n_writes = 0
    queue = WriteQueue(store)
    all_wait, may_go = threading.Barrier(13), threading.Event()

    def first(db: Session) -> int:
        may_go.wait()
        return 0

    def one(n: int) -> int:
        all_wait.wait()

        def write(db: Session) -> int:
            if n == 5:
                msg = "refused"
                raise SettingsError(msg)
            db.execute("INSERT INTO told VALUES (?)", [n])
            return n

        return queue.run(write)

    with ThreadPoolExecutor(14) as pool:
        holds = pool.submit(queue.run, first)
        others = [pool.submit(one, n) for n in range(12)]
        all_wait.wait()
        while len(queue._waiting) < 12:
            pass
        may_go.set()
        assert holds.result() == 0
        assert [f.result() for n, f in enumerate(others) if n != 5] == [
            n for n in range(12) if n != 5
        ]
        with pytest.raises(SettingsError, match="refused"):
            others[5].result()
    with store.read() as db:
        assert db.one("SELECT count(*) AS n FROM told") == {"n": 11}
    assert store.n_writes == 2


def test_a_transaction_that_fails_fails_for_all_in_it(tmp_path: Path) -> None:
    """Nobody is told that something was stored that was not."""
    queue = WriteQueue(FileStore(tmp_path / "home"))

    with pytest.raises(Exception, match="nothing_there"):
        queue.run(lambda db: db.execute("INSERT INTO nothing_there VALUES (1)"))
    assert queue.run(lambda _: 7) == 7
