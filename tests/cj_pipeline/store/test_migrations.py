"""Migrations: numbered, transactional, recorded, and refused when the store is newer."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from cj_pipeline.errors import StoreError
from cj_pipeline.store.ducklake_store import without_keys
from cj_pipeline.store.extensions import load_extension
from cj_pipeline.store.file_store import FileStore
from cj_pipeline.store.migrations import Migration, known_migrations, migrate, schema_version
from cj_pipeline.store.session import Session
from tests.support.template_store import copies_of_a_template

VERSIONS = [migration.version for migration in known_migrations()]


@pytest.fixture
def database() -> duckdb.DuckDBPyConnection:
    """An empty database."""
    return duckdb.connect(":memory:")


def test_each_migration_has_a_number_of_its_own() -> None:
    """Two files with one number would be applied in an order that nobody chose."""
    assert sorted(set(VERSIONS)) == VERSIONS


def test_an_empty_database_is_brought_to_the_newest_version(
    database: duckdb.DuckDBPyConnection,
) -> None:
    """The first open makes the schema, and each step is recorded."""
    applied = migrate(database)

    assert applied == known_migrations()
    recorded = database.execute("SELECT version, sha256 FROM schema_migrations ORDER BY 1")
    assert recorded.fetchall() == [(m.version, m.sha256) for m in known_migrations()]


def test_migrating_twice_changes_nothing(database: duckdb.DuckDBPyConnection) -> None:
    """Every open asks; only the first may act."""
    migrate(database)

    assert migrate(database) == ()


@pytest.mark.parametrize("version", VERSIONS)
def test_data_survives_migrating_from_every_version(
    database: duckdb.DuckDBPyConnection, version: int
) -> None:
    """Stores of all ages are in use."""
    migrate(database, tuple(m for m in known_migrations() if m.version <= version))
    database.execute("INSERT INTO ledger VALUES ('b', 'k', 'j', 'billed', 0.25, now())")

    migrate(database)

    assert schema_version(database) == VERSIONS[-1]
    assert database.execute("SELECT usd FROM ledger").fetchall() == [(0.25,)]


def test_a_migration_that_breaks_off_leaves_the_version_before(
    database: duckdb.DuckDBPyConnection,
) -> None:
    """Half a migration would be a schema that no code knows."""
    broken = Migration(VERSIONS[-1] + 1, "broken", "CREATE TABLE half (i INT); SELECT nonsense;")
    with pytest.raises(duckdb.BinderException):
        migrate(database, (*known_migrations(), broken))
    database.execute("ROLLBACK")

    assert schema_version(database) == VERSIONS[-1]
    tables = database.execute("SELECT table_name FROM duckdb_tables()").fetchall()
    assert ("half",) not in tables


def test_a_store_newer_than_the_code_is_refused(tmp_path: Path) -> None:
    """Old code would write rows that the new schema does not mean."""
    store = FileStore(tmp_path)
    with store.write() as db:
        db.execute("INSERT INTO schema_migrations VALUES (9999, 'later', '', now())")

    for look in (FileStore(tmp_path).read, FileStore(tmp_path).write):
        with pytest.raises(StoreError, match=r"schema version 9999.*update"), look():
            pass


def test_flags_that_stood_in_the_metadata_become_columns(
    database: duckdb.DuckDBPyConnection,
) -> None:
    """A batch cancelled under the old schema is not started again by the new one."""
    migrate(database, tuple(m for m in known_migrations() if m.version < 60))
    row = "'', '', '', 'running', NULL, '{}', '{}', ?, '[]', 'execute', '', now(), now(), NULL"
    for batch_id, metadata in (
        ("stopped", '{"cancel_requested": true, "profile": {"name": "ci"}}'),
        ("spent", '{"spend_cap_reached": true, "nothing_left_to_ask": true}'),
        ("plain", '{"canary_failed": false}'),
    ):
        sql = f"INSERT INTO batches VALUES ('{batch_id}', {row})"  # noqa: S608
        database.execute(sql, [metadata])

    migrate(database)

    found = database.execute(
        "SELECT batch_id, cancel_requested, spend_cap_reached, canary_failed, nothing_left_to_ask,"
        " metadata FROM batches ORDER BY batch_id"
    ).fetchall()
    assert found == [
        ("plain", False, False, False, False, "{}"),
        ("spent", False, True, False, True, "{}"),
        ("stopped", True, False, False, False, '{"profile":{"name":"ci"}}'),
    ]


def test_a_lake_can_take_every_migration(tmp_path: Path) -> None:
    """DuckLake knows less SQL than DuckDB; that has to show before a deployment."""
    with duckdb.connect(":memory:") as connection:
        load_extension(connection, "ducklake")
        catalog = tmp_path / "catalog.ducklake"
        connection.execute(f"ATTACH 'ducklake:{catalog}' AS store (DATA_PATH '{tmp_path}/data')")
        connection.execute("USE store")

        applied = migrate(connection, tuple(map(without_keys, known_migrations())))

    assert len(applied) == len(known_migrations())


@pytest.mark.parametrize("table", ["essay_scores", "grade_projections"])
def test_whoever_looks_at_results_is_told_what_each_column_is(
    database: duckdb.DuckDBPyConnection, table: str
) -> None:
    """Dagster's pages show it, and so does DuckDB."""
    migrate(database)

    silent = database.execute(
        "SELECT column_name FROM duckdb_columns() WHERE table_name = ? AND comment IS NULL", [table]
    ).fetchall()

    assert silent == []


