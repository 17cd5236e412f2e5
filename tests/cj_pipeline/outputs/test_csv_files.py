"""CSV that a spreadsheet opens, in whatever language it runs."""

from __future__ import annotations

import csv
import io
import re
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cj_pipeline.outputs.csv_files import csv_file, csv_text, inert_cell
from tests.support import ROOT

FORMULA_STARTS = "=+-@＝＋－＠"


@given(
    text=st.text(alphabet="ab =+-@＝\"';,\t\r\n", max_size=12),
    separator=st.sampled_from(";\t,"),
)
def test_no_cell_begins_a_formula_however_the_file_is_split(text: str, separator: str) -> None:
    """A Swedish or German spreadsheet splits at semicolons and sees no quote inside a line."""
    line = csv_file(("rank", "name"), [(1, text)]).decode("utf-8-sig").split("\r\n", 1)[1]

    if separator == ",":
        cells = next(csv.reader(io.StringIO(line, newline="")))
    else:
        cells = re.split(f"[{separator}\r\n]", line)

    # Quotes and spaces that stand before are taken off by one program or another.
    assert not any(cell.lstrip('" ').startswith(tuple(FORMULA_STARTS)) for cell in cells)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("=1+1", "'=1+1"),
        ("anna; =cmd", "anna; '=cmd"),
        ("anna\t@SUM(1)", "anna\t'@SUM(1)"),
        ("first\n-2", "first\n'-2"),
        ("\tx", "'\tx"),
        ("well-known = good", "well-known = good"),
        ("anna, -5", "anna, -5"),
    ],
)
def test_what_begins_a_formula_gets_an_apostrophe(text: str, shown: str) -> None:
    """And nothing else is changed, since a name should stay a name."""
    assert inert_cell(text) == shown


def test_every_text_is_quoted_and_every_figure_is_not() -> None:
    """A figure in quotes would be a text to some programs, and a text without them two cells."""
    assert csv_file(("a", "b"), [("x", -1.5)]) == b'\xef\xbb\xbf"a","b"\r\n"x",-1.5\r\n'


def test_what_a_database_holds_in_one_cell_is_guarded_as_well() -> None:
    """A list is written as a text, in which a formula could begin; figures stay figures."""
    row = [["a;=cmd"], Decimal("-1.5"), -2, -0.5, None, date(2026, 3, 2)]

    written = csv_text(["list", "decimal", "whole", "float", "none", "day"], [row])

    cells = next(csv.reader([written.splitlines()[1]]))
    assert cells == ["['a;'=cmd']", "-1.5", "-2", "-0.5", "", "2026-03-02"]


WRITE_WHAT_IS_READ_BACK = {"service/uploads.py", "trials/definitions.py"}
"""Tables that make up a batch folder: a guard would change the essays."""


def test_every_table_for_people_is_written_here() -> None:
    """Another module that writes CSV would have to think of formulas again."""
    package = ROOT / "cj_pipeline"
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(r"csv\.(writer|DictWriter)|FORMAT CSV", path.read_text(encoding="utf-8"))
    }

    assert found == {"outputs/csv_files.py"} | WRITE_WHAT_IS_READ_BACK
