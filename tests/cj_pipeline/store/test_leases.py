"""Leases on batches, wherever they are kept: one holder at a time, and no write of an older one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from cj_pipeline.errors import LeaseLostError, TransientError
from cj_pipeline.store import leases
from cj_pipeline.store.base import Store
from cj_pipeline.store.ducklake_store import LakeStore
from cj_pipeline.store.file_store import FileStore
from cj_pipeline.store.leases import LONGEST_PAUSE, new_holder
from cj_pipeline.store.postgres_leases import connect_postgres, still_held, turn
from cj_pipeline.store.session import Lease
from tests.support.postgres_server import postgres_server

NOW, SOON = timedelta(), timedelta(minutes=1)
IN_POSTGRES = pytest.param("lake", marks=[pytest.mark.slow, pytest.mark.postgres])

Move = Callable[[str, timedelta], None]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LakeStore]:
    """One lake for all tests; every test uses other batches."""
    folder = tmp_path_factory.mktemp("lake")
    with postgres_server() as port:
        catalog = f"host=127.0.0.1 port={port} user=cj dbname=postgres"
        yield LakeStore(f"ducklake:postgres:{catalog}", str(folder), folder)


@pytest.fixture(params=["file", IN_POSTGRES])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store in each way that keeps leases in its own way."""
    if request.param == "file":
        return FileStore(tmp_path)
    store: Store = request.getfixturevalue("lake")
    return store


@pytest.fixture
def batch(request: pytest.FixtureRequest) -> str:
    """A batch that no other test has."""
    return str(request.node.name)


@pytest.fixture
def pass_time(store: Store) -> Move:
    """Let time pass for a batch's lease: it ends so much sooner."""

    def move(batch: str, by: timedelta) -> None:
        seconds = f"INTERVAL '{by.total_seconds()} seconds'"
        where = f"SET free_at = free_at - {seconds} WHERE batch_id = '{batch}'"
        if isinstance(store, LakeStore):
            with connect_postgres(store._catalog) as connection:
                connection.execute(f"UPDATE cj_batch_leases {where}")  # type: ignore[arg-type]
        else:
            with store.write() as db:
                db.execute(f"UPDATE batch_leases {where}")

    return move


def _taken(store: Store, batch: str, holder: str) -> Lease:
    lease = store.leases.take(batch, holder)
    assert lease is not None
    return lease


def test_one_process_has_a_batch(store: Store, batch: str) -> None:
    """Two that move one batch along would do everything twice."""
    _taken(store, batch, "a")

    assert store.leases.take(batch, "b") is None
    assert store.leases.take(batch, "a") is None
    assert [(b.batch_id, b.holder) for b in store.leases.busy() if b.batch_id == batch] == [
        (batch, "a")
    ]


def test_a_batch_of_a_dead_process_is_taken_over(store: Store, batch: str, pass_time: Move) -> None:
    """With a higher number, by which the first one is told apart from then on."""
    first = _taken(store, batch, "a")
    pass_time(batch, leases.LASTS)

    second = _taken(store, batch, "b")

    assert second.fence > first.fence
    assert not store.leases.beat(first)
    assert store.leases.beat(second)


def test_whoever_says_that_it_lives_keeps_its_batch(
    store: Store, batch: str, pass_time: Move
) -> None:
    """However long its step takes."""
    lease = _taken(store, batch, "a")
    for _ in range(3):
        pass_time(batch, leases.LASTS * 0.9)
        assert store.leases.beat(lease)

    assert store.leases.take(batch, "b") is None


def test_a_batch_that_was_given_back_waits_for_its_pause(
    store: Store, batch: str, pass_time: Move
) -> None:
    """So that a batch that waits for its provider is looked at once, and not by all in turn."""
    store.leases.give_back(_taken(store, batch, "a"), SOON)

    assert store.leases.take(batch, "b") is None
    pass_time(batch, SOON)
    store.leases.give_back(_taken(store, batch, "b"), NOW)
    assert store.leases.take(batch, "a") is not None


def test_who_lost_a_batch_cannot_give_it_back(store: Store, batch: str, pass_time: Move) -> None:
    """That would open another's lease to a third."""
    first = _taken(store, batch, "a")
    pass_time(batch, leases.LASTS)
    _taken(store, batch, "b")

    store.leases.give_back(first, NOW)

    assert store.leases.take(batch, "c") is None


def test_a_clock_that_was_wrong_keeps_no_batch(store: Store, batch: str, pass_time: Move) -> None:
    """A lease until next year, from a clock that is right again, is none."""
    _taken(store, batch, "a")
    pass_time(batch, -3 * LONGEST_PAUSE)

    assert store.leases.take(batch, "b") is not None


def test_a_write_with_a_lost_lease_leaves_nothing(
    store: Store, batch: str, pass_time: Move
) -> None:
    """A host that was cut off and returns changes nothing of what goes on without it."""
    first = _taken(store, batch, "a")
    with store.with_lease(first).write() as db:
        assert db.lease == first
    pass_time(batch, leases.LASTS)
    _taken(store, batch, "b")

    with pytest.raises(LeaseLostError, match="taken over"), store.with_lease(first).write() as db:
        pytest.fail("it may write")
    with store.with_lease(first).with_lease(None).write() as db:
        assert db.lease is None


def test_every_process_has_a_name_of_its_own() -> None:
    """A container that is started again has the host and the number of the one that died."""
    assert new_holder("host") != new_holder("host")
    assert new_holder("host").startswith("host:")


@pytest.mark.slow
@pytest.mark.postgres
def test_a_batch_is_not_taken_from_a_write_under_way(lake: LakeStore) -> None:
    """What was checked at its beginning is true when it commits; a heartbeat waits for nobody."""
    lease = _taken(lake, "under-way", "a")
    with lake.with_lease(lease).write():
        assert lake.leases.beat(lease)
        with connect_postgres(lake._catalog) as connection:
            connection.execute("UPDATE cj_batch_leases SET free_at = '-infinity'")
        assert lake.leases.take("under-way", "b") is None
    assert lake.leases.take("under-way", "b") is not None


@pytest.mark.slow
@pytest.mark.postgres
def test_a_turn_that_the_server_took_back_does_not_commit(lake: LakeStore) -> None:
    """A frozen host's lock is free after a while; what it then still writes must not come in."""
    end_others = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE query = 'SELECT 1' AND state = 'idle in transaction'"
    )

    def write_late() -> None:
        with lake.write() as db:
            db.execute("INSERT INTO sensor_ticks VALUES ('late', now())")
            with connect_postgres(lake._catalog) as connection:
                connection.execute(end_others)

    with pytest.raises(TransientError, match="turn"):
        write_late()
    with lake.read() as db:
        assert db.rows("FROM sensor_ticks WHERE sensor = 'late'") == []
    with turn(lake._catalog, 1, 1.0) as held:
        still_held(held)
