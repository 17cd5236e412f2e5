"""A moderation sample: drawn by chance, graded blind, and what it makes of the other grades."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import xlsxwriter

from cj_pipeline.errors import SettingsError
from cj_pipeline.outputs.verification import verify_artefact
from cj_pipeline.people.sample import (
    SHEET_COLUMNS,
    Sample,
    _draw,
    against,
    draw_sample,
    read_sheet,
    take_grades,
    write_sheets,
)
from cj_pipeline.queries.history import BatchHistory, read_history
from cj_pipeline.runtime import Runtime
from tests.support.people import graded_batch


@pytest.fixture
def graded(tmp_path: Path) -> tuple[Runtime, str]:
    """A runtime with one graded batch of eight students."""
    runtime, batch_id = graded_batch(tmp_path / "home")
    runtime.clock.sleep(60)  # type: ignore[attr-defined]
    return runtime, batch_id


def _machine(runtime: Runtime, revision: int = 1) -> dict[str, str]:
    with runtime.store.read() as db:
        rows = db.rows(
            "SELECT essay_id, grade FROM grade_projections WHERE NOT is_anchor AND revision = ?",
            [revision],
        )
    return {row["essay_id"]: row["grade"] for row in rows}


def _filled(sample: Sample, grades: dict[str, str], path: Path) -> Path:
    with xlsxwriter.Workbook(str(path)) as book:
        sheet = book.add_worksheet()
        for column, name in enumerate(SHEET_COLUMNS):
            sheet.write(0, column, name)
        for line, essay in enumerate(sample.essays, start=1):
            sheet.write(line, 0, sample.sample_id)
            sheet.write(line, 1, essay.code)
            grade = grades.get(essay.essay_id, "")
            # People type numbers.
            sheet.write(line, 2, int(grade) if grade.isdecimal() else grade)
    return path


def test_the_sheet_is_blind_and_comes_back_as_a_new_grading(
    graded: tuple[Runtime, str], tmp_path: Path
) -> None:
    """Teachers a step stricter than the exemplars: the others' grades come down."""
    runtime, batch_id = graded
    before = _machine(runtime)
    sample = draw_sample(runtime, batch_id, 6, by="Ms Head", seed=1)
    workbook, page = write_sheets(sample, tmp_path)

    text = page.read_text(encoding="utf-8")
    cells = str(read_sheet(workbook))
    for essay in sample.essays:
        assert essay.essay_id not in text + cells
        assert essay.code in text
    assert {row["sample"] for row in read_sheet(workbook)} == {sample.sample_id}

    stricter = {essay_id: str(max(1, int(grade) - 2)) for essay_id, grade in before.items()}
    done = take_grades(runtime, batch_id, _filled(sample, stricter, tmp_path / "in.xlsx"), by="t")

    assert (done.n_sampled, done.revision, done.is_new) == (6, 2, True)
    assert done.against is not None
    assert done.against.mean < -1
    assert "could not have been seen by so few" in done.against.statement
    assert "Moderated by 6 students' grades" in done.statement
    assert "too high" in done.statement
    with runtime.store.read() as db:
        expected = db.rows(
            "SELECT revision, essay_id, expected_grade, grade FROM grade_projections"
            " WHERE NOT is_anchor ORDER BY essay_id, revision"
        )
        kept = db.rows("SELECT sampled_grades FROM grading_reports ORDER BY revision")
    sampled = {essay.essay_id for essay in sample.essays}
    for first, second in zip(expected[::2], expected[1::2], strict=True):
        if first["essay_id"] in sampled:
            assert second["grade"] == stricter[first["essay_id"]]
        else:
            assert second["expected_grade"] < first["expected_grade"]
    assert kept[0]["sampled_grades"] is None
    assert set(kept[1]["sampled_grades"]) == sampled
    assert _machine(runtime) == before
    artefact = runtime.published_folder / batch_id / "assessment_run.execute.json"
    assert verify_artefact(artefact) == []
    again = take_grades(runtime, batch_id, tmp_path / "in.xlsx", by="t")
    assert not again.is_new


