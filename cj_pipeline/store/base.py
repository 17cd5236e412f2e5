"""What every store can do, wherever its tables are; which one a home has is `opening`'s answer.

A file in the home (`file_store`), DuckDB's server (`quack_store`) and DuckLake (`ducklake_store`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import duckdb

    from cj_pipeline.store.leases import Leases
    from cj_pipeline.store.session import Lease, Session

TICK_WAIT_S = 20.0
"""What tells or decides something soon after waits so long: a reader, or a tick of a sensor. The
next one comes anyhow, and whoever holds the store can be named meanwhile."""

Transactions = Callable[[], "AbstractContextManager[Session]"]
"""Begins a transaction on the store that commits at the end of its block."""


@dataclass(frozen=True)
class Place:
    """Where a store lies: a folder of a machine, or what stands for them."""

    host: str
    folder: str

    def __str__(self) -> str:
        return f"{self.folder} on {self.host}"


class Store(Protocol):
    """One place of state.

    Every transaction sees a whole database at the newest schema version; each commits as one
    or not at all, and may be killed at any instruction.
    """

    @property
    def home(self) -> Path:
        """Where this machine keeps its files, whatever holds the tables."""

    @property
    def where(self) -> str:
        """The place of the tables, as messages name it."""

    @property
    def key(self) -> str | None:
        """What encrypts the files of this machine; None where nothing does."""

    @property
    def published_path(self) -> Path | None:
        """The copy for looking around in; None where all see the tables themselves."""

    def write(self) -> AbstractContextManager[Session]:
        """Give one exclusive transaction; it commits at the end, or rolls back on an error.

        Raises:
            StoreBusyError: If other processes kept the store busy for too long.
            StoreError: If it cannot be used as it is.
        """

    def turn(self) -> AbstractContextManager[Transactions]:
        """Give several transactions one after another.

        Each begins when it is called for, and commits by itself, as with `write`.
        """

    def read(self) -> AbstractContextManager[Session]:
        """Give one short, read-only look at one consistent state.

        Raises:
            StoreBusyError: If writers kept the store busy for too long.
            StoreError: If it cannot be used as it is.
        """

    def waiting(self, at_most_s: float) -> Store:
        """Return this store for whoever must not wait long for others, be it to read or write."""

    @property
    def leases(self) -> Leases:
        """Who moves which batch along."""

    def with_lease(self, lease: Lease | None) -> Store:
        """Return this store for whoever moves a batch along: its writes need the lease.

        A write raises LeaseLostError, and leaves nothing, once another process has the batch.
        With None, for what must be kept whoever has it, writes need none.
        """

    def publish(self) -> None:
        """Bring the published copy, where there is one, to the state of the store."""

    def place(self) -> Place | None:
        """Return where it lies; None where only whoever serves it knows, or it is in memory."""

    def connect(self) -> duckdb.DuckDBPyConnection:
        """Return a connection for looking around in at leisure.

        Raises:
            StoreError: If nothing has been published yet.
        """
