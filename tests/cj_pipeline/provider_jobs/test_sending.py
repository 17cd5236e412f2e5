"""What is sent is sent once: doubt is kept, looked into, and never mistaken for absence."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cj_pipeline.emulator import change_settings, in_process_client
from cj_pipeline.emulator.config import EmulatorConfig
from cj_pipeline.errors import (
    AccountRefusedError,
    AmbiguousSubmissionError,
    ProviderUnavailableError,
    UncertainOutcomeError,
)
from cj_pipeline.judging.judges import load_judge
from cj_pipeline.operations.cancel import cancel
from cj_pipeline.provider_jobs.adoption import adopt_if_found
from cj_pipeline.providers.base import account_fingerprint
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.collect_wave import collect_wave
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.plan_wave import plan_wave
from cj_pipeline.steps.poll import poll
from cj_pipeline.steps.submit_wave import submit_wave
from cj_pipeline.steps.watchdog import end_stalled
from tests.support.batches import ManualClock, finish, open_engine, write_batch

PANEL = ["quality", "quality-messages"]
ALL_AT_ONCE = {"all_at_once": True, "max_resampling_passes_for_regular_net": 0}


@pytest.fixture
def clock() -> ManualClock:
    """A clock that moves only when told."""
    return ManualClock()


@pytest.fixture
def runtime(tmp_path: Path, clock: ManualClock) -> Runtime:
    """A runtime over an empty home."""
    return open_engine(tmp_path / "home", clock=clock)


def emulate(runtime: Runtime, **settings: object) -> None:
    """Change the embedded emulator's settings."""
    change_settings(EmulatorConfig.from_environment({}, runtime.home), **settings)


def books(runtime: Runtime) -> dict[str, Any]:
    """Return what the emulator says was really made and paid."""
    config = EmulatorConfig.from_environment({}, runtime.home)
    told: dict[str, Any] = (
        in_process_client(config).get("http://emulator.invalid/emulator/audit").json()
    )
    return told


def planned(runtime: Runtime, tmp_path: Path, judge: str = "quality", **settings: Any) -> str:
    """Take a batch of four essays in and plan its six comparisons."""
    folder = write_batch(
        tmp_path / "batch", n_students=4, settings={"judges": [judge], **ALL_AT_ONCE, **settings}
    )
    batch_id = ingest(runtime, folder).batch_id
    plan_wave(runtime, batch_id)
    return batch_id


def jobs(runtime: Runtime) -> list[dict[str, Any]]:
    """Return the ledger's jobs."""
    with runtime.store.read() as db:
        return db.rows("SELECT * FROM provider_jobs ORDER BY submission_key")


def job(runtime: Runtime) -> dict[str, Any]:
    """Return the ledger's only job."""
    (row,) = jobs(runtime)
    return row


def as_if_killed(runtime: Runtime) -> None:
    """Let the lease be that of a process that is no more."""
    with runtime.store.write() as db:
        db.execute("UPDATE provider_jobs SET lease_until = ?", [runtime.clock()])


def test_an_upload_whose_reply_was_lost_is_found_by_its_name(
    runtime: Runtime, tmp_path: Path, clock: ManualClock
) -> None:
    """It costs nothing, so nobody waits and nothing is in doubt; but it is sent once."""
    emulate(runtime, faults=[{"kind": "lost_reply", "on": "*files.create", "at": [1]}])
    batch_id = planned(runtime, tmp_path)

    with pytest.raises(ProviderUnavailableError):
        submit_wave(runtime, batch_id)
    state = job(runtime)["state"]
    clock.sleep(10)
    submit_wave(runtime, batch_id)

    assert state == "intent"
    assert job(runtime)["state"] == "submitted"
    assert (len(books(runtime)["files"]), len(books(runtime)["jobs"])) == (1, 1)


def test_absence_from_a_list_that_lags_proves_nothing(
    runtime: Runtime, tmp_path: Path, clock: ManualClock
) -> None:
    """The job was made, its reply was lost, and its provider does not list it yet."""
    emulate(
        runtime,
        list_lag_s=3600,
        faults=[{"kind": "lost_reply", "on": "*batches.create", "at": [1]}],
    )
    batch_id = planned(runtime, tmp_path)
    with pytest.raises(UncertainOutcomeError):
        submit_wave(runtime, batch_id)

    clock.sleep(30)
    with pytest.raises(UncertainOutcomeError, match="may lag"):
        submit_wave(runtime, batch_id)
    state = job(runtime)["state"]
    _put_forward(runtime, 7200)
    clock.sleep(30)
    sent = submit_wave(runtime, batch_id)

    assert (state, sent.n_adopted) == ("ambiguous", 1)
    assert len(books(runtime)["jobs"]) == 1


