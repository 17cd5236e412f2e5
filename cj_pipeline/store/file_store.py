"""The one place of state, and the short transactions in which it may be used.

DuckDB lets one process hold a file for writing, and then no other may open it at all. So the
live file is opened only inside `write` and `read`, under a lock that queues fairly; nobody
keeps it open. What is kept is an empty instance of DuckDB that the file is attached to and detached
from: making one takes longer than opening the file. Whoever wants to look for longer opens the
published copy, which is replaced whole whenever a batch moves on.

What a transaction can do is `session`; the schema is `schema`; copying is `publishing`.
"""

from __future__ import annotations

import copy
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import duckdb

from cj_pipeline.errors import StoreBusyError, StoreError
from cj_pipeline.storage.holders import holders_of, named
from cj_pipeline.storage.private_files import PRIVATE_FILE, PRIVATE_FOLDER, make_home
from cj_pipeline.store import snapshot
from cj_pipeline.store.base import TICK_WAIT_S, Place, Store, Transactions
from cj_pipeline.store.file_lock import hold, is_awaited
from cj_pipeline.store.leases import Leases, RowLeases, is_current, lost
from cj_pipeline.store.migrations import migrate, refuse_newer, schema_version
from cj_pipeline.store.session import Lease, Session

LIVE_FILE = "cj.duckdb"
PUBLISHED_FOLDER = "published"
_ATTACHED = "cj"
"""The live file's name in SQL, as DuckDB itself derives it from the file's."""

_Opened = TypeVar("_Opened")
LOCK_TIMEOUT_S = 120.0
"""Eight writers in a row wait a few seconds each; two minutes mean that something hangs."""

DUCKDB_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    # Nothing may be fetched from the network in the middle of a transaction.
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    # Many processes share a machine; beyond this DuckDB spills to disk.
    "memory_limit": "2GB",
    # Of new files. By default they would be as DuckDB 1.0 reads them: eight times larger without
    # rows, and four times slower to attach, which each transaction does. DuckDB 1.2 reads these.
    "storage_compatibility_version": "v1.2.0",
}


def _prepare(connection: duckdb.DuckDBPyConnection) -> None:
    """Set the time zone, and no progress bar: it would be drawn into what a command prints."""
    connection.execute("SET TimeZone = 'UTC'")
    # It packs long texts, and then nobody could see in a file's bytes whether one is erased.
    connection.execute("SET GLOBAL disabled_compression_methods = 'zstd'")
    hide_progress_bar(connection)


def hide_progress_bar(connection: duckdb.DuckDBPyConnection) -> None:
    """Draw no progress bar into what a command prints."""
    # In a notebook DuckDB refuses to change it without ipywidgets; a bar there harms nothing.
    with suppress(duckdb.InvalidInputException):
        connection.execute("SET enable_progress_bar = false")


def own_file(store: Store) -> FileStore:
    """Return a store as the file it is, for what only the holder of a file can do.

    Raises:
        StoreError: If it is not a file here.
    """
    if isinstance(store, FileStore):
        return store
    msg = (
        f"This needs the store's own file, but the store is {store.where}: stop whatever serves "
        "it, unset CJ_STORE, and do it on that machine."
    )
    raise StoreError(msg)


