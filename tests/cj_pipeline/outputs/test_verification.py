"""An artefact is checked by working out anew what it claims."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cj_pipeline.errors import StoreError
from cj_pipeline.intake.batch_folder import read_batch
from cj_pipeline.outputs.artefact import artefact_checksum, checksum_in, write_artefact
from cj_pipeline.outputs.verification import verify, verify_artefact
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

Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def db() -> Iterator[Session]:
    with finished_batches() as session:
        yield session


@pytest.mark.parametrize("batch_id", [SPRING, ARGUMENTS, BROKEN])
def test_an_untouched_artefact_verifies(db: Session, tmp_path: Path, batch_id: str) -> None:
    """By itself and against the store; a check that cries wolf is switched off."""
    path = _write(db, batch_id, tmp_path)

    assert verify_artefact(path, db=db) == []


@pytest.mark.parametrize("scale", [{"low": 0, "high": 100}, {"mean": 500, "spread": 60}])
@pytest.mark.parametrize("name", ["scaled_score", "scaled_standard_error"])
def test_scores_on_the_batchs_own_scale_are_worked_out_anew(
    db: Session, tmp_path: Path, scale: dict[str, float], name: str
) -> None:
    """From the verdicts alone, without a store."""
    settings = db.rows("SELECT settings FROM batches WHERE batch_id = ?", [SPRING])[0]["settings"]
    put = "UPDATE batches SET settings = ? WHERE batch_id = ?"
    db.execute(put, [json.dumps(settings | {"scaled_scores": scale}), SPRING])
    path = _write(db, SPRING, tmp_path)
    db.execute(put, [json.dumps(settings), SPRING])

    stated = json.loads(path.read_text("utf-8"))["bt_summary"]
    assert verify_artefact(path) == []
    _edit(path, lambda it: it["bt_summary"][1].update({name: stated[1][name] + 0.5}))
    (difference,) = verify_artefact(path)
    assert f"bt_summary[1].{name}" in difference


def test_a_changed_document_is_told_by_its_checksum(db: Session, tmp_path: Path) -> None:
    """Somebody edited it and did not know better."""
    path = _write(db, SPRING, tmp_path)
    _edit(path, lambda it: it["metadata"].update(title="Autumn"), mend_checksum=False)

    (difference,) = verify_artefact(path)

    assert "it was changed" in difference


def _raise_a_score(it: dict[str, Any]) -> None:
    it["bt_summary"][0]["theta"] += 0.5


def _shrink_an_error(it: dict[str, Any]) -> None:
    it["bt_summary"][0]["standard_error"] /= 2


def _turn_a_verdict(it: dict[str, Any]) -> None:
    row = it["llm_comparisons"][0]
    row["winner"] = "B" if row["winner"] == "A" else "A"


def _raise_a_grade(it: dict[str, Any]) -> None:
    grades = list(it["grade_projections"][0]["probabilities"])
    it["grade_projections"][0]["probabilities"] = dict.fromkeys(grades, 0.0) | {grades[-1]: 1.0}
    it["grade_projections"][0]["grade"] = grades[-1]


def _call_another_grade(it: dict[str, Any]) -> None:
    row = it["grade_projections"][0]
    row["grade"] = min(row["probabilities"], key=row["probabilities"].__getitem__)


def _drop_an_essay(it: dict[str, Any]) -> None:
    del it["bt_summary"][0]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (_raise_a_score, "theta says"),
        (_shrink_an_error, "standard_error says"),
        (_turn_a_verdict, "the verdicts give"),
        (_raise_a_grade, "probabilities.A says"),
        (_call_another_grade, ".grade says"),
        (_drop_an_essay, "has no score"),
    ],
)
def test_a_forged_figure_is_found_even_under_a_mended_checksum(
    db: Session, tmp_path: Path, change: Change, found: str
) -> None:
    """A checksum alone proves nothing against somebody who can compute one."""
    path = _write(db, SPRING, tmp_path)
    _edit(path, change)

    differences = verify_artefact(path)

    assert any(found in difference for difference in differences)


def test_a_file_beside_it_that_was_changed_is_named(db: Session, tmp_path: Path) -> None:
    """The class list is what gets edited by hand."""
    path = _write(db, SPRING, tmp_path)
    (tmp_path / "class_list.csv").write_text("rank,essay_id\n1,me\n")
    (tmp_path / "callbacks.execute.jsonl").unlink()

    differences = verify_artefact(path)

    assert any("class_list.csv has another checksum" in each for each in differences)
    assert any("callbacks.execute.jsonl is listed and not in" in each for each in differences)
    assert len(differences) == 2


def test_a_manifest_cannot_point_outside_its_folder(db: Session, tmp_path: Path) -> None:
    """An artefact from a stranger must not make us open any file we can read."""
    path = _write(db, SPRING, tmp_path)
    _edit(path, lambda it: it["validation"]["manifest"][-1].update(path="../../etc/passwd"))

    differences = verify_artefact(path)

    assert any("lies outside" in each for each in differences)


def test_inputs_are_checked_against_the_batch_folder(db: Session, tmp_path: Path) -> None:
    """The texts themselves are not in the artefact; their checksums are."""
    path = _write(db, SPRING, tmp_path / "out")
    folder = tmp_path / "spring-9"
    for name, content in _texts(db):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode())
    (folder / "anchors" / "grades.csv").write_text(_grades(db))
    content_sha256 = read_batch(folder).content_sha256
    _edit(path, lambda it: it["metadata"].update(content_sha256=content_sha256))
    assert verify_artefact(path, batch_folder=folder) == []

    (folder / "essays" / "pupil-01.txt").write_text("Another text, and long enough to be one.")
    (folder / "essays" / "pupil-02.txt").rename(folder / "essays" / "PUPIL-02.txt")

    assert [
        each.partition(f" {folder}")[0] for each in verify_artefact(path, batch_folder=folder)
    ] == [
        "essays/pupil-02.txt was judged and is not in",
        "essays/PUPIL-02.txt is in",
        "essays/pupil-01.txt has another checksum than listed: it was changed",
    ]


def test_anchors_that_bear_other_grades_now_are_told(db: Session, tmp_path: Path) -> None:
    """A grade stands outside the essay's own file."""
    path = _write(db, SPRING, tmp_path / "out")
    folder = tmp_path / "spring-9"
    for name, content in _texts(db):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode())
    (folder / "anchors" / "grades.csv").write_text(_grades(db).replace(",B\n", ",C+\n"))

    (difference,) = verify_artefact(path, batch_folder=folder)

    assert "other anchors' grades" in difference


