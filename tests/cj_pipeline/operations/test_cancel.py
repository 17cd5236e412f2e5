"""A batch cancelled at any moment: nothing more is asked, and what was paid for comes home."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cj_pipeline.cli import app
from cj_pipeline.emulator import change_settings, in_process_client
from cj_pipeline.emulator.config import EmulatorConfig
from cj_pipeline.errors import ProviderUnavailableError, UncertainOutcomeError
from cj_pipeline.operations.cancel import cancel
from cj_pipeline.progress.events import events_since
from cj_pipeline.progress.values import EventKind
from cj_pipeline.queries.batch_record import load_batch
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.advance import take_next_step
from cj_pipeline.steps.decide import decide
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.next_step import NextStep, next_step
from cj_pipeline.steps.plan_wave import plan_wave
from cj_pipeline.steps.submit_wave import submit_wave
from cj_pipeline.stopping.continuation import BatchOutcome, ContinuationDecision
from tests.support.batches import ManualClock, end, open_engine, write_batch
from tests.support.served_runtime import asking

SETTINGS: dict[str, Any] = {
    "judges": ["quality"],
    "score_stability_threshold": None,
    "max_pairwise_comparisons": 6,
    "wave_size": 3,
}


def emulator(runtime: Runtime) -> Any:
    """Return a client of the engine's own emulator."""
    return in_process_client(EmulatorConfig.from_environment(runtime.environment, runtime.home))


def books(runtime: Runtime) -> dict[str, Any]:
    """Return what the emulator says was asked and paid."""
    found: dict[str, Any] = emulator(runtime).get("http://emulator.invalid/emulator/audit").json()
    return found


def n_paid(runtime: Runtime) -> int:
    """Return how many answers the provider was paid for."""
    return int(books(runtime)["totals"]["requests_paid"])


def n_asked(runtime: Runtime) -> tuple[int, int]:
    """Return how many jobs and single calls the provider was asked for."""
    told = books(runtime)
    return len(told["jobs"]), told["calls"]["asked"]


def assert_cancelled_with_all_that_was_paid(runtime: Runtime, batch_id: str) -> None:
    """Check the end of a batch that a person has ended."""
    with runtime.store.read() as db:
        record = load_batch(db, batch_id)
        row = db.one(
            "SELECT count(*) AS n FROM comparisons WHERE batch_id = ? AND status = 'succeeded'",
            [batch_id],
        )
        open_attempts = db.rows("SELECT 1 AS one FROM attempts WHERE outcome IS NULL")
        held = db.one(
            "SELECT coalesce(sum(CASE kind WHEN 'reserved' THEN usd WHEN 'released' THEN -usd END),"
            " 0) AS usd FROM ledger"
        )
        events = events_since(db, batch_id)
    assert (record.state, record.end_reason) == ("cancelled", "cancelled")
    assert row == {"n": n_paid(runtime)}
    assert open_attempts == []
    assert held is not None
    assert held["usd"] == pytest.approx(0, abs=1e-9)
    assert [e.kind for e in events].count(EventKind.ENDED) == 1
    assert events[-1].progress.outcome is BatchOutcome.CANCELLED


def test_what_a_cancelled_job_had_finished_is_kept(tmp_path: Path) -> None:
    """A provider answers a part of a job that is stopped half-way, and bills it."""
    clock = ManualClock()
    runtime = open_engine(tmp_path / "home", clock=clock)
    change_settings(
        EmulatorConfig.from_environment(runtime.environment, runtime.home), latency_s=1000.0
    )
    settings = SETTINGS | {"all_at_once": True, "wave_size": None, "max_pairwise_comparisons": 10}
    batch_id = ingest(
        runtime, write_batch(tmp_path / "batch", n_students=5, settings=settings)
    ).batch_id
    plan_wave(runtime, batch_id)
    submit_wave(runtime, batch_id)
    clock.sleep(500)
    emulator(runtime).post("http://emulator.invalid/emulator/clock", json={"seconds": 500})

    cancel(runtime, batch_id)
    end(runtime, batch_id)

    assert 0 < n_paid(runtime) < 10
    assert_cancelled_with_all_that_was_paid(runtime, batch_id)


@pytest.mark.parametrize("call", ["*files.create", "*batches.create"])
def test_what_waits_to_be_sent_is_ended_at_once(tmp_path: Path, call: str) -> None:
    """Its provider asked for hours; nothing is there, so nobody has to ask or to wait."""
    runtime = open_engine(tmp_path / "home", clock=ManualClock())
    config = EmulatorConfig.from_environment(runtime.environment, runtime.home)
    busy = {"kind": "status", "on": call, "status": 429, "retry_after": "9000"}
    change_settings(config, faults=[busy])
    folder = write_batch(tmp_path / "batch", n_students=4, settings=SETTINGS)
    batch_id = ingest(runtime, folder).batch_id
    plan_wave(runtime, batch_id)
    with pytest.raises(ProviderUnavailableError, match="429"):
        submit_wave(runtime, batch_id)
    change_settings(config, faults=[{"kind": "status", "on": "*", "status": 503}])

    cancel(runtime, batch_id)
    for _ in range(3):
        take_next_step(runtime, batch_id)

    change_settings(config, faults=[])
    assert n_asked(runtime) == (0, 0)
    assert_cancelled_with_all_that_was_paid(runtime, batch_id)