class FileStore:
    """The store of one home folder, or one in memory.

    Every transaction sees a whole database at the newest schema version; each commits as one
    or not at all, and may be killed at any instruction.

    Args:
        home: The folder; made if it is not there.
        key: Encrypts the live file and every copy of it, where given.
        group_may_read: Whether the folder's group may look into the published copy.
        lock_timeout_s: How long to wait for others; who only reads waits for 20 s at most.
        host: What this machine is called; by default as it calls itself.
    """

    def __init__(
        self,
        home: Path,
        *,
        key: str | None = None,
        group_may_read: bool = False,
        lock_timeout_s: float = LOCK_TIMEOUT_S,
        host: str | None = None,
    ) -> None:
        self.home = home
        self._host = host or socket.gethostname()
        self.where = f"the file {home / LIVE_FILE}"
        self.key = key
        self.group_may_read = group_may_read
        self.path = home / LIVE_FILE
        self.published_path = home / PUBLISHED_FOLDER / LIVE_FILE
        self._lock_timeout_s = lock_timeout_s
        self._read_timeout_s = min(lock_timeout_s, TICK_WAIT_S)
        self._memory: duckdb.DuckDBPyConnection | None = None
        self._instances: dict[int, list[duckdb.DuckDBPyConnection]] = {}
        self._is_current = False
        self._lease: Lease | None = None

    @classmethod
    def in_memory(cls) -> FileStore:
        """Return an empty store that lives as long as this object; for one thread's tests."""
        store = cls(Path(":memory:"))
        store._memory = connect_file(Path(":memory:"), read_only=False)
        migrate(store._memory)
        return store

    def waiting(self, at_most_s: float) -> FileStore:
        """Return this store for whoever waits at most so long for others."""
        other = copy.copy(self)
        other._lock_timeout_s = min(at_most_s, self._lock_timeout_s)
        other._read_timeout_s = min(at_most_s, self._read_timeout_s)
        return other

    @property
    def leases(self) -> Leases:
        """Return who moves which batch along, as rows of this store."""
        return RowLeases(self.with_lease(None))

    def with_lease(self, lease: Lease | None) -> FileStore:
        """Return this store, whose writes need a lease, as `Store.with_lease` says."""
        other = copy.copy(self)
        other._lease = lease
        return other

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Give one exclusive transaction; it commits at the end, or rolls back on an error.

        Raises:
            StoreBusyError: If other processes kept the store busy for too long.
            StoreError: If its file cannot be used as it is.
        """
        with self.turn() as transaction, transaction() as session:
            yield session

    @contextmanager
    def turn(self) -> Iterator[Transactions]:
        """Give several transactions one after another, and open the file once for all of them.

        Each begins when it is called for, and commits by itself, as with `write`. Between two of
        them another process that waits for the store gets it first, so only rows should lie between
        them, and neither a provider nor a long calculation.
        """
        if self._memory is not None:
            memory = self._memory
            yield lambda: _transaction(memory, self._lease)
            return
        self._make_current()
        with ExitStack() as opened:
            connection: duckdb.DuckDBPyConnection | None = None

            @contextmanager
            def transaction() -> Iterator[Session]:
                nonlocal connection
                if connection is not None and is_awaited(self.path):
                    opened.close()
                    connection = None
                if connection is None:
                    deadline = time.monotonic() + self._lock_timeout_s
                    opened.enter_context(self._held(shared=False, deadline=deadline))
                    connection = opened.enter_context(
                        self._attached(read_only=False, deadline=deadline)
                    )
                    migrate(connection)
                try:
                    with _transaction(connection, self._lease) as session:
                        yield session
                except (duckdb.TransactionException, duckdb.IOException) as error:
                    if "Could not write" not in str(error):
                        raise
                    raise _unwritten(self.home, error) from error

            yield transaction

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Give one short, read-only look; other readers may look too, writers wait.

        Raises:
            StoreBusyError: If writers kept the store busy for too long.
            StoreError: If its file cannot be used as it is.
        """
        if self._memory is not None:
            yield Session(self._memory)
            return
        deadline = time.monotonic() + self._read_timeout_s
        self._make_current(deadline)
        with (
            self._held(shared=True, deadline=deadline),
            self._attached(read_only=True, deadline=deadline) as connection,
        ):
            refuse_newer(schema_version(connection))
            yield Session(connection)

    def publish(self) -> None:
        """Replace the published copy by the store as it stands; it never shows half a wave."""
        if self._memory is not None:
            return
        self._make_current()
        with self.folded():
            try:
                self._publish()
            except OSError as error:
                raise _unwritten(self.home, error) from error

    def _publish(self) -> None:
        rights = PRIVATE_FILE | self.group_rights(self.published_path)
        snapshot.publish(self.path, self.published_path, mode=rights)
        if self.group_may_read:
            for folder in (self.home, self.published_path.parent):
                folder.chmod(PRIVATE_FOLDER | self.group_rights(folder))

    def group_rights(self, path: Path) -> int:
        """Return the bits of the mode that its group has of a file or folder of the home."""
        if not self.group_may_read:
            return 0
        if path == self.home:
            return 0o010  # to pass through, not to list
        if path == self.published_path.parent:
            return 0o050
        return 0o040 if path.parent == self.published_path.parent else 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the store's lock, its file closed: no other process reads or writes it."""
        with self._held(shared=False):
            yield

    @contextmanager
    def folded(self) -> Iterator[None]:
        """Hold the lock while the live file alone, without a log, is the whole store."""
        with self._held(shared=False):
            if self.path.with_name(f"{LIVE_FILE}.wal").exists():
                # A killed writer left its log: opening and closing folds it into the file.
                self._open(read_only=False).close()
            yield

    @contextmanager
    def opened(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Hold the live file alone, whatever its schema; for the server and for care."""
        with self._held(shared=False), closing(self._open(read_only=False)) as connection:
            yield connection

    def connect(self) -> duckdb.DuckDBPyConnection:
        """Return a connection for looking around in at leisure: here, on the published copy."""
        if not self.published_path.exists():
            msg = (
                f"Nothing is published in {self.home.resolve()}: run a batch first, "
                "or point CJ_HOME at the store's folder."
            )
            raise StoreError(msg)
        return connect_file(self.published_path, read_only=True, key=self.key)

    def place(self) -> Place | None:
        """Return this machine and the home's folder; None for a store in memory."""
        if self._memory is not None:
            return None
        return Place(self._host, str(self.home.resolve()))

    def _make_current(self, deadline: float | None = None) -> None:
        """Make the file and bring its schema up to date, once per process."""
        if self._is_current and self.path.exists():
            return
        with (
            self._held(shared=False, deadline=deadline),
            closing(self._open(read_only=False, deadline=deadline)) as connection,
        ):
            migrate(connection)
        self._is_current = True

    @contextmanager
    def _held(self, *, shared: bool, deadline: float | None = None) -> Iterator[None]:
        wait_s = self._lock_timeout_s if deadline is None else max(0.0, deadline - time.monotonic())
        with ExitStack() as stack:
            try:
                make_home(self.home, self.group_rights)
                stack.enter_context(hold(self.path, shared=shared, timeout_s=wait_s))
            except OSError as error:
                raise _unwritable(self.home, error) from error
            yield

    @contextmanager
    def _attached(
        self, *, read_only: bool, deadline: float | None = None
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """Have the live file open, and closed again after this; the lock is held."""
        # An instance has threads, which a forked child has not: each process uses its own.
        idle = self._instances.setdefault(os.getpid(), [])
        try:
            instance = idle.pop()
        except IndexError:
            instance = empty_instance(self.path.with_name(f"{LIVE_FILE}.tmp"))
        try:
            self._patiently(
                lambda: attach_file(
                    instance, self.path, _ATTACHED, read_only=read_only, key=self.key
                ),
                deadline,
            )
            instance.execute(f"USE {_ATTACHED}")
            yield instance
        except BaseException:
            instance.close()  # and with it the file, whatever state it was left in
            raise
        try:
            instance.execute(f"USE memory; DETACH {_ATTACHED}")
        except duckdb.Error:
            # What was committed is in the log, and is folded in once there is room for it.
            instance.close()
        else:
            idle.append(instance)

    def _open(self, *, read_only: bool, deadline: float | None = None) -> duckdb.DuckDBPyConnection:
        """Open the live file in an instance of its own; the lock is held."""
        is_new = not self.path.exists()
        connection = self._patiently(
            lambda: connect_file(self.path, read_only=read_only, key=self.key), deadline
        )
        if is_new:
            self.path.chmod(0o600)
        return connection

    def _patiently(self, open_file: Callable[[], _Opened], deadline: float | None) -> _Opened:
        """Open the live file; while the lock is held, only a stranger can have it open."""
        if deadline is None:
            deadline = time.monotonic() + self._lock_timeout_s
        while True:
            try:
                return open_file()
            except duckdb.IOException as error:
                if "Could not set lock" not in str(error):
                    raise _unusable(self.path, error) from error
                if time.monotonic() > deadline:
                    raise _held_by_stranger(self.path, error) from error
                time.sleep(0.05)
            except duckdb.Error as error:
                raise _unusable(self.path, error) from error


def connect_file(
    path: Path, *, read_only: bool, key: str | None = None
) -> duckdb.DuckDBPyConnection:
    """Open one database file with the store's settings, whoever holds its lock."""
    if key is None:
        connection = duckdb.connect(str(path), read_only=read_only, config=DUCKDB_CONFIG)
    else:
        connection = duckdb.connect(":memory:", config=DUCKDB_CONFIG)
        try:
            attach_file(connection, path, "cj", read_only=read_only, key=key)
        except BaseException:
            connection.close()
            raise
        connection.execute("USE cj")
    _prepare(connection)
    return connection


def empty_instance(spill_to: Path) -> duckdb.DuckDBPyConnection:
    """Return an instance of DuckDB with the store's settings, for files to be attached to."""
    settings = DUCKDB_CONFIG | {"temp_directory": str(spill_to)}
    instance = duckdb.connect(":memory:", config=settings)
    _prepare(instance)
    return instance


def attach_file(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    name: str,
    *,
    read_only: bool,
    key: str | None,
) -> None:
    """Attach a database file to a connection under a name."""
    options = ["READ_ONLY"] if read_only else []
    if key is not None:
        from cj_pipeline.store.extensions import load_extension

        load_extension(connection, "httpfs")  # it brings the cipher that DuckDB trusts to write
        options.append(f"ENCRYPTION_KEY {_quoted(key)}")
    clause = f" ({', '.join(options)})" if options else ""
    connection.execute(f"ATTACH {_quoted(str(path))} AS {name}{clause}")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@contextmanager
def _transaction(connection: duckdb.DuckDBPyConnection, lease: Lease | None) -> Iterator[Session]:
    connection.execute("BEGIN TRANSACTION")
    try:
        session = Session(connection, lease)
        if lease is not None and not is_current(session, lease):
            raise lost(lease)
        yield session
        connection.execute("COMMIT")
    except BaseException:
        with suppress(duckdb.Error):  # a failed commit has rolled back already
            connection.execute("ROLLBACK")
        raise


def _unwritable(home: Path, error: OSError) -> StoreError:
    return StoreError(
        f"The store's folder {home} cannot be written ({error.strerror}). Make it writable for "
        "this user, or point CJ_HOME elsewhere; to look only, use open_published()."
    )


def _unwritten(home: Path, error: Exception) -> StoreError:
    return StoreError(
        f"Writing in {home} failed: {error}. Nothing of this was stored, and everything "
        "committed before is safe. Free space on that disk, then try again."
    )


def _unusable(path: Path, error: duckdb.Error) -> StoreError:
    return StoreError(
        f"The store's file {path} cannot be opened: {error}. If it is encrypted, CJ_STORE_KEY must "
        "be its key; if it is damaged, bring back the last good copy with `cj store restore`."
    )


def _held_by_stranger(path: Path, error: duckdb.Error) -> StoreBusyError:
    holders = holders_of(path)
    return StoreBusyError(
        f"{named(holders)} holds {path} open: {error}. Close it there; "
        "notebooks open the published copy with open_published().",
        holders=[(each.program, each.pid) for each in holders],
    )
