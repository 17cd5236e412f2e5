"""What everybody who watches through this service sees, read once for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import structlog

from cj_pipeline.errors import CJError, UnknownBatchError
from cj_pipeline.progress.follow import LOOK_EVERY_S, StoreWatcher, read_progress
from cj_pipeline.progress.values import Progress, ProgressEvent
from cj_pipeline.runtime import Runtime

log = structlog.get_logger()


@dataclass
class _Subscription:
    """One batch: everything told of it, and the change of the store that was read last."""

    events: list[ProgressEvent] = field(default_factory=list)
    progress: Progress | None = None
    version: int = -1
    n_watchers: int = 0
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True)
class Update:
    """A batch as one watcher sees it: events new to them, and how it stands.

    `progress` is None while the store does not know the batch.
    """

    events: tuple[ProgressEvent, ...]
    progress: Progress | None


class ProgressFeed:
    """Looks for changes of the store while anybody watches, and reads each batch once a change."""

    def __init__(self, runtime: Runtime) -> None:
        self._engine = runtime
        self._posts: dict[str, _Subscription] = {}
        self._version = 0
        self._changed = asyncio.Event()

    async def keep_looking(self) -> None:
        """Notice every change of the store; runs for as long as the service does."""
        change = StoreWatcher(self._engine.store)
        while True:
            if self._posts and change.is_due():
                self._version += 1
                self._changed.set()
                self._changed = asyncio.Event()
            await asyncio.sleep(LOOK_EVERY_S)

    async def watch(self, batch_id: str, after: int = 0) -> AsyncGenerator[Update]:
        """Yield a batch now and at every change, without end; events after that number only."""
        async with self._post(batch_id) as post:
            while True:
                changed, version = self._changed, self._version
                try:
                    await self._read(batch_id, post, version)
                except UnknownBatchError:
                    post.progress = None
                except CJError as error:
                    log.warning("watching_interrupted", batch_id=batch_id, error=str(error))
                events = tuple(e for e in post.events if e.sequence > after)
                after = events[-1].sequence if events else after
                yield Update(events, post.progress)
                await changed.wait()

    async def _read(self, batch_id: str, post: _Subscription, version: int) -> None:
        async with post.reading:
            if post.version >= version:
                return
            known = post.events[-1].sequence if post.events else 0
            look = await asyncio.to_thread(read_progress, self._engine, batch_id, known)
            post.events.extend(look.events)
            post.progress = look.progress
            post.version = version

    @asynccontextmanager
    async def _post(self, batch_id: str) -> AsyncIterator[_Subscription]:
        post = self._posts.setdefault(batch_id, _Subscription())
        post.n_watchers += 1
        try:
            yield post
        finally:
            post.n_watchers -= 1
            if not post.n_watchers:
                self._posts.pop(batch_id, None)
