"""The fair lock between processes and threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cj_pipeline.errors import StoreBusyError
from cj_pipeline.store.file_lock import hold, is_awaited


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    """Threads of one process exclude each other as processes do."""
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(20):
            with hold(tmp_path / "f", shared=False, timeout_s=10):
                inside += 1
                most = max(most, inside)
                time.sleep(0.001)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert most == 1


def test_readers_share(tmp_path: Path) -> None:
    """A look at the store need not wait for another look."""
    path = tmp_path / "f"
    with (
        hold(path, shared=True, timeout_s=1),
        hold(path, shared=True, timeout_s=1),
        pytest.raises(StoreBusyError),
        hold(path, shared=False, timeout_s=0.05),
    ):
        pass


def test_giving_up_leaves_the_lock_to_others(tmp_path: Path) -> None:
    """A place in the queue that was given up must not be granted to nobody."""
    path = tmp_path / "f"
    with hold(path, shared=False, timeout_s=1):
        for _ in range(3):
            with pytest.raises(StoreBusyError), hold(path, shared=False, timeout_s=0.02):
                pass

    with hold(path, shared=False, timeout_s=1):
        pass


def test_whoever_lets_go_cannot_slip_in_again_before_those_who_wait(tmp_path: Path) -> None:
    """A busy writer in a loop must not starve the others."""
    path = tmp_path / "f"
    order: list[str] = []

    def wait(name: str) -> None:
        with hold(path, shared=False, timeout_s=10):
            order.append(name)

    waiters = [threading.Thread(target=wait, args=[name]) for name in ("first", "second")]
    with hold(path, shared=False, timeout_s=10):
        for waiter in waiters:
            waiter.start()
            # Long enough to stand in the queue, on a busy machine too.
            time.sleep(0.5)
    wait("again")
    for waiter in waiters:
        waiter.join()

    assert order == ["first", "second", "again"]


def test_whoever_has_the_file_is_named_and_not_whoever_waits_first(tmp_path: Path) -> None:
    """The first in the queue is held up like everybody: ending it would help nobody."""
    path = tmp_path / "f"
    code = (
        "from pathlib import Path; from cj_pipeline.store.file_lock import hold\n"
        f"print(1, flush=True)\nwith hold(Path({str(path)!r}), shared=False, timeout_s=60): pass"
    )
    with hold(path, shared=False, timeout_s=1):
        first = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        try:
            assert first.stdout is not None
            first.stdout.readline()
            while not is_awaited(path):
                time.sleep(0.01)
            with (
                pytest.raises(StoreBusyError) as raised,
                hold(path, shared=False, timeout_s=0.1),
            ):
                pass
        finally:
            first.kill()
            first.communicate()

    assert [pid for _, pid in raised.value.holders] == [os.getpid()]
