"""The class list: one row per student's essay, for a spreadsheet, as CSV and as XLSX.

Essay ids and file names come from outside, and a spreadsheet runs a cell that looks like a
formula. `csv_files` guards the CSV, and in XLSX every text is written as a string, which no
spreadsheet evaluates.
"""

from __future__ import annotations

import io
from collections import defaultdict
from datetime import datetime
from typing import TYPE_CHECKING

from cj_pipeline.batch.essays import label
from cj_pipeline.outputs.csv_files import Cell, csv_file
from cj_pipeline.outputs.feedback import written_grade
from cj_pipeline.outputs.first_screen import readings, same_text_remarks
from cj_pipeline.outputs.language import tr
from cj_pipeline.queries.history import BatchHistory, Row, student_ranks
from cj_pipeline.text import excerpt

if TYPE_CHECKING:
    from collections.abc import Iterator

COLUMNS = (
    "rank",
    "rank_from",
    "rank_to",
    "name",
    "group",
    "essay_id",
    "file_name",
    "grade",
    "fine_grade",
    "confidence",
    "expected_grade",
    "score",
    "standard_error",
    "score_from",
    "score_to",
    "verdict_score",
    "n_comparisons",
    "remarks",
    "status",
    "machine_grade",
    "read_first",
)
_EXCEL_EPOCH = datetime(1980, 1, 1)  # noqa: DTZ001 -- XLSX properties carry no zone


def class_list(history: BatchHistory) -> Iterator[tuple[Cell, ...]]:
    """Yield a row of `COLUMNS` per student's essay, best first; grades only where there are any.

    Ranks are among students, and essays with equal evidence share one; the true one lies between
    `rank_from` and `rank_to` with a probability of 95 %, and so does the score between `score_from`
    and `score_to`. The grade is a person's where one set it; `machine_grade` is the grading's, and
    `status` says whether grades may be used, `read_first` where the essay is in the order in which
    a person should read, and `remarks` why, as the report has it.
    """
    to_read = readings(history)
    same_text = same_text_remarks(history)
    students = [row for row in history.last_scores if not _is_anchor(history, row["essay_id"])]
    ranks = student_ranks(students)
    sharing = defaultdict(list)
    for each in history.shared:
        sharing[each["judged_id"]].append(each)
    handed_in = [
        (rank, row, person)
        for rank, row in zip(ranks, students, strict=True)
        for person in (history.essay_by_id[row["essay_id"]], *sharing[row["essay_id"]])
    ]
    for rank, row, person in handed_in:
        essay = history.essay_by_id[row["essay_id"]]
        projection = history.projection_by_id.get(row["essay_id"])
        sure = history.rank_by_id.get(row["essay_id"], {})
        lower, upper = history.score_interval(row["essay_id"])
        decision = history.decision_by_id.get(row["essay_id"])
        is_machines = decision is None or decision["kind"] == "accept"
        yield (
            rank,
            sure.get("student_rank_lower"),
            sure.get("student_rank_upper"),
            excerpt(label(person["essay_id"], person.get("given_id"), person.get("name")), 200),
            excerpt(person.get("group") or "", 200) or None,
            person["essay_id"],
            excerpt(person["file_name"], 200),
            history.given_grade(row["essay_id"]),
            written_grade(projection) if is_machines else None,
            round(projection["confidence"], 3) if projection else None,
            round(projection["expected_grade"], 2) if projection else None,
            round(row["score"], 3),
            round(row["standard_error"], 3),
            round(lower, 3),
            round(upper, 3),
            round(row["verdict_score"], 3),
            row["n_comparisons"],
            "; ".join(
                [
                    *to_read.remarks.get(row["essay_id"], ()),
                    *(
                        _shares(history, person)
                        if person is not essay
                        else same_text.get(row["essay_id"], ())
                    ),
                ]
            ),
            history.release.status if projection else None,
            projection["grade"] if projection else None,
            to_read.place.get(row["essay_id"]),
        )


def class_list_csv(history: BatchHistory) -> bytes:
    """Return the class list as CSV in UTF-8, with the mark by which Excel knows the encoding."""
    return csv_file(COLUMNS, class_list(history))


def class_list_xlsx(history: BatchHistory) -> bytes:
    """Return the class list as an Excel workbook; the same rows give the same bytes."""
    import xlsxwriter

    content = io.BytesIO()
    with xlsxwriter.Workbook(content, {"in_memory": True}) as workbook:
        workbook.set_properties(
            {"title": f"Class list of {history.batch_id}", "created": _EXCEL_EPOCH}
        )
        sheet = workbook.add_worksheet("Class list")
        heading = workbook.add_format({"bold": True})
        for column, name in enumerate(COLUMNS):
            sheet.write_string(0, column, name, heading)
        for line, row in enumerate(class_list(history), start=1):
            for column, cell in enumerate(row):
                if isinstance(cell, str):
                    sheet.write_string(line, column, cell)
                elif cell is not None:
                    sheet.write_number(line, column, cell)
        sheet.freeze_panes(1, 2)
        sheet.autofit()
    return content.getvalue()


def _shares(history: BatchHistory, person: Row) -> Iterator[str]:
    other = history.essay_by_id[person["judged_id"]]
    called = label(other["essay_id"], other.get("given_id"), other.get("name"))
    yield tr("the same text as {name}, judged once for both", name=excerpt(called, 100))


def _is_anchor(history: BatchHistory, essay_id: str) -> bool:
    return bool(history.essay_by_id[essay_id]["is_anchor"])
