"""What clients of the store's server may run, by statement and by function."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pytest

from cj_pipeline.store.extensions import load_extension
from cj_pipeline.store.served_statements import ServedRights, as_reader

TOKEN, READING_TOKEN = "a-token-for-tests-only", "another-token-for-looking"
WRITER, READER = "1", "2"
ARRIVING = f"arriving_{'0a' * 16}"


@pytest.fixture(scope="module")
def instance() -> Iterator[duckdb.DuckDBPyConnection]:
    """An instance that has the functions of the server's."""
    with duckdb.connect() as connection:
        load_extension(connection, "httpfs")
        load_extension(connection, "quack")
        connection.execute("CREATE TABLE essays (essay_id VARCHAR)")
        yield connection


@pytest.fixture(scope="module")
def rights(instance: duckdb.DuckDBPyConnection) -> Iterator[ServedRights]:
    """What guards it, with one session of each kind."""
    rights = ServedRights(TOKEN, READING_TOKEN)
    with rights.guarding(instance):
        assert rights.may_enter(WRITER, TOKEN, TOKEN)
        assert rights.may_enter(READER, READING_TOKEN, TOKEN)
        yield rights


def test_whoever_has_the_token_can_ask_for_less() -> None:
    """What only looks runs where it cannot write, whatever is put into its SQL."""
    rights = ServedRights(TOKEN)

    assert rights.may_enter("3", as_reader(TOKEN), TOKEN)
    assert not rights.may_run("3", "DELETE FROM essays")


@pytest.mark.parametrize(
    "presented", ["", "reading ", "reading", TOKEN[:-1], as_reader(READING_TOKEN), READING_TOKEN]
)
def test_other_tokens_let_nobody_in(presented: str) -> None:
    """Neither a part of one nor one that was never given out."""
    assert not ServedRights(TOKEN).may_enter("3", presented, TOKEN)


CHANGES = [
    "INSERT INTO essays VALUES ('anna')",
    "UPDATE essays SET essay_id = 'b'",
    "DELETE FROM essays",
    "WITH gone AS (SELECT 1) DELETE FROM essays",
    "MERGE INTO essays USING (SELECT 1) ON true WHEN MATCHED THEN DELETE",
    "PREPARE asked AS DELETE FROM essays WHERE essay_id = $1",
    "EXPLAIN ANALYZE DELETE FROM essays",
    f"CREATE TABLE {ARRIVING} AS SELECT essay_id FROM essays LIMIT 0",  # noqa: S608
    f"DROP TABLE {ARRIVING}",
]
LOOKS = [
    "BEGIN TRANSACTION",
    "FROM essays",
    "SELECT count(*) FROM range(3)",
    "WITH a AS (FROM essays) SELECT * FROM a WHERE essay_id GLOB 'a*' OR essay_id = 'read_text('",
    "EXPLAIN ANALYZE SELECT 1",
    "PREPARE asked AS SELECT $1",
    "EXECUTE asked(decode(unhex('c3a5')))",
    "SUMMARIZE essays",
    "PRAGMA table_info('essays')",
    "SELECT view_name, comment FROM duckdb_views()",
    "SELECT 'å', json_extract('{}', '$.a')",
]


@pytest.mark.parametrize("sql", CHANGES)
def test_rows_are_changed_by_writers_alone(rights: ServedRights, sql: str) -> None:
    """Metrics and notebooks need no more than to look."""
    assert rights.may_run(WRITER, sql)
    assert not rights.may_run(READER, sql)


@pytest.mark.parametrize("sql", LOOKS)
def test_everybody_looks(rights: ServedRights, sql: str) -> None:
    """What is guarded must stay of use."""
    assert rights.may_run(WRITER, sql)
    assert rights.may_run(READER, sql)


