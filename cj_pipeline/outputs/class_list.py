"""The class list: one row per student's essay, for a spreadsheet, as CSV and as XLSX.

Essay ids and file names come from outside, and a spreadsheet runs a cell that looks like a
formula. `csv_files` guards the CSV, and in XLSX every text is written as a string, which no
spreadsheet evaluates.
"""

from __future__ import annotations

import io
from collections import defaultdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cj_pipeline.batch.essays import label
from cj_pipeline.outputs.csv_files import Cell, csv_file
from cj_pipeline.outputs.feedback import written_grade
from cj_pipeline.outputs.language import language_for, speaking, to_translate, tr, whole
from cj_pipeline.outputs.readings.first_screen import expected_grades, readings, same_text_remarks
from cj_pipeline.outputs.report_dependence import validity
from cj_pipeline.outputs.report_scale import headline_reliability
from cj_pipeline.queries.history import BatchHistory, Row, student_ranks
from cj_pipeline.text import excerpt

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

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
    "scaled_score",
    "scaled_error",
)
HEADINGS: Mapping[str, tuple[str, str]] = {
    "rank": (
        to_translate("Rank"),
        to_translate("Among the students; essays with equal evidence share one."),
    ),
    "rank_from": (
        to_translate("Rank from"),
        to_translate("The true rank is at least this good with 95 % probability."),
    ),
    "rank_to": (
        to_translate("Rank to"),
        to_translate("The true rank is at most this low with 95 % probability."),
    ),
    "name": (to_translate("Name"), to_translate("As submitted.")),
    "group": (to_translate("Group"), to_translate("As submitted.")),
    "essay_id": (to_translate("Essay id"), to_translate("What the batch calls the essay.")),
    "file_name": (to_translate("File"), to_translate("The file that was submitted.")),
    "grade": (
        to_translate("Grade"),
        to_translate("The grade to be given: a person's where one set it."),
    ),
    "fine_grade": (
        to_translate("With minus or plus"),
        to_translate("The same with its minus or plus, where the scale has them."),
    ),
    "confidence": (
        to_translate("Probability"),
        to_translate("Of all grades given with 0.7, about 70 in 100 are right if the anchors are."),
    ),
    "expected_grade": (
        to_translate("Expected grade"),
        to_translate("The mean of all probable grades, in steps; the lowest grade is 0."),
    ),
    "score": (
        to_translate("Score"),
        to_translate("In logits: one more means winning about 73 of 100 comparisons."),
    ),
    "standard_error": (to_translate("Standard error"), to_translate("Of the score, in logits.")),
    "score_from": (
        to_translate("Score from"),
        to_translate("The lower end of the score's 95 % interval."),
    ),
    "score_to": (
        to_translate("Score to"),
        to_translate("The upper end of the score's 95 % interval."),
    ),
    "verdict_score": (
        to_translate("By verdicts alone"),
        to_translate("The score that the verdicts alone would give."),
    ),
    "n_comparisons": (
        to_translate("Comparisons"),
        to_translate("In how many comparisons the essay was judged."),
    ),
    "remarks": (to_translate("Remarks"), to_translate("Why a person should read the essay.")),
    "status": (to_translate("Status"), to_translate("Whether the grades may be used as final.")),
    "machine_grade": (
        to_translate("Grade by the verdicts"),
        to_translate("The grade before any person changed it."),
    ),
    "read_first": (
        to_translate("Read first"),
        to_translate("The place in the order in which a reading gains most; 1 comes first."),
    ),
    "scaled_score": (
        to_translate("Scaled score"),
        to_translate("The score on the scale that the batch sets; empty without one."),
    ),
    "scaled_error": (
        to_translate("Scaled error"),
        to_translate("Its standard error, on the same scale."),
    ),
}
"""Each column's heading and meaning, for people."""
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
        scaled = history.scaled_by_id.get(row["essay_id"])
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
            round(scaled["scaled_score"], 1) if scaled else None,
            round(scaled["standard_error"], 1) if scaled else None,
        )


def class_list_csv(history: BatchHistory) -> bytes:
    """Return the class list as CSV in UTF-8, with the mark by which Excel knows the encoding."""
    with speaking(language_for(history.settings)):
        return csv_file(COLUMNS, list(class_list(history)))


def class_list_for_spreadsheets(history: BatchHistory) -> bytes:
    """Return the class list as CSV parted by semicolons, with decimal commas and plain headings.

    It is what a spreadsheet opens by a double click where decimals are parted by commas.
    """
    with speaking(language_for(history.settings)):
        headings = [tr(HEADINGS[column][0]) for column in COLUMNS]
        return csv_file(headings, list(class_list(history)), decimal_comma=True)


