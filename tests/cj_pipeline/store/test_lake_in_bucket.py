"""A lake whose rows lie in a bucket, and a bucket that fails as networks do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from cj_pipeline.errors import StoreError, TransientError
from cj_pipeline.store import ducklake_store
from cj_pipeline.store.ducklake_store import LakeStore, _told
from tests.support.object_server import BUCKET, ObjectServer, object_server
from tests.support.postgres_server import postgres_server
from tests.support.store_workers import ROWS, ledger_rows

pytestmark = [pytest.mark.slow, pytest.mark.postgres]


@pytest.fixture(scope="module")
def objects() -> Iterator[ObjectServer]:
    """One bucket for all tests."""
    with object_server() as server:
        yield server


@pytest.fixture(scope="module")
def lake(objects: ObjectServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LakeStore]:
    """One lake for all tests; every test uses other batches."""
    with postgres_server() as port:
        yield LakeStore(
            f"ducklake:postgres:host=127.0.0.1 port={port} user=cj dbname=postgres",
            f"s3://{BUCKET}/lake",
            tmp_path_factory.mktemp("home"),
            environment=objects.environment(),
        )


def _again(lake: LakeStore, objects: ObjectServer) -> LakeStore:
    """Return the store as a process on another host opens it."""
    return LakeStore(
        f"ducklake:postgres:{lake._catalog}",
        lake._data_path,
        lake.home,
        environment=objects.environment(),
    )


def _n_rows(lake: LakeStore, batch: str) -> int:
    with lake.read() as db:
        return len(db.rows("FROM ledger WHERE batch_id = ?", [batch]))


def test_rows_lie_in_the_bucket(lake: LakeStore, objects: ObjectServer) -> None:
    """Hosts that share no disk share a lake."""
    with lake.write() as db:
        db.insert("ledger", ledger_rows("bucket", 0))

    assert any(each.startswith("PUT") and ".parquet" in each for each in objects.asked)
    assert _n_rows(_again(lake, objects), "bucket") == ROWS


@pytest.mark.parametrize("fault", ["503", "cut"])
def test_a_bucket_that_fails_for_a_moment_is_asked_again(
    lake: LakeStore, objects: ObjectServer, fault: str
) -> None:
    """Every service does so now and then."""
    objects.faults = [fault, fault]  # type: ignore[list-item]

    with lake.write() as db:
        db.insert("ledger", ledger_rows(f"moment-{fault}", 0))

    assert objects.faults == []
    assert _n_rows(lake, f"moment-{fault}") == ROWS


def test_a_bucket_that_is_away_leaves_nothing_half_written(
    lake: LakeStore, objects: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error inside the transaction ends it, and the same write comes in whole later."""
    monkeypatch.setattr(ducklake_store, "TRIES", 1)
    impatient = _again(lake, objects)

    def write() -> None:
        with impatient.write() as db:
            db.insert("ledger", ledger_rows("away", 0))
            objects.is_down = True
            db.insert("ledger", ledger_rows("away", 1))

    with pytest.raises(TransientError, match="try again"):
        write()
    objects.is_down = False

    assert _n_rows(lake, "away") == 0
    with impatient.write() as db:
        db.insert("ledger", ledger_rows("away", 0))
    assert _n_rows(lake, "away") == ROWS


def test_a_bucket_that_is_not_there_is_told(lake: LakeStore, objects: ObjectServer) -> None:
    """No patience helps there."""
    with lake._connect(only_reads=True) as far, pytest.raises(StoreError, match="refuses us"):
        _read_elsewhere(far)
    assert objects.faults == []


def _read_elsewhere(connection: duckdb.DuckDBPyConnection) -> None:
    with _told("s3://none/lake"):
        connection.execute("FROM read_parquet('s3://none/lake/rows.parquet')")


@pytest.mark.parametrize("address", ["gs://bucket/lake", "az://container/lake"])
def test_a_bucket_of_another_service_is_refused(address: str, tmp_path: Path) -> None:
    """It needs extensions of DuckDB that there are no wheels for."""
    with pytest.raises(StoreError, match="s3://BUCKET"):
        LakeStore("ducklake:postgres:host=nowhere dbname=none", address, tmp_path)