@pytest.mark.parametrize(
    "sql",
    [
        "COPY essays TO '/tmp/stolen.csv'",
        "COPY (SELECT 1) TO '/data/cj.duckdb.wal'",
        "COPY essays FROM '/etc/passwd'",
        "COPY FROM DATABASE a TO b",
        "EXPORT DATABASE '/tmp/stolen'",
        "IMPORT DATABASE '/tmp/given'",
        "PRAGMA import_database('/tmp/given')",
        "ATTACH '/tmp/other.duckdb'",
        "ATTACH ':memory:' AS other",
        "DETACH cj",
        "USE memory",
        "INSTALL spatial",
        "LOAD '/tmp/own.duckdb_extension'",
        "SET enable_external_access = true",
        "SET VARIABLE a = 1",
        "RESET lock_configuration",
        "PRAGMA enable_profiling",
        "PRAGMA profiling_output = '/tmp/profile.json'",
        "CALL enable_logging(storage = 'file', storage_path = '/tmp/logs')",
        "CALL quack_stop('quack:127.0.0.1:9494')",
        "CHECKPOINT",
        "VACUUM",
        "CREATE SECRET (TYPE s3)",
        "CREATE TABLE mine AS SELECT 1",
        "CREATE MACRO mine(a) AS a",
        "CREATE VIEW mine AS SELECT 1",
        "CREATE OR REPLACE TABLE essays AS SELECT 1",
        "ALTER TABLE essays ADD COLUMN a INTEGER",
        "COMMENT ON TABLE essays IS 'mine'",
        "DROP TABLE essays",
        f"CREATE TABLE {ARRIVING} AS SELECT * FROM read_blob('/data/cj.duckdb')",  # noqa: S608
        f"CREATE TABLE {ARRIVING} AS SELECT 1; DROP TABLE essays",
        f"DROP TABLE {ARRIVING}; DROP TABLE essays",
        f"DROP TABLE {ARRIVING}, essays",
        "PREPARE asked AS COPY essays TO '/tmp/stolen.csv'",
        "PREPARE asked AS PREPARE asked AS CHECKPOINT",
        "PREPARE asked(INTEGER) AS DROP TABLE essays",
        "EXPLAIN ANALYZE COPY essays TO '/tmp/stolen.csv'",
        "EXPLAIN (ANALYZE) DROP TABLE essays",
        "EXPLAIN /* */ ANALYZE DROP TABLE essays",
        "SELECT 1; CHECKPOINT",
        "this is no SQL",
        "",
        "\ud800",
    ],
)
def test_other_statements_are_run_by_nobody(rights: ServedRights, sql: str) -> None:
    """They reach files, settings, other databases, or what everybody's rows lie in."""
    assert not rights.may_run(WRITER, sql)
    assert not rights.may_run(READER, sql)


@pytest.mark.parametrize(
    "call",
    [
        "FROM {}('/etc/passwd')",
        "SELECT * FROM system.main.{} ('/etc/passwd')",
        "FROM \"{}\"('/etc/passwd')",
        "FROM essays, {}/* so */ ('/etc/passwd')",
        "SELECT 'å', (SELECT 1 FROM {} -- so\n('/etc/passwd'))",
        "INSERT INTO essays SELECT * FROM {}('/etc/passwd')",
        "PREPARE asked AS FROM {}($1)",
        "EXPLAIN ANALYZE FROM {}('/etc/passwd')",
    ],
)
@pytest.mark.parametrize("spelled", [str.lower, str.upper, str.title], ids=lambda how: how.__name__)
def test_what_reads_files_is_called_by_nobody(
    rights: ServedRights, instance: duckdb.DuckDBPyConnection, call: str, spelled: type[str]
) -> None:
    """By kind, and not by a list of ours: whatever DuckDB has that takes a path."""
    names = instance.execute(
        "SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type = 'table' AND "
        "regexp_matches(function_name, '^(read|scan|sniff|parquet|glob|quack|query|enable|disable)"
        "|_scan|checkpoint|logs|secret|execute')"
    ).fetchall()
    assert {("read_text",), ("read_csv",), ("parquet_scan",), ("glob",), ("query",)} <= set(names)

    for (name,) in names:
        sql = call.format(spelled(name))
        assert not rights.may_run(WRITER, sql), sql
        assert not rights.may_run(READER, sql), sql


def test_functions_that_a_newer_duckdb_brings_are_refused() -> None:
    """What reads files next year has a name that nobody can know today."""
    rights = ServedRights(TOKEN)
    with duckdb.connect() as connection:
        load_extension(connection, "httpfs")
        load_extension(connection, "quack")
        connection.execute("CREATE MACRO read_anything(path) AS TABLE SELECT 1")
        with rights.guarding(connection):
            assert rights.may_enter(WRITER, TOKEN, TOKEN)

            assert not rights.may_run(WRITER, "FROM read_anything('/etc/passwd')")
            assert rights.may_run(WRITER, "SELECT 1")


@pytest.mark.parametrize(
    "sql",
    [
        "FROM read_text('{canary}')",
        "FROM '{canary}'",
        "FROM glob('{folder}/*')",
        "COPY (SELECT 1) TO '{folder}/new.csv'",
        "ATTACH '{folder}/other.duckdb'",
        "INSTALL json",
        "SET enable_external_access = true",
        "SET allowed_paths = ['{canary}']",
        "RESET lock_configuration",
        "SET GLOBAL quack_authorization_function = 'quack_nop_authorization'",
        "SET temp_directory = '{folder}'",
    ],
)
def test_the_instance_itself_is_closed_too(
    rights: ServedRights,
    instance: duckdb.DuckDBPyConnection,
    sql: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Should a statement ever be taken for another, it still finds no file."""
    assert rights
    folder = tmp_path_factory.mktemp("host")
    (folder / "canary.csv").write_text("secret\nof the host\n")

    with pytest.raises(duckdb.Error) as refused:
        instance.execute(sql.format(canary=folder / "canary.csv", folder=folder)).fetchall()

    assert "of the host" not in str(refused.value)
    assert [path.name for path in folder.iterdir()] == ["canary.csv"]
