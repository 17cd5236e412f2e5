"""Single calls from end to end: several judges over three providers' SDKs, and what stops them."""

from __future__ import annotations

import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from cj_pipeline.batch.comparisons import RequestOutcome
from cj_pipeline.emulator import change_settings, in_process_client
from cj_pipeline.emulator.config import EmulatorConfig
from cj_pipeline.errors import (
    AccountRefusedError,
    StoreBusyError,
    TransientError,
    UncertainOutcomeError,
)
from cj_pipeline.live.retry import RetryRules
from cj_pipeline.operations.cancel import cancel
from cj_pipeline.queries.judges.comparison import compare_judges
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.batch_flags import BatchFlag, set_flag
from cj_pipeline.steps.collect_wave import collect_wave
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.next_step import NextStep, next_step
from cj_pipeline.steps.plan_wave import plan_wave
from cj_pipeline.steps.submit_wave import submit_wave
from cj_pipeline.store.file_store import FileStore
from cj_pipeline.store.session import Session
from tests.support.batches import TEST_RUN, ManualClock, write_batch

PANEL = ["quality", "quality-messages", "quality-gemini"]
QUICK = RetryRules(first_wait_s=0.001, longest_wait_s=0.002)


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands."""
    return ManualClock()


@pytest.fixture
def runtime(tmp_path: Path, clock: ManualClock) -> Runtime:
    """A runtime over a store in memory."""
    home = tmp_path / "home"
    home.mkdir()
    store = FileStore.in_memory()
    return Runtime(store, home, {}, TEST_RUN, clock=clock, retry_rules=QUICK)


def planned(runtime: Runtime, tmp_path: Path, n_students: int = 6, **settings: Any) -> str:
    """Take a batch in that judges by single calls, and plan its first wave."""
    given = {
        "judges": ["quality"],
        "llm_batching_mode": "per_request",
        "max_attempts": 1,
        "common_pairs": 1.0,
    }
    folder = write_batch(tmp_path / "live", n_students=n_students, settings=given | settings)
    batch_id = ingest(runtime, folder).batch_id
    plan_wave(runtime, batch_id)
    return batch_id


def go_wrong(runtime: Runtime, **fault: Any) -> None:
    """Let something go wrong at the emulator from now on; nothing where no fault is given."""
    config = EmulatorConfig.from_environment({}, runtime.home)
    change_settings(config, faults=[fault] if fault else [])


def paid_calls(runtime: Runtime) -> int:
    """Return how many calls the emulator was paid for, by its own books."""
    config = EmulatorConfig.from_environment({}, runtime.home)
    books = in_process_client(config).get("http://emulator.invalid/emulator/audit").json()
    return int(books["calls"]["paid"])


def rows(runtime: Runtime, sql: str) -> list[dict[str, Any]]:
    """Return what the store says."""
    with runtime.store.read() as db:
        return db.rows(sql)


def test_a_panel_over_three_providers_is_asked_at_once(runtime: Runtime, tmp_path: Path) -> None:
    """Each through its own SDK; what comes back is alike."""
    batch_id = planned(runtime, tmp_path, judges=PANEL, wave_size=4)

    submitted = submit_wave(runtime, batch_id)
    collected = collect_wave(runtime, batch_id)

    assert submitted.n_requests == 12
    assert collected.outcomes == {RequestOutcome.SUCCEEDED: 12}
    calls = rows(runtime, "FROM live_calls")
    assert len(calls) == 12
    assert {call["outcome"] for call in calls} == {"answered"}
    assert all(call["latency_s"] >= 0 and call["wait_s"] >= 0 for call in calls)
    assert rows(runtime, "SELECT min(tokens_prompt) > 0 AS told FROM attempts")[0]["told"]
    with runtime.store.read() as db:
        compared = compare_judges(db, batch_id)
    assert [judge.name for judge in compared.judges] == sorted(PANEL)
    assert {judge.n_verdicts for judge in compared.judges} == {4}
    assert all((judge.usd_per_verdict or 0) > 0 for judge in compared.judges)
    assert all(judge.mean_latency_s is not None for judge in compared.judges)
    assert [pair.n_items for pair in compared.pairs] == [4, 4, 4]
    assert compared.n_items_of_all == 4
    in_sql = {
        (row["judge_one"], row["judge_other"]): (row["n_items"], row["agreement"], row["kappa"])
        for row in rows(runtime, "FROM v_judge_pairs")
    }
    for pair in compared.pairs:
        one, other = sorted((pair.one, pair.other))
        assert in_sql[one, other] == pytest.approx((pair.n_items, pair.agreement, pair.kappa))


def test_outcomes_are_in_the_order_planned_whatever_landed_first(
    runtime: Runtime, tmp_path: Path
) -> None:
    """The same batch gives the same rows, so that a run can be repeated and compared."""
    batch_id = planned(runtime, tmp_path, n_students=8, wave_size=12)
    submit_wave(runtime, batch_id)
    collect_wave(runtime, batch_id)

    lines = rows(
        runtime,
        "SELECT c.line, p.sequence FROM callbacks c JOIN attempts a USING (custom_id)"
        " JOIN comparison_pairs p USING (comparison_id) ORDER BY c.line",
    )
    assert [row["line"] for row in lines] == list(range(1, 13))
    assert [row["sequence"] for row in lines] == sorted(row["sequence"] for row in lines)


def test_a_refusing_judge_holds_up_no_other(runtime: Runtime, tmp_path: Path) -> None:
    """Its calls fail with the provider's words; the others' are judged."""
    go_wrong(runtime, kind="status", on="anthropic*", status=400)
    batch_id = planned(runtime, tmp_path, judges=PANEL, wave_size=3)

    submit_wave(runtime, batch_id)
    collect_wave(runtime, batch_id)

    outcomes = rows(runtime, "SELECT outcome, count(*) AS n FROM attempts GROUP BY 1 ORDER BY 1")
    assert outcomes == [{"outcome": "provider_error", "n": 3}, {"outcome": "succeeded", "n": 6}]


def test_a_key_that_is_refused_waits_for_a_person_and_the_others_come_home(
    runtime: Runtime, tmp_path: Path
) -> None:
    """No comparison fails for a key that was mistyped; what the other judges say is kept."""
    go_wrong(runtime, kind="status", on="anthropic*", status=403)
    batch_id = planned(runtime, tmp_path, judges=PANEL, wave_size=3)

    with pytest.raises(AccountRefusedError, match="Check the key"):
        submit_wave(runtime, batch_id)
    collected = collect_wave(runtime, batch_id)

    assert collected.outcomes == {RequestOutcome.SUCCEEDED: 6}


def test_a_failing_judge_is_put_off_and_the_others_come_home(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its breaker is in the store for whoever watches, and its calls wait in the queue."""
    monkeypatch.setattr("cj_pipeline.live.dispatcher.PATIENCE_S", 0.5)
    go_wrong(runtime, kind="status", on="anthropic*", status=503)
    batch_id = planned(runtime, tmp_path, judges=PANEL, wave_size=4, priority="high")

    with pytest.raises(TransientError):
        submit_wave(runtime, batch_id)
    collected = collect_wave(runtime, batch_id)

    assert collected.outcomes == {RequestOutcome.SUCCEEDED: 8}
    (breaker,) = rows(runtime, "FROM circuit_breakers")
    assert (breaker["state"], breaker["provider"]) == ("open", "emulator")
    assert "503" in breaker["last_error"]
    (queue,) = rows(runtime, "FROM v_live_queue")
    assert (queue["n_waiting"], queue["priority"]) == (4, "high")
    assert queue["breaker_state"] == "open"
    assert queue["put_off_until"] is not None