CATALOGUE = (
    "SELECT table_name, column_name, column_index, data_type, is_nullable, column_default "
    "FROM duckdb_columns() WHERE NOT internal ORDER BY 1, 3",
    "SELECT table_name, constraint_type, constraint_text FROM duckdb_constraints() ORDER BY ALL",
    "SELECT table_name, index_name, sql FROM duckdb_indexes() ORDER BY ALL",
    "SELECT sequence_name, start_value, increment_by FROM duckdb_sequences() ORDER BY ALL",
    "SELECT view_name, sql FROM duckdb_views() WHERE NOT internal ORDER BY ALL",
    "SELECT function_name, macro_definition FROM duckdb_functions() WHERE NOT internal "
    "ORDER BY ALL",
    "SELECT version, name, sha256 FROM schema_migrations ORDER BY ALL",
)


def _catalogue(db: Session) -> list[list[dict[str, object]]]:
    return [db.rows(statement) for statement in CATALOGUE]


def test_the_stores_that_tests_copy_are_those_that_migrations_make(tmp_path: Path) -> None:
    """Most tests are spared thirty migrations; what they are given must be the same."""
    with FileStore(tmp_path / "real").read() as db:
        real = _catalogue(db)

    with copies_of_a_template(tmp_path / "template"):
        for store in (FileStore(tmp_path / "copied"), FileStore.in_memory()):
            with store.read() as db:
                assert _catalogue(db) == real
    assert all(real[:2])
    assert (tmp_path / "copied" / "cj.duckdb").stat().st_mode & 0o777 == 0o600


def test_the_old_names_of_three_columns_are_shown_beside_the_new_ones(
    database: duckdb.DuckDBPyConnection,
) -> None:
    """For one release: queries that people have saved go on working, and new ones may begin."""
    migrate(database, tuple(m for m in known_migrations() if m.version <= 60))
    database.execute(
        "INSERT INTO provider_jobs (submission_key, batch_id, wave, judge_id, batching_mode,"
        " provider, model, account, state, n_requests, n_bytes, reserved_usd, intended_at,"
        " n_polls, cancel_told_at) VALUES ('k', 'b', 1, 'j', 'provider_batch_api', 'openai', 'm',"
        " 'a', 'running', 3, 9, 1.0, now(), 1, TIMESTAMPTZ '2026-01-02 03:04:05+00')"
    )
    database.execute(
        "INSERT INTO attempts (custom_id, batch_id, wave, comparison_id, attempt, submission_key,"
        " judge_id, prompt_sha256, requested_at, is_usage_told)"
        " SELECT 'r' || i, 'b', 1, 'c' || i, 1, 'k', 'j', 'p', now(), i > 1 FROM range(3) r(i)"
    )

    migrate(database)

    jobs = database.sql("SELECT cancel_sent_at = cancel_told_at FROM v_job_phases").fetchall()
    costs = database.sql("SELECT n_without_usage, n_usage_not_told FROM v_costs").fetchall()
    assert jobs == [(True,)]
    assert costs == [(2, 2)]


def test_no_migration_takes_a_column_from_a_view(database: duckdb.DuckDBPyConnection) -> None:
    """A view that is made anew from an old text would silently lose what came in between."""
    lost: list[tuple[int, str, str]] = []
    before: set[tuple[str, str]] = set()
    for migration in known_migrations():
        migrate(database, tuple(m for m in known_migrations() if m.version <= migration.version))
        rows = database.sql(
            "SELECT table_name, column_name FROM duckdb_columns() WHERE table_name GLOB 'v_*'"
        ).fetchall()
        now = {(str(view), str(column)) for view, column in rows}
        lost += [(migration.version, view, column) for view, column in sorted(before - now)]
        before = now

    assert lost == []
