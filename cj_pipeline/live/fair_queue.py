"""Who gets the next permit where several batches wait for one provider; pure.

Higher priorities go first, and waiting raises a priority, so nothing starves. Within a priority
the batch that had the fewest permits is next, then the one that has waited longest, then its name:
the same waiters always get the same permits.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from cj_pipeline.batch.options import Priority

AGING_S = 60.0
"""Waiting that long counts as much as one priority more."""

LEVELS: Mapping[Priority, int] = {"low": 0, "normal": 1, "high": 2}

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class QueueEntry(Generic[K]):
    """Calls of one batch that wait for the same provider and model.

    Attributes:
        key: Whose calls they are; two judges or processes of one batch have two.
        batch_id: Permits are shared fairly between batches.
        level: The batch's priority, as `LEVELS` counts.
        since: When the oldest of them began to wait, in seconds.
        n: How many wait.
        n_served: Permits the batch has had.
    """

    key: K
    batch_id: str
    level: int
    since: float
    n: int
    n_served: float


def allocate_permits(waiting: Sequence[QueueEntry[K]], n_permits: int, now: float) -> dict[K, int]:
    """Return how many of the next permits each waiter gets; those who get none are left out.

    Args:
        waiting: Every waiter.
        n_permits: How many permits there are.
        now: In the same seconds as `since`.
    """
    served: dict[str, float] = {w.batch_id: w.n_served for w in waiting}
    left = {w.key: w.n for w in waiting}
    permits: dict[K, int] = {}

    def rank(index: int) -> tuple[int, float, float, str, int]:
        w = waiting[index]
        return (-_effective_level(w, now), served[w.batch_id], w.since, w.batch_id, index)

    heap = [rank(index) for index, w in enumerate(waiting) if w.n > 0]
    heapq.heapify(heap)
    while heap and n_permits > 0:
        top = heapq.heappop(heap)
        index = top[-1]
        fresh = rank(index)
        if fresh != top:
            heapq.heappush(heap, fresh)  # its batch was served since; it may no longer be first
            continue
        key = waiting[index].key
        permits[key] = permits.get(key, 0) + 1
        served[waiting[index].batch_id] += 1
        left[key] -= 1
        n_permits -= 1
        if left[key]:
            heapq.heappush(heap, rank(index))
    return permits


def _effective_level(waiting: QueueEntry[K], now: float) -> int:
    return waiting.level + int(max(0.0, now - waiting.since) // AGING_S)
