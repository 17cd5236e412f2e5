"""A store behind DuckDB's own server (Quack): many machines, the same SQL, the same promises.

`serve` holds the live file open and answers; `ServedStore` is what every other process uses
instead of the file. Queries run on the server, in one session of it per transaction.
"""

from __future__ import annotations

import random
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from cj_pipeline.errors import StoreError
from cj_pipeline.store.extensions import load_extension
from cj_pipeline.store.file_store import DUCKDB_CONFIG, LOCK_TIMEOUT_S, FileStore, hide_progress_bar
from cj_pipeline.store.identity import settle_identity
from cj_pipeline.store.leases import is_current, lost
from cj_pipeline.store.migrations import migrate
from cj_pipeline.store.remote_store import RemoteStore
from cj_pipeline.store.served_statements import ServedRights, as_reader
from cj_pipeline.store.session import OnConflict, Parameters, Session, bindable

_ADDRESS = re.compile(r"quack(?P<plain>\+plain)?:(?P<host>\[[0-9a-fA-F:]+\]|[\w.-]+):(?P<port>\d+)")
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})

LONGEST_TURN_S = 40.0
"""A writer that has its turn for longer is taken for dead, and the server begins anew."""

_TAKE_TURN = "UPDATE writer_turn SET n_taken = n_taken + 1"
"""Of two transactions that change one row, DuckDB lets the first go on and refuses the second at
once. So this row is the lock that makes `write` exclusive here too: checks made inside a
transaction, such as the spend cap's, stay true until it commits."""


class ServedStore(RemoteStore):
    """The store at an address `quack:HOST:PORT`; `quack+plain:` leaves TLS out."""

    def __init__(
        self, address: str, home: Path, token: str, *, lock_timeout_s: float = LOCK_TIMEOUT_S
    ) -> None:
        super().__init__(f"the server at {address}", home, lock_timeout_s=lock_timeout_s)
        self.address = address
        self._attach = attach_statement(address)
        self._token = token

    @contextmanager
    def _in_turn(self, connection: duckdb.DuckDBPyConnection) -> Iterator[Callable[[], None]]:
        deadline = time.monotonic() + self._lock_timeout_s
        while not _took_turn(self._on(connection)):
            if time.monotonic() > deadline:
                raise self._busy()
            time.sleep(random.uniform(0.002, 0.02))  # noqa: S311 - spreads the waiting

        def check() -> None:
            if self._lease is not None and not is_current(self._on(connection), self._lease):
                raise lost(self._lease)

        yield check

    def _on(self, connection: duckdb.DuckDBPyConnection) -> Session:
        return ServedSession(connection)

    def _connect(self, *, only_reads: bool) -> duckdb.DuckDBPyConnection:
        """Return a connection that sees the server's tables as `store.NAME`, and by name alone."""
        connection = duckdb.connect(":memory:", config=DUCKDB_CONFIG)
        load_extension(connection, "httpfs")
        load_extension(connection, "quack")
        presented = as_reader(self._token) if only_reads else self._token
        token = presented.replace("'", "''")
        connection.execute("SET TimeZone = 'UTC'")
        hide_progress_bar(connection)
        connection.execute(f"CREATE SECRET (TYPE quack, TOKEN '{token}')")
        try:
            connection.execute(self._attach)
        except duckdb.Error as error:
            connection.close()
            msg = (
                f"The store at {self.address} does not answer, or refuses CJ_STORE_TOKEN. Is "
                "`cj store serve` running there? " + str(error).replace(self._token, "***")
            )
            raise StoreError(msg) from None
        connection.execute("USE store")
        return connection


class ServedSession(Session):
    """One transaction in a session of the server."""

    def _run(self, sql: str, params: Parameters) -> duckdb.DuckDBPyConnection:
        if not params:
            return self._ask(sql)
        self._ask(f"PREPARE asked AS {sql}")
        return self._ask(f"EXECUTE asked({_arguments(bindable(params))})")

    def insert(
        self, table: str, rows: Iterable[Any] | pa.Table, *, on_conflict: OnConflict = "error"
    ) -> None:
        incoming = rows if isinstance(rows, pa.Table) else self._as_arrow(table, list(rows))
        if not incoming.num_rows:
            return
        columns = ", ".join(f'"{name}"' for name in incoming.column_names)
        if on_conflict == "error":
            self._append(table, columns, incoming)
            return
        # Rows travel in bulk only into a table; this one lives and dies in the transaction.
        arriving = f"arriving_{uuid.uuid4().hex}"
        self._ask(f"CREATE TABLE {arriving} AS SELECT {columns} FROM {table} LIMIT 0")  # noqa: S608
        self._connection.execute("CALL quack_clear_cache()")
        self._append(arriving, columns, incoming)
        self._ask(
            f"INSERT OR {on_conflict.upper()} INTO {table} ({columns}) "  # noqa: S608
            f"SELECT {columns} FROM {arriving}"
        )
        self._ask(f"DROP TABLE {arriving}")

    def _table_schema(self, table: str) -> pa.Schema:
        return self._ask(f'SELECT * FROM "{table}" LIMIT 0').to_arrow_table().schema  # noqa: S608

    def _append(self, table: str, columns: str, incoming: pa.Table) -> None:
        self._connection.register("incoming_rows", incoming)
        try:
            self._connection.execute(
                f"INSERT INTO store.main.{table} ({columns}) "  # noqa: S608
                f"SELECT {columns} FROM temp.incoming_rows"
            )
        finally:
            self._connection.unregister("incoming_rows")

    def _ask(self, sql: str) -> duckdb.DuckDBPyConnection:
        try:
            return self._connection.execute("FROM quack_query_by_name('store', ?)", [sql])
        except duckdb.InvalidInputException as error:
            if "Authorization failed" not in str(error):
                raise
            raise _refused() from error


