"""A student's page as PDF, drawn without a browser; its words are `student_page`'s."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from dataclasses import astuple
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

from cj_pipeline.outputs.language import speaking, tr
from cj_pipeline.outputs.students.student_page import StudentPage, placed

if TYPE_CHECKING:
    from fpdf import FPDF

_FAMILY = "DejaVu"
_LEADING = 0.5
"""Millimetres from line to line, for a point of size."""
_EPOCH = datetime(1980, 1, 1)  # noqa: DTZ001 -- the same page gives the same bytes


def student_pdf(page: StudentPage) -> bytes:
    """Return a student's page as PDF: two pages, the examples' texts following."""
    with speaking(page.language):
        pdf = _document(page)
        _told(pdf, page)
        pdf.add_page()
        _heading(pdf, tr("Your text"))
        _own_text(pdf, page.text)
        for at, example in enumerate(page.between):
            if at == 0:
                pdf.add_page()
            _heading(pdf, f"{example.name} ({example.grade})")
            _paragraph(pdf, example.text, size=9)
        return bytes(pdf.output())


def lacking_letters(page: StudentPage) -> str:
    """Return the letters that a page's PDF cannot draw, each once; the HTML page shows them."""
    from matplotlib.font_manager import get_font

    drawn = get_font(_fonts()[""]).get_charmap()
    letters = dict.fromkeys(letter for text in _texts(astuple(page)) for letter in text)
    return "".join(one for one in letters if ord(one) not in drawn and not one.isspace())


def _texts(told: object) -> Iterator[str]:
    if isinstance(told, str):
        yield told
    elif isinstance(told, tuple):
        for each in told:
            yield from _texts(each)


def _document(page: StudentPage) -> FPDF:
    from fpdf import FPDF

    # A letter that the font lacks is drawn as a box, and `lacking_letters` tells of it.
    logging.getLogger("fpdf").setLevel(logging.ERROR)
    logging.getLogger("fontTools").setLevel(logging.ERROR)
    pdf = FPDF(format="A4")
    for style, path in _fonts().items():
        pdf.add_font(_FAMILY, style, path)
    pdf.set_title(f"{page.name}: {page.title}")
    pdf.set_lang(page.language)
    pdf.set_creation_date(_EPOCH)
    pdf.set_margins(18, 16, 18)
    pdf.set_auto_page_break(auto=True, margin=16)
    pdf.add_page()
    return pdf


@functools.cache
def _fonts() -> dict[str, Path]:
    import matplotlib as mpl

    folder = Path(mpl.get_data_path()) / "fonts" / "ttf"
    return {"": folder / "DejaVuSans.ttf", "B": folder / "DejaVuSans-Bold.ttf"}


def _told(pdf: FPDF, page: StudentPage) -> None:
    _paragraph(pdf, page.title, size=9)
    pdf.set_font(_FAMILY, "B", 17)
    name = f"{page.name}: {page.grade}" if page.grade else page.name
    pdf.multi_cell(0, 8, name, new_x="LMARGIN", new_y="NEXT")
    _paragraph(pdf, page.grade_line)
    for line in (page.scaled_line, page.progress_line):
        if line:
            _paragraph(pdf, line)
    if page.status:
        _paragraph(pdf, page.status, size=8)
    if page.likely:
        _list(pdf, tr("How sure is the grade?"), page.likely)
    if page.between:
        _list(pdf, tr("Where your text stands"), [placed(example) for example in page.between])
    if page.edited:
        _heading(pdf, tr("Feedback"))
        _paragraph(pdf, page.edited)
    else:
        for heading, told in (
            (tr("What the judges liked"), page.strengths),
            (tr("What to work on"), page.to_work_on),
        ):
            if told:
                _list(pdf, heading, [f"{each.text} [{each.number}]" for each in told])
    if page.verdicts:
        _list(
            pdf,
            tr("Telling comparisons"),
            [
                " ".join(
                    [
                        tr("Comparison {n}: {outcome}.", n=each.number, outcome=each.outcome),
                        *(tr("“{said}”", said=said) for said in each.words),
                    ]
                )
                for each in page.verdicts
            ],
        )
    if page.changes:
        _list(pdf, tr("What would change it"), page.changes)
    _heading(pdf, tr("If you disagree"))
    _paragraph(pdf, page.appeal)


def _own_text(pdf: FPDF, text: str) -> None:
    """Write the text as large as lets it end on its page; a long one goes on in small print."""
    room = pdf.h - pdf.b_margin - pdf.get_y()
    for size in (10, 9, 8, 7):
        pdf.set_font(_FAMILY, "", size)
        lines = pdf.multi_cell(0, size * _LEADING, text, dry_run=True, output="LINES")
        if len(cast("list[str]", lines)) * size * _LEADING <= room:
            break
    _paragraph(pdf, text, size=size)


def _heading(pdf: FPDF, text: str) -> None:
    pdf.ln(2)
    pdf.set_font(_FAMILY, "B", 12)
    pdf.multi_cell(0, 6, text, new_x="LMARGIN", new_y="NEXT")


def _list(pdf: FPDF, heading: str, lines: list[str] | tuple[str, ...]) -> None:
    _heading(pdf, heading)
    for line in lines:
        _paragraph(pdf, f"• {line}", size=9)


def _paragraph(pdf: FPDF, text: str, *, size: int = 10) -> None:
    pdf.set_font(_FAMILY, "", size)
    pdf.multi_cell(0, size * _LEADING, text, align="L", new_x="LMARGIN", new_y="NEXT")
