"""The store behind DuckDB's own server: same SQL, same promises, many processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pytest

from cj_pipeline.errors import StoreBusyError, StoreError
from cj_pipeline.metrics.readings import render_metrics
from cj_pipeline.queries.overview import batch_overview
from cj_pipeline.store.file_store import FileStore
from cj_pipeline.store.opening import open_store
from cj_pipeline.store.quack_store import ServedStore, attach_statement, serve
from cj_pipeline.store.session import Session
from tests.support import ROOT
from tests.support.finished_batches import fill, insert_all, spring_rows
from tests.support.postgres_server import free_port
from tests.support.store_workers import ROWS, ledger_rows

TOKEN = "a-token-for-tests-only"
READING_TOKEN = "another-token-for-looking"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server in a process of its own; every test uses other batches."""
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.support.store_workers",
            "serve",
            str(tmp_path_factory.mktemp("served")),
            TOKEN,
            READING_TOKEN,
        ],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    # What is logged before may be on the same output.
    yield next(line.split()[1] for line in server.stdout if line.startswith("address "))
    server.communicate("")


@pytest.fixture
def store(address: str, tmp_path: Path) -> ServedStore:
    """A client's store."""
    return ServedStore(address, tmp_path, TOKEN)


def _write_then_fail(db: Session) -> None:
    db.insert("ledger", ledger_rows("rolled-back", 0))
    db.execute("DELETE FROM no_such_table")


def _count(store: FileStore, batch_id: str) -> int:
    with store.read() as db:
        row = db.one("SELECT count(*) AS n FROM ledger WHERE batch_id = ?", [batch_id])
    assert row is not None
    return int(row["n"])


