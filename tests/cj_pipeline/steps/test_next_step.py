"""How far batches have come, and which will never move again."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.next_step import NextStep, PendingStep, standings
from cj_pipeline.steps.plan_wave import plan_wave
from cj_pipeline.steps.poll import poll
from cj_pipeline.steps.submit_wave import submit_wave
from cj_pipeline.steps.watchdog import end_stalled, expiring_results, stalled_batches
from tests.support.batches import ManualClock, open_engine, write_batch

MOCK = {"judges": ["cj-generic-batch"], "stall_after_s": 3600}


@pytest.fixture
def clock() -> ManualClock:
    """A clock that moves only when told."""
    return ManualClock()


@pytest.fixture
def runtime(tmp_path: Path, clock: ManualClock) -> Runtime:
    """A runtime over an empty home, whose emulator takes a day for each job."""
    return open_engine(
        tmp_path / "home", {"CJ_EMULATOR_SETTINGS": '{"latency_s": 86400}'}, clock=clock
    )


@pytest.fixture
def batch_id(runtime: Runtime, tmp_path: Path) -> str:
    """A batch whose first wave was sent."""
    folder = write_batch(tmp_path / "spring-9", n_students=4, settings=MOCK)
    name = ingest(runtime, folder).batch_id
    plan_wave(runtime, name)
    submit_wave(runtime, name)
    return name


def standing(runtime: Runtime) -> PendingStep:
    """Return the only batch's standing."""
    with runtime.store.read() as db:
        (found,) = standings(db, runtime.clock())
    return found


def test_a_batch_stands_where_its_rows_say(runtime: Runtime, batch_id: str) -> None:
    """Nothing but rows is asked, so whoever looks sees the same."""
    found = standing(runtime)

    assert (found.batch_id, found.step, found.providers) == (batch_id, NextStep.POLL, ("emulator",))


def test_the_mark_stays_while_nothing_moves(
    runtime: Runtime, batch_id: str, clock: ManualClock
) -> None:
    """A step is asked for once per occasion: looking and polling make no new one."""
    poll(runtime)
    before = standing(runtime).mark

    clock.sleep(60)
    poll(runtime)

    assert standing(runtime).mark == before


def test_the_mark_changes_when_something_moves(runtime: Runtime, tmp_path: Path) -> None:
    """The next step is another occasion."""
    folder = write_batch(tmp_path / "spring-9", n_students=4, settings=MOCK)
    name = ingest(runtime, folder).batch_id
    marks = [standing(runtime).mark]
    for step in (plan_wave, submit_wave):
        step(runtime, name)
        marks.append(standing(runtime).mark)

    assert len(set(marks)) == 3


def test_a_batch_is_stalled_once_nothing_came_for_too_long(
    runtime: Runtime, batch_id: str, clock: ManualClock
) -> None:
    """Being polled all the while is no movement."""
    clock.sleep(3590)
    poll(runtime)
    with runtime.store.read() as db:
        early = stalled_batches(db, clock())
        late = stalled_batches(db, clock() + timedelta(seconds=20))

    assert early == []
    assert [stalled.batch_id for stalled in late] == [batch_id]


def test_a_stalled_batch_ends_with_that_reason(
    runtime: Runtime, batch_id: str, clock: ManualClock
) -> None:
    """Every batch has an end, whatever its provider does."""
    clock.sleep(3601)

    decided = end_stalled(runtime, batch_id)

    assert decided.reason == "stalled"
    with runtime.store.read() as db:
        row = db.one("SELECT state, end_reason FROM batches WHERE batch_id = ?", [batch_id])
    assert row == {"state": "failed", "end_reason": "stalled"}


def test_a_batch_that_moves_is_not_ended(runtime: Runtime, batch_id: str) -> None:
    """The watchdog may ask late or twice; what counts is how things stand when the run begins."""
    decided = end_stalled(runtime, batch_id)

    assert decided.reason is None


def test_results_that_are_deleted_soon_are_told_whoever_should_have_collected_them(
    runtime: Runtime, batch_id: str
) -> None:
    """Three weeks without a daemon are enough to lose a paid batch."""
    submit_wave(runtime, batch_id)
    now = runtime.clock()

    with runtime.store.read() as db:
        early = expiring_results(db, now + timedelta(days=20))
        late = expiring_results(db, now + timedelta(days=24))

    assert early == []
    assert [name for name, _ in late] == [batch_id]
