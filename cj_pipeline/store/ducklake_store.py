"""A store larger than one machine should hold: DuckLake.

PostgreSQL holds the catalog, Parquet files in a folder or bucket hold the rows. DuckLake knows no
keys, so they are kept here: an insert looks for taken keys itself, and PostgreSQL's advisory lock
lets writers in one by one, in the order they came, so what was looked up stays true.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from cj_pipeline.errors import StoreError, TransientError
from cj_pipeline.store.base import Place
from cj_pipeline.store.extensions import load_extension
from cj_pipeline.store.file_store import DUCKDB_CONFIG, LOCK_TIMEOUT_S, hide_progress_bar
from cj_pipeline.store.leases import Leases
from cj_pipeline.store.migrations import Migration, known_migrations, migrate
from cj_pipeline.store.postgres_leases import (
    PostgresLeases,
    require_current,
    still_held,
    turn,
)
from cj_pipeline.store.remote_store import RemoteStore
from cj_pipeline.store.session import OnConflict, Session

if TYPE_CHECKING:
    from psycopg import Connection

_ADDRESS = re.compile(r"ducklake:postgres:(?P<catalog>[\w =.,:/@-]+)")
TRIES = 12
"""How often a bucket is asked before a write fails, in about a minute."""

_TURN = 3_405_691_582
"""The advisory lock's number; any, as long as all writers of a catalog use the same."""