def class_list_xlsx(history: BatchHistory) -> bytes:
    """Return students, anchors and an explanation as an Excel workbook, a sheet each.

    The same rows give the same bytes.
    """
    import xlsxwriter

    content = io.BytesIO()
    with (
        speaking(language_for(history.settings)),
        xlsxwriter.Workbook(content, {"in_memory": True}) as workbook,
    ):
        workbook.set_properties(
            {"title": f"Class list of {history.batch_id}", "created": _EXCEL_EPOCH}
        )
        students = [tr(HEADINGS[column][0]) for column in COLUMNS]
        _sheet(workbook, tr("Students"), students, class_list(history))
        anchors = [tr(heading) for heading in _ANCHOR_HEADINGS]
        _sheet(workbook, tr("Anchors"), anchors, _anchor_rows(history))
        explained = [tr("Heading"), tr("Meaning")]
        _sheet(workbook, tr("Explanation"), explained, _explanation(history))
    return content.getvalue()


def _sheet(
    workbook: Any, name: str, headings: Sequence[str], rows: Iterable[Sequence[Cell]]
) -> None:
    sheet = workbook.add_worksheet(name)
    bold = workbook.add_format({"bold": True, "text_wrap": True, "valign": "top"})
    plain = workbook.add_format({"text_wrap": True, "valign": "top"})
    widths = [max(map(len, heading.split())) for heading in headings]
    for column, heading in enumerate(headings):
        sheet.write_string(0, column, heading, bold)
    for line, row in enumerate(rows, start=1):
        for column, cell in enumerate(row):
            widths[column] = max(widths[column], len("" if cell is None else str(cell)))
            if isinstance(cell, str):
                sheet.write_string(line, column, cell, plain)
            elif cell is not None:
                sheet.write_number(line, column, cell, plain)
    for column, width in enumerate(widths):
        sheet.set_column(column, column, min(width, _MAX_WIDTH) + 1)
    sheet.freeze_panes(1, 0)
    _for_paper(sheet)


def _for_paper(sheet: Any) -> None:
    """Print all columns on one page's width, with the headings on each page."""
    sheet.set_landscape()
    sheet.set_paper(_A4)
    sheet.set_margins(left=0.3, right=0.3, top=0.4, bottom=0.4)
    sheet.fit_to_pages(1, 0)
    sheet.repeat_rows(0)


_A4 = 9
"""As Excel numbers sizes of paper."""
_MAX_WIDTH = 42
"""Of a column, in characters; what is longer goes on below."""
_ANCHOR_HEADINGS = (
    to_translate("Anchor"),
    to_translate("Known grade"),
    to_translate("By the others"),
    to_translate("Probability"),
    to_translate("Score"),
    to_translate("Standard error"),
    to_translate("Remarks"),
)


def _anchor_rows(history: BatchHistory) -> Iterator[tuple[Cell, ...]]:
    """Yield the anchors, best first, each graded by the others."""
    remarks = readings(history).remarks
    for row in history.last_scores:
        essay_id = row["essay_id"]
        if not _is_anchor(history, essay_id):
            continue
        projection = history.projection_by_id.get(essay_id)
        yield (
            excerpt(history.label(essay_id), 200),
            history.anchor_grades[essay_id],
            projection["grade"] if projection else None,
            round(projection["confidence"], 3) if projection else None,
            round(row["score"], 3),
            round(row["standard_error"], 3),
            "; ".join(remarks.get(essay_id, ())),
        )


def _explanation(history: BatchHistory) -> Iterator[tuple[Cell, ...]]:
    yield tr("Precision: reliability among students"), headline_reliability(history)
    agreed = validity(history)
    yield tr("Validity: agreement with people"), f"{agreed['value']}. {agreed['meaning']}"
    expected = expected_grades(history)
    if expected is not None and expected.n:
        yield (
            tr("How sure is it?"),
            tr(
                "Of {n} grades, about {exact} are expected to be exactly right, and about {near} to"
                " be right or one step off.",
                n=whole(expected.n),
                exact=whole(expected.exact),
                near=whole(expected.within_one),
            ),
        )
    for heading, meaning in HEADINGS.values():
        yield tr(heading), tr(meaning)


def _shares(history: BatchHistory, person: Row) -> Iterator[str]:
    other = history.essay_by_id[person["judged_id"]]
    called = label(other["essay_id"], other.get("given_id"), other.get("name"))
    yield tr("the same text as {name}, judged once for both", name=excerpt(called, 100))


def _is_anchor(history: BatchHistory, essay_id: str) -> bool:
    return bool(history.essay_by_id[essay_id]["is_anchor"])
