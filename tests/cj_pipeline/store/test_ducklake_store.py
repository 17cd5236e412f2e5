"""The store as a lake: a real PostgreSQL catalog and Parquet files in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pytest

from cj_pipeline.errors import StoreBusyError, StoreError
from cj_pipeline.store.ducklake_store import LakeStore, _merge, table_keys
from cj_pipeline.store.file_store import FileStore
from cj_pipeline.store.opening import open_store
from cj_pipeline.store.session import OnConflict
from tests.support.finished_batches import fill
from tests.support.postgres_server import postgres_server
from tests.support.store_workers import ROWS, ledger_rows

pytestmark = [pytest.mark.slow, pytest.mark.postgres]


@pytest.fixture(scope="module")
def catalog() -> Iterator[str]:
    """A real catalog, empty."""
    with postgres_server() as port:
        yield f"host=127.0.0.1 port={port} user=cj dbname=postgres"


@pytest.fixture(scope="module")
def lake(catalog: str, tmp_path_factory: pytest.TempPathFactory) -> LakeStore:
    """One lake for all tests; every test uses other batches."""
    data = tmp_path_factory.mktemp("parquet")
    return LakeStore(f"ducklake:postgres:{catalog}", str(data), data)


def _again(lake: LakeStore, **settings: float) -> LakeStore:
    """Return the store as another process would open it."""
    address = f"ducklake:postgres:{lake._catalog}"
    return LakeStore(address, lake._data_path, lake.home, **settings)


def test_whole_batches_go_in_and_come_out(lake: LakeStore) -> None:
    """Every table, JSON and times included, through the same calls as the file."""
    with lake.write() as db:
        fill(db)
    local = FileStore.in_memory()
    with local.write() as db:
        fill(db)

    for view in ("v_batches", "v_scores", "v_grades", "v_comparisons"):
        query = f"FROM {view} ORDER BY ALL"
        with _again(lake).read() as far, local.read() as near:
            assert far.rows(query) == near.rows(query)


def test_rows_lie_in_parquet(lake: LakeStore) -> None:
    """That is what scales past one machine."""
    with lake.write() as db:
        db.insert("ledger", ledger_rows("parquet", 0))

    assert list(Path(lake._data_path).rglob("*.parquet"))


def test_a_taken_key_is_an_error(lake: LakeStore) -> None:
    """DuckLake knows no keys; a double row would hide a double payment."""
    with lake.write() as db:
        db.insert("ledger", ledger_rows("twice", 0))

    with pytest.raises(duckdb.ConstraintException, match="twice-0-"), lake.write() as db:
        db.insert("ledger", ledger_rows("twice", 0))


@pytest.mark.parametrize(("on_conflict", "usd"), [("ignore", 0.5), ("replace", 9.0)])
def test_a_taken_key_is_ignored_or_replaced(lake: LakeStore, on_conflict: str, usd: float) -> None:
    """Repeating a step leaves the same rows."""
    rows = ledger_rows(on_conflict, 0)
    with lake.write() as db:
        db.insert("ledger", rows)
        db.insert("ledger", [row | {"usd": 9.0} for row in rows], on_conflict=on_conflict)  # type: ignore[arg-type]

    with lake.read() as db:
        found = db.rows("SELECT usd FROM ledger WHERE batch_id = ?", [on_conflict])
    assert found == [{"usd": usd}] * ROWS


def test_an_error_rolls_the_whole_transaction_back(lake: LakeStore) -> None:
    """The lake must keep the promise of the file."""

    def write_then_fail() -> None:
        with lake.write() as db:
            db.insert("ledger", ledger_rows("rolled-back", 0))
            db.execute("DELETE FROM no_such_table")

    with pytest.raises(duckdb.CatalogException):
        write_then_fail()

    with lake.read() as db:
        assert db.rows("FROM ledger WHERE batch_id = 'rolled-back'") == []


def test_writers_take_turns(lake: LakeStore) -> None:
    """A check made inside a transaction stays true until it commits: no lost update."""
    with lake.write() as db:
        db.insert("ledger", ledger_rows("turns", 0)[:1])

    def add_one(_: int) -> None:
        with _again(lake).write() as db:
            row = db.one("SELECT usd FROM ledger WHERE batch_id = 'turns'")
            assert row is not None
            db.execute("UPDATE ledger SET usd = ? WHERE batch_id = 'turns'", [row["usd"] + 1])

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(add_one, range(8)))

    with lake.read() as db:
        assert db.one("SELECT usd FROM ledger WHERE batch_id = 'turns'") == {"usd": 8.5}


def test_waiting_for_a_hanging_writer_ends(lake: LakeStore) -> None:
    """As with the file: trying again later may help."""
    impatient = _again(lake, lock_timeout_s=0.2)
    with lake.write(), pytest.raises(StoreBusyError, match="Nothing was changed"):  # noqa: SIM117
        with impatient.write():
            pass


def test_the_environment_chooses_the_lake(lake: LakeStore, tmp_path: Path) -> None:
    """The rest of the code sees one store."""
    environment = {
        "CJ_STORE": f"ducklake:postgres:{lake._catalog}",
        "CJ_STORE_DATA": lake._data_path,
    }

    assert isinstance(open_store(tmp_path, environment), LakeStore)
    with pytest.raises(StoreError, match="CJ_STORE_DATA"):
        open_store(tmp_path, {"CJ_STORE": environment["CJ_STORE"]})


def test_the_keys_are_those_of_the_migrations() -> None:
    """A key kept twice would drift."""
    assert table_keys()["ledger"] == ("submission_key", "kind")


@pytest.mark.parametrize("on_conflict", ["error", "ignore", "replace"])
def test_any_column_may_be_written(on_conflict: OnConflict) -> None:
    """`group` is a word of SQL too: no batch came into a lake for it."""
    near = FileStore.in_memory()
    with near.read() as db:
        for table, key in table_keys().items():
            names = db._table_schema(table).names
            if key or on_conflict == "error":
                duckdb.extract_statements(_merge(table, names, key, on_conflict))


def test_what_looks_cannot_write(lake: LakeStore) -> None:
    """SQL that an analyst pastes, or that is broken out of, changes no row and no grade."""
    with lake.write() as db:
        db.insert("ledger", ledger_rows("looked-at", 0))

    with lake.connect() as notebook, pytest.raises(duckdb.Error, match="read-only"):
        notebook.execute("DELETE FROM ledger")
    with pytest.raises(duckdb.Error, match="read-only"), _again(lake).read() as db:
        db.execute("DELETE FROM ledger")
    with lake.connect() as notebook, pytest.raises(duckdb.Error, match="read-only"):
        notebook.execute("CALL postgres_execute('turns', 'CREATE TABLE mine (a integer)')")


def test_a_role_that_may_only_select_is_enough_to_look(lake: LakeStore) -> None:
    """Metrics and analysts can be given a role of PostgreSQL's own that cannot write."""
    with lake.write() as db:
        db.insert("ledger", ledger_rows("by-role", 0))
    with lake._connect(only_reads=False) as owner:
        for sql in ("CREATE ROLE looker LOGIN", "GRANT pg_read_all_data TO looker"):
            owner.execute("CALL postgres_execute('turns', ?)", [sql])
    catalog = lake._catalog.replace("user=cj", "user=looker")

    looker = LakeStore(f"ducklake:postgres:{catalog}", lake._data_path, lake.home)

    with looker.read() as db:
        assert len(db.rows("FROM ledger WHERE batch_id = 'by-role'")) == ROWS
    with pytest.raises((duckdb.Error, StoreError)), looker.write() as db:
        db.execute("DELETE FROM ledger")