def test_a_submission_in_doubt_is_cancelled_once_it_is_found(tmp_path: Path) -> None:
    """It may be there and be paid for, so it is looked for, stopped and brought home."""
    clock = ManualClock()
    runtime = open_engine(tmp_path / "home", clock=clock)
    config = EmulatorConfig.from_environment(runtime.environment, runtime.home)
    change_settings(config, faults=[{"kind": "lost_reply", "on": "*batches.create", "at": [1]}])
    folder = write_batch(tmp_path / "batch", n_students=4, settings=SETTINGS)
    batch_id = ingest(runtime, folder).batch_id
    plan_wave(runtime, batch_id)
    with pytest.raises(UncertainOutcomeError):
        submit_wave(runtime, batch_id)

    cancel(runtime, batch_id)
    clock.sleep(600)
    end(runtime, batch_id)

    assert n_asked(runtime) == (1, 0)
    assert_cancelled_with_all_that_was_paid(runtime, batch_id)


def test_a_batch_may_be_cancelled_before_anything_was_asked(tmp_path: Path) -> None:
    """Then nothing ever is."""
    runtime = open_engine(tmp_path / "home")
    folder = write_batch(tmp_path / "batch", n_students=4, settings=SETTINGS)
    batch_id = ingest(runtime, folder).batch_id

    cancel(runtime, batch_id)
    end(runtime, batch_id)

    assert n_asked(runtime) == (0, 0)
    assert_cancelled_with_all_that_was_paid(runtime, batch_id)


def test_the_end_waits_for_what_is_still_out(tmp_path: Path) -> None:
    """A person may start any step from Dagster's UI, also a decision that comes too soon."""
    runtime = open_engine(tmp_path / "home")
    folder = write_batch(tmp_path / "batch", n_students=4, settings=SETTINGS)
    batch_id = ingest(runtime, folder).batch_id
    plan_wave(runtime, batch_id)
    submit_wave(runtime, batch_id)
    cancel(runtime, batch_id)

    too_soon = decide(runtime, batch_id)
    end(runtime, batch_id)

    assert too_soon.decision is ContinuationDecision.WAIT_FOR_CALLBACKS
    assert_cancelled_with_all_that_was_paid(runtime, batch_id)


@pytest.mark.parametrize("face", ["cj cancel", "cj watch --cancel", "DELETE"])
def test_every_face_cancels_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, face: str
) -> None:
    """Dagster's job is tested beside the other jobs."""
    runtime = open_engine(tmp_path / "home")
    monkeypatch.setenv("CJ_HOME", str(runtime.home))
    folder = write_batch(tmp_path / "batch", n_students=4, settings=SETTINGS)
    batch_id = ingest(runtime, folder).batch_id
    plan_wave(runtime, batch_id)
    submit_wave(runtime, batch_id)
    asked = n_asked(runtime)

    match face:
        case "cj cancel":
            assert CliRunner().invoke(app, ["cancel", batch_id]).exit_code == 0
        case "cj watch --cancel":
            CliRunner().invoke(app, ["watch", batch_id, "--cancel", "--yes", "--timeout", "0"])
        case "DELETE":
            with asking(runtime) as client:
                assert client.delete(f"/api/v1/batches/{batch_id}").status_code == 202
    end(runtime, batch_id)

    assert n_asked(runtime) == asked
    assert_cancelled_with_all_that_was_paid(runtime, batch_id)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["provider_batch_api", "per_request"])
def test_a_batch_may_be_cancelled_after_any_step(tmp_path: Path, mode: str) -> None:
    """Nothing is asked after it, and nothing that was paid for is lost."""
    folder = write_batch(
        tmp_path / "batch", n_students=4, settings=SETTINGS | {"llm_batching_mode": mode}
    )
    n_steps = 0
    while True:
        runtime = open_engine(tmp_path / f"home-{n_steps}")
        batch_id = ingest(runtime, folder).batch_id
        for _ in range(n_steps):
            take_next_step(runtime, batch_id)
        with runtime.store.read() as db:
            has_ended = load_batch(db, batch_id).has_ended
            step = next_step(db, batch_id, runtime.clock())
        if has_ended:
            break
        asked = n_asked(runtime)

        cancel(runtime, batch_id)
        end(runtime, batch_id)

        assert n_asked(runtime) == asked, f"after {n_steps} steps, before {step}"
        assert_cancelled_with_all_that_was_paid(runtime, batch_id)
        n_steps += 1

    assert n_steps > 4
    assert step in {NextStep.PROJECT, NextStep.PUBLISH}