class LakeStore(RemoteStore):
    """The store at an address `ducklake:postgres:host=... dbname=...`.

    The catalog's password comes from PGPASSWORD or ~/.pgpass, as for all of PostgreSQL's clients.

    Args:
        address: Where the catalog is.
        data_path: The folder or bucket of the Parquet files; the same for everybody.
        home: Where this machine keeps its files.
        environment: Read for the keys and the endpoint of a bucket (`AWS_...`).
        lock_timeout_s: How long a writer waits for its turn.
    """

    def __init__(
        self,
        address: str,
        data_path: str,
        home: Path,
        *,
        environment: Mapping[str, str] | None = None,
        lock_timeout_s: float = LOCK_TIMEOUT_S,
    ) -> None:
        super().__init__("a DuckLake", home, lock_timeout_s=lock_timeout_s)
        match = _ADDRESS.fullmatch(address)
        if match is None or not data_path:
            msg = (
                f"CJ_STORE is {address!r}; give ducklake:postgres:host=... dbname=..., and "
                "the Parquet files' folder or bucket as CJ_STORE_DATA."
            )
            raise StoreError(msg)
        if "://" in data_path and not data_path.startswith("s3://"):
            msg = f"CJ_STORE_DATA is {data_path!r}; give a folder, or s3://BUCKET/PREFIX."
            raise StoreError(msg)
        self._environment = dict(environment or {})
        self._catalog = match["catalog"]
        self._data_path = data_path
        self._is_current = False
        self._place: Place | None = None
        self._leases = PostgresLeases(self._catalog)

    def place(self) -> Place:
        """Return what PostgreSQL calls the catalog, and the folder or bucket of the rows.

        A catalog that was dumped and loaded elsewhere gets another number there; a client that
        reaches the same one under another name does not.
        """
        if self._place is None:
            own = "(SELECT oid FROM pg_database WHERE datname = current_database())"
            query = f"SELECT current_database()::text AS name, {own}::text AS number"
            with self._connection(only_reads=True) as connection:
                found = connection.execute(
                    "FROM postgres_query('turns', ?)", [query]
                ).fetchone() or ("", "")
            self._place = Place(f"PostgreSQL database {found[0]} {found[1]}", self._data_path)
        return self._place

    def _connect(self, *, only_reads: bool) -> duckdb.DuckDBPyConnection:
        if only_reads and not self._is_current:
            self._bring_up_to_date()
        connection = self._attached(only_reads=only_reads)
        if not self._is_current:
            self._migrate(connection)
        return connection

    def _bring_up_to_date(self) -> None:
        """Migrate by a writing connection what a look finds to be old, or not there at all."""
        try:
            with closing(self._attached(only_reads=True)) as looking:
                self._is_current = not self._versions_missing(looking)
        except StoreError:  # a catalog nobody has written to cannot be looked at
            self._is_current = False
        if not self._is_current:
            self._connect(only_reads=False).close()

    def _attached(self, *, only_reads: bool) -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect(":memory:", config=DUCKDB_CONFIG)
        load_extension(connection, "postgres_scanner")
        load_extension(connection, "ducklake")
        connection.execute("SET TimeZone = 'UTC'")
        hide_progress_bar(connection)
        if self._data_path.startswith("s3://"):
            _open_bucket(connection, self._environment)
        data_path = self._data_path.replace("'", "''")
        mode = ", READ_ONLY" if only_reads else ""
        try:
            connection.execute(f"ATTACH '{self._catalog}' AS turns (TYPE postgres{mode})")
            connection.execute(
                f"ATTACH 'ducklake:postgres:{self._catalog}' AS store "
                f"(DATA_PATH '{data_path}'{mode})"
            )
        except duckdb.Error as error:
            connection.close()
            msg = f"The lake's catalog cannot be used: {error}. Is PostgreSQL running there?"
            raise StoreError(msg) from error
        connection.execute("USE store")
        return connection

    def _migrate(self, connection: duckdb.DuckDBPyConnection) -> None:
        if self._versions_missing(connection):
            with self._turn():
                migrate(connection, tuple(map(without_keys, known_migrations())))
        self._is_current = True

    def _versions_missing(self, connection: duckdb.DuckDBPyConnection) -> bool:
        made = connection.execute(
            "SELECT count(*) FROM duckdb_tables() "
            "WHERE database_name = 'store' AND table_name = 'schema_migrations'"
        ).fetchone()
        if made == (0,):
            return True
        row = connection.execute("SELECT max(version) FROM schema_migrations").fetchone()
        return row is None or row[0] is None or row[0] < known_migrations()[-1].version

    @property
    def leases(self) -> Leases:
        """Return who moves which batch along, as rows of the catalog's database."""
        return self._leases

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Give one exclusive transaction, as `Store.write` does."""
        with _told(self._data_path), super().write() as session:
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Give a look at one consistent state, as `Store.read` does."""
        with _told(self._data_path), super().read() as session:
            yield session

    @contextmanager
    def _in_turn(self, connection: duckdb.DuckDBPyConnection) -> Iterator[Callable[[], None]]:
        with self._turn() as held:
            connection.execute("BEGIN TRANSACTION")

            def check() -> None:
                if self._lease is None:
                    still_held(held)
                else:
                    require_current(held, self._lease)

            yield check

    @contextmanager
    def _turn(self) -> Iterator[Connection[tuple[Any, ...]]]:
        """Hold the advisory lock, in a transaction of its own.

        So the lake's snapshot is taken after the lock was had, and the lock is given back after
        the lake's commit.
        """
        with ExitStack() as stack:
            try:
                held = stack.enter_context(turn(self._catalog, _TURN, self._lock_timeout_s))
            except TimeoutError as error:
                raise self._busy() from error
            yield held

    def _on(self, connection: duckdb.DuckDBPyConnection) -> Session:
        return LakeSession(connection)


@contextmanager
def _told(data_path: str) -> Iterator[None]:
    """Turn what DuckDB raises of a bucket into errors that say what to do.

    Raises:
        TransientError: If trying again later may help.
        StoreError: If a person must change something first.
    """
    try:
        yield
    except (duckdb.HTTPException, duckdb.IOException) as error:
        said = str(error).splitlines()[0]
        if "http" not in said.lower() or not data_path.startswith("s3://"):
            raise
        if re.search(r"HTTP (?:400|401|403|404)\b", said):
            msg = f"The bucket at {data_path} refuses us: {said}. Check its name, the keys, rights."
            raise StoreError(msg) from error
        msg = f"The bucket at {data_path} does not answer: {said}. Nothing was written; try again."
        raise TransientError(msg) from error