@contextmanager
def serve(
    home: Path,
    token: str,
    *,
    host: str = "127.0.0.1",
    port: int = 9494,
    machine: str | None = None,
    reading_token: str | None = None,
    on_stuck: Callable[[], None] | None = None,
) -> Iterator[str]:
    """Serve the store of `home` until the block ends; yield the address for CJ_STORE.

    The live file stays open and locked meanwhile: processes that would use it directly are told
    that it is busy. Whether the home is a copy of another is seen here: no client can tell.

    Args:
        home: The store's folder.
        token: What clients must present.
        host: The address to listen on.
        port: The port, likewise.
        machine: What this machine is called; by default as it calls itself.
        reading_token: What clients may present instead, who are to look and change nothing.
        on_stuck: Called once a client has kept the writers' turn for too long: it died, or was cut
            off, in the middle of a transaction, which this server can neither see nor end. A server
            in a new process has only what was committed.

    Raises:
        StoreError: If a token is too short to guard anything, or both are the same.
    """
    for name, given in (("CJ_STORE_TOKEN", token), ("CJ_STORE_READING_TOKEN", reading_token)):
        if given is not None and len(given) < 16:
            msg = f"{name} needs at least 16 characters: anyone who has it can read every essay."
            raise StoreError(msg)
    if token == reading_token:
        msg = "CJ_STORE_READING_TOKEN is CJ_STORE_TOKEN: with it everybody who looks could write."
        raise StoreError(msg)
    address = f"quack:{host}:{port}"
    store = FileStore(home, host=machine)
    settle_identity(store, datetime.now(UTC))
    rights = ServedRights(token, reading_token)
    with store.opened() as connection:
        migrate(connection)
        load_extension(connection, "httpfs")
        load_extension(connection, "quack")
        connection.execute("SET GLOBAL TimeZone = 'UTC'")
        with rights.guarding(connection):
            connection.execute(
                "CALL quack_serve(?, token := ?, allow_other_hostname := ?)",
                [address, token, host not in _LOOPBACK],
            )
            try:
                with _watching(connection, on_stuck):
                    yield address
            finally:
                connection.execute("CALL quack_stop(?)", [address])


@contextmanager
def _watching(
    connection: duckdb.DuckDBPyConnection, on_stuck: Callable[[], None] | None
) -> Iterator[None]:
    """Call `on_stuck` once one and the same turn has lasted too long."""
    if on_stuck is None:
        yield
        return
    ended = threading.Event()
    own = connection.cursor()

    def watch() -> None:
        turn, since = None, time.monotonic()
        while not ended.wait(LONGEST_TURN_S / 8):
            now = _turn_that_is_taken(own)
            if now is None or now != turn:
                turn, since = now, time.monotonic()
            elif time.monotonic() - since > LONGEST_TURN_S:
                on_stuck()
                return

    thread = threading.Thread(target=watch, name="writers' turns", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        own.close()


def _turn_that_is_taken(connection: duckdb.DuckDBPyConnection) -> int | None:
    """Return the number of the turn that a writer has now; None where none has one."""
    session = Session(connection)
    if _took_turn(session):
        session.execute("ROLLBACK")
        return None
    row = session.one("SELECT n_taken FROM writer_turn")
    return int(row["n_taken"]) if row else None


def attach_statement(address: str) -> str:
    """Return the statement that attaches the server as `store`.

    Raises:
        StoreError: If the address is none.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        msg = f"CJ_STORE is {address!r}; give quack:HOST:PORT, as in quack:127.0.0.1:9494."
        raise StoreError(msg)
    options = " (DISABLE_SSL true)" if match["plain"] else ""
    return f"ATTACH 'quack:{match['host']}:{match['port']}' AS store{options}"


def _refused() -> StoreError:
    return StoreError(
        "The store's server refuses this statement: with this token a client may "
        "read the store's tables and, unless it is one for reading, change their rows, and do "
        "nothing else."
    )


def _took_turn(session: Session) -> bool:
    """Begin a transaction and take the writers' turn; False if somebody else has it."""
    session.execute("BEGIN TRANSACTION")
    try:
        session.execute(_TAKE_TURN)
    except duckdb.Error as error:
        session.execute("ROLLBACK")
        if "conflict" not in str(error).lower():
            raise
        return False
    return True


def _arguments(params: Parameters) -> str:
    if isinstance(params, Mapping):
        return ", ".join(f'"{name}" := {_literal(value)}' for name, value in params.items())
    return ", ".join(_literal(value) for value in params)


def _literal(value: Any) -> str:
    """Return a value as SQL: the protocol has no way to send it beside the text.

    Text goes as hexadecimal digits, so that no quoting can be broken out of.
    """
    match value:
        case None | bool():
            sql = str(value).upper().replace("NONE", "NULL")
        case str():
            sql = f"decode(unhex('{value.encode().hex()}'))"
        case int():
            sql = str(value)
        case float():
            sql = f"'{value!r}'::DOUBLE"
        case datetime():
            sql = f"TIMESTAMPTZ '{value.isoformat()}'"
        case Sequence():
            sql = f"[{', '.join(map(_literal, value))}]"
        case _:
            msg = f"{type(value).__name__} cannot be sent to the store's server"
            raise TypeError(msg)
    return sql
