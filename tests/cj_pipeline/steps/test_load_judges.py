"""A batch's judges are checked before anything of it is stored."""

from pathlib import Path

import pytest

from cj_pipeline.errors import BatchProblemsError
from cj_pipeline.intake.batch_folder import read_batch
from cj_pipeline.steps.ingest import load_judges

_LOCAL = "local-ollama-llama-3-1"


def _folder(tmp_path: Path, settings: str) -> Path:
    folder = tmp_path / "spring-9"
    (folder / "essays").mkdir(parents=True)
    (folder / "batch.yaml").write_text(settings, encoding="utf-8")
    (folder / "instructions.md").write_text("Describe a walk.", encoding="utf-8")
    for name in ("anna", "bert", "cleo"):
        (folder / "essays" / f"{name}.txt").write_text(f"A walk by {name}.", encoding="utf-8")
    return folder


def test_every_judge_that_cannot_be_used_is_told_at_once(tmp_path: Path) -> None:
    """One round of mending, not one per judge."""
    folder = _folder(tmp_path, "judges: [qualityy, quality, nobody]")

    with pytest.raises(BatchProblemsError) as caught:
        load_judges(read_batch(folder))

    assert len(caught.value.problems) == 2


def test_a_local_server_cannot_be_given_a_provider_batch(tmp_path: Path) -> None:
    """It would be refused at the first upload, after everything else was done."""
    folder = _folder(tmp_path, f"judges: [{_LOCAL}]")

    with pytest.raises(BatchProblemsError, match="per_request or serial_bundle"):
        load_judges(read_batch(folder))


def test_a_local_server_answers_single_calls(tmp_path: Path) -> None:
    """The mode is the batch's to choose."""
    folder = _folder(tmp_path, f"judges: [{_LOCAL}]\nllm_batching_mode: serial_bundle")

    assert [judge.name for judge in load_judges(read_batch(folder))] == [_LOCAL]
