"""Following a batch's progress as it changes, from outside.

A store in a file shows that it was written by its size and time of change, so polling costs
nothing while nothing happens, and no writer has to wait for those who watch. Any other store is
read a few times a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cj_pipeline.errors import StoreBusyError
from cj_pipeline.progress.events import events_since, progress_of
from cj_pipeline.progress.values import Progress, ProgressEvent
from cj_pipeline.runtime import Runtime
from cj_pipeline.store.base import Store
from cj_pipeline.store.file_store import FileStore

POLL_EVERY_S = 0.05
"""At the file's size and time of change."""

READ_EVERY_S = 0.3
"""A store that has no file here; within the half second in which a landing has to be reported."""

READ_AT_LATEST_S = 2.0
"""Two changes within one tick of the file system's clock would count as one."""


class StoreWatcher:
    """Whether a store may have been written since the last check; for one follower."""

    def __init__(self, store: Store, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._live = store.path if isinstance(store, FileStore) else None
        self._seen: object = None
        self._read_at = float("-inf")

    def has_changed(self) -> bool:
        """Return whether to read the store now; the state is taken before the reading."""
        now = self._monotonic()
        waited = now - self._read_at
        if self._live is None:
            has_changed = waited >= READ_EVERY_S
        else:
            found = _signature(self._live)
            has_changed = found != self._seen or waited >= READ_AT_LATEST_S
            self._seen = found
        if has_changed:
            self._read_at = now
        return has_changed


def _signature(live: Path) -> list[tuple[int, int] | None]:
    """Return what changes whenever the live file or its log is written."""
    found: list[tuple[int, int] | None] = []
    for path in (live, live.with_name(f"{live.name}.wal")):
        try:
            status = path.stat()
        except FileNotFoundError:
            found.append(None)
        else:
            found.append((status.st_mtime_ns, status.st_size))
    return found


@dataclass(frozen=True)
class ProgressUpdate:
    """One reading of a batch: the events since the reading before, and its progress."""

    events: tuple[ProgressEvent, ...]
    progress: Progress

    @property
    def has_ended(self) -> bool:
        """Whether the batch is at its end, so that no event will follow."""
        return self.progress.state != "running"


def read_progress(runtime: Runtime, batch_id: str, after: int = 0) -> ProgressUpdate:
    """Return a batch's events after the one of that number, and its progress.

    Raises:
        UnknownBatchError: If the store has no such batch.
    """
    with runtime.store.read() as db:
        events = tuple(events_since(db, batch_id, after))
        # An event holds the progress: computing it again would only make it late.
        is_fresh = after > 0 and bool(events)
        progress = events[-1].progress if is_fresh else progress_of(db, batch_id, runtime.clock())
        return ProgressUpdate(events, progress)


def follow(
    runtime: Runtime,
    batch_id: str,
    *,
    pause: Callable[[float], object] = time.sleep,
) -> Iterator[ProgressUpdate]:
    """Yield a batch's progress now and at every change, until it has ended.

    Args:
        runtime: The pipeline's connections.
        batch_id: The batch.
        pause: Called between two checks for a change.

    Raises:
        UnknownBatchError: If the store has no such batch.
    """
    watcher, after = StoreWatcher(runtime.store), 0
    while True:
        if watcher.has_changed():
            try:
                update = read_progress(runtime, batch_id, after)
            except StoreBusyError:
                continue  # a follower can wait; the next reading shows what this one missed
            after = update.events[-1].sequence if update.events else after
            yield update
            if update.has_ended:
                return
        pause(POLL_EVERY_S)