_SERVE = """
from cj_pipeline.cli import app
from cj_pipeline.store import quack_store
quack_store.LONGEST_TURN_S = 1.0
app()
"""
_DIE_IN_A_TURN = """
import os, pathlib, signal, sys
from cj_pipeline.store.quack_store import ServedStore
with ServedStore(sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]).write() as db:
    db.execute("INSERT INTO sensor_ticks VALUES ('never', now())")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_writer_that_dies_in_its_turn_does_not_keep_it(tmp_path: Path) -> None:
    """The server cannot see that a client is gone, and all others waited until somebody came."""
    address = f"quack:127.0.0.1:{free_port()}"
    served = ["store", "serve", "--port", address.rpartition(":")[2]]
    environment = os.environ | {"CJ_HOME": str(tmp_path / "home"), "CJ_STORE_TOKEN": TOKEN}
    with subprocess.Popen(
        [sys.executable, "-c", _SERVE, *served], env=environment, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        next(line for line in server.stdout if "CJ_STORE=" in line)
        dead = [sys.executable, "-c", _DIE_IN_A_TURN, address, str(tmp_path), TOKEN]
        assert subprocess.run(dead, check=False).returncode == -signal.SIGKILL
        next(line for line in server.stdout if "CJ_STORE=" in line)  # it has begun anew

        with ServedStore(address, tmp_path, TOKEN, lock_timeout_s=10).write() as db:
            assert db.rows("FROM sensor_ticks") == []
        server.terminate()


def test_any_name_of_a_value_may_be_sent(store: ServedStore) -> None:
    """`from` is a word of SQL too: no request of a batch could be written for it."""
    with store.read() as db:
        assert db.rows("SELECT $from AS a, $select AS b", {"from": 1, "select": "x"}) == [
            {"a": 1, "b": "x"}
        ]


def test_a_turn_is_transactions_of_their_own(store: ServedStore) -> None:
    """Steps that take several in a row need not know where the store is."""
    with store.turn() as transaction:
        with transaction() as db:
            db.insert("ledger", ledger_rows("turn", 0))
        with pytest.raises(duckdb.Error), transaction() as db:
            db.execute("DELETE FROM no_such_table")
        with transaction() as db:
            db.insert("ledger", ledger_rows("turn", 1))

    with store.read() as db:
        row = db.one("SELECT count(*) AS n FROM ledger WHERE batch_id = 'turn'")
    assert row == {"n": 2 * ROWS}


def test_an_error_rolls_the_whole_transaction_back(store: ServedStore) -> None:
    """The server must keep the promise of the file."""
    with pytest.raises(duckdb.Error, match="no_such_table"), store.write() as db:
        _write_then_fail(db)

    assert _count(store, "rolled-back") == 0


def test_whole_batches_go_in_and_come_out(store: ServedStore) -> None:
    """Every table, JSON and times included, through the same calls as the file."""
    with store.write() as db:
        fill(db)
    local = FileStore.in_memory()
    with local.write() as db:
        fill(db)

    for view in ("v_batches", "v_scores", "v_grades", "v_comparisons"):
        query = f"FROM {view} ORDER BY ALL"
        with store.read() as far, local.read() as near:
            assert far.rows(query) == near.rows(query)
    with store.read() as far, local.read() as near:
        assert batch_overview(far) == batch_overview(near)


@pytest.mark.parametrize(("on_conflict", "usd"), [("ignore", 0.5), ("replace", 9.0)])
def test_a_taken_key_is_ignored_or_replaced(
    store: ServedStore, on_conflict: str, usd: float
) -> None:
    """Repeating a step leaves the same rows."""
    rows = ledger_rows(on_conflict, 0)
    with store.write() as db:
        db.insert("ledger", rows)
        db.insert("ledger", [row | {"usd": 9.0} for row in rows], on_conflict=on_conflict)  # type: ignore[arg-type]

    with store.read() as db:
        found = db.rows("SELECT usd FROM ledger WHERE batch_id = $batch", {"batch": on_conflict})
    assert found == [{"usd": usd}] * ROWS


@pytest.mark.parametrize("hostile", ["'; DROP TABLE ledger; --", "\\'", "a\x00b", "å", "\ud800"])
def test_bound_text_cannot_break_out(store: ServedStore, hostile: str) -> None:
    """The protocol sends values inside the SQL; replies and essays are hostile."""
    with store.read() as db:
        row = db.one("SELECT ? AS text, 1 AS one", [hostile])

    assert row == {"text": hostile.replace("\ud800", "?"), "one": 1}


def test_writers_take_turns(address: str, tmp_path: Path) -> None:
    """A check made inside a transaction stays true until it commits: no lost update."""
    with ServedStore(address, tmp_path, TOKEN).write() as db:
        db.insert("ledger", ledger_rows("turns", 0)[:1])

    def add_one(_: int) -> None:
        with ServedStore(address, tmp_path, TOKEN).write() as db:
            row = db.one("SELECT usd FROM ledger WHERE batch_id = 'turns'")
            assert row is not None
            db.execute("UPDATE ledger SET usd = ? WHERE batch_id = 'turns'", [row["usd"] + 1])

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(add_one, range(12)))

    with ServedStore(address, tmp_path, TOKEN).read() as db:
        assert db.one("SELECT usd FROM ledger WHERE batch_id = 'turns'") == {"usd": 12.5}


def test_readers_do_not_wait_for_writers(store: ServedStore, address: str) -> None:
    """That is what the server is for."""
    reader = ServedStore(address, store.home, TOKEN, lock_timeout_s=0.1)
    with store.write() as db:
        db.insert("ledger", ledger_rows("unseen", 0))

        assert _count(reader, "unseen") == 0


def test_waiting_for_a_hanging_writer_ends(store: ServedStore, address: str) -> None:
    """As with the file: trying again later may help."""
    impatient = ServedStore(address, store.home, TOKEN, lock_timeout_s=0.1)

    with store.write(), pytest.raises(StoreBusyError, match="Nothing was changed"):  # noqa: SIM117
        with impatient.write():
            pass


def test_a_wrong_token_is_refused_and_not_shown(address: str, tmp_path: Path) -> None:
    """Messages end up in logs."""
    with (
        pytest.raises(StoreError, match="CJ_STORE_TOKEN") as refused,
        ServedStore(address, tmp_path, "not-the-token-at-all").read(),
    ):
        pass

    assert "not-the-token-at-all" not in str(refused.value)


def test_a_short_token_is_not_served(tmp_path: Path) -> None:
    """Whoever guesses it can read every essay."""
    with pytest.raises(StoreError, match="16 characters"), serve(tmp_path, "short"):
        pass
    with (
        pytest.raises(StoreError, match="CJ_STORE_READING_TOKEN"),
        serve(tmp_path, TOKEN, reading_token="short"),
    ):
        pass


def test_a_token_for_looking_is_another_one(tmp_path: Path) -> None:
    """Whoever was given it to look would be able to write."""
    with (
        pytest.raises(StoreError, match="everybody who looks could write"),
        serve(tmp_path, TOKEN, reading_token=TOKEN),
    ):
        pass


def test_a_token_for_looking_looks_and_changes_nothing(address: str, tmp_path: Path) -> None:
    """Metrics and analysts need no more."""
    looking = ServedStore(address, tmp_path, READING_TOKEN)
    with looking.read() as db:
        assert db.rows("SELECT 1 AS one FROM v_batches WHERE batch_id = ?", ["none"]) == []

    for sql in ("DELETE FROM ledger", "UPDATE ledger SET usd = 0", "DROP TABLE ledger"):
        with looking.connect() as notebook, pytest.raises(duckdb.Error, match="Authorization"):
            notebook.execute("FROM quack_query_by_name('store', ?)", [sql])
    with pytest.raises(StoreError, match="refuses this statement"), looking.write():
        pass
    with pytest.raises(duckdb.Error), looking.connect() as notebook:
        notebook.execute(
            "INSERT INTO store.main.writer_turn BY NAME SELECT * FROM store.main.writer_turn"
        )


def test_what_looks_cannot_write_whatever_the_token(store: ServedStore) -> None:
    """SQL that an analyst pastes, or that is broken out of, changes no row and no grade."""
    with pytest.raises(StoreError, match="refuses this statement"), store.read() as db:
        db.execute("DELETE FROM ledger")
    with store.connect() as notebook, pytest.raises(duckdb.Error, match="Authorization failed"):
        notebook.execute("FROM quack_query_by_name('store', 'DELETE FROM ledger')")


@pytest.mark.parametrize(
    "sql",
    [
        "FROM read_text('{canary}')",
        "FROM '{canary}'",
        "FROM read_blob('{home}/cj.duckdb')",
        "SELECT * FROM glob('{home}/*')",
        "COPY (SELECT 1) TO '{home}/cj.duckdb.wal'",
        "COPY ledger TO '{folder}/stolen.csv'",
        "ATTACH '{folder}/other.duckdb'",
        "INSTALL json",
        "LOAD json",
        "SET enable_external_access = true",
        "RESET lock_configuration",
        "CALL enable_logging(storage = 'file', storage_path = '{folder}/logs')",
        "CALL quack_stop('{address}')",
        "EXPORT DATABASE '{folder}/all'",
        "IMPORT DATABASE '{folder}/all'",
    ],
)
@pytest.mark.parametrize("token", [TOKEN, READING_TOKEN], ids=["full", "looking"])
def test_no_token_reaches_the_files_of_the_servers_machine(
    address: str, tmp_path: Path, sql: str, token: str
) -> None:
    """Whoever may write verdicts may not read passwords, nor write over the store's own log."""
    (tmp_path / "canary.csv").write_text("secret\nof the host\n")
    client = ServedStore(address, tmp_path, token)
    with client.read() as db:
        row = db.one("SELECT path FROM duckdb_databases() WHERE path IS NOT NULL")
    assert row is not None
    asked = sql.format(
        canary=tmp_path / "canary.csv",
        folder=tmp_path,
        home=Path(row["path"]).parent,
        address=address,
    )
    with client._connect(only_reads=token == READING_TOKEN) as connection:
        with pytest.raises(duckdb.Error) as refused:
            connection.execute("FROM quack_query_by_name('store', ?)", [asked]).fetchall()

        assert "of the host" not in str(refused.value)
        assert connection.execute("FROM quack_query_by_name('store', 'SELECT 1')").fetchall()
    assert [path.name for path in tmp_path.iterdir()] == ["canary.csv"]


