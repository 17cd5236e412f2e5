"""Seeing a batch move, soon after it has: for whoever watches from outside.

A store in a file tells that it was written by its size and time of change, so looking costs
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

LOOK_EVERY_S = 0.05
"""At the file's size and time of change."""

READ_EVERY_S = 0.3
"""A store that has no file here; within the half second in which a landing is to be seen."""

READ_AT_LATEST_S = 2.0
"""Two changes within one tick of the file system's clock would look like one."""


class StoreWatcher:
    """Whether a store may have been written since the last look; for one follower."""

    def __init__(self, store: Store, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._live = store.path if isinstance(store, FileStore) else None
        self._seen: object = None
        self._read_at = float("-inf")

    def is_due(self) -> bool:
        """Return whether to read the store now; the state is taken before the reading."""
        now = self._monotonic()
        waited = now - self._read_at
        if self._live is None:
            is_due = waited >= READ_EVERY_S
        else:
            found = _signature(self._live)
            is_due = found != self._seen or waited >= READ_AT_LATEST_S
            self._seen = found
        if is_due:
            self._read_at = now
        return is_due


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
    """What one look at a batch showed: the events since the look before, and how it stands."""

    events: tuple[ProgressEvent, ...]
    progress: Progress

    @property
    def has_ended(self) -> bool:
        """Whether the batch is at its end, so that no event will follow."""
        return self.progress.state != "running"


def read_progress(runtime: Runtime, batch_id: str, after: int = 0) -> ProgressUpdate:
    """Return a batch's events after the one of that number, and how it stands.

    Raises:
        UnknownBatchError: If the store has no such batch.
    """
    with runtime.store.read() as db:
        events = tuple(events_since(db, batch_id, after))
        # An event says how the batch stands: working that out again would only make it late.
        is_fresh = after > 0 and bool(events)
        progress = events[-1].progress if is_fresh else progress_of(db, batch_id, runtime.clock())
        return ProgressUpdate(events, progress)


def follow(
    runtime: Runtime,
    batch_id: str,
    *,
    pause: Callable[[float], object] = time.sleep,
) -> Iterator[ProgressUpdate]:
    """Yield a look at a batch now and at every change, until it has ended.

    Args:
        engine: The pipeline's connections.
        batch_id: The batch.
        pause: Called between two looks at whether anything has changed.

    Raises:
        UnknownBatchError: If the store has no such batch.
    """
    change, after = StoreWatcher(runtime.store), 0
    while True:
        if change.is_due():
            try:
                look = read_progress(runtime, batch_id, after)
            except StoreBusyError:
                continue  # whoever watches can wait; the next look shows what this one missed
            after = look.events[-1].sequence if look.events else after
            yield look
            if look.has_ended:
                return
        pause(LOOK_EVERY_S)