def test_a_kill_between_a_create_and_its_reply_is_a_doubt_too(
    runtime: Runtime, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody was told of any error; the ledger only knows that a create had begun."""
    emulate(runtime, list_lag_s=3600)
    batch_id = planned(runtime, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr("cj_pipeline.provider_jobs.sending.record_submission", _die)
        with pytest.raises(KeyboardInterrupt):
            submit_wave(runtime, batch_id)
    as_if_killed(runtime)

    with pytest.raises(UncertainOutcomeError, match="may lag"):
        submit_wave(runtime, batch_id)
    _put_forward(runtime, 7200)
    clock.sleep(60)
    submit_wave(runtime, batch_id)

    assert job(runtime)["state"] == "adopted"
    assert len(books(runtime)["jobs"]) == 1


@pytest.mark.parametrize(
    "judge",
    [
        *("quality", "quality-messages", "quality-gemini"),
        *("quality-mistral", "quality-xai", "quality-openrouter"),
    ],
)
def test_a_job_is_found_though_our_clock_is_set_to_the_wrong_day(
    runtime: Runtime, tmp_path: Path, clock: ManualClock, judge: str
) -> None:
    """By the provider's clock it was made long before it was meant to; a second one is paid for."""
    clock.now = datetime.now(UTC) + timedelta(hours=20)
    emulate(runtime, faults=[{"kind": "lost_reply", "on": "*batches.create", "at": [1]}])
    batch_id = planned(runtime, tmp_path, judge)
    with pytest.raises(UncertainOutcomeError):
        submit_wave(runtime, batch_id)

    clock.sleep(7200)
    submit_wave(runtime, batch_id)

    assert job(runtime)["state"] == "adopted"
    assert len(books(runtime)["jobs"]) == 1


def _die(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_request_that_never_arrived_is_sent_again_once_the_list_must_show_it(
    runtime: Runtime, tmp_path: Path, clock: ManualClock
) -> None:
    """From outside it looks like a lost reply, so the same is done until it is proved absent."""
    emulate(runtime, faults=[{"kind": "lost_request", "on": "*batches.create", "at": [1]}])
    batch_id = planned(runtime, tmp_path)
    with pytest.raises(UncertainOutcomeError):
        submit_wave(runtime, batch_id)

    clock.sleep(91)
    sent = submit_wave(runtime, batch_id)

    assert (sent.n_sent, sent.n_adopted) == (1, 0)
    assert len(books(runtime)["jobs"]) == 1


def test_not_being_let_look_is_no_proof_that_there_is_nothing(
    runtime: Runtime, tmp_path: Path, clock: ManualClock
) -> None:
    """A list that is refused must not end a job that may be running, nor make another."""
    emulate(runtime, faults=[{"kind": "lost_reply", "on": "*batches.create", "at": [1]}])
    batch_id = planned(runtime, tmp_path)
    with pytest.raises(UncertainOutcomeError):
        submit_wave(runtime, batch_id)
    emulate(runtime, faults=[{"kind": "status", "on": "*.list", "status": 403}])
    clock.sleep(600)

    with pytest.raises(AmbiguousSubmissionError):
        submit_wave(runtime, batch_id)

    assert job(runtime)["state"] == "ambiguous"
    assert len(books(runtime)["jobs"]) == 1


def test_a_job_made_twice_is_kept_once_and_the_other_is_paid_off(
    runtime: Runtime, tmp_path: Path, clock: ManualClock
) -> None:
    """What the extra job had finished is stored and billed, and none of it counts."""
    emulate(runtime, faults=[{"kind": "lost_reply", "on": "*batches.create", "at": [1]}])
    batch_id = planned(runtime, tmp_path)
    with pytest.raises(UncertainOutcomeError):
        submit_wave(runtime, batch_id)
    extra = runtime.provider(load_judge("quality")).create(
        Path(), job(runtime)["input_file_id"], job(runtime)["submission_key"]
    )

    clock.sleep(10)
    submit_wave(runtime, batch_id)
    poll(runtime)
    collect_wave(runtime, batch_id)

    with runtime.store.read() as db:
        (duplicate,) = db.rows("FROM duplicate_jobs")
        states = {r["state"] for r in db.rows("SELECT state FROM v_provider_jobs")}
        verdicts = db.one("SELECT count(*) AS n FROM comparisons")
        billed = db.rows("SELECT usd FROM ledger WHERE kind = 'billed'")
    assert {duplicate["provider_job_id"], job(runtime)["provider_job_id"]} == {
        told["job_id"] for told in books(runtime)["jobs"]
    }
    assert extra in {duplicate["provider_job_id"], job(runtime)["provider_job_id"]}
    assert states == {"settled", "duplicate"}
    assert (duplicate["state"], duplicate["n_paid"]) == ("settled", 6)
    assert verdicts == {"n": 6}
    assert len(billed) == 2
    assert duplicate["billed_usd"] == pytest.approx(job(runtime)["billed_usd"])


def test_a_duplicate_whose_results_are_refused_is_asked_again(
    runtime: Runtime, tmp_path: Path, clock: ManualClock
) -> None:
    """What it finished is paid for, and a refusal before its results expire proves nothing."""
    emulate(runtime, faults=[{"kind": "lost_reply", "on": "*batches.create", "at": [1]}])
    batch_id = planned(runtime, tmp_path)
    with pytest.raises(UncertainOutcomeError):
        submit_wave(runtime, batch_id)
    runtime.provider(load_judge("quality")).create(
        Path(), job(runtime)["input_file_id"], job(runtime)["submission_key"]
    )
    emulate(runtime, faults=[{"kind": "status", "on": "*files.content", "status": 404, "at": [1]}])

    clock.sleep(10)
    submit_wave(runtime, batch_id)
    poll(runtime)
    with runtime.store.read() as db:
        (refused,) = db.rows("FROM duplicate_jobs")
    clock.sleep(3600)
    poll(runtime)
    with runtime.store.read() as db:
        (settled,) = db.rows("FROM duplicate_jobs")

    assert (refused["state"], refused["billed_usd"]) == ("duplicate", None)
    assert "404" in refused["error"]
    assert (settled["state"], settled["n_paid"]) == ("settled", 6)


def test_a_job_that_is_not_in_doubt_is_never_taken_for_one_that_is(
    runtime: Runtime, tmp_path: Path, clock: ManualClock
) -> None:
    """Anthropic keeps no name of ours: two shards of one size look alike until they end."""
    emulate(runtime, latency_s=3600)
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    first = planned(runtime, tmp_path / "one", "quality-messages")
    submit_wave(runtime, first)
    emulate(runtime, faults=[{"kind": "lost_request", "on": "*batches.create", "at": [1]}])
    folder = write_batch(
        tmp_path / "two" / "other",
        n_students=4,
        settings={"judges": ["quality-messages"], **ALL_AT_ONCE},
    )
    second = ingest(runtime, folder).batch_id
    plan_wave(runtime, second)
    with pytest.raises(UncertainOutcomeError):
        submit_wave(runtime, second)

    clock.sleep(91)
    sent = submit_wave(runtime, second)

    assert (sent.n_sent, sent.n_adopted) == (1, 0)
    assert len(books(runtime)["jobs"]) == 2


def test_anthropics_job_in_doubt_waits_for_its_end_and_is_then_known_by_its_rows(
    runtime: Runtime, tmp_path: Path, clock: ManualClock
) -> None:
    """While it runs nothing proves whose it is, so it is neither adopted nor made again."""
    emulate(
        runtime,
        latency_s=3600,
        faults=[
            {"kind": "lost_reply", "on": "*batches.create", "at": [1]},
            # Its first row tells nothing.
            {"kind": "garbled", "at": [1]},
        ],
        in_order=True,
    )
    batch_id = planned(runtime, tmp_path, "quality-messages")
    with pytest.raises(UncertainOutcomeError):
        submit_wave(runtime, batch_id)
    clock.sleep(600)
    with pytest.raises(UncertainOutcomeError, match="still running"):
        submit_wave(runtime, batch_id)

    emulate(runtime, latency_s=0)
    _put_forward(runtime, 7200)
    clock.sleep(7200)
    sent = submit_wave(runtime, batch_id)

    assert sent.n_adopted == 1
    assert len(books(runtime)["jobs"]) == 1


def _put_forward(runtime: Runtime, seconds: float) -> None:
    config = EmulatorConfig.from_environment({}, runtime.home)
    in_process_client(config).post(
        "http://emulator.invalid/emulator/clock", json={"seconds": seconds}
    )


def test_a_lease_that_ran_out_creates_nothing(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was held up while it wrote its file finds that another has the job now."""
    batch_id = planned(runtime, tmp_path)
    provider = runtime.provider(load_judge("quality"))
    upload = type(provider).upload

    def slow_upload(self: Any, shard: Path, key: str) -> str | None:
        with runtime.store.write() as db:
            db.execute("UPDATE provider_jobs SET lease_owner = 'elsewhere:1'")
        return upload(self, shard, key)

    monkeypatch.setattr(type(provider), "upload", slow_upload)
    sent = submit_wave(runtime, batch_id)

    assert sent.n_sent == 0
    assert books(runtime)["jobs"] == []


def with_key(runtime: Runtime, monkeypatch: pytest.MonkeyPatch, key: str) -> Runtime:
    """Return the same pipeline in a process that has this key; up to `--` it names the account."""
    monkeypatch.setattr("cj_pipeline.providers.registry.require_key", lambda *_: key)
    return open_engine(runtime.home, clock=runtime.clock)


def held_usd(runtime: Runtime) -> float:
    """Return what is reserved and neither billed nor released."""
    with runtime.store.read() as db:
        row = db.one(
            "SELECT sum(CASE kind WHEN 'reserved' THEN usd WHEN 'released' THEN -usd ELSE 0 END)"
            " AS usd FROM ledger"
        )
    return float(row["usd"]) if row else 0.0


@pytest.mark.parametrize(
    "judge",
    [
        *("quality", "quality-messages", "quality-gemini"),
        *("quality-mistral", "quality-xai", "quality-openrouter"),
    ],
)
def test_a_job_outlives_the_key_that_made_it(
    runtime: Runtime,
    tmp_path: Path,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    judge: str,
) -> None:
    """Keys are rotated; a job that bears our submission key is ours, whatever key asks."""
    emulate(runtime, latency_s=60)
    old = with_key(runtime, monkeypatch, "school--old")
    batch_id = planned(old, tmp_path, judge)
    submit_wave(old, batch_id)

    new = with_key(runtime, monkeypatch, "school--new")
    clock.sleep(90)
    emulate(runtime, latency_s=0)
    in_process_client(EmulatorConfig.from_environment({}, runtime.home)).post(
        "http://emulator.invalid/emulator/clock", json={"seconds": 90}
    )
    poll(new)
    collect_wave(new, batch_id)

    assert (job(new)["state"], len(books(new)["jobs"])) == ("settled", 1)
    assert job(new)["billed_usd"] > 0


def test_another_account_sees_no_job_and_nothing_is_bought_twice(
    runtime: Runtime, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There it seems not to exist. Cancelled, it may go on and cost, and the ledger says so."""
    emulate(runtime, latency_s=3600)
    right = with_key(runtime, monkeypatch, "school")
    batch_id = planned(right, tmp_path)
    submit_wave(right, batch_id)
    wrong = with_key(runtime, monkeypatch, "stranger")

    poll(wrong)
    told = job(wrong)
    cancelled = cancel(wrong, batch_id)
    finish(wrong, batch_id)
    while_unseen = (job(wrong)["state"], held_usd(wrong))

    assert (told["state"], told["waiting_for"]) == ("submitted", "key")
    assert "Set the key of that account" in told["error"]
    assert cancelled.n_jobs == 0
    assert "could not be asked to stop, and may go on and be paid for" in cancelled.problems[0]
    assert while_unseen == ("submitted", pytest.approx(told["reserved_usd"]))
    # The account's own key, whenever it is back, has it stopped, and brings home what it did.
    right = with_key(runtime, monkeypatch, "school--rotated")
    clock.sleep(7200)
    poll(right)
    told_to_stop = job(right)["cancel_sent_at"]
    clock.sleep(7200)
    poll(right)
    collect_wave(right, batch_id)
    assert told_to_stop is not None
    assert (job(right)["state"], held_usd(right)) == ("settled", pytest.approx(0))
    assert len(books(right)["jobs"]) == 1


def test_cancelling_again_tells_a_job_that_could_not_be_told(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the message of the first time says."""
    emulate(runtime, latency_s=3600)
    right = with_key(runtime, monkeypatch, "school")
    batch_id = planned(right, tmp_path)
    submit_wave(right, batch_id)
    wrong = with_key(runtime, monkeypatch, "stranger")
    poll(wrong)
    cancel(wrong, batch_id)
    finish(wrong, batch_id)

    told = cancel(with_key(runtime, monkeypatch, "school"), batch_id)

    assert (told.n_jobs, told.problems) == (1, ())


def test_a_submission_in_doubt_stays_with_its_credentials(
    runtime: Runtime, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may exist there; the account's next key finds it."""
    emulate(runtime, faults=[{"kind": "lost_reply", "on": "*batches.create", "at": [1]}])
    right = with_key(runtime, monkeypatch, "school")
    batch_id = planned(right, tmp_path)
    with pytest.raises(UncertainOutcomeError):
        submit_wave(right, batch_id)
    clock.sleep(600)

    with pytest.raises(AmbiguousSubmissionError, match="another key or address"):
        submit_wave(with_key(runtime, monkeypatch, "stranger"), batch_id)
    without_it = job(runtime)["state"]
    clock.sleep(600)
    submit_wave(with_key(runtime, monkeypatch, "school--rotated"), batch_id)

    assert len(books(runtime)["jobs"]) == 1
    assert (without_it, job(runtime)["state"]) == ("ambiguous", "adopted")


def test_a_mistyped_key_costs_a_batch_nothing(
    runtime: Runtime, tmp_path: Path, clock: ManualClock
) -> None:
    """What never left waits for the right key, and goes out with it, whatever account that is."""
    emulate(runtime, faults=[{"kind": "status", "on": "*files.create", "status": 401}])
    batch_id = planned(runtime, tmp_path)
    with pytest.raises(AccountRefusedError, match="Check the key"):
        submit_wave(runtime, batch_id)
    state = job(runtime)["state"]

    emulate(runtime, faults=[])
    with runtime.store.write() as db:
        db.execute("UPDATE provider_jobs SET account = 'emulator-mistyped'")
    submit_wave(runtime, batch_id)

    assert state == "intent"
    assert job(runtime)["state"] == "submitted"
    assert job(runtime)["account"] == runtime.provider(load_judge("quality")).account


def test_an_account_is_a_key_at_an_address() -> None:
    """Either changed is another account, and the key cannot be read from it."""
    one = account_fingerprint("openai", "https://a.invalid/v1", "sk-1")

    assert one != account_fingerprint("openai", "https://a.invalid/v1", "sk-2")
    assert one != account_fingerprint("openai", "https://b.invalid/v1", "sk-1")
    assert "sk-1" not in one


def test_adopting_creates_nothing(runtime: Runtime, tmp_path: Path) -> None:
    """The doctor may try it at any time: what was never sent stays unsent."""
    batch_id = planned(runtime, tmp_path)
    change = replace(runtime)
    emulate(runtime, faults=[{"kind": "status", "on": "*files.create", "status": 503}])
    with pytest.raises(ProviderUnavailableError):
        submit_wave(runtime, batch_id)
    emulate(runtime, faults=[])

    assert not adopt_if_found(change, batch_id, job(runtime)["submission_key"])
    assert books(runtime)["jobs"] == []


def test_rows_a_provider_cancelled_are_asked_again(
    runtime: Runtime, tmp_path: Path, clock: ManualClock
) -> None:
    """Nobody here wanted them cancelled; those that were done are kept and not asked again."""
    emulate(runtime, faults=[{"kind": "is_cancelled", "share": 0.5, "at": [1]}])
    batch_id = planned(runtime, tmp_path)

    finish(replace(runtime, clock=open_engine(tmp_path / "x").clock), batch_id)

    with runtime.store.read() as db:
        outcomes = db.rows(
            "SELECT attempt, outcome, count(*) AS n FROM attempts GROUP BY ALL ORDER BY ALL"
        )
    counts = {(row["attempt"], row["outcome"]): row["n"] for row in outcomes}
    assert counts == {(1, "cancelled"): 3, (1, "succeeded"): 3, (2, "succeeded"): 3}
    assert books(runtime)["paid_twice"] == []


def test_each_cause_has_its_own_budget(runtime: Runtime, tmp_path: Path) -> None:
    """Three expired jobs say nothing about the judge: it still has its second chance."""
    real = replace(runtime, clock=open_engine(tmp_path / "x").clock)
    emulate(
        runtime,
        faults=[
            {"kind": "expires", "share": 0.0, "at": [1, 2]},
            {"kind": "invalid_output", "on": "*", "rate": 1.0},
        ],
    )
    batch_id = planned(runtime, tmp_path, max_attempts=3, max_answers_without_verdict=100)

    finish(real, batch_id)

    with runtime.store.read() as db:
        rows = db.rows(
            "SELECT list(outcome ORDER BY attempt) AS outcomes FROM attempts GROUP BY comparison_id"
        )
    assert {tuple(row["outcomes"]) for row in rows} == {
        ("expired", "expired", "invalid_output", "invalid_output", "invalid_output")
    }


def test_results_that_are_gone_for_good_are_in_doubt_and_hold_nothing_up(
    runtime: Runtime, tmp_path: Path, clock: ManualClock
) -> None:
    """Before their time is over a refusal proves nothing: they are asked for again."""
    month = 40 * 24 * 3600
    batch_id = planned(runtime, tmp_path, max_attempts=1, incomplete_after_s=month)
    submit_wave(runtime, batch_id)
    poll(runtime)
    emulate(runtime, faults=[{"kind": "status", "on": "*.retrieve", "status": 404}])
    expiry = job(runtime)["results_expire_at"]

    collect_wave(runtime, batch_id)
    before = job(runtime)
    clock.now = expiry + timedelta(hours=1)
    collected = collect_wave(runtime, batch_id)

    assert (before["state"], before["waiting_for"]) == ("incomplete", "rows")
    assert "404" in before["error"]
    assert {kind.value: n for kind, n in collected.outcomes.items()} == {"missing": 6}
    after = job(runtime)
    assert (after["state"], after["billed_usd"], after["next_poll_at"]) == ("settled", 0, None)
    assert after["possible_usd"] == pytest.approx(after["reserved_usd"])


def test_late_results_of_an_ended_batch_are_stored_and_billed_and_count_for_nothing(
    runtime: Runtime, tmp_path: Path, clock: ManualClock
) -> None:
    """The batch stalled; its job, told to stop, had finished all the same."""
    emulate(runtime, latency_s=50 * 3600)
    batch_id = planned(runtime, tmp_path)
    submit_wave(runtime, batch_id)
    clock.sleep(40 * 3600)
    end_stalled(runtime, batch_id)
    finish(runtime, batch_id)
    clock.sleep(600)
    poll(runtime)

    finish(runtime, batch_id)

    with runtime.store.read() as db:
        batch = db.one("SELECT state, end_reason FROM batches")
        open_rows = db.one("SELECT sum(open) AS n FROM v_row_outcomes")
        verdicts = db.one("SELECT count(*) AS n FROM comparisons WHERE status = 'succeeded'")
        reserved = db.one(
            "SELECT sum(CASE kind WHEN 'released' THEN -usd WHEN 'reserved' THEN usd END) AS usd"
            " FROM ledger"
        )
    assert batch == {"state": "failed", "end_reason": "stalled"}
    assert job(runtime)["state"] == "settled"
    assert open_rows == {"n": 0}
    assert verdicts == {"n": 0}
    assert reserved is not None
    assert reserved["usd"] == pytest.approx(0)


@pytest.mark.parametrize(("refused", "away"), [("openai", "anthropic"), ("anthropic", "openai")])
def test_what_a_person_has_to_put_right_wins_over_what_passes(
    runtime: Runtime, tmp_path: Path, refused: str, away: str
) -> None:
    """Whichever job is sent first: a retry would hide the key that nobody corrects."""
    emulate(
        runtime,
        faults=[
            {"kind": "status", "on": f"{refused}*", "status": 401},
            {"kind": "status", "on": f"{away}*", "status": 429},
        ],
    )
    folder = write_batch(
        tmp_path / "batch", n_students=4, settings={"judges": PANEL, **ALL_AT_ONCE}
    )
    batch_id = ingest(runtime, folder).batch_id
    plan_wave(runtime, batch_id)

    with pytest.raises(AccountRefusedError, match="Check the key"):
        submit_wave(runtime, batch_id)

    assert [row["provider_job_id"] for row in jobs(runtime)] == [None, None]


def test_a_file_of_another_account_is_never_used(
    runtime: Runtime, tmp_path: Path, clock: ManualClock
) -> None:
    """The right account does not have it, so the requests are uploaded there once more."""
    emulate(runtime, faults=[{"kind": "status", "on": "*batches.create", "status": 429}])
    batch_id = planned(runtime, tmp_path)
    with pytest.raises(ProviderUnavailableError):
        submit_wave(runtime, batch_id)
    state = job(runtime)["state"]
    emulate(runtime, faults=[])
    with runtime.store.write() as db:
        db.execute(
            "UPDATE provider_jobs SET account = 'emulator-mistyped', input_file_id = 'file-theirs'"
        )
    clock.sleep(60)

    submit_wave(runtime, batch_id)

    assert state == "uploaded"
    assert job(runtime)["state"] == "submitted"
    assert job(runtime)["input_file_id"] in {file["file_id"] for file in books(runtime)["files"]}


def _held_by(runtime: Runtime, tmp_path: Path, process: str) -> str:
    """Have a job that was not sent yet, with the lease of another process on it for an hour."""
    emulate(runtime, faults=[{"kind": "status", "on": "*files.create", "status": 503}])
    batch_id = planned(runtime, tmp_path)
    with pytest.raises(ProviderUnavailableError):
        submit_wave(runtime, batch_id)
    emulate(runtime, faults=[])
    with runtime.store.write() as db:
        db.execute(
            "UPDATE provider_jobs SET lease_owner = ?, lease_until = ?, next_poll_at = ?",
            [process, runtime.clock() + timedelta(hours=1), runtime.clock()],
        )
    return batch_id


def test_a_job_whose_sender_died_is_sent_at_once(runtime: Runtime, tmp_path: Path) -> None:
    """A process of this machine that is no more will not send it: nobody waits for its lease."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    batch_id = _held_by(runtime, tmp_path, f"{socket.gethostname()}:{dead.pid}")

    assert submit_wave(runtime, batch_id).n_sent == 1


def test_a_job_whose_sender_is_alive_is_left_to_it(runtime: Runtime, tmp_path: Path) -> None:
    """Two processes on one machine never send the same job."""
    batch_id = _held_by(runtime, tmp_path, f"{socket.gethostname()}:{os.getpid()}")

    assert submit_wave(runtime, batch_id).n_sent == 0
    assert books(runtime)["jobs"] == []


def test_a_job_that_another_users_process_sends_is_left_to_it(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not being allowed to signal a process says that it is alive."""

    def not_ours(pid: int, signal: int) -> None:
        raise PermissionError

    batch_id = _held_by(runtime, tmp_path, f"{socket.gethostname()}:1")
    monkeypatch.setattr(os, "kill", not_ours)

    assert submit_wave(runtime, batch_id).n_sent == 0
    assert books(runtime)["jobs"] == []


def test_a_job_that_is_too_large_for_its_provider_goes_out_in_smaller_ones(
    runtime: Runtime, tmp_path: Path
) -> None:
    """Whatever its documents say: 413 costs no comparison, and none of its attempts."""
    emulate(
        runtime, faults=[{"kind": "status", "on": "*batches.create", "status": 413, "at": [1, 2]}]
    )
    batch_id = planned(runtime, tmp_path)
    while submit_wave(runtime, batch_id).n_requests or not books(runtime)["jobs"]:
        pass
    poll(runtime)
    collect_wave(runtime, batch_id)

    with runtime.store.read() as db:
        jobs = db.rows("SELECT state, n_requests, billed_usd FROM provider_jobs ORDER BY n_bytes")
        ended = db.rows("SELECT status, n_attempts FROM comparisons")
    refused = [row["n_requests"] for row in jobs if not row["billed_usd"]]
    taken = [row["n_requests"] for row in jobs if row["billed_usd"]]
    assert max(refused) == 6
    assert sum(taken) == 6
    assert max(taken) <= 3
    assert [row["status"] for row in ended] == ["succeeded"] * 6


def test_one_request_that_is_too_large_fails_by_itself(runtime: Runtime, tmp_path: Path) -> None:
    """It cannot be split, so it is not sent for ever."""
    emulate(
        runtime,
        faults=[{"kind": "status", "on": "*batches.create", "status": 413, "rate": 1.0}],
    )
    batch_id = planned(runtime, tmp_path)
    for _ in range(8):
        submit_wave(runtime, batch_id)

    with runtime.store.read() as db:
        ended = db.rows("SELECT status FROM comparisons")
        smallest = db.one("SELECT min(n_requests) AS n FROM provider_jobs")
    assert [row["status"] for row in ended] == ["failed"] * 6
    assert smallest == {"n": 1}
