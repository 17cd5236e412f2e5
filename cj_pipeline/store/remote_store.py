"""What stores that are not a file here have in common: connections, sessions and turns."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Self

import duckdb

from cj_pipeline.errors import StoreBusyError
from cj_pipeline.store.base import Place, Transactions
from cj_pipeline.store.leases import Leases, RowLeases
from cj_pipeline.store.migrations import refuse_newer
from cj_pipeline.store.session import Lease, Session


class RemoteStore(ABC):
    """A store somewhere else; `where` names the place in messages."""

    key = None
    published_path = None

    def __init__(self, where: str, home: Path, *, lock_timeout_s: float) -> None:
        self.home = home
        self.where = where
        self._lock_timeout_s = lock_timeout_s
        # Loading extensions and attaching costs 0.15 s and more; a session whose transaction
        # has ended well is as good as new.
        self._lease: Lease | None = None
        self._idle: dict[bool, list[duckdb.DuckDBPyConnection]] = {True: [], False: []}

    def place(self) -> Place | None:
        """Return where it lies; None where only whoever serves it knows."""
        return None

    def connect(self) -> duckdb.DuckDBPyConnection:
        """Return a connection that sees the tables by their plain names and changes nothing."""
        return self._connect(only_reads=True)

    @abstractmethod
    def _connect(self, *, only_reads: bool) -> duckdb.DuckDBPyConnection:
        """Return a connection that sees the tables by their plain names.

        Args:
            only_reads: Whether the store is to refuse every change on it.
        """

    @property
    def leases(self) -> Leases:
        """Return who moves which batch along, as rows of this store."""
        return RowLeases(self.with_lease(None))

    def with_lease(self, lease: Lease | None) -> Self:
        """Return this store, whose writes need a lease, as `Store.with_lease` says."""
        other = copy.copy(self)
        other._lease = lease
        return other

    @abstractmethod
    def _in_turn(
        self, connection: duckdb.DuckDBPyConnection
    ) -> AbstractContextManager[Callable[[], None]]:
        """Begin a transaction once no other writer is in one; the block ends after its end.

        Gives what raises an error once the turn, or the lease that is needed, is another's.
        """

    @abstractmethod
    def _on(self, connection: duckdb.DuckDBPyConnection) -> Session:
        """Return a session over a connection."""

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Give one exclusive transaction, as `Store.write` does."""
        with self._connection(only_reads=False) as connection, self._in_turn(connection) as check:
            session = self._on(connection)
            session.lease = self._lease
            try:
                check()
                yield session
                check()
                session.execute("COMMIT")
            except BaseException:
                with suppress(duckdb.Error):
                    session.execute("ROLLBACK")
                raise

    @contextmanager
    def turn(self) -> Iterator[Transactions]:
        """Give several transactions one after another, as `Store.turn` does."""
        yield self.write

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Give a look at one consistent state; writers neither wait nor are waited for."""
        with self._connection(only_reads=True) as connection:
            session = self._on(connection)
            session.execute("BEGIN TRANSACTION")
            row = session.one("SELECT max(version) AS version FROM schema_migrations")
            refuse_newer(int(row["version"]) if row else 0)
            yield session
            session.execute("ROLLBACK")

    def waiting(self, at_most_s: float) -> Self:
        """Return this store, whose writers wait at most so long for their turn."""
        other = copy.copy(self)
        other._lock_timeout_s = min(at_most_s, self._lock_timeout_s)
        return other

    def publish(self) -> None:  # noqa: B027 -- nothing is to be done, here or in a subclass
        """Do nothing: everybody sees the one state there is."""

    def _busy(self) -> StoreBusyError:
        return StoreBusyError(
            f"Other writers kept {self.where} busy for longer than we wait. "
            "Nothing was changed; try again."
        )

    @contextmanager
    def _connection(self, *, only_reads: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        """Give a connection; one on which anything went wrong is not used again."""
        idle = self._idle[only_reads]
        try:
            connection = idle.pop()
        except IndexError:
            connection = self._connect(only_reads=only_reads)
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        idle.append(connection)
