"""The artefact: complete, true to the store, checkable, and never half there."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cj_pipeline.errors import BatchProblemsError, StoreError, UnknownBatchError
from cj_pipeline.outputs.artefact import (
    artefact_checksum,
    build_artefact,
    write_artefact,
    write_atomically,
)
from cj_pipeline.outputs.contracts import CONTRACT, RELAXED_CONTRACT, violations
from cj_pipeline.queries.history import read_history
from cj_pipeline.runtime import RunEnvironment
from cj_pipeline.store.file_store import FileStore
from cj_pipeline.store.session import Session
from tests.support.finished_batches import (
    ARGUMENTS,
    BROKEN,
    SPRING,
    finished_batches,
    insert_all,
    spring_rows,
)

NOW = datetime(2026, 3, 3, 12, 0, tzinfo=UTC)
HERE = RunEnvironment(git_sha="0a1b2c3", runner_version="0.1.0", python="3.11.9", os="Linux")


@pytest.fixture(scope="module")
def db() -> Iterator[Session]:
    with finished_batches() as session:
        yield session


@pytest.fixture(scope="module")
def spring(db: Session) -> dict[str, Any]:
    return build_artefact(read_history(db, SPRING), "execute", generated_at=NOW, environment=HERE)


def test_a_batch_with_anchors_on_an_english_scale_meets_the_contract(
    spring: dict[str, Any],
) -> None:
    """The contract is what other systems read by."""
    assert spring["validation"]["contract"] == CONTRACT
    assert list(violations(spring, CONTRACT)) == []


@pytest.mark.parametrize("batch_id", [ARGUMENTS, BROKEN])
def test_a_batch_the_contract_cannot_hold_meets_the_relaxed_one_and_says_so(
    db: Session, batch_id: str
) -> None:
    """The contract knows no batch without anchors; a reader must be told which rules hold."""
    artefact = build_artefact(
        read_history(db, batch_id), "execute", generated_at=NOW, environment=HERE
    )

    assert artefact["validation"]["contract"] == RELAXED_CONTRACT
    assert list(violations(artefact, RELAXED_CONTRACT)) == []


def test_ids_join_across_the_parts(spring: dict[str, Any]) -> None:
    """An id that leads nowhere makes a row useless."""
    students = {row["essay_id"] for row in spring["inputs"]["students"]}
    anchors = {row["anchor_id"] for row in spring["inputs"]["anchors"]}
    judges = {row["judge_id"] for row in spring["judges"]}

    essays = students | anchors

    assert len(essays) == len(students) + len(anchors)
    assert {row["essay_id"] for row in spring["bt_summary"]} == essays
    assert {row["essay_id"] for row in spring["grade_projections"]} == essays
    assert {row["primary_anchor_id"] for row in spring["grade_projections"]} <= anchors
    for row in spring["llm_comparisons"]:
        assert {row["essay_a_id"], row["essay_b_id"]} <= essays
        assert {row["winner_id"], row["loser_id"]} <= {row["essay_a_id"], row["essay_b_id"], ""}
        assert row["judge_id"] in judges


def test_scores_errors_and_counts_are_those_of_the_store(
    db: Session, spring: dict[str, Any]
) -> None:
    """Nothing is rounded, renamed or made up on the way out."""
    rows = db.rows(
        "SELECT essay_id, score, standard_error, rank, n_comparisons FROM essay_scores"
        " WHERE batch_id = ? AND wave = 3",
        [SPRING],
    )

    entries = {row["essay_id"]: row for row in spring["bt_summary"]}

    for row in rows:
        entry = entries[row["essay_id"]]
        assert entry["theta"] == row["score"]
        assert entry["standard_error"] == row["standard_error"] > 0
        assert entry["rank"] == row["rank"]
        assert entry["comparison_count"] == row["n_comparisons"] > 0


def test_a_failed_comparison_is_stated_with_its_reason_and_its_essays(
    spring: dict[str, Any],
) -> None:
    """A failure left out would make the others look like all there was."""
    (failed,) = [row for row in spring["llm_comparisons"] if row["status"] == "failed"]

    assert failed["failure_reason"] == "invalid_output"
    assert failed["winner_id"] == failed["loser_id"] == ""
    assert failed["essay_a_id"]
    assert failed["essay_b_id"]


def test_a_tie_has_no_winner_and_is_called_a_tie(spring: dict[str, Any]) -> None:
    """An empty winner alone could be read as a failure."""
    (tie,) = [row for row in spring["llm_comparisons"] if row["winner"] == "tie"]

    assert tie["status"] == "succeeded"
    assert tie["winner_id"] == tie["loser_id"] == ""


def test_costs_add_up_to_the_comparisons(spring: dict[str, Any]) -> None:
    """Two totals that differ would both be doubted."""
    comparisons = spring["llm_comparisons"]
    (tokens,) = spring["costs"]["token_counts"]

    assert spring["costs"]["total_usd"] == pytest.approx(
        math.fsum(row["cost_usd"] for row in comparisons)
    )
    assert tokens["prompt_tokens"] == sum(row["tokens_prompt"] for row in comparisons)


def test_every_comparison_asked_is_accounted_for(spring: dict[str, Any]) -> None:
    """Submitted is completed, failed and pending together, always."""
    status = spring["runner_status"]

    assert (
        status["submitted_comparisons"]
        == status["completed_comparisons"]
        + status["failed_comparisons"]
        + status["pending_comparisons"]
        == 91
    )


def test_a_batch_that_failed_says_that_its_data_are_partial(db: Session) -> None:
    """Its scores would otherwise pass for results."""
    artefact = build_artefact(
        read_history(db, BROKEN), "execute", generated_at=NOW, environment=HERE
    )

    assert artefact["runner_status"]["partial_data"] is True
    assert artefact["runner_status"]["end_reason"] == "low_success_rate"
    assert artefact["grade_projections"] == []


def test_a_comparison_without_an_end_is_pending_not_failed(db: Session) -> None:
    """A verdict that may still come is neither."""
    with FileStore.in_memory().write() as unfinished:
        rows = spring_rows()
        last = rows["comparisons"].pop()
        insert_all(unfinished, rows)

        artefact = build_artefact(
            read_history(unfinished, SPRING), "execute", generated_at=NOW, environment=HERE
        )

    (pending,) = artefact["pending_comparisons"]
    assert pending["comparison_id"] == last["comparison_id"]
    assert artefact["runner_status"]["partial_data"] is True


def test_a_plan_before_anything_was_asked_is_an_artefact_too() -> None:
    """`plan` says what would be judged; it has nothing to report yet."""
    with FileStore.in_memory().write() as planned:
        rows = spring_rows()
        rows["batches"][0] |= {"state": "running", "end_reason": None, "ended_at": None}
        insert_all(planned, {k: rows[k] for k in ("batches", "essays", "documents", "judges")})

        artefact = build_artefact(
            read_history(planned, SPRING), "plan", generated_at=NOW, environment=HERE
        )

    assert artefact["metadata"]["runner_mode"] == "plan"
    assert artefact["llm_comparisons"] == []
    assert artefact["validation"]["contract"] == CONTRACT


def test_the_checksum_is_of_the_document_without_it(spring: dict[str, Any]) -> None:
    """Anybody can check it with a JSON library and SHA-256."""
    blank = json.loads(json.dumps(spring))
    blank["validation"]["artefact_checksum"] = ""
    text = json.dumps(blank, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    assert spring["validation"]["artefact_checksum"] == hashlib.sha256(text.encode()).hexdigest()


def test_the_checksum_tells_of_any_change(spring: dict[str, Any]) -> None:
    """One logit more for one essay is enough."""
    changed = json.loads(json.dumps(spring))
    changed["bt_summary"][0]["theta"] += 1.0

    assert artefact_checksum(changed) != spring["validation"]["artefact_checksum"]


def test_the_same_rows_give_the_same_bytes(db: Session, tmp_path: Path) -> None:
    """A difference between two artefacts then always means something."""
    one = _write(db, SPRING, tmp_path / "one")
    other = _write(db, SPRING, tmp_path / "other")

    assert one.read_bytes() == other.read_bytes()
    names = sorted(path.name for path in one.parent.iterdir())
    for name in names:
        assert (one.parent / name).read_bytes() == (other.parent / name).read_bytes()


def test_the_manifest_names_every_file_beside_the_artefact_with_its_checksum(
    db: Session, tmp_path: Path
) -> None:
    """A file nobody vouches for can be swapped."""
    path = _write(db, SPRING, tmp_path)
    manifest = json.loads(path.read_text())["validation"]["manifest"]

    listed = {e["path"]: e for e in manifest if e["relative_to"] == "this file"}

    assert set(listed) == {file.name for file in tmp_path.iterdir()} - {path.name}
    for name, entry in listed.items():
        content = (tmp_path / name).read_bytes()
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        assert entry["bytes"] == len(content)


def test_the_manifest_names_every_input_with_its_checksum(
    db: Session, spring: dict[str, Any]
) -> None:
    """What was judged can be proved without handing the texts on."""
    rows = db.rows(
        "SELECT source_path, sha256, n_bytes FROM essays WHERE batch_id = $batch UNION ALL"
        " SELECT source_path, sha256, n_bytes FROM documents WHERE batch_id = $batch",
        {"batch": SPRING},
    )

    inputs = [entry for entry in spring["validation"]["manifest"] if entry["role"] == "input"]

    assert {(e["path"], e["sha256"], e["bytes"]) for e in inputs} == {
        (row["source_path"], row["sha256"], row["n_bytes"]) for row in rows
    }


def test_every_request_and_callback_is_exported(db: Session, tmp_path: Path) -> None:
    """Raw callbacks let anybody parse again what was paid for once."""
    _write(db, SPRING, tmp_path)

    requests = _lines(tmp_path / "requests.execute.jsonl")
    callbacks = _lines(tmp_path / "callbacks.execute.jsonl")

    assert len(requests) == len(callbacks) == 91
    assert {row["custom_id"] for row in requests} == {row["custom_id"] for row in callbacks}
    assert all(len(row["prompt_hash"]) == 64 for row in requests)


def test_no_essay_text_leaves_with_the_artefact(db: Session, tmp_path: Path) -> None:
    """Students' texts stay with whoever is answerable for them; checksums go out."""
    path = _write(db, SPRING, tmp_path)
    texts = [row["text"] for row in db.rows("SELECT text FROM essays WHERE batch_id = ?", [SPRING])]

    written = path.read_text() + (tmp_path / "requests.execute.jsonl").read_text()

    assert not any(json.dumps(text)[1:-1] in written for text in texts)