def test_a_sheet_with_anything_wrong_is_refused_by_name(
    graded: tuple[Runtime, str], tmp_path: Path
) -> None:
    """Off the scale, blank, twice, unknown, missing: all said at once, and nothing stored."""
    runtime, batch_id = graded
    sample = draw_sample(runtime, batch_id, 6, by="t", seed=2)
    codes = [essay.code for essay in sample.essays]
    lines = [
        ",".join(SHEET_COLUMNS[:3]),
        f"{sample.sample_id},{codes[0]},11",
        f"{sample.sample_id},{codes[1]},",
        f"{sample.sample_id},{codes[2]},5",
        f"{sample.sample_id},{codes[2]},5",
        f"{sample.sample_id},S9-99,5",
    ]
    sheet = tmp_path / "wrong.csv"
    sheet.write_text("\n".join(lines))

    with pytest.raises(SettingsError) as caught:
        take_grades(runtime, batch_id, sheet, by="t")

    message = str(caught.value)
    for said in (
        f"({codes[0]}): '11' is not on the scale",
        f"({codes[1]}): has no grade",
        f"({codes[2]}): is there twice",
        "(S9-99): no student of this sample",
        f"{codes[3]}: is missing",
    ):
        assert said in message
    foreign = tmp_path / "foreign.csv"
    foreign.write_text("sample,code,grade\nother-sample-1-0,S1-01,5\n")
    with pytest.raises(SettingsError, match="the sheet of other-sample-1-0, and no sample of this"):
        take_grades(runtime, batch_id, foreign, by="t")
    no_sheet = tmp_path / "no.csv"
    no_sheet.write_text("a,b\n1,2\n")
    with pytest.raises(SettingsError, match="no column sample, code, grade"):
        take_grades(runtime, batch_id, no_sheet, by="t")
    broken = tmp_path / "broken.xlsx"
    broken.write_bytes(b"not a workbook")
    with pytest.raises(SettingsError, match="cannot be read as a sheet"):
        take_grades(runtime, batch_id, broken, by="t")
    with runtime.store.read() as db:
        assert db.rows("SELECT * FROM sampled_grades") == []


@pytest.mark.parametrize("method", ["random", "stratified"])
def test_students_are_drawn_as_often_as_their_probability_says(method: str) -> None:
    """Stratified draws keep each student's own."""
    grades = {f"s{n:02d}": grade for n, grade in enumerate("AAAAAAAABBBC")}
    rng = random.Random(3)  # noqa: S311
    times: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for _ in range(3000):
        drawn = _draw(grades, 6, method, rng)  # type: ignore[arg-type]
        assert len(drawn) == 6
        times.update(drawn.keys())
        total.update(drawn)

    for essay_id in grades:
        stated = total[essay_id] / times[essay_id]
        assert times[essay_id] / 3000 == pytest.approx(stated, abs=0.05)


def test_too_few_cannot_be_drawn(graded: tuple[Runtime, str]) -> None:
    """Two students say nothing of a level."""
    runtime, batch_id = graded

    with pytest.raises(SettingsError, match="draw 5 or more"):
        draw_sample(runtime, batch_id, 2, by="t")
    assert len(draw_sample(runtime, batch_id, 50, by="t").essays) == 8


def test_the_interval_of_the_level_holds_what_it_says() -> None:
    """By Student's t: with ten students a normal interval would hold 92 %."""
    rng = np.random.default_rng(7)
    held = 0
    for _ in range(2000):
        given = rng.integers(0, 9, 10)
        found = against((given + rng.normal(0.4, 1.0, 10)).tolist(), given.tolist())
        held += found.lower <= 0.4 <= found.upper
    assert held / 2000 == pytest.approx(0.95, abs=0.015)


def test_a_sheet_of_grades_tells_the_validity(graded: tuple[Runtime, str], tmp_path: Path) -> None:
    """How far people order and grade alike stands with the figures of the scale from then on."""
    runtime, batch_id = graded
    sample = draw_sample(runtime, batch_id, 8, by="ana", seed=3)
    one_lower = {
        essay_id: sample.grades[max(sample.grades.index(grade) - 1, 0)]
        for essay_id, grade in _machine(runtime).items()
    }
    before = read_history_of(runtime, batch_id).statistics["validity"]

    take_grades(runtime, batch_id, _filled(sample, one_lower, tmp_path / "filled.xlsx"), by="ana")

    found = read_history_of(runtime, batch_id).statistics["validity"]
    assert before is None
    assert found["by"] == "grades"
    assert found["n"] == 8
    assert 0 <= found["lower"] <= found["r2"] <= found["upper"] <= 1
    assert found["level_lower"] <= found["level"] <= found["level_upper"]
    assert -1 <= found["level"] < 0


def read_history_of(runtime: Runtime, batch_id: str) -> BatchHistory:
    with runtime.store.read() as db:
        return read_history(db, batch_id)
