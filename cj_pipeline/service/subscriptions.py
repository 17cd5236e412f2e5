"""Progress for all watchers of this service, read once for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import structlog

from cj_pipeline.errors import CJError, UnknownBatchError
from cj_pipeline.progress.follow import POLL_EVERY_S, StoreWatcher, read_progress
from cj_pipeline.progress.values import Progress, ProgressEvent
from cj_pipeline.runtime import Runtime

log = structlog.get_logger()


@dataclass
class _Subscription:
    """One batch: all its events, and the change of the store that was read last."""

    events: list[ProgressEvent] = field(default_factory=list)
    progress: Progress | None = None
    version: int = -1
    n_watchers: int = 0
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True)
class Update:
    """A batch as one watcher sees it: events new to them, and its progress.

    `progress` is None while the store does not know the batch.
    """

    events: tuple[ProgressEvent, ...]
    progress: Progress | None


class ProgressFeed:
    """Checks the store for changes while there are watchers, and reads each batch once a change."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._subscriptions: dict[str, _Subscription] = {}
        self._version = 0
        self._changed = asyncio.Event()

    async def poll_store(self) -> None:
        """Notice every change of the store; runs for as long as the service does."""
        watcher = StoreWatcher(self._runtime.store)
        while True:
            if self._subscriptions and watcher.has_changed():
                self._version += 1
                self._changed.set()
                self._changed = asyncio.Event()
            await asyncio.sleep(POLL_EVERY_S)

    async def watch(self, batch_id: str, after: int = 0) -> AsyncGenerator[Update]:
        """Yield a batch now and at every change, without end; events after that number only."""
        async with self._subscription(batch_id) as subscription:
            while True:
                changed, version = self._changed, self._version
                try:
                    await self._read(batch_id, subscription, version)
                except UnknownBatchError:
                    subscription.progress = None
                except CJError as error:
                    log.warning("watching_interrupted", batch_id=batch_id, error=str(error))
                events = tuple(e for e in subscription.events if e.sequence > after)
                after = events[-1].sequence if events else after
                yield Update(events, subscription.progress)
                await changed.wait()

    async def _read(self, batch_id: str, subscription: _Subscription, version: int) -> None:
        async with subscription.reading:
            if subscription.version >= version:
                return
            known = subscription.events[-1].sequence if subscription.events else 0
            update = await asyncio.to_thread(read_progress, self._runtime, batch_id, known)
            subscription.events.extend(update.events)
            subscription.progress = update.progress
            subscription.version = version

    @asynccontextmanager
    async def _subscription(self, batch_id: str) -> AsyncIterator[_Subscription]:
        subscription = self._subscriptions.setdefault(batch_id, _Subscription())
        subscription.n_watchers += 1
        try:
            yield subscription
        finally:
            subscription.n_watchers -= 1
            if not subscription.n_watchers:
                self._subscriptions.pop(batch_id, None)
