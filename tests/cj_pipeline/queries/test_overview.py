"""What hinders a batch is said in words, wherever its status is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from cj_pipeline.queries.history import read_history
from cj_pipeline.queries.overview import batch_overview, what_hinders
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.advance import advance_to_end
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.plan_wave import plan_wave
from cj_pipeline.steps.submit_wave import submit_wave
from tests.support.batches import ManualClock, open_engine, write_batch


@pytest.fixture
def clock() -> ManualClock:
    """A clock that moves only when told."""
    return ManualClock()


def _runtime(tmp_path: Path, clock: ManualClock, settings: str) -> Runtime:
    return open_engine(tmp_path / "home", {"CJ_EMULATOR_SETTINGS": settings}, clock=clock)


def _opened(runtime: Runtime, tmp_path: Path) -> str:
    folder = write_batch(
        tmp_path / "spring-9",
        n_students=4,
        settings={"judges": ["quality"], "canary_requests": 0, "max_pairwise_comparisons": 6},
    )
    name = ingest(runtime, folder).batch_id
    plan_wave(runtime, name)
    submit_wave(runtime, name)
    return name


def test_a_batch_that_waits_says_for_what(tmp_path: Path, clock: ManualClock) -> None:
    """In one word for the table, and in a sentence below it."""
    runtime = _runtime(tmp_path, clock, "{}")
    batch_id = _opened(runtime, tmp_path)
    with runtime.store.write() as db:
        db.execute("UPDATE provider_jobs SET waiting_for = 'key', error = 'the key is refused'")

    with runtime.store.read() as db:
        (row,) = batch_overview(db)
        history = read_history(db, batch_id)

    assert row["waiting_for"] == "key"
    assert what_hinders(row) == history.hindered_by == "waits for a key: the key is refused"


def test_a_batch_that_failed_names_its_commonest_failure(
    tmp_path: Path, clock: ManualClock
) -> None:
    """`no_successes` alone sends a person searching."""
    runtime = _runtime(tmp_path, clock, '{"faults": [{"kind": "refusal", "rate": 1.0}]}')
    batch_id = _opened(runtime, tmp_path)
    for _ in advance_to_end(runtime, batch_id, pause_s=60, sleep=clock.sleep):
        pass

    with runtime.store.read() as db:
        (row,) = batch_overview(db)

    assert row["end_reason"] == "no_successes"
    assert "requests failed as refusal" in what_hinders(row)


def test_nothing_hinders_a_batch_that_goes_well(tmp_path: Path, clock: ManualClock) -> None:
    """The line is not shown then."""
    runtime = _runtime(tmp_path, clock, "{}")
    batch_id = _opened(runtime, tmp_path)

    with runtime.store.read() as db:
        (row,) = batch_overview(db, batch_id)

    assert what_hinders(row) == ""
