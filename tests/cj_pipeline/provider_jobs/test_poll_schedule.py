"""When a provider is asked, how often, and what is noticed when it tells nothing new."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cj_pipeline.emulator import change_settings
from cj_pipeline.emulator.config import EmulatorConfig
from cj_pipeline.provider_jobs.ledger import ProviderJob
from cj_pipeline.provider_jobs.poll_schedule import (
    LONGEST_BEFORE_ITS_TIME_S,
    SHORTEST_S,
    poll_interval,
    stalled_since,
    usual_durations,
)
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.next_step import what_is_awaited
from cj_pipeline.steps.plan_wave import plan_wave
from cj_pipeline.steps.poll import poll
from cj_pipeline.steps.submit_wave import submit_wave
from tests.support.batches import ManualClock, open_engine, write_batch

HOUR = timedelta(hours=1)


@pytest.fixture
def clock() -> ManualClock:
    """A clock that moves only when told."""
    return ManualClock()


@pytest.fixture
def runtime(tmp_path: Path, clock: ManualClock) -> Runtime:
    """A runtime over an empty home, with one batch whose three jobs take an hour."""
    opened = open_engine(tmp_path / "home", clock=clock)
    change_settings(EmulatorConfig.from_environment({}, opened.home), latency_s=3600)
    settings = {"judges": ["mine"], "all_at_once": True, "max_pairwise_comparisons": 6}
    folder = write_batch(tmp_path / "batch", n_students=4, settings=settings)
    (folder / "judges").mkdir()
    (folder / "judges" / "mine.yaml").write_text(
        "name: mine\nprovider: emulator\nmodel: quality\nlimits: {max_requests: 2}\n"
    )
    batch_id = ingest(opened, folder).batch_id
    plan_wave(opened, batch_id)
    submit_wave(opened, batch_id)
    return opened


def emulate(runtime: Runtime, *faults: dict[str, Any]) -> None:
    """Change what goes wrong."""
    change_settings(EmulatorConfig.from_environment({}, runtime.home), faults=list(faults))


def jobs(runtime: Runtime) -> list[dict[str, Any]]:
    """Return the ledger's jobs."""
    with runtime.store.read() as db:
        return db.rows("SELECT * FROM provider_jobs ORDER BY submission_key")


@given(age_s=st.floats(0, 200_000), usual_s=st.none() | st.floats(0.01, 100_000, allow_nan=False))
def test_no_job_is_looked_at_too_often_or_too_seldom(age_s: float, usual_s: float | None) -> None:
    """Twice a second at the most, every five minutes at the least, whatever the history."""
    usual = None if usual_s is None else timedelta(seconds=usual_s)

    wait = poll_interval(timedelta(seconds=age_s), usual=usual)
    assert SHORTEST_S <= wait.total_seconds() <= LONGEST_BEFORE_ITS_TIME_S


def test_a_history_saves_early_looks_and_costs_no_late_ones() -> None:
    """Jobs that take an hour are left alone at first, and watched as closely as any after it."""

    def n_looks(usual: timedelta | None) -> int:
        at, n = timedelta(), 0
        while at < HOUR:
            at += poll_interval(at, usual=usual)
            n += 1
        return n

    assert n_looks(HOUR) < n_looks(None) / 5
    assert poll_interval(HOUR, usual=HOUR) == poll_interval(HOUR)


def test_how_long_jobs_usually_take_is_read_from_the_ledger(
    runtime: Runtime, clock: ManualClock
) -> None:
    """Per account and model, from those that completed lately."""
    with runtime.store.write() as db:
        db.execute(
            "UPDATE provider_jobs SET state = 'settled', outcome = 'completed',"
            " submitted_at = $now, ended_at = $now::TIMESTAMPTZ + INTERVAL 20 MINUTE",
            {"now": clock()},
        )

    with runtime.store.read() as db:
        usual = usual_durations(db, clock() + HOUR)
        forgotten = usual_durations(db, clock() + 24 * 20 * HOUR)

    account = jobs(runtime)[0]["account"]
    assert usual == {(account, "quality"): timedelta(minutes=20)}
    assert forgotten == {}


