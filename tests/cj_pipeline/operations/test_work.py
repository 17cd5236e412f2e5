"""Workers: whichever is alive moves batches along, and no two the same one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from cj_pipeline.errors import SettingsError, StoreBusyError
from cj_pipeline.operations import work
from cj_pipeline.operations.work import Worker, kept, new_worker
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.advance import StepTaken, take_next_step
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.store.leases import LASTS
from tests.support.batches import open_engine, write_batch

SETTINGS = {
    "score_stability_threshold": None,
    "max_pairwise_comparisons": 3,
    "wave_size": 3,
    "canary_requests": 0,
}


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """A home in which two batches have been taken in, and nothing was asked yet."""
    runtime = open_engine(tmp_path / "home")
    runtime.home.mkdir()
    for name in ("first", "second"):
        ingest(runtime, write_batch(tmp_path / name, n_students=3, settings=SETTINGS))
    return runtime


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The emulator answers at once, so nobody needs to wait for it."""
    monkeypatch.setattr(work, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(work, "LEAST_WAIT", timedelta(seconds=0.05))
    monkeypatch.setattr(work, "LONGEST_WAIT", timedelta(seconds=0.05))
    monkeypatch.setattr(work, "AFTER_FAILURE", timedelta())


def _states(runtime: Runtime) -> dict[str, str]:
    with runtime.store.read() as db:
        return {row["batch_id"]: row["state"] for row in db.rows("FROM batches")}


def _pass_time(runtime: Runtime) -> None:
    with runtime.store.write() as db:
        db.execute("UPDATE batch_leases SET free_at = free_at - to_seconds(?)", [LASTS.seconds])


def _fail(monkeypatch: pytest.MonkeyPatch, batch: str, error: Callable[[], BaseException]) -> None:
    """Have the first step that is taken of a batch fail."""
    left = [error]

    def step(runtime: Runtime, batch_id: str) -> StepTaken:
        if batch_id == batch and left:
            raise left.pop()()
        return take_next_step(runtime, batch_id)

    monkeypatch.setattr(work, "take_next_step", step)


def test_a_worker_brings_every_batch_to_its_end(runtime: Runtime) -> None:
    """Without Dagster and without anybody at a terminal."""
    taken: list[str] = []

    new_worker(runtime, threading.Event(), lambda b, s: taken.append(f"{b} {s.step}")).work(
        until_done=True
    )

    assert _states(runtime) == {"first": "succeeded", "second": "succeeded"}
    assert [step for step in taken if "publish" in step] == ["first publish", "second publish"]


@pytest.mark.parametrize("error", [SettingsError, RuntimeError])
def test_one_batch_does_not_suffer_for_another(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """Whatever is wrong with it; it is tried again."""
    _fail(monkeypatch, "first", lambda: error("no such thing"))

    new_worker(runtime, threading.Event()).work(until_done=True)

    assert _states(runtime) == {"first": "succeeded", "second": "succeeded"}


def test_a_store_that_is_away_is_waited_for(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its restart must not end every worker."""
    times = [StoreBusyError("not now")]
    look = Worker.look

    def away_once(worker: Worker) -> tuple[int, bool]:
        if times:
            raise times.pop()
        return look(worker)

    monkeypatch.setattr(Worker, "look", away_once)
    new_worker(runtime, threading.Event()).work(until_done=True)

    assert _states(runtime) == {"first": "succeeded", "second": "succeeded"}


def test_a_batch_that_another_has_is_left_to_it(runtime: Runtime) -> None:
    """Until that one is not heard of any more."""
    taken: list[str] = []
    worker = new_worker(runtime, threading.Event(), lambda batch, _: taken.append(batch))
    assert runtime.store.leases.take("first", "another") is not None

    for _ in range(20):
        worker.look()
    assert set(taken) == {"second"}

    _pass_time(runtime)
    worker.work(until_done=True)
    assert _states(runtime) == {"first": "succeeded", "second": "succeeded"}


def test_a_worker_that_is_told_to_stop_gives_its_batch_back(runtime: Runtime) -> None:
    """After the step at hand, so that another goes on at once."""
    stop = threading.Event()

    new_worker(runtime, stop, lambda *_: stop.set()).work()

    assert runtime.store.leases.busy() == []
    assert _states(runtime) == {"first": "running", "second": "running"}


def test_a_worker_that_lost_its_batch_writes_nothing_more(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was frozen in the middle of a step; the other one has the batch, and keeps it."""
    seen = []

    def frozen(late: Runtime, batch_id: str) -> StepTaken:
        _pass_time(runtime)
        seen.append(runtime.store.leases.take(batch_id, "another"))
        return take_next_step(late, batch_id)

    monkeypatch.setattr(work, "take_next_step", frozen)
    new_worker(runtime, threading.Event()).look()

    with runtime.store.read() as db:
        assert db.rows("FROM comparison_pairs") == []
    assert [each.holder for each in runtime.store.leases.busy()] == ["another"]
    assert seen[0] is not None
    assert runtime.store.leases.beat(seen[0])


def test_a_lease_that_is_lost_is_told(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls in flight are to end then: each costs money, and nobody will keep its reply."""
    monkeypatch.setattr(work, "BEATS_EVERY", timedelta(seconds=0.02))
    lease = runtime.store.leases.take("first", "mine")
    assert lease is not None
    lost = threading.Event()

    with kept(runtime.store.leases, lease, lost):
        assert not lost.wait(0.2)
        with runtime.store.write() as db:
            db.execute("UPDATE batch_leases SET fence = fence + 1, holder = 'another'")
        assert lost.wait(10)