def test_what_was_put_off_is_asked_when_its_provider_is_back(
    runtime: Runtime, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it counted as failed, and nothing answered is asked again."""
    monkeypatch.setattr("cj_pipeline.live.dispatcher.PATIENCE_S", 0.1)
    monkeypatch.setattr("cj_pipeline.live.circuit_breaker.FIRST_COOLDOWN_S", 0.3)
    go_wrong(runtime, kind="status", on="*chat.create", status=503)
    batch_id = planned(runtime, tmp_path, wave_size=4)
    with pytest.raises(TransientError):
        submit_wave(runtime, batch_id)

    go_wrong(runtime)
    clock.sleep(600)
    time.sleep(0.3)  # the breaker goes by the machine's clock
    submit_wave(runtime, batch_id)

    assert collect_wave(runtime, batch_id).outcomes == {RequestOutcome.SUCCEEDED: 4}
    assert paid_calls(runtime) == 4
    assert [row["state"] for row in rows(runtime, "FROM circuit_breakers")] == ["closed"]


def test_replies_that_never_reached_the_store_are_not_bought_again(
    runtime: Runtime, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are in the journal: the next process stores them before it asks anything."""

    def busy(*_: Any) -> None:
        msg = "busy"
        raise StoreBusyError(msg)

    batch_id = planned(runtime, tmp_path, n_students=8, wave_size=12)
    with monkeypatch.context() as dying:
        dying.setattr("cj_pipeline.provider_jobs.live_calls._insert", busy)
        with pytest.raises(StoreBusyError):
            submit_wave(runtime, batch_id)
    assert rows(runtime, "FROM callbacks") == []
    assert paid_calls(runtime) == 12

    clock.sleep(60)
    submit_wave(runtime, batch_id)

    assert collect_wave(runtime, batch_id).outcomes == {RequestOutcome.SUCCEEDED: 12}
    assert paid_calls(runtime) == 12
    assert not (runtime.home / "live-replies").exists() or not any(
        (runtime.home / "live-replies").iterdir()
    )


def test_work_that_is_too_late_ends_as_expired_with_a_callback(
    runtime: Runtime, tmp_path: Path, clock: ManualClock
) -> None:
    """Never silence: the comparison has an outcome, and the batch an end."""
    go_wrong(runtime, kind="status", on="*chat.create", status=429, retry_after="3600")
    late = {"result_ttl_seconds": 60, "wait_timeout_seconds": 1, "timeout_seconds": 1}
    batch_id = planned(runtime, tmp_path, wave_size=3, profile_set=late, max_attempts=3)
    with pytest.raises(TransientError):
        submit_wave(runtime, batch_id)

    clock.sleep(3600)
    submit_wave(runtime, batch_id)
    collected = collect_wave(runtime, batch_id)

    assert collected.outcomes == {RequestOutcome.EXPIRED: 3}
    assert [row["kind"] for row in rows(runtime, "FROM callbacks")] == ["expired"] * 3
    failed = rows(runtime, "SELECT failure_reason, n_attempts FROM comparisons")
    assert failed == [{"failure_reason": "expired", "n_attempts": 1}] * 3
    with runtime.store.read() as db:
        assert next_step(db, batch_id, clock()) is NextStep.DECIDE


def test_a_call_that_fails_every_try_has_an_outcome_and_a_callback(
    runtime: Runtime, tmp_path: Path
) -> None:
    """What is finished counts; what its provider cannot answer fails for itself alone."""
    lost = {"kind": "lost_reply", "on": "*chat.create", "at": (1, 2, 3)}
    go_wrong(runtime, **lost)
    batch_id = planned(runtime, tmp_path, wave_size=4, profile="smoke")

    submit_wave(runtime, batch_id)

    assert collect_wave(runtime, batch_id).outcomes == {
        RequestOutcome.SUCCEEDED: 3,
        RequestOutcome.PROVIDER_ERROR: 1,
    }
    (failed,) = rows(runtime, "FROM live_calls WHERE outcome = 'failed'")
    assert failed["n_tries"] == 3
    (doubt,) = rows(runtime, "SELECT usd FROM ledger WHERE kind = 'possible'")
    assert doubt["usd"] > 0


def test_a_cancelled_batch_keeps_what_was_paid_and_ends_the_rest(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was not asked by then has the outcome `cancelled`."""

    def a_person_cancels(db: Session, batch_id: str, now: Any, **_: Any) -> None:
        set_flag(db, batch_id, BatchFlag.CANCEL_REQUESTED, now)

    config = EmulatorConfig.from_environment({}, runtime.home)
    change_settings(config, call_latency_s=0.05)
    few = {"concurrency": 2, "queue": 1, "checkpoint_every": 2}
    batch_id = planned(runtime, tmp_path, n_students=12, wave_size=60, profile_set=few)
    monkeypatch.setattr("cj_pipeline.provider_jobs.live_calls.record_progress", a_person_cancels)

    submit_wave(runtime, batch_id)
    collected = collect_wave(runtime, batch_id)

    assert collected.outcomes[RequestOutcome.CANCELLED] > 40
    assert collected.outcomes[RequestOutcome.SUCCEEDED] == paid_calls(runtime) >= 2
    assert collected.n_requested == 60


def test_calls_that_were_put_off_end_at_once_when_their_batch_is_cancelled(
    runtime: Runtime, tmp_path: Path
) -> None:
    """Nobody waits for a provider whose answer nobody wants."""
    go_wrong(runtime, kind="status", on="*chat.create", status=429, retry_after="3600")
    batch_id = planned(
        runtime,
        tmp_path,
        wave_size=3,
        profile_set={"wait_timeout_seconds": 1, "timeout_seconds": 1},
    )
    with pytest.raises(TransientError):
        submit_wave(runtime, batch_id)

    cancel(runtime, batch_id)
    submit_wave(runtime, batch_id)

    assert collect_wave(runtime, batch_id).outcomes == {RequestOutcome.CANCELLED: 3}
    assert paid_calls(runtime) == 0


def test_a_serial_bundle_is_a_job_of_its_own(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to 64 in series; here three, so that the test is short."""
    monkeypatch.setattr(import_module("cj_pipeline.steps.submit_wave"), "BUNDLE", 3)
    batch_id = planned(runtime, tmp_path, wave_size=8, llm_batching_mode="serial_bundle")

    submit_wave(runtime, batch_id)

    sizes = rows(runtime, "SELECT n_requests FROM provider_jobs ORDER BY 1")
    assert [row["n_requests"] for row in sizes] == [2, 3, 3]
    (overlap,) = rows(
        runtime,
        "SELECT count(*) AS n FROM live_calls a JOIN live_calls b ON a.custom_id < b.custom_id"
        " WHERE a.sent_at < b.answered_at AND b.sent_at < a.answered_at",
    )
    assert overlap["n"] == 0
    assert collect_wave(runtime, batch_id).outcomes == {RequestOutcome.SUCCEEDED: 8}


def test_a_call_larger_than_its_accounts_limit_is_refused_with_the_numbers(
    runtime: Runtime, tmp_path: Path
) -> None:
    """It would wait for ever."""
    batch_id = planned(runtime, tmp_path, wave_size=2)
    with runtime.store.write() as db:
        db.execute(
            "UPDATE judges SET definition = json_merge_patch(definition,"
            ' \'{"limits": {"tokens_per_minute": 500}}\')'
        )

    submit_wave(runtime, batch_id)

    (job,) = rows(runtime, "SELECT state, error FROM provider_jobs")
    assert job["state"] == "refused"
    assert "tokens_per_minute" in job["error"]


def test_a_batch_taken_up_by_another_process_is_left_to_it(
    runtime: Runtime, tmp_path: Path
) -> None:
    """Whoever makes the calls holds a lease, and renews it."""
    batch_id = planned(runtime, tmp_path, wave_size=2)
    submit_wave(runtime, batch_id)
    with runtime.store.write() as db:
        db.execute(
            "UPDATE provider_jobs SET state = 'running', lease_owner = 'elsewhere:1',"
            " lease_until = ?",
            [runtime.clock().replace(year=2027)],
        )

    assert submit_wave(replace(runtime), batch_id).n_sent == 0


class _Breaking(Runtime):
    """An runtime whose single calls break before the first one, as by a fault in this program."""

    def provider(self, judge: Any) -> Any:
        """Return the provider without a way to make single calls."""
        return _BrokenProvider(super().provider(judge))


class _BrokenProvider:
    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def live(self, http: Any) -> Any:
        """Break."""
        msg = "a fault in this program"
        raise RuntimeError(msg)


def test_a_run_that_breaks_leaves_its_calls_to_whoever_comes_next(
    runtime: Runtime, tmp_path: Path
) -> None:
    """Its process may live on, and nobody has to wait until its lease runs out."""
    batch_id = planned(runtime, tmp_path, judges=PANEL, wave_size=3)
    breaking = _Breaking(runtime.store, runtime.home, {}, TEST_RUN, clock=runtime.clock)
    with pytest.raises(RuntimeError, match="a fault in this program"):
        submit_wave(breaking, batch_id)

    assert submit_wave(runtime, batch_id).n_sent == 3
    assert collect_wave(runtime, batch_id).outcomes == {RequestOutcome.SUCCEEDED: 9}


class _DyingProvider(_BrokenProvider):
    """A provider that answers every call, and whose caller dies after the second answer."""

    def live(self, http: Any) -> Any:
        """Answer, and die before the answer is had."""
        inner = self._inner.live(http)

        class _Live:
            n_answered = 0

            async def single(self, request: Any, *, timeout_s: float) -> str:
                body: str = await inner.single(request, timeout_s=timeout_s)
                self.n_answered += 1
                if self.n_answered > 2:
                    msg = "killed"
                    raise RuntimeError(msg)
                return body

        return _Live()


class _Dying(Runtime):
    def provider(self, judge: Any) -> Any:
        """Return a provider whose caller dies."""
        return _DyingProvider(super().provider(judge))


def test_calls_in_flight_at_a_kill_are_in_doubt(runtime: Runtime, tmp_path: Path) -> None:
    """They were answered and paid for, and nobody has the answers: the bill will have them."""
    batch_id = planned(runtime, tmp_path, wave_size=6, profile_set={"concurrency": 3})
    dying = _Dying(runtime.store, runtime.home, {}, TEST_RUN, clock=runtime.clock)
    with pytest.raises(RuntimeError, match="killed"):
        submit_wave(dying, batch_id)
    paid_before = paid_calls(runtime)

    submit_wave(runtime, batch_id)
    collect_wave(runtime, batch_id)

    (doubt,) = rows(
        runtime, "SELECT coalesce(sum(usd), 0) AS usd FROM ledger WHERE kind = 'possible'"
    )
    reserved = [r["usd"] for r in rows(runtime, "SELECT reserved_usd AS usd FROM attempts")]
    n_lost = paid_calls(runtime) - 6
    assert (n_lost, paid_before) == (paid_before - 2, n_lost + 2)
    assert n_lost >= 1
    assert n_lost * min(reserved) <= doubt["usd"] + 1e-12
    assert doubt["usd"] <= 3 * max(reserved) + 1e-12, "three were in flight, no more"


def test_calls_in_doubt_leave_no_job_to_look_for(
    runtime: Runtime, tmp_path: Path, clock: ManualClock
) -> None:
    """A single call cannot be found at its provider: it is made again, and both may be billed."""
    go_wrong(runtime, kind="lost_reply", on="*chat.create")
    impatient = {"wait_timeout_seconds": 1, "timeout_seconds": 1}
    batch_id = planned(runtime, tmp_path, wave_size=4, profile_set=impatient)
    slow = replace(runtime, retry_rules=RetryRules(first_wait_s=1e6, longest_wait_s=1e6))
    with pytest.raises(UncertainOutcomeError):
        submit_wave(slow, batch_id)
    states = rows(runtime, "SELECT state FROM provider_jobs")

    go_wrong(runtime)
    clock.sleep(600)
    submit_wave(runtime, batch_id)

    assert states == [{"state": "running"}]
    assert collect_wave(runtime, batch_id).outcomes == {RequestOutcome.SUCCEEDED: 4}
    (doubt,) = rows(runtime, "SELECT sum(usd) AS usd FROM ledger WHERE kind = 'possible'")
    (reserved,) = rows(runtime, "SELECT sum(usd) AS usd FROM ledger WHERE kind = 'reserved'")
    assert doubt["usd"] == pytest.approx(reserved["usd"], rel=0.01)


def test_calls_go_on_from_the_account_of_today(
    runtime: Runtime, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that was rotated between two tries costs nobody an answer: what came is stored."""
    monkeypatch.setattr("cj_pipeline.live.dispatcher.PATIENCE_S", 0.1)
    go_wrong(runtime, kind="status", on="*chat.create", status=503)
    batch_id = planned(runtime, tmp_path, wave_size=4)
    with pytest.raises(TransientError):
        submit_wave(runtime, batch_id)
    (begun,) = rows(runtime, "SELECT state FROM provider_jobs")
    with runtime.store.write() as db:
        db.execute("UPDATE provider_jobs SET account = 'emulator-elsewhere'")
    change_settings(EmulatorConfig.from_environment({}, runtime.home), faults=[])
    clock.sleep(600)
    monkeypatch.undo()  # the model is left alone for a second, which the calls wait for

    submit_wave(runtime, batch_id)

    assert begun == {"state": "running"}
    assert paid_calls(runtime) == 4


def test_calls_that_have_not_begun_go_out_from_the_account_of_today(
    runtime: Runtime, tmp_path: Path, clock: ManualClock
) -> None:
    """As after a mistyped key: nothing was paid under it."""
    go_wrong(runtime, kind="status", on="*chat.create", status=401)
    batch_id = planned(runtime, tmp_path, wave_size=4)
    with pytest.raises(AccountRefusedError):
        submit_wave(runtime, batch_id)
    (before,) = rows(runtime, "SELECT state, account FROM provider_jobs")
    with runtime.store.write() as db:
        db.execute("UPDATE provider_jobs SET account = 'emulator-mistyped'")
    go_wrong(runtime)
    clock.sleep(600)

    submit_wave(runtime, batch_id)

    (after,) = rows(runtime, "SELECT state, account FROM provider_jobs")
    assert (before["state"], after["state"]) == ("intent", "ended")
    assert after["account"] == before["account"]
    assert paid_calls(runtime) == 4