def _open_bucket(connection: duckdb.DuckDBPyConnection, environment: Mapping[str, str]) -> None:
    """Let a connection read and write in buckets, with what S3's own tools read of the environment.

    A request that fails for a passing reason is tried again for about a minute.
    """
    load_extension(connection, "httpfs")
    connection.execute(f"SET http_retries = {TRIES}; SET http_retry_wait_ms = 100")
    connection.execute("SET http_retry_backoff = 1.7")
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or ""
    scheme, _, host = endpoint.rpartition("://")
    given = {
        "KEY_ID": environment.get("AWS_ACCESS_KEY_ID"),
        "SECRET": environment.get("AWS_SECRET_ACCESS_KEY"),
        "SESSION_TOKEN": environment.get("AWS_SESSION_TOKEN"),
        "REGION": environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION"),
        "ENDPOINT": host.rstrip("/") or None,
        "URL_STYLE": "path" if host else None,
        "USE_SSL": "false" if scheme == "http" else None,
    }
    options = "".join(
        f", {name} '{value.replace(chr(39), chr(39) * 2)}'"
        for name, value in given.items()
        if value
    )
    connection.execute(f"CREATE SECRET (TYPE s3{options})")


class LakeSession(Session):
    """One transaction on a lake, with the keys that DuckLake does not know."""

    def insert(
        self, table: str, rows: Iterable[Any] | pa.Table, *, on_conflict: OnConflict = "error"
    ) -> None:
        """Add rows as `Session.insert` does."""
        incoming = rows if isinstance(rows, pa.Table) else self._as_arrow(table, list(rows))
        if not incoming.num_rows:
            return
        names = incoming.column_names
        key = table_keys()[table]
        self._connection.register("incoming_rows", incoming)
        try:
            if on_conflict == "error":
                self._refuse_taken(table, key)
            self._connection.execute(_merge(table, names, key, on_conflict))
        finally:
            self._connection.unregister("incoming_rows")

    def _refuse_taken(self, table: str, key: tuple[str, ...]) -> None:
        columns = _listed(key)
        taken = self._connection.execute(
            f"SELECT {columns} FROM incoming_rows GROUP BY ALL HAVING count(*) > 1 "  # noqa: S608
            f"UNION ALL SELECT {columns} FROM incoming_rows SEMI JOIN {table} USING ({columns})"
        ).fetchone()
        if taken is not None:
            msg = f"Duplicate key in {table}: {', '.join(map(str, taken))}"
            raise duckdb.ConstraintException(msg)


def without_keys(migration: Migration) -> Migration:
    """Return a migration as DuckLake can take it: no keys, no comments on views' columns."""
    sql = re.sub(r"--.*", "", migration.sql)
    sql = re.sub(r",\s*PRIMARY KEY \([^)]*\)", "", sql)
    sql = re.sub(r"\bPRIMARY KEY\b", "NOT NULL", sql)
    sql = re.sub(r"^COMMENT ON COLUMN v_.*\n", "", sql, flags=re.MULTILINE)
    return Migration(migration.version, migration.name, sql)


@cache
def table_keys() -> dict[str, tuple[str, ...]]:
    """Return each table's primary key, as the migrations state it."""
    with duckdb.connect(":memory:") as connection:
        migrate(connection)
        rows = connection.execute(
            "SELECT table_name, constraint_column_names FROM duckdb_constraints() "
            "WHERE constraint_type = 'PRIMARY KEY'"
        ).fetchall()
        tables = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
    return {name: () for (name,) in tables} | {name: tuple(columns) for name, columns in rows}


def _merge(table: str, names: list[str], key: tuple[str, ...], on_conflict: OnConflict) -> str:
    columns = _listed(names)
    if on_conflict == "error":
        return f"INSERT INTO {table} ({columns}) SELECT {columns} FROM incoming_rows"  # noqa: S608
    same = " AND ".join(f'old."{name}" = new."{name}"' for name in key)
    values = ", ".join(f'new."{name}"' for name in names)
    changes = ", ".join(f'"{name}" = new."{name}"' for name in names if name not in key)
    update = f"WHEN MATCHED THEN UPDATE SET {changes} " if on_conflict == "replace" else ""
    # Of rows with one key that arrive together, one is enough, as with DuckDB's own keys.
    distinct = f"SELECT DISTINCT ON ({_listed(key)}) * FROM incoming_rows"  # noqa: S608
    insert = f"WHEN NOT MATCHED THEN INSERT ({columns}) VALUES ({values})"  # noqa: S608
    merge = f"MERGE INTO {table} AS old USING ({distinct}) AS new ON ({same})"
    return f"{merge} {update}{insert}"


def _listed(names: Iterable[str]) -> str:
    """Return columns' names side by side, also those that SQL has a word for."""
    return ", ".join(f'"{name}"' for name in names)
