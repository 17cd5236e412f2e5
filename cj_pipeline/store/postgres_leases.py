"""Leases of a store whose catalog is in PostgreSQL: rows of a table there, with locks of its own.

The lake takes a good half second for a change and one writer at a time; a heartbeat here takes a
millisecond and waits for nobody.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from cj_pipeline.errors import StoreError, TransientError
from cj_pipeline.store.leases import LASTS, LONGEST_PAUSE, BusyBatch, lost
from cj_pipeline.store.session import Lease

if TYPE_CHECKING:
    from psycopg import Connection

    Rows = Connection[tuple[Any, ...]]

_PATIENCE_MS = 2_000
"""How long a call waits for a row that another transaction has locked."""

_GONE_AFTER_MS = 30_000
"""After so long a transaction whose process does nothing is ended by the server, with its locks."""

_TABLE = """
CREATE TABLE IF NOT EXISTS cj_batch_leases (
    batch_id text NOT NULL PRIMARY KEY,
    holder text,
    fence bigint NOT NULL,
    free_at timestamptz NOT NULL
)"""


def connect_postgres(address: str) -> Rows:
    """Open a connection that notices within half a minute when the other side is gone.

    Args:
        address: As libpq takes it: `host=... dbname=...`.

    Raises:
        StoreError: If psycopg is missing.
        TransientError: If the server does not answer now.
    """
    try:
        import psycopg
    except ImportError as error:
        msg = "A lake needs the package psycopg: install cj-pipeline[lake]."
        raise StoreError(msg) from error
    try:
        return psycopg.connect(
            address,
            connect_timeout=10,
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=30_000,
            options=(
                f"-c idle_in_transaction_session_timeout={_GONE_AFTER_MS}"
                " -c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5"
                " -c tcp_keepalives_count=3 -c tcp_user_timeout=30000"
            ),
        )
    except psycopg.OperationalError as error:
        msg = f"PostgreSQL does not answer now: {str(error).strip()}. Nothing is lost; try again."
        raise TransientError(msg) from error


class PostgresLeases:
    """Leases in a table of the catalog's database.

    Args:
        address: Of the database, as libpq takes it.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._is_made = False
        self._idle: list[Rows] = []
        self._guard = threading.Lock()

    def take(self, batch_id: str, holder: str) -> Lease | None:
        """Take a batch, as `Leases.take` does; one whose row is locked is another's."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO cj_batch_leases (batch_id, fence, free_at)"
                " VALUES (%s, 0, clock_timestamp()) ON CONFLICT DO NOTHING",
                [batch_id],
            )
            free = db.execute(
                "SELECT 1 FROM cj_batch_leases WHERE batch_id = %s"
                " AND (free_at <= clock_timestamp() OR free_at > clock_timestamp() + %s)"
                " FOR UPDATE SKIP LOCKED",
                [batch_id, 2 * LONGEST_PAUSE],
            ).fetchone()
            if free is None:
                return None
            row = db.execute(
                "UPDATE cj_batch_leases SET holder = %s, free_at = clock_timestamp() + %s,"
                " fence = greatest(fence + 1,"
                " (1000 * extract(epoch FROM clock_timestamp()))::bigint)"
                " WHERE batch_id = %s RETURNING fence",
                [holder, LASTS, batch_id],
            ).fetchone()
            return None if row is None else Lease(batch_id, holder, int(row[0]))

    def beat(self, lease: Lease) -> bool:
        """Say that the holder lives, as `Leases.beat` does."""
        return self._move(lease, LASTS, lease.holder)

    def give_back(self, lease: Lease, pause: timedelta) -> None:
        """Let others take the batch, as `Leases.give_back` does."""
        self._move(lease, min(pause, LONGEST_PAUSE), None)

    def busy(self) -> list[BusyBatch]:
        """Return the batches that nobody may take now, as `Leases.busy` does."""
        with self._transaction() as db:
            rows = db.execute(
                "SELECT batch_id, holder, fence,"
                " extract(epoch FROM free_at - clock_timestamp())::float8 FROM cj_batch_leases"
                " WHERE free_at > clock_timestamp() ORDER BY batch_id"
            ).fetchall()
        return [BusyBatch(*row) for row in rows]

    def _move(self, lease: Lease, by: timedelta, holder: str | None) -> bool:
        with self._transaction() as db:
            moved = db.execute(
                "UPDATE cj_batch_leases SET holder = %s, free_at = clock_timestamp() + %s"
                " WHERE batch_id = %s AND fence = %s",
                [holder, by, lease.batch_id, lease.fence],
            )
            return moved.rowcount == 1

    @contextmanager
    def _transaction(self) -> Iterator[Rows]:
        """Give one transaction; a connection on which anything went wrong is not used again.

        Raises:
            TransientError: If the server does not answer, or the row stays locked for too long.
        """
        import psycopg

        with self._guard:
            found = self._idle.pop() if self._idle else None
        connection = found or self._connected()
        try:
            with connection.transaction():
                yield connection
        except psycopg.OperationalError as error:
            connection.close()
            msg = f"PostgreSQL did not keep a lease: {str(error).strip()}. Try again."
            raise TransientError(msg) from error
        except BaseException:
            connection.close()
            raise
        with self._guard:
            self._idle.append(connection)

    def _connected(self) -> Rows:
        connection = connect_postgres(self._address)
        connection.autocommit = True
        connection.execute(f"SET lock_timeout = {_PATIENCE_MS}")
        if not self._is_made:
            make_table(connection)
            self._is_made = True
        return connection


def make_table(connection: Rows) -> None:
    """Make the table of leases, whoever else does so at this moment."""
    row = connection.execute("SELECT to_regclass('cj_batch_leases')").fetchone()
    if row is None or row[0] is None:
        # Two that make one table at a time disturb each other even with IF NOT EXISTS.
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(hashtext('cj_batch_leases'))")
            connection.execute(_TABLE)


def require_current(connection: Rows, lease: Lease) -> None:
    """Refuse a writer whose batch is another's, and keep it from being taken until it commits.

    Args:
        connection: In a transaction that lasts as long as the write.
        lease: The writer's.

    Raises:
        LeaseLostError: If another process has taken the batch.
        TransientError: If the server has taken the turn back, so that another may write by now.
    """
    import psycopg

    try:
        row = connection.execute(
            "SELECT fence FROM cj_batch_leases WHERE batch_id = %s FOR KEY SHARE",
            [lease.batch_id],
        ).fetchone()
    except psycopg.Error as error:
        raise _too_long() from error
    if row is None or row[0] != lease.fence:
        raise lost(lease)


@contextmanager
def turn(address: str, number: int, patience_s: float) -> Iterator[Rows]:
    """Hold an advisory lock; PostgreSQL lets those who want it in one by one, in their order.

    While this process lives, the connection is used now and then, so that a long write keeps the
    lock; of one that hangs, or was cut off, the server takes it back.

    Raises:
        TimeoutError: If others kept the lock for longer than `patience_s`.
        TransientError: If the server does not answer.
    """
    import psycopg

    with closing(connect_postgres(address)) as connection:
        try:
            connection.execute(f"SET LOCAL lock_timeout = {int(patience_s * 1000)}")
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [number])
        except psycopg.errors.LockNotAvailable as error:
            raise TimeoutError from error
        except psycopg.OperationalError as error:
            msg = f"PostgreSQL does not answer now: {str(error).strip()}. Try again."
            raise TransientError(msg) from error
        ended = threading.Event()
        keeper = threading.Thread(target=_keep_awake, args=[connection, ended], daemon=True)
        keeper.start()
        try:
            yield connection
        finally:
            ended.set()
            keeper.join()


def _keep_awake(connection: Rows, ended: threading.Event) -> None:
    import psycopg

    while not ended.wait(_GONE_AFTER_MS / 6000):
        try:
            connection.execute("SELECT 1")
        except psycopg.Error:
            return  # whoever commits asks, and is told


def still_held(connection: Rows) -> None:
    """Return if the turn's lock is still held.

    Raises:
        TransientError: If the server has taken it back, so that another may write by now.
    """
    import psycopg

    try:
        connection.execute("SELECT 1")
    except psycopg.Error as error:
        raise _too_long() from error


def _too_long() -> TransientError:
    return TransientError(
        "This write kept its turn for longer than it may, or lost its connection, and was given"
        " up; try again."
    )