def test_the_environment_chooses_the_store(address: str, tmp_path: Path) -> None:
    """The rest of the code sees one store."""
    environment = {"CJ_STORE": address, "CJ_STORE_TOKEN": TOKEN}

    assert isinstance(open_store(tmp_path, environment), ServedStore)
    assert type(open_store(tmp_path, {})) is FileStore


@pytest.mark.parametrize("wrong", ["quack:host", "quack:ho st:1", "quack:x:1'; --"])
def test_an_address_that_is_none_is_refused(wrong: str) -> None:
    """It goes into a statement; nothing but a host and a port may."""
    with pytest.raises(StoreError, match="quack:HOST:PORT"):
        attach_statement(wrong)


def test_analysts_see_the_server(store: ServedStore) -> None:
    """Tables and views by their plain names."""
    with store.connect() as connection:
        assert connection.execute("SELECT count(*) >= 0 FROM v_batches").fetchone() == (True,)


def test_a_served_store_is_counted_as_the_same_rows_in_a_file_are(
    store: ServedStore, tmp_path: Path
) -> None:
    """Metrics are SQL, and the server plans some of it otherwise."""
    beside = FileStore(tmp_path / "file")
    rows = spring_rows("counted")
    for each in (store, beside):
        with each.write() as db:
            insert_all(db, rows)

    served = without_ages(render_metrics(store, batch_id="counted"))

    assert served == without_ages(render_metrics(beside, batch_id="counted"))


def without_ages(text: str) -> list[str]:
    """Return the lines that do not change from one second to the next."""
    return [line for line in text.splitlines() if "_age_seconds" not in line]