def test_being_asked_to_wait_is_obeyed_for_the_whole_account_without_sleeping(
    runtime: Runtime, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One job is told; those whose turn comes later are not even asked."""
    # By its name the package gives the function, not the module.
    monkeypatch.setattr(import_module("cj_pipeline.steps.poll"), "ASKED_AT_ONCE", 1)
    emulate(
        runtime,
        {"kind": "status", "on": "*.retrieve", "status": 429, "retry_after": "700", "at": [1]},
    )

    polled = poll(runtime)
    waits = {job["next_poll_at"] - clock() for job in jobs(runtime)}
    at_once = poll(runtime).n_polled

    assert polled.n_polled == 3
    assert waits == {timedelta(seconds=700)}
    assert at_once == 0
    assert {job["provider_status"] for job in jobs(runtime)} == {None}


def test_jobs_whose_turn_comes_soon_are_left_alone_as_well(
    runtime: Runtime, clock: ManualClock
) -> None:
    """They are not due when one of the account is told to wait, and would be a second later."""
    soon = {"key": jobs(runtime)[2]["submission_key"], "due": clock() + timedelta(seconds=5)}
    with runtime.store.write() as db:
        db.execute("UPDATE provider_jobs SET next_poll_at = $due WHERE submission_key = $key", soon)
    emulate(
        runtime,
        {"kind": "status", "on": "*.retrieve", "status": 429, "retry_after": "700", "at": [1]},
    )

    polled = poll(runtime).n_polled
    clock.sleep(600)
    meanwhile = poll(runtime).n_polled
    clock.sleep(101)
    afterwards = poll(runtime).n_polled

    assert (polled, meanwhile, afterwards) == (2, 0, 3)


def test_looks_without_an_answer_become_rarer(runtime: Runtime, clock: ManualClock) -> None:
    """Doubling, with jitter, up to ten minutes; one answer and all is forgotten."""
    emulate(runtime, {"kind": "status", "on": "*.retrieve", "status": 503})
    waits = []
    for _ in range(9):
        poll(runtime)
        job = jobs(runtime)[0]
        waits.append((job["next_poll_at"] - clock()).total_seconds())
        clock.now = max(job["next_poll_at"] for job in jobs(runtime))
    failures = jobs(runtime)[0]["n_poll_failures"]
    emulate(runtime)
    poll(runtime)

    assert waits[4] > 4 * waits[0]
    assert max(waits) <= 720
    assert (failures, jobs(runtime)[0]["n_poll_failures"]) == (9, 0)


def test_a_job_whose_counts_stay_has_stalled(runtime: Runtime, clock: ManualClock) -> None:
    """Half of it is done and stays half done; a person is told long before the batch gives up."""
    found = ProviderJob.from_row(jobs(runtime)[0])
    job = replace(found, n_completed=1, n_failed=0)
    silent = replace(found, n_completed=0, n_failed=0)
    began = found.made_at

    assert stalled_since(job, began + 5 * HOUR) is None
    assert stalled_since(job, began + 7 * HOUR) == began
    # Counts that come only at the end say nothing; then age does.
    assert stalled_since(silent, began + 7 * HOUR) is None
    assert stalled_since(silent, began + 27 * HOUR) == began


def test_a_stalled_job_is_told_in_the_ledger(runtime: Runtime, clock: ManualClock) -> None:
    """`cj status`, the UI and SQL show it without anybody asking the provider."""
    emulate(runtime, {"kind": "stuck"})
    change_settings(EmulatorConfig.from_environment({}, runtime.home), latency_s=10**7)
    clock.sleep(27 * 3600)

    poll(runtime)

    assert all("no progress since 2026-01-05 08:00 UTC" in job["error"] for job in jobs(runtime))


def test_a_person_is_told_what_is_waited_for(runtime: Runtime, clock: ManualClock) -> None:
    """How many jobs, where, how far, since when, and what was wrong at the last look."""
    emulate(runtime, {"kind": "status", "on": "*.retrieve", "status": 503, "at": [1]})
    clock.sleep(60)
    poll(runtime)

    with runtime.store.read() as db:
        batch_id = db.rows("SELECT batch_id FROM batches")[0]["batch_id"]
        told = what_is_awaited(db, batch_id, clock())

    assert re.search(r"2 provider jobs at emulator \(\w+\), 0 of 4 done, for 60 s", told)
    assert "answered 503" in told
