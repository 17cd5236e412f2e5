"""CSV that a spreadsheet opens, in whatever language it runs."""

from __future__ import annotations

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cj_pipeline.outputs.csv_files import csv_file, inert_cell

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