def test_what_simulated_judges_are_told_is_in_no_result(db: Session, tmp_path: Path) -> None:
    """Latent qualities are the answer key of the emulator."""
    path = _write(db, SPRING, tmp_path)

    settings = json.loads(path.read_text())["settings"]

    assert "emulator_qualities" not in settings
    assert settings["scale"] == {"value": "eng5_np_legacy_9_step", "origin": "batch.yaml"}


def test_a_name_that_is_no_uuid_always_maps_to_the_same_one(db: Session) -> None:
    """The contract wants UUIDs for what people name in words."""
    one = build_artefact(read_history(db, SPRING), "execute", generated_at=NOW, environment=HERE)
    other = build_artefact(
        read_history(db, ARGUMENTS), "execute", generated_at=NOW, environment=HERE
    )

    again = build_artefact(read_history(db, SPRING), "execute", generated_at=NOW, environment=HERE)

    assert one["metadata"]["assignment_id"] == again["metadata"]["assignment_id"]
    assert one["metadata"]["assignment_id"] != other["metadata"]["assignment_id"]


def test_what_breaks_the_contract_is_not_written(db: Session, tmp_path: Path) -> None:
    """An invalid artefact found later, by its reader, is worse than none now."""
    nameless = RunEnvironment(git_sha="not hex", runner_version="0.1.0", python="3", os="Linux")

    with pytest.raises(StoreError, match=r"git_sha.*not hex"):
        write_artefact(db, SPRING, "execute", tmp_path, generated_at=NOW, environment=nameless)

    assert not (tmp_path / "assessment_run.execute.json").exists()


def test_an_unknown_batch_is_named(db: Session, tmp_path: Path) -> None:
    """The message must say which name was wrong."""
    with pytest.raises(UnknownBatchError, match="no-such-batch"):
        _write(db, "no-such-batch", tmp_path)


def test_a_batch_never_taken_in_has_no_artefact_but_its_problems() -> None:
    """There is nothing to vouch for, and a person needs to know why."""
    with FileStore.in_memory().write() as db:
        row = spring_rows()["batches"][0]
        db.insert("batches", [row | {"state": "rejected", "problems": ["essays/: is empty"]}])

        with pytest.raises(BatchProblemsError, match="is empty"):
            build_artefact(read_history(db, SPRING), "execute", generated_at=NOW, environment=HERE)


def test_a_file_that_cannot_be_put_in_place_leaves_no_part_behind(tmp_path: Path) -> None:
    """A reader of the folder must never meet half a file."""
    taken = tmp_path / "taken"
    (taken / "by-a-folder").mkdir(parents=True)

    with pytest.raises(OSError, match="taken"):
        write_atomically(taken, b"content")

    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def _write(db: Session, batch_id: str, folder: Path) -> Path:
    return write_artefact(db, batch_id, "execute", folder, generated_at=NOW, environment=HERE).path


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
