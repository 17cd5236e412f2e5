"""Every batch ends: a stall is counted from intake, and only a stated wait stops the clock."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from cj_pipeline.errors import ProviderUnavailableError, SettingsError, StoreBusyError
from cj_pipeline.queries.overview import put_off
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.plan_wave import plan_wave
from cj_pipeline.steps.poll import poll
from cj_pipeline.steps.step_failures import failing_step, recorded
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
def ingested(runtime: Runtime, tmp_path: Path) -> str:
    """A batch of which nothing was planned or sent."""
    folder = write_batch(tmp_path / "spring-9", n_students=4, settings=MOCK)
    return ingest(runtime, folder).batch_id


@pytest.fixture
def batch_id(runtime: Runtime, ingested: str) -> str:
    """A batch whose first wave was sent."""
    plan_wave(runtime, ingested)
    submit_wave(runtime, ingested)
    return ingested


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


def test_a_batch_that_was_never_sent_ends_too(
    runtime: Runtime, ingested: str, clock: ManualClock
) -> None:
    """Without a key nothing is ever in flight; the clock runs all the same."""
    clock.sleep(3601)

    decided = end_stalled(runtime, ingested)

    assert decided.reason == "stalled"


def test_a_batch_that_waits_for_a_key_is_not_ended(
    runtime: Runtime, batch_id: str, clock: ManualClock
) -> None:
    """It says what it waits for, and the same batch goes on once the key is there."""
    with runtime.store.write() as db:
        db.execute("UPDATE provider_jobs SET waiting_for = 'key', error = 'refused'")
    clock.sleep(3601)

    with runtime.store.read() as db:
        assert stalled_batches(db, clock()) == []


def _fail(runtime: Runtime, batch_id: str, error: Exception) -> None:
    """Let a step of a batch fail."""
    with pytest.raises(type(error)), recorded(runtime, batch_id, "provider_jobs"):
        raise error


def test_a_step_that_fails_leaves_its_reason_where_the_status_finds_it(
    runtime: Runtime, ingested: str, clock: ManualClock
) -> None:
    """And each further failure is counted, until a step succeeds."""
    for _ in range(2):
        _fail(runtime, ingested, SettingsError("Judge 'gpt': set OPENAI_API_KEY"))
        clock.sleep(60)

    with runtime.store.read() as db:
        waits = db.one("SELECT waiting_for, reason FROM v_batch_waiting")
        row = db.one("SELECT n_failures, last_failed_at - first_failed_at AS d FROM step_failures")
    assert waits == {"waiting_for": "person", "reason": "Judge 'gpt': set OPENAI_API_KEY"}
    assert row == {"n_failures": 2, "d": timedelta(seconds=60)}

    with recorded(runtime, ingested, "provider_jobs"):
        pass

    with runtime.store.read() as db:
        assert db.rows("FROM v_batch_waiting") == []
        assert failing_step(db, ingested) is None


def test_what_a_provider_put_off_waits_for_nobody(
    runtime: Runtime, batch_id: str, clock: ManualClock
) -> None:
    """The ledger tries it again by itself; what fails after that time is told to somebody."""
    said = "answered 429: slow down"
    with runtime.store.write() as db:
        db.execute(
            "UPDATE provider_jobs SET state = 'intent', provider_job_id = NULL, error = ?,"
            " next_poll_at = ?",
            [said, clock() + timedelta(hours=1)],
        )
    _fail(runtime, batch_id, ProviderUnavailableError(said, retry_after_s=3600, status=429))

    with runtime.store.read() as db:
        assert failing_step(db, batch_id) == "provider_jobs"
        assert db.rows("FROM v_batch_waiting") == []
        assert put_off(db, batch_id) != []

    clock.sleep(3700)
    _fail(runtime, batch_id, SettingsError("Judge 'gpt': set OPENAI_API_KEY"))

    with runtime.store.read() as db:
        waits = db.one("SELECT waiting_for FROM v_batch_waiting")
    assert waits == {"waiting_for": "person"}


def test_a_fault_nobody_foresaw_is_named_by_its_kind_alone(runtime: Runtime, ingested: str) -> None:
    """Its text may hold an essay, or a key."""
    _fail(runtime, ingested, KeyError("sk-secret"))

    with runtime.store.read() as db:
        row = db.one("SELECT reason FROM step_failures")
    assert row == {"reason": "a fault (KeyError)"}


def test_a_busy_store_is_no_failure_of_the_batch(runtime: Runtime, ingested: str) -> None:
    """It passes by itself, and says nothing of the batch."""
    _fail(runtime, ingested, StoreBusyError("busy"))

    with runtime.store.read() as db:
        assert failing_step(db, ingested) is None


def test_a_service_whose_jobs_may_run_longer_is_waited_for_longer(
    runtime: Runtime, tmp_path: Path, clock: ManualClock
) -> None:
    """Azure's jobs never expire; its definition says how long silence is no sign."""
    runtime.providers_folder.mkdir(parents=True)
    (runtime.providers_folder / "slow.yaml").write_text(
        "{name: slow, like: vllm, stall_after_s: 7200}"
    )
    folder = write_batch(
        tmp_path / "slow-9",
        n_students=4,
        settings={"judges": ["lab"], "llm_batching_mode": "per_request", "stall_after_s": 3600},
    )
    (folder / "judges").mkdir()
    (folder / "judges" / "lab.yaml").write_text("{name: lab, provider: slow, model: m}")
    slow = ingest(runtime, folder).batch_id

    with runtime.store.read() as db:
        at = {s: stalled_batches(db, clock() + timedelta(seconds=s)) for s in (3700, 7300)}
    assert at[3700] == []
    assert [stalled.batch_id for stalled in at[7300]] == [slow]
