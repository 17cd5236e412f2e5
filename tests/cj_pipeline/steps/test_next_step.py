"""How far batches have come, and which will never move again."""

from __future__ import annotations

from pathlib import Path

import pytest

from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.next_step import NextStep, PendingStep, standings
from cj_pipeline.steps.plan_wave import plan_wave
from cj_pipeline.steps.poll import poll
from cj_pipeline.steps.submit_wave import submit_wave
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
