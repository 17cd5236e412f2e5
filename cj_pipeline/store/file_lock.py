"""A lock between processes and threads that is granted in the order it was asked for.

Bare retrying starves: whoever happens to ask at the right moment wins, and some wait for ever.
Here the kernel keeps the queue. Two lock files make a turnstile: whoever is next holds the
queue file while waiting for the live file, so a process that has just let go cannot slip in
again ahead of it. Readers share the live file; they pass the turnstile like everybody.

`portalocker` gives the locks: its plain `lock` may block in the kernel, where waiters are
queued, while `filelock` only ever polls. A waiter blocks in a thread of its own, because a
blocked system call cannot be given a time limit. The kernel drops the locks of a process that
dies, so nothing here needs mending after a kill.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import portalocker

from cj_pipeline.errors import StoreBusyError
from cj_pipeline.storage.holders import holders_of, named

_EXCLUSIVE = portalocker.LockFlags.EXCLUSIVE
_SHARED = portalocker.LockFlags.SHARED


@contextmanager
def hold(path: Path, *, shared: bool, timeout_s: float) -> Iterator[None]:
    """Hold the lock that guards `path`, alone or shared with other readers.

    Args:
        path: The guarded file; its lock files lie beside it, as `PATH.queue` and `PATH.lock`.
        shared: Whether others may hold it too, as long as they share it as well.
        timeout_s: How long to wait for it.

    Raises:
        StoreBusyError: If it was not had in time.
        OSError: If the lock files cannot be made, as in a read-only folder.
    """
    deadline = time.monotonic() + timeout_s
    queue = _acquire(_queue_of(path), _EXCLUSIVE, deadline)
    try:
        flags = _SHARED if shared else _EXCLUSIVE
        live = _acquire(path.with_name(f"{path.name}.lock"), flags, deadline)
    finally:
        _release(queue)
    try:
        yield
    finally:
        _release(live)


def is_awaited(path: Path) -> bool:
    """Return whether anybody waits for the lock that guards `path`; for whoever holds it."""
    descriptor = os.open(_queue_of(path), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        portalocker.lock(descriptor, _EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
    except portalocker.AlreadyLocked:
        os.close(descriptor)
        return True
    _release(descriptor)
    return False


def _queue_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.queue")


def _acquire(path: Path, flags: portalocker.LockFlags, deadline: float) -> int:
    """Return a descriptor that holds the lock."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        portalocker.lock(descriptor, flags | portalocker.LockFlags.NON_BLOCKING)
    except portalocker.AlreadyLocked:
        _Waiter(descriptor, flags).wait(path, deadline)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _release(descriptor: int) -> None:
    """Give the lock back, even where a forked child still holds the descriptor."""
    try:
        portalocker.unlock(descriptor)
    finally:
        os.close(descriptor)


class _Waiter:
    """One place in the kernel's queue, taken by a thread that may be given up on."""

    def __init__(self, descriptor: int, flags: portalocker.LockFlags) -> None:
        self._descriptor = descriptor
        self._flags = flags
        self._ended = threading.Event()
        self._guard = threading.Lock()
        self._is_given_up = False
        self._failure: BaseException | None = None

    def wait(self, path: Path, deadline: float) -> None:
        """Return once the lock is held; after the deadline give the place up and raise."""
        threading.Thread(target=self._block, daemon=True).start()
        try:
            self._ended.wait(max(0.0, deadline - time.monotonic()))
        finally:
            with self._guard:
                is_held = self._ended.is_set() and self._failure is None
                self._is_given_up = not is_held
        if self._failure is not None:
            os.close(self._descriptor)
            raise self._failure
        if not is_held:
            file = path.with_suffix("")
            # Who waits first in the queue is held up too: whoever has the file is to be named.
            live = file.with_name(f"{file.name}.lock")
            holders = holders_of(live, with_self=True) or holders_of(_queue_of(file))
            msg = (
                f"{named(holders)} kept {file} busy for longer than we wait. Nothing was changed; "
                "try again, or end it if it hangs: what it committed is safe."
            )
            raise StoreBusyError(msg, holders=[(each.program, each.pid) for each in holders])

    def _block(self) -> None:
        try:
            portalocker.lock(self._descriptor, self._flags)
        except BaseException as error:
            self._failure = error
        with self._guard:
            self._ended.set()
            if self._is_given_up:
                with suppress(OSError):
                    os.close(self._descriptor)
