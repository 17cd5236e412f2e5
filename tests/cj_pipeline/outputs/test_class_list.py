"""The class list opens in a spreadsheet and runs nothing there."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Iterator
from dataclasses import replace

import pytest

from cj_pipeline.outputs.class_list import COLUMNS, class_list_csv, class_list_xlsx
from cj_pipeline.outputs.report import render_history
from cj_pipeline.queries.history import BatchHistory, read_history
from tests.support.finished_batches import ARGUMENTS, SPRING, finished_batches

FORMULA = '=HYPERLINK("http://example.invalid","click")'


@pytest.fixture(scope="module")
def histories() -> Iterator[dict[str, BatchHistory]]:
    with finished_batches() as db:
        yield {name: read_history(db, name) for name in (SPRING, ARGUMENTS)}


def test_students_are_listed_best_first_without_anchors(
    histories: dict[str, BatchHistory],
) -> None:
    """It is a list of a class; anchors are nobody's work in it."""
    rows = _rows(class_list_csv(histories[SPRING]))

    assert [int(row["rank"]) for row in rows] == list(range(1, 9))
    assert all(row["essay_id"].startswith("pupil-") for row in rows)
    assert [float(row["score"]) for row in rows] == sorted(
        (float(row["score"]) for row in rows), reverse=True
    )
    assert all(row["grade"] for row in rows)


def test_a_scale_that_the_batch_sets_stands_in_the_list_and_in_the_report(
    histories: dict[str, BatchHistory],
) -> None:
    """Beside logits, with its error; without such a scale the columns are empty."""
    plain = histories[SPRING]
    scored = [
        {"essay_id": row["essay_id"], "scaled_score": 500 + 60 * row["score"]}
        | {"standard_error": 60 * row["standard_error"]}
        for row in plain.last_scores
    ]
    scaled = replace(plain, scaled_scores=tuple(scored))

    listed = _rows(class_list_csv(scaled))

    for row in listed:
        assert float(row["scaled_score"]) == pytest.approx(500 + 60 * float(row["score"]), abs=0.1)
        assert float(row["scaled_error"]) == pytest.approx(
            60 * float(row["standard_error"]), abs=0.1
        )
    assert {row["scaled_score"] for row in _rows(class_list_csv(plain))} == {""}
    best = listed[0]
    cell = f"{float(best['scaled_score']):.1f} ± {float(best['scaled_error']):.1f}"
    assert cell in render_history(scaled)


def test_students_of_a_linked_batch_see_how_far_they_moved(
    histories: dict[str, BatchHistory],
) -> None:
    """How many moved beyond chance is counted; a batch that is linked to none has no such table."""
    plain = histories[SPRING]
    moved = [
        {"essay_id": f"pupil-{at:02d}", "batch_before": "autumn", "score_before": 0.5}
        | {"score": 0.5 + change, "change": change, "change_standard_error": 0.5}
        for at, change in ((1, 1.25), (2, -1.2), (3, 0.1), (4, -0.97))
    ]
    linked = replace(
        plain,
        student_progress=tuple(moved),
        links=(
            {"placed_batch_id": SPRING, "onto_batch_id": "autumn", "statement": "Linked."}
            | {"shift": 0.1, "shift_standard_error": 0.2},
        ),
    )

    page = render_history(linked)

    assert "Of 4 changes 2 are larger than chance explains" in page
    assert "+1.25 ± 0.50" in page
    assert "−1.20 ± 0.50" in page
    assert "How far each student" not in render_history(plain)


def test_without_grades_the_grade_column_is_empty(histories: dict[str, BatchHistory]) -> None:
    """A rank must not be mistaken for a grade."""
    rows = _rows(class_list_csv(histories[ARGUMENTS]))

    assert {row["grade"] for row in rows} == {""}


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "＝"])
def test_no_text_in_the_csv_starts_like_a_formula(
    histories: dict[str, BatchHistory], start: str
) -> None:
    """A student names the file, and a teacher opens the list."""
    history = _with_file_name(histories[ARGUMENTS], f"{start}1+1|cmd")

    rows = _rows(class_list_csv(history))

    assert all(row["file_name"].startswith(("'", "[U+")) for row in rows)


def test_a_negative_score_in_the_csv_stays_a_number(histories: dict[str, BatchHistory]) -> None:
    """Guarding against formulas must not turn figures into texts."""
    rows = _rows(class_list_csv(histories[ARGUMENTS]))

    assert min(float(row["score"]) for row in rows) < 0


def test_the_workbook_holds_texts_and_numbers_and_no_formula(
    histories: dict[str, BatchHistory],
) -> None:
    """Excel evaluates only cells that hold `<f>`."""
    workbook = class_list_xlsx(_with_file_name(histories[ARGUMENTS], FORMULA))

    with zipfile.ZipFile(io.BytesIO(workbook)) as parts:
        sheet = parts.read("xl/worksheets/sheet1.xml").decode()
        texts = parts.read("xl/sharedStrings.xml").decode()
        names = parts.namelist()

    assert "<f>" not in sheet
    assert "=HYPERLINK" in texts
    assert not any("rels/sheet1" in name for name in names)


def test_the_same_batch_gives_the_same_workbook(histories: dict[str, BatchHistory]) -> None:
    """A workbook carries its date unless told otherwise, and its checksum is in the manifest."""
    assert class_list_xlsx(histories[SPRING]) == class_list_xlsx(histories[SPRING])


def test_the_workbook_fits_a_pages_width_on_paper(histories: dict[str, BatchHistory]) -> None:
    """All columns side by side, long remarks below each other, the headings on every page."""
    with zipfile.ZipFile(io.BytesIO(class_list_xlsx(histories[SPRING]))) as parts:
        sheet = parts.read("xl/worksheets/sheet1.xml").decode()
        book = parts.read("xl/workbook.xml").decode()

    columns = re.findall(r'<col min="(\d+)" max="(\d+)" width="([\d.]+)"', sheet)
    assert 'fitToPage="1"' in sheet
    assert re.search(r'<pageSetup paperSize="9" fitToHeight="0" orientation="landscape"', sheet)
    assert "_xlnm.Print_Titles" in book
    assert int(columns[-1][1]) == len(COLUMNS)
    assert sum((int(to) - int(at) + 1) * float(width) for at, to, width in columns) < 300


def _with_file_name(history: BatchHistory, file_name: str) -> BatchHistory:
    return replace(history, essays=tuple({**row, "file_name": file_name} for row in history.essays))


def _rows(content: bytes) -> list[dict[str, str]]:
    rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    assert tuple(rows[0]) == COLUMNS
    return rows