def test_a_verdict_that_differs_from_the_store_is_named(db: Session, tmp_path: Path) -> None:
    """Whoever holds the store can tell which verdict was swapped."""
    path = _write(db, SPRING, tmp_path)
    _edit(path, _turn_a_verdict)

    differences = verify_artefact(path, db=db)

    assert any("winner says" in each and "the store" in each for each in differences)


def test_a_store_without_the_batch_says_so(db: Session, tmp_path: Path) -> None:
    """The wrong store must not pass for agreement."""
    path = _write(db, SPRING, tmp_path)

    with FileStore.in_memory().read() as empty:
        differences = verify_artefact(path, db=empty)

    assert differences == ["the store has no batch 'spring-9'"]


def test_a_batch_of_that_name_from_other_texts_is_told_apart(db: Session, tmp_path: Path) -> None:
    """Two schools may both have a spring."""
    path = _write(db, SPRING, tmp_path)
    with FileStore.in_memory().write() as other:
        rows = spring_rows()
        rows["batches"][0]["content_sha256"] = "0" * 64
        insert_all(other, rows)

        (difference,) = verify_artefact(path, db=other)

    assert "other inputs" in difference


def test_a_file_that_the_store_did_not_write_is_told_whatever_was_altered(
    db: Session, tmp_path: Path
) -> None:
    """A title is not recomputed by anybody; the store knows what it wrote all the same."""
    path = _write(db, SPRING, tmp_path)
    record = {
        "batch_id": SPRING,
        "runner_mode": "execute",
        "artefact_checksum": checksum_in(path),
        "sha256": "",
        "key_id": None,
        "written_at": datetime(2026, 3, 3, 12, 0, tzinfo=UTC),
    }
    db.insert("artefact_records", [record])
    try:
        untouched = verify(path, db=db)
        _edit(path, lambda it: it["metadata"].update(git_sha="fffffff"))
        altered = verify(path, db=db)
    finally:
        db.execute("DELETE FROM artefact_records")

    assert (untouched.differences, untouched.not_checked) == ((), ())
    assert any("this is not what it wrote" in each for each in altered.differences)


@pytest.mark.parametrize(
    "change",
    [
        lambda it: it.update(pending_comparisons="none"),
        lambda it: it.update(bt_summary=[1]),
        lambda it: it["validation"].update(manifest={}),
        lambda it: it.update(settings=[]),
    ],
)
def test_what_is_built_otherwise_is_a_difference_and_no_crash(
    db: Session, tmp_path: Path, change: Change
) -> None:
    """Whoever forges a file may well break it."""
    path = _write(db, SPRING, tmp_path)
    _edit(path, change)

    assert verify(path, db=db).differences


def test_a_key_twice_in_an_object_is_no_artefact(db: Session, tmp_path: Path) -> None:
    """Two readers would read two things."""
    path = _write(db, SPRING, tmp_path)
    path.write_text(path.read_text().replace("{", '{"schema_version": "9", ', 1))

    with pytest.raises(StoreError, match="twice"):
        verify(path)


@pytest.mark.parametrize("content", ["", "[]", "{}", "not json"])
def test_what_is_no_artefact_is_said_to_be_none(tmp_path: Path, content: str) -> None:
    """A wrong path is the commonest mistake."""
    path = tmp_path / "assessment_run.execute.json"
    path.write_text(content)

    with pytest.raises(StoreError, match="cannot be read as an artefact"):
        verify_artefact(path)


def _write(db: Session, batch_id: str, folder: Path) -> Path:
    return write_artefact(
        db,
        batch_id,
        "execute",
        folder,
        generated_at=datetime(2026, 3, 3, 12, 0, tzinfo=UTC),
        environment=RunEnvironment("0a1b2c3", "0.1.0", "3.11.9", "Linux"),
    ).path


def _edit(path: Path, change: Change, *, mend_checksum: bool = True) -> None:
    document = json.loads(path.read_text())
    change(document)
    if mend_checksum:
        document["validation"]["artefact_checksum"] = artefact_checksum(document)
    path.write_text(json.dumps(document))


def _texts(db: Session) -> list[tuple[str, str]]:
    rows = db.rows(
        "SELECT source_path, text FROM essays WHERE batch_id = $batch UNION ALL"
        " SELECT source_path, content FROM documents WHERE batch_id = $batch",
        {"batch": SPRING},
    )
    return [(row["source_path"], row["text"]) for row in rows]


def _grades(db: Session) -> str:
    rows = db.rows("SELECT file_name, grade FROM essays WHERE batch_id = ? AND is_anchor", [SPRING])
    return "file,grade\n" + "".join(f"{row['file_name']},{row['grade']}\n" for row in rows)
