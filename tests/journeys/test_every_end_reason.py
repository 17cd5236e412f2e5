"""Every batch ends, with a stated reason: each one reached through the whole engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cj_pipeline.emulator import change_settings
from cj_pipeline.emulator.config import EmulatorConfig
from cj_pipeline.errors import BatchProblemsError
from cj_pipeline.operations.cancel import cancel
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.plan_wave import plan_wave
from cj_pipeline.steps.submit_wave import submit_wave
from tests.support.batches import finish, open_engine, run_to_end, write_batch

NO_STABILITY = {"judges": ["quality"], "score_stability_threshold": None}


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """A runtime over an empty home."""
    return open_engine(tmp_path / "home")


def emulate(runtime: Runtime, **settings: object) -> None:
    """Change the embedded emulator's settings."""
    change_settings(EmulatorConfig.from_environment(runtime.environment, runtime.home), **settings)


def ending(runtime: Runtime, batch_id: str) -> tuple[str, str]:
    """Return a batch's state and the reason it ended, once its report is written."""
    with runtime.store.read() as db:
        batch = db.one(
            "SELECT state, end_reason FROM batches JOIN batch_report USING (batch_id)"
            " WHERE batch_id = ?",
            [batch_id],
        )
    assert batch is not None
    return batch["state"], batch["end_reason"]


@pytest.mark.parametrize(
    ("n_students", "settings", "emulator", "expected"),
    [
        pytest.param(
            8,
            {"judges": ["quality"], "score_stability_threshold": 9.0},
            {},
            ("succeeded", "stable"),
            id="stable",
        ),
        pytest.param(
            8,
            NO_STABILITY | {"precise": {"mean_standard_error": 2.0}},
            {},
            ("succeeded", "precise"),
            id="precise",
        ),
        pytest.param(
            4,
            NO_STABILITY | {"max_resampling_passes_for_regular_net": 0},
            {},
            ("succeeded", "pairs_exhausted"),
            id="pairs_exhausted",
        ),
        pytest.param(
            6,
            NO_STABILITY | {"max_answers_without_verdict": 1_000},
            {"judges": {"quality": {"invalid_rate": 1.0}}},
            ("failed", "no_successes"),
            id="no_successes",
        ),
        pytest.param(
            8,
            NO_STABILITY | {"all_at_once": True, "max_pairwise_comparisons": 3, "anyway": True},
            {},
            ("failed", "unscalable"),
            id="unscalable",
        ),
        pytest.param(
            6,
            NO_STABILITY | {"spend_cap_usd": 1e-6, "anyway": True},
            {},
            ("failed", "spend_cap"),
            id="spend_cap",
        ),
        pytest.param(
            6,
            NO_STABILITY,
            {"faults": [{"kind": "expires", "share": 0.0}]},
            ("failed", "expired"),
            id="expired",
        ),
        pytest.param(
            6,
            NO_STABILITY | {"stall_after_s": 0.05},
            {"latency_s": 3600},
            ("failed", "stalled"),
            id="stalled",
        ),
    ],
)
def test_a_batch_ends_with_its_reason(
    runtime: Runtime,
    tmp_path: Path,
    n_students: int,
    settings: dict[str, Any],
    emulator: dict[str, Any],
    expected: tuple[str, str],
) -> None:
    """No ending is silent, and none is only a word in an enum."""
    emulate(runtime, **emulator)
    folder = write_batch(tmp_path / "batch", n_students=n_students, settings=settings)

    batch_id = run_to_end(runtime, folder)

    assert ending(runtime, batch_id) == expected


def test_a_failed_batch_has_no_grades(runtime: Runtime, tmp_path: Path) -> None:
    """Scores of a batch that failed stay for whoever looks into it; a grade never leaves."""
    emulate(runtime, judges={"quality": {"invalid_rate": 0.5}})
    folder = write_batch(
        tmp_path / "batch",
        n_students=4,
        n_anchors=9,
        settings=NO_STABILITY
        | {
            "scale": "eng5_np_national_9_step",
            "max_attempts": 1,
            "all_at_once": True,
            "max_pairwise_comparisons": 70,
        },
    )

    batch_id = run_to_end(runtime, folder)

    with runtime.store.read() as db:
        grades = db.rows("SELECT * FROM grade_projections WHERE batch_id = ?", [batch_id])
        scores = db.rows("SELECT * FROM essay_scores WHERE batch_id = ?", [batch_id])
    assert ending(runtime, batch_id) == ("failed", "low_success_rate")
    assert scores
    assert grades == []


def test_one_essay_is_not_a_batch(runtime: Runtime, tmp_path: Path) -> None:
    """It is turned away at the door, and the store says why."""
    folder = write_batch(tmp_path / "alone", n_students=1, settings=NO_STABILITY)

    with pytest.raises(BatchProblemsError, match="alone"):
        ingest(runtime, folder)

    with runtime.store.read() as db:
        batch = db.one("SELECT state, end_reason, problems FROM batches")
    assert batch is not None
    assert (batch["state"], batch["end_reason"]) == ("rejected", "insufficient_essays")
    assert batch["problems"]


def test_a_cancelled_batch_keeps_what_was_paid_for(runtime: Runtime, tmp_path: Path) -> None:
    """Rows that were finished when the job was told to stop come home and are billed once."""
    emulate(
        runtime,
        latency_s=3600,
        faults=[{"kind": "is_cancelled", "share": 0.5}],
    )
    folder = write_batch(tmp_path / "batch", n_students=8, settings=NO_STABILITY)
    batch_id = ingest(runtime, folder).batch_id
    plan_wave(runtime, batch_id)
    submit_wave(runtime, batch_id)

    told = cancel(runtime, batch_id)
    emulate(runtime, latency_s=0)
    finish(runtime, batch_id)

    with runtime.store.read() as db:
        job = db.one("SELECT state, billed_usd FROM provider_jobs")
        attempts = db.one(
            "SELECT count(*) AS n, count(outcome) AS ended,"
            " count(*) FILTER (outcome = 'succeeded') AS succeeded FROM attempts"
        )
    assert told.n_jobs == 1
    assert ending(runtime, batch_id) == ("cancelled", "cancelled")
    assert job is not None
    assert job["state"] == "settled"
    assert attempts is not None
    assert attempts["n"] == attempts["ended"] == 4
    assert (job["billed_usd"] > 0) == (attempts["succeeded"] > 0)
