"""A provider's queue has room for so much: what does not fit waits, and is not asked anew."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cj_pipeline.emulator import change_settings
from cj_pipeline.emulator.config import EmulatorConfig
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.advance import advance_to_end
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.plan_wave import plan_wave
from cj_pipeline.steps.poll import poll
from cj_pipeline.steps.submit_wave import submit_wave
from tests.support.batches import ManualClock, open_engine, write_batch

_MINE = """
name: mine
provider: emulator
model: quality
limits: {limits}
"""


@pytest.fixture
def clock() -> ManualClock:
    """A clock that moves only when told."""
    return ManualClock()


@pytest.fixture
def runtime(tmp_path: Path, clock: ManualClock) -> Runtime:
    """A runtime over an empty home."""
    return open_engine(tmp_path / "home", clock=clock)


def _folder(path: Path, limits: str) -> Path:
    settings = {"judges": ["mine"], "all_at_once": True, "max_resampling_passes_for_regular_net": 0}
    folder = write_batch(path, n_students=4, settings=settings)
    (folder / "judges").mkdir()
    (folder / "judges" / "mine.yaml").write_text(_MINE.replace("{limits}", limits))
    return folder


def _jobs(runtime: Runtime) -> list[dict[str, Any]]:
    with runtime.store.read() as db:
        return db.rows("SELECT * FROM provider_jobs ORDER BY submission_key")


def _to_end(runtime: Runtime, batch_id: str, clock: ManualClock) -> None:
    for _ in advance_to_end(runtime, batch_id, pause_s=600.0, sleep=clock.sleep):
        pass


def test_a_shard_the_provider_had_no_room_for_is_sent_again_unchanged(
    runtime: Runtime, tmp_path: Path, clock: ManualClock
) -> None:
    """Nothing was wrong with it, nothing was paid, and no attempt of it is used up."""
    fault = {"kind": "fails", "word": "token_limit_exceeded", "at": [1, 2, 3, 4]}
    change_settings(EmulatorConfig.from_environment({}, runtime.home), faults=[fault])
    batch_id = ingest(runtime, _folder(tmp_path / "small", "{}")).batch_id

    _to_end(runtime, batch_id, clock)

    with runtime.store.read() as db:
        attempts = db.rows("SELECT attempt, outcome FROM attempts")
    assert attempts == [{"attempt": 1, "outcome": "succeeded"}] * 6
    assert len(_jobs(runtime)) == 1


def test_a_shard_in_want_of_room_waits_before_it_is_sent_again(
    runtime: Runtime, tmp_path: Path, clock: ManualClock
) -> None:
    """The queue does not empty any faster for being asked."""
    fault = {"kind": "fails", "word": "token_limit_exceeded", "at": [1]}
    change_settings(EmulatorConfig.from_environment({}, runtime.home), faults=[fault])
    batch_id = ingest(runtime, _folder(tmp_path / "small", "{}")).batch_id
    plan_wave(runtime, batch_id)
    submit_wave(runtime, batch_id)
    clock.sleep(10)
    poll(runtime)

    at_once = submit_wave(runtime, batch_id).n_sent
    clock.sleep(60)
    later = submit_wave(runtime, batch_id).n_sent

    assert (at_once, later) == (0, 1)


@pytest.mark.parametrize(
    "limits",
    [
        "{max_requests: 2, max_open_jobs: 1}",
        "{max_enqueued_tokens: 1200, max_requests: 2}",
    ],
)
def test_jobs_beyond_the_accounts_limits_wait_their_turn(
    runtime: Runtime, tmp_path: Path, clock: ManualClock, limits: str
) -> None:
    """Six comparisons in three jobs, of which the account may have one at a time."""
    batch_id = ingest(runtime, _folder(tmp_path / "small", limits)).batch_id
    plan_wave(runtime, batch_id)

    first = submit_wave(runtime, batch_id)
    states = [job["state"] for job in _jobs(runtime)]

    assert first.n_sent == 1
    assert sorted(states) == ["intent", "intent", "submitted"]
    _to_end(runtime, batch_id, clock)
    assert {job["state"] for job in _jobs(runtime)} == {"settled"}
    assert len(_jobs(runtime)) == 3


def test_waiting_for_an_hour_is_waiting_and_not_a_stall(
    runtime: Runtime, tmp_path: Path, clock: ManualClock
) -> None:
    """The last of three jobs goes out two hours after the first."""
    limits = "{max_requests: 2, creates_per_hour: 1}"
    began = clock()
    batch_id = ingest(runtime, _folder(tmp_path / "small", limits)).batch_id

    _to_end(runtime, batch_id, clock)

    with runtime.store.read() as db:
        row = db.one("SELECT state FROM batches WHERE batch_id = ?", [batch_id])
    assert row == {"state": "succeeded"}
    assert timedelta(hours=2) <= clock() - began < timedelta(hours=3)
