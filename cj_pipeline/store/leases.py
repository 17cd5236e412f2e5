"""Who moves a batch along: a lease with a heartbeat, and a number that every write is checked by.

A process that dies, hangs or is cut off lets its lease run out; another takes the batch, with a
higher number. What the first one still writes for the batch is then refused, in the transaction
that would have written it. Times are the store's own, so hosts' clocks need not agree.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from cj_pipeline.errors import LeaseLostError
from cj_pipeline.store.session import Lease, Session

LASTS = timedelta(seconds=30)
"""How long a batch stays with a process that no longer says it lives."""

BEATS_EVERY = timedelta(seconds=8)
"""How often a holder says that it lives: three may be lost before the lease is."""

LONGEST_PAUSE = timedelta(minutes=10)
"""For how long a batch is put off at most. A time farther off is a clock's that was wrong."""


@dataclass(frozen=True)
class BusyBatch:
    """A batch that nobody may take now: its holder has it, or it is put off."""

    batch_id: str
    holder: str | None
    fence: int
    seconds_left: float


class Leases(Protocol):
    """The leases of a store's batches; each call is a transaction of its own."""

    def take(self, batch_id: str, holder: str) -> Lease | None:
        """Take a batch; None where another process has it, or it is put off."""

    def beat(self, lease: Lease) -> bool:
        """Say that the holder lives; False where another process has taken the batch."""

    def give_back(self, lease: Lease, pause: timedelta) -> None:
        """Let others take the batch after a pause; do nothing where another has it already."""

    def busy(self) -> Sequence[BusyBatch]:
        """Return the batches that nobody may take now, by name."""


class Writes(Protocol):
    """What leases in the store's own tables need of it."""

    def write(self) -> AbstractContextManager[Session]: ...

    def read(self) -> AbstractContextManager[Session]: ...


def new_holder(host: str | None = None) -> str:
    """Return a name for this process that no other has had, on any host or in any container."""
    return f"{host or socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


_IS_FREE = """
    SELECT free_at <= now() OR free_at > now() + to_seconds(CAST($far AS DOUBLE)) AS is_free
    FROM batch_leases WHERE batch_id = $batch
"""
_UNTIL = "now() + to_seconds(CAST($lasts AS DOUBLE))"
_FIRST = f"""
    INSERT INTO batch_leases (batch_id, holder, fence, free_at)
    VALUES ($batch, $holder, epoch_ms(now()), {_UNTIL})
"""  # noqa: S608 -- a constant
_MOVE = f"UPDATE batch_leases SET holder = $holder, free_at = {_UNTIL} WHERE batch_id = $batch"  # noqa: S608
_NEXT = _MOVE.replace("SET", "SET fence = greatest(fence + 1, epoch_ms(now())),")


def _values(batch_id: str, holder: str | None, lasts: timedelta) -> dict[str, object]:
    return {"batch": batch_id, "holder": holder, "lasts": lasts.total_seconds()}


class RowLeases:
    """Leases as rows of the store, whose writes are exclusive.

    Args:
        store: Whose batches.
    """

    def __init__(self, store: Writes) -> None:
        self._store = store

    def take(self, batch_id: str, holder: str) -> Lease | None:
        """Take a batch, as `Leases.take` does."""
        with self._store.write() as db:
            known = db.one(_IS_FREE, {"batch": batch_id, "far": 2 * LONGEST_PAUSE.total_seconds()})
            if known is not None and not known["is_free"]:
                return None
            db.execute(_FIRST if known is None else _NEXT, _values(batch_id, holder, LASTS))
            row = db.one("SELECT fence FROM batch_leases WHERE batch_id = ?", [batch_id])
            return None if row is None else Lease(batch_id, holder, int(row["fence"]))

    def beat(self, lease: Lease) -> bool:
        """Say that the holder lives, as `Leases.beat` does."""
        return self._move(lease, LASTS, lease.holder)

    def give_back(self, lease: Lease, pause: timedelta) -> None:
        """Let others take the batch, as `Leases.give_back` does."""
        self._move(lease, min(pause, LONGEST_PAUSE), None)

    def busy(self) -> list[BusyBatch]:
        """Return the batches that nobody may take now, as `Leases.busy` does."""
        with self._store.read() as db:
            return db.records(
                BusyBatch,
                "SELECT batch_id, holder, fence, epoch(free_at) - epoch(now()) AS seconds_left"
                " FROM batch_leases WHERE free_at > now() ORDER BY batch_id",
            )

    def _move(self, lease: Lease, by: timedelta, holder: str | None) -> bool:
        with self._store.write() as db:
            if not is_current(db, lease):
                return False
            db.execute(_MOVE, _values(lease.batch_id, holder, by))
            return True


def is_current(db: Session, lease: Lease) -> bool:
    """Return whether no other process has taken a lease's batch since."""
    row = db.one("SELECT fence FROM batch_leases WHERE batch_id = ?", [lease.batch_id])
    return row is not None and int(row["fence"]) == lease.fence


def lost(lease: Lease) -> LeaseLostError:
    """Return the error for whoever writes with a lease that is another's by now."""
    return LeaseLostError(
        f"Batch '{lease.batch_id}' was taken over by another process, because this one was not"
        " heard of for too long. Nothing of this step was written; the other one goes on."
    )
