"""CSV files that people open in a spreadsheet, in which no text from outside is run.

A spreadsheet runs a cell that looks like a formula, and splits lines where its own language does:
at semicolons or tabs as readily as at commas, and then it does not see the quotes. So every text
is quoted, and gets an apostrophe wherever one of these would let a formula begin.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

Cell = str | int | float | None

# A cell begins with the text, and for another separator after each of these. Spaces and quotes may
# stand before what begins a formula; the wide forms are taken for the narrow ones.
_FORMULA = re.compile(r"""((?:^|[;\t\r\n])[\s"']*)([=+\-@\uff1d\uff0b\uff0d\uff20])""")


def csv_file(
    columns: Sequence[str], rows: Iterable[Sequence[Cell]], *, decimal_comma: bool = False
) -> bytes:
    """Return a table as CSV in UTF-8, with the mark by which Excel knows the encoding.

    Args:
        columns: The headings.
        rows: The cells below them.
        decimal_comma: Write `0,5` and part cells by semicolons, as spreadsheets expect where
            decimals are parted by commas.
    """
    return csv_text(columns, rows, decimal_comma=decimal_comma).encode("utf-8-sig")


def csv_text(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    decimal_comma: bool = False,
    line_end: str = "\r\n",
) -> str:
    """Return a table as CSV; the arguments are those of `csv_file`, and how a line ends.

    A cell may be anything that a database holds: a list or a structure is written as a text.
    """
    text = io.StringIO(newline="")
    separator = ";" if decimal_comma else ","
    writer = csv.writer(
        text, quoting=csv.QUOTE_NONNUMERIC, delimiter=separator, lineterminator=line_end
    )
    for row in (columns, *rows):
        writer.writerow([_written(cell, decimal_comma=decimal_comma) for cell in row])
    return text.getvalue()


def _written(cell: Any, *, decimal_comma: bool) -> Any:
    if cell is None or isinstance(cell, int | Decimal):
        return cell
    if isinstance(cell, float):
        return f"{cell}".replace(".", ",") if decimal_comma else cell
    return inert_cell(str(cell))


def inert_cell(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula, whole or split.

    A leading tab or line break counts as the beginning of a formula too.
    """
    guarded = _FORMULA.sub(r"\1'\2", text)
    return f"'{guarded}" if text[:1] in {"\t", "\r", "\n"} else guarded
