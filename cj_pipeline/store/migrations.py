"""The numbered migrations, and bringing a database up to the newest of them.

Migrations are files `migrations/NNNN_name.sql`, applied in order, each in a transaction of its
own together with the row in `schema_migrations` that says so: a kill leaves a database at some
whole version. Files are only ever added.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources

import duckdb

from cj_pipeline.errors import StoreError

_HISTORY = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version     INTEGER NOT NULL,
    name        VARCHAR NOT NULL,
    sha256      VARCHAR NOT NULL,
    applied_at  TIMESTAMPTZ NOT NULL
)
"""


@dataclass(frozen=True)
class Migration:
    """One step of the schema; `version` counts from 1."""

    version: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """The fingerprint of the file."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


@cache
def known_migrations() -> tuple[Migration, ...]:
    """Return the migrations this version of the code brings, oldest first."""
    folder = resources.files("cj_pipeline") / "store" / "migrations"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
    return tuple(
        Migration(int(f.name[:4]), f.name.removesuffix(".sql"), f.read_text("utf-8")) for f in files
    )


def schema_version(connection: duckdb.DuckDBPyConnection) -> int:
    """Return the number of the last migration applied; 0 for an empty database."""
    statement = "SELECT coalesce(max(version), 0) FROM schema_migrations"
    try:
        row = connection.execute(statement).fetchone()
    except duckdb.CatalogException:
        return 0
    return int(row[0]) if row else 0


def migrate(
    connection: duckdb.DuckDBPyConnection,
    migrations: tuple[Migration, ...] | None = None,
) -> tuple[Migration, ...]:
    """Bring the database up to date and return the migrations that were applied.

    Raises:
        StoreError: If the database is newer than the code.
    """
    migrations = known_migrations() if migrations is None else migrations
    version = schema_version(connection)
    refuse_newer(version, migrations)
    missing = tuple(m for m in migrations if m.version > version)
    for migration in missing:
        connection.execute("BEGIN TRANSACTION")
        connection.execute(_HISTORY)
        connection.execute(migration.sql)
        connection.execute(
            "INSERT INTO schema_migrations VALUES (?, ?, ?, now())",
            [migration.version, migration.name, migration.sha256],
        )
        connection.execute("COMMIT")
    return missing


def refuse_newer(version: int, migrations: tuple[Migration, ...] | None = None) -> None:
    """Raise StoreError if a database at `version` was made by newer code than this."""
    newest = (known_migrations() if migrations is None else migrations)[-1].version
    if version > newest:
        msg = (
            f"The store has schema version {version}; this code knows up to {newest}. A newer "
            "cj_pipeline has written it: update this installation. Nothing was changed."
        )
        raise StoreError(msg)
