"""Tables that people hand in: CSV as spreadsheets write it, and spreadsheets themselves.

What a column holds is `columns`. Whatever cannot be read is a problem with its line or cell; rows
are never left out in silence.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cj_pipeline.ids import nearest
from cj_pipeline.intake.columns import columns_of, heading, n_known
from cj_pipeline.intake.folder import Reading
from cj_pipeline.intake.readers.process import SPREADSHEETS
from cj_pipeline.text import MAX_CHARACTERS, with_plain_line_ends

MAX_TABLE_BYTES = 256 * 1024 * 1024
"""Of a CSV; well above 5,000 essays of 40,000 characters."""

TABLE_ENDINGS = (".csv", *SPREADSHEETS)

_SEP_LINE = re.compile(r'\A"?sep=(.)"?\r?\n', re.IGNORECASE)


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        where: For people, such as `essays.csv line 4`.
        cells: What it holds, by our names for the columns.
        others: Its other cells, by the heading they stand under.
        notes: What was odd about its cells, by our names for the columns.
        unsure: Why a cell may not hold what was typed into it, likewise.
    """

    where: str
    cells: Mapping[str, str]
    others: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    unsure: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Line:
    where: str
    cells: Sequence[str]
    notes: Mapping[int, str] = field(default_factory=dict)  # by column, from 0
    unsure: Mapping[int, str] = field(default_factory=dict)  # likewise


def table_named(reading: Reading, stem: str) -> str | None:
    """Return the table of this name that a folder has, such as `essays.csv`; two are a problem."""
    found = [stem + ending for ending in TABLE_ENDINGS if reading.has(stem + ending)]
    if len(found) > 1:
        reading.problems.append(f"both {found[0]} and {found[1]} are given: keep one of them")
    return found[0] if found else None


def check_mapping(reading: Reading, mapping: Mapping[Any, str]) -> None:
    """A heading that the batch names and no table has is a problem, if it was not told before."""
    if not reading.headings:
        return
    known = {heading(name) for name in reading.headings}
    said = "\n".join(reading.problems)
    reading.problems.extend(
        f"batch.yaml: columns: {role}: no table has a column"
        f" {word!r}{nearest(word, reading.headings, at_least=0.6)}"
        for role, word in mapping.items()
        if heading(word) not in known and f"says it is {word!r}" not in said
    )


def table_rows(
    reading: Reading,
    relative: str,
    required: Sequence[str],
    mapping: Mapping[Any, str] | None = None,
) -> Iterator[Row]:
    """Yield each row of a table; what is wrong with it becomes problems.

    Columns may be in any order and called as `columns.HEADINGS` says.

    Args:
        reading: The folder.
        relative: The table's path in it.
        required: What it must hold, by our names.
        mapping: The batch's own words for its columns.
    """
    lines = (
        _csv_lines(reading, relative, mapping or {})
        if relative.lower().endswith(".csv")
        else _spreadsheet_lines(reading, relative)
    )
    header = next((line for line in lines if any(cell.strip() for cell in line.cells)), None)
    if header is None:
        return
    names = [with_plain_line_ends(cell).strip() for cell in header.cells]
    reading.headings.update(names)
    columns = columns_of(names, required, mapping or {})
    n_problems = len(reading.problems)
    reading.problems.extend(f"{relative} {problem}" for problem in columns.problems)
    reading.notices.extend(f"{relative}: {notice}" for notice in columns.notices)
    if columns.problems:
        return
    n_rows = 0
    for line in lines:
        if not any(cell.strip() for cell in line.cells):
            continue
        n_rows += 1
        if len(line.cells) >= len(names) and not any(map(str.strip, line.cells[len(names) :])):
            yield _row(line, names, columns.places)
        else:
            reading.problems.append(
                f"{line.where}: {len(line.cells)} cells, but the header names"
                f" {len(names)}; give each row all its cells, and put texts in double quotes"
            )
    if not n_rows and len(reading.problems) == n_problems:
        reading.problems.append(f"{relative} has no row below its header")


def _row(line: _Line, names: Sequence[str], places: Mapping[str, int]) -> Row:
    cells = {role: line.cells[at] for role, at in places.items()}
    if "first_name" in cells and "last_name" in cells:
        full = _full_name(cells["first_name"].strip(), cells["last_name"].strip())
        cells.setdefault("name", full)
        if places.get("essay_id") == places["first_name"]:
            cells["essay_id"] = full
    taken = set(places.values())
    others = {
        name: line.cells[at].strip()
        for at, name in enumerate(names)
        if at not in taken and name and line.cells[at].strip()
    }
    notes = {role: line.notes[at] for role, at in places.items() if at in line.notes}
    unsure = {role: line.unsure[at] for role, at in places.items() if at in line.unsure}
    return Row(line.where, cells, others, notes, unsure)


def _full_name(first: str, last: str) -> str:
    """Return both names; a last name that bears the first one already is the whole."""
    is_whole = first.casefold().split() == last.casefold().split()[: len(first.split())]
    return last if is_whole else f"{first} {last}".strip()


def _csv_lines(reading: Reading, relative: str, mapping: Mapping[str, str]) -> Iterator[_Line]:
    found = reading.text_of(relative, MAX_TABLE_BYTES)
    if found is None:
        return
    text, delimiter = found[0], None
    named = _SEP_LINE.match(text)
    if named:
        text, delimiter = text[named.end() :], named[1]
    before = 1 if named else 0
    rows = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter or _delimiter(text, mapping), strict=True
    )
    begins = 1 + before
    try:
        for row in rows:
            yield _Line(f"{relative} line {rows.line_num + before}", row)
            begins = rows.line_num + before + 1
    except csv.Error as error:
        reason = str(error)
        if "field larger" in reason:
            reason = f"a text has more than the {MAX_CHARACTERS:,} characters a judge is shown"
        elif "unexpected end" in reason:
            reason = "a text begins with a quotation mark, and no other ends it"
        elif "expected after" in reason:
            reason = 'a quotation mark stands inside a text: write it twice, as ""'
        reading.problems.append(f"{relative} cannot be read from line {begins} on: {reason}")


def _delimiter(text: str, mapping: Mapping[str, str]) -> str:
    """Return the separator whose use makes the first line name the most columns that are known."""
    first = with_plain_line_ends(text[:10_000]).lstrip().split("\n", 1)[0]
    own = {word.casefold() for word in mapping.values()}

    def worth(mark: str) -> tuple[int, int]:
        cells = [cell.strip() for cell in next(csv.reader([first], delimiter=mark), [])]
        return n_known(cells) + sum(cell.casefold() in own for cell in cells), len(cells)

    return max(",;\t", key=worth)


def _spreadsheet_lines(reading: Reading, relative: str) -> Iterator[_Line]:
    sheet = reading.sheet_of(relative)
    if sheet is None:
        return
    for number, row in enumerate(sheet.rows, start=1):
        of_row = {f"{number}:{at + 1}": at for at in range(len(row))}
        notes = {at: sheet.notes[place] for place, at in of_row.items() if place in sheet.notes}
        unsure = {at: sheet.unsure[place] for place, at in of_row.items() if place in sheet.unsure}
        yield _Line(f"{relative} row {number}", row, notes, unsure)
