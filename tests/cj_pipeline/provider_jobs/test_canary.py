"""A new judge's first requests go ahead of its first provider job."""

from pathlib import Path
from typing import Any

import pytest

from cj_pipeline.emulator import change_settings
from cj_pipeline.emulator.config import EmulatorConfig
from cj_pipeline.intake.settings import BatchSettings
from cj_pipeline.judging.judges import load_judge
from cj_pipeline.provider_jobs.canary import CANARY_REQUESTS, canary_size
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.collect_wave import collect_wave
from cj_pipeline.steps.decide import decide
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.plan_wave import plan_wave
from cj_pipeline.steps.submit_wave import submit_wave
from tests.support.batches import open_engine, run_to_end, write_batch

_SETTINGS = {"judges": ["quality"], "all_at_once": True, "canary_requests": 2}


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """A runtime over an empty home."""
    return open_engine(tmp_path / "home")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four essays, asked all at once, two requests ahead."""
    return write_batch(tmp_path / "spring", n_students=4, settings=_SETTINGS)


def _jobs(runtime: Runtime, batch_id: str) -> list[dict[str, Any]]:
    with runtime.store.read() as db:
        return db.rows(
            "SELECT is_canary, batching_mode, n_requests, state FROM provider_jobs"
            " WHERE batch_id = ? ORDER BY intended_at",
            [batch_id],
        )


def _batch(runtime: Runtime, batch_id: str) -> dict[str, Any] | None:
    with runtime.store.read() as db:
        return db.one(
            "SELECT state, end_reason,"
            " (SELECT count(*) FROM attempts a WHERE a.batch_id = b.batch_id) AS n_attempts"
            " FROM batches b WHERE batch_id = ?",
            [batch_id],
        )


def test_the_rest_of_a_wave_follows_its_canary(runtime: Runtime, folder: Path) -> None:
    """The canary's comparisons are the wave's own: nothing is asked twice, nothing left out."""
    batch_id = run_to_end(runtime, folder)

    assert _jobs(runtime, batch_id) == [
        {"is_canary": True, "batching_mode": "per_request", "n_requests": 2, "state": "settled"},
        {
            "is_canary": False,
            "batching_mode": "provider_batch_api",
            "n_requests": 10,
            "state": "settled",
        },
    ]
    ended = {"state": "succeeded", "end_reason": "single_wave_complete", "n_attempts": 12}
    assert _batch(runtime, batch_id) == ended


def test_nothing_is_decided_while_a_wave_waits_for_its_canary(
    runtime: Runtime, folder: Path
) -> None:
    """Two verdicts are home and none is in flight; the wave is not over for that."""
    batch_id = ingest(runtime, folder).batch_id
    plan_wave(runtime, batch_id)
    submit_wave(runtime, batch_id)
    collect_wave(runtime, batch_id)

    assert decide(runtime, batch_id).decision == "wait_for_callbacks"


def test_a_judge_that_cannot_answer_costs_its_canary_and_no_job(
    runtime: Runtime, folder: Path
) -> None:
    """The failure is found in seconds, and told as what it is."""
    fault = {"kind": "status", "on": "*chat.create", "status": 400}
    change_settings(EmulatorConfig.from_environment({}, runtime.home), faults=[fault])

    batch_id = run_to_end(runtime, folder)

    ended = {"state": "failed", "end_reason": "canary_failed", "n_attempts": 2}
    assert _batch(runtime, batch_id) == ended


def test_a_judge_that_has_given_a_verdict_here_needs_no_canary(
    runtime: Runtime, folder: Path, tmp_path: Path
) -> None:
    """The same judge_id is the same model, prompt, schema and settings."""
    run_to_end(runtime, folder)
    again = write_batch(tmp_path / "autumn", n_students=5, settings=_SETTINGS)

    batch_id = run_to_end(runtime, again)

    assert [job["is_canary"] for job in _jobs(runtime, batch_id)] == [False]


def test_real_judges_have_a_canary_unless_told_otherwise() -> None:
    """In every mode; simulated ones have nothing to find out."""
    settings, real = BatchSettings(), load_judge("openai-gpt-4-1-mini")

    assert canary_size(settings, real) == CANARY_REQUESTS
    assert canary_size(settings, load_judge("quality")) == 0
    assert canary_size(BatchSettings(canary_requests=0), real) == 0
    for mode in ("per_request", "serial_bundle"):
        assert canary_size(BatchSettings(llm_batching_mode=mode), real) == CANARY_REQUESTS
