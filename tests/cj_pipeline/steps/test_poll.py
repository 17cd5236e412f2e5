"""One look at open provider jobs: bounded in time, and cheap however many they are."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cj_pipeline.emulator import change_settings
from cj_pipeline.emulator.config import EmulatorConfig
from cj_pipeline.provider_jobs.poll_schedule import poll_interval
from cj_pipeline.providers.openai import OpenAIBatches
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.plan_wave import plan_wave
from cj_pipeline.steps.poll import next_poll_due, poll
from cj_pipeline.steps.submit_wave import submit_wave
from tests.support.batches import ManualClock, open_engine, write_batch

N_JOBS = 40


@pytest.fixture
def clock() -> ManualClock:
    """A clock that moves only when told."""
    return ManualClock()


@pytest.fixture
def runtime(tmp_path: Path, clock: ManualClock) -> Runtime:
    """An engine with one open job, and as many more rows that name the same job."""
    runtime = open_engine(
        tmp_path / "home", {"CJ_EMULATOR_SETTINGS": '{"latency_s": 86400}'}, clock=clock
    )
    folder = write_batch(
        tmp_path / "spring-9", n_students=4, settings={"judges": ["cj-generic-batch"]}
    )
    ingest(runtime, folder)
    plan_wave(runtime, "spring-9")
    submit_wave(runtime, "spring-9")
    with runtime.store.write() as db:
        db.execute(
            "INSERT INTO provider_jobs SELECT j.* REPLACE (submission_key || '-' || i AS"
            " submission_key) FROM provider_jobs j, range(?) r(i)",
            [N_JOBS - 1],
        )
    poll(runtime)
    return runtime


def jobs(runtime: Runtime) -> list[dict[str, Any]]:
    """Return every provider job."""
    with runtime.store.read() as db:
        return db.rows("SELECT * FROM provider_jobs ORDER BY submission_key")


def slow(monkeypatch: pytest.MonkeyPatch, seconds: float) -> list[float]:
    """Have every look at the provider take so long; return when each began."""
    real, began = OpenAIBatches.poll, []

    def poll_slowly(self: OpenAIBatches, job_id: str) -> Any:
        began.append(time.monotonic())
        time.sleep(seconds)
        return real(self, job_id)

    monkeypatch.setattr(OpenAIBatches, "poll", poll_slowly)
    return began


def test_every_open_job_that_is_due_is_looked_at(runtime: Runtime, clock: ManualClock) -> None:
    """And each has its next look."""
    clock.sleep(60)

    assert poll(runtime).n_polled == N_JOBS
    assert {job["n_polls"] for job in jobs(runtime)} == {2}
    assert {job["next_poll_at"] - clock() for job in jobs(runtime)} == {timedelta(seconds=6)}


def test_a_look_is_over_when_its_time_is(
    runtime: Runtime, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider that answers slowly does not hold up a sensor; what is left comes first next."""
    began = slow(monkeypatch, 0.2)
    clock.sleep(60)

    first = poll(runtime, at_most_s=0.3).n_polled
    monkeypatch.undo()
    rest = poll(runtime).n_polled

    assert 0 < first < N_JOBS
    assert first == len(began)
    assert rest == N_JOBS - first


def test_slow_answers_are_waited_for_side_by_side(
    runtime: Runtime, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forty at a tenth of a second each would take four seconds one after another."""
    began = slow(monkeypatch, 0.1)
    clock.sleep(60)

    poll(runtime)

    assert len([at for at in began if at - began[0] < 0.1]) > 1


def test_an_ended_job_among_many_is_found(runtime: Runtime, clock: ManualClock) -> None:
    """What is as it was is kept in one statement; news are kept one by one."""
    change_settings(
        EmulatorConfig.from_environment(runtime.environment, runtime.home), latency_s=0.0
    )
    folder = write_batch(
        runtime.home.parent / "autumn-9", n_students=3, settings={"judges": ["cj-generic-batch"]}
    )
    ingest(runtime, folder)
    plan_wave(runtime, "autumn-9")
    submit_wave(runtime, "autumn-9")
    clock.sleep(60)

    polled = poll(runtime)

    assert polled.batches_with_ended_jobs == {"autumn-9"}
    states = [job["state"] for job in jobs(runtime)]
    assert (states.count("running"), states.count("ended")) == (N_JOBS, 1)


@pytest.mark.parametrize(
    ("age_s", "n_open", "wait_s"),
    [(1, 1, 0.2), (30, 1, 3), (3600, 1, 10), (86_400, 1, 10), (3600, 400, 20), (1, 200, 10)],
)
def test_looks_are_near_a_jobs_end_and_never_too_many(
    age_s: float, n_open: int, wait_s: float
) -> None:
    """A tenth of a job's age at first, ten seconds at most, twenty a second for all together."""
    assert poll_interval(timedelta(seconds=age_s), n_open) == timedelta(seconds=wait_s)


def test_the_next_look_that_is_due_is_known(runtime: Runtime, clock: ManualClock) -> None:
    """Whoever waits for a batch need not look before."""
    with runtime.store.read() as db:
        due = next_poll_due(db, "spring-9")
        assert next_poll_due(db, "no-such-batch") is None
    assert due is not None
    assert due > clock()
