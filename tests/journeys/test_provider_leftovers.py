"""What a batch leaves at its providers, and what one refused call costs its neighbours."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cj_pipeline.batch.comparisons import RequestOutcome
from cj_pipeline.emulator import change_settings
from cj_pipeline.emulator.config import EmulatorConfig
from cj_pipeline.errors import AccountRefusedError
from cj_pipeline.judging.judges import load_judge
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.collect_wave import collect_wave
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.plan_wave import plan_wave
from cj_pipeline.steps.submit_wave import submit_wave
from tests.support.batches import open_engine, run_to_end, write_batch


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """A runtime over an empty home."""
    return open_engine(tmp_path / "home")


KEPT = ("quality", "quality-mistral", "quality-xai")
"""Those whose batches cannot be deleted."""


@pytest.mark.parametrize(
    "judge", [*KEPT, "quality-messages", "quality-gemini", "quality-openrouter"]
)
def test_a_settled_batch_leaves_nothing_at_its_provider(
    runtime: Runtime, tmp_path: Path, judge: str
) -> None:
    """Files are counted against quotas, and essays are their authors'."""
    folder = write_batch(tmp_path / "small", n_students=3, settings={"judges": [judge]})

    run_to_end(runtime, folder)

    provider = runtime.provider(load_judge(judge))
    since = datetime.now(UTC) - timedelta(hours=1)
    assert list(provider.list_files(since)) == []
    if judge not in KEPT:
        assert list(provider.list_jobs(since)) == []


def test_a_batch_ends_well_where_its_provider_keeps_what_should_go(
    runtime: Runtime, tmp_path: Path
) -> None:
    """Tidying up is not worth a batch: what is left expires by itself."""
    fault = {"kind": "status", "on": "*.delete", "status": 500}
    change_settings(EmulatorConfig.from_environment({}, runtime.home), faults=[fault])
    folder = write_batch(tmp_path / "small", n_students=3, settings={"judges": ["quality"]})

    batch_id = run_to_end(runtime, folder)

    with runtime.store.read() as db:
        row = db.one("SELECT state FROM batches WHERE batch_id = ?", [batch_id])
    assert row == {"state": "succeeded"}


def test_a_provider_that_begins_to_refuse_takes_nothing_back(
    runtime: Runtime, tmp_path: Path
) -> None:
    """Answers before the refusal are paid for: they are stored, read and billed like any."""
    fault = {"kind": "status", "on": "*chat.create", "status": 403, "at": [2]}
    change_settings(EmulatorConfig.from_environment({}, runtime.home), faults=[fault])
    settings = {
        "judges": ["quality"],
        "llm_batching_mode": "per_request",
        "max_attempts": 1,
        "canary_requests": 0,
    }
    folder = write_batch(tmp_path / "small", n_students=4, settings=settings)
    batch_id = ingest(runtime, folder).batch_id
    plan_wave(runtime, batch_id)

    with pytest.raises(AccountRefusedError):
        submit_wave(runtime, batch_id)
    with runtime.store.read() as db:
        kept = db.rows("SELECT kind FROM callbacks")
    submit_wave(runtime, batch_id)
    collected = collect_wave(runtime, batch_id)

    assert [row["kind"] for row in kept] == ["matched"]
    assert collected.outcomes == {RequestOutcome.SUCCEEDED: 2}
    assert collected.billed_usd > 0
