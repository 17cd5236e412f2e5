"""Spreadsheets (.xlsx, .ods, .xls): the one sheet that holds something, each cell as text.

calamine reads them, after the cells' own addresses were looked at: one cell at the far corner of a
sheet makes it ask for more memory than there is and end the process.
"""

from __future__ import annotations

import datetime
import io
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO

from lxml import etree
from python_calamine import CalamineError, CalamineWorkbook, PasswordError, SheetVisibleEnum

from cj_pipeline.intake.readers import archive
from cj_pipeline.intake.readers.extracted import Sheet, UnreadableFileError, counted

MAX_CELLS = 1_000_000
"""Rows times columns of a sheet."""

_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_STRICT = "{http://purl.oclc.org/ooxml/spreadsheetml/main}"
_SHEET = re.compile(r"xl/worksheets/[^/]+\.xml")
_ADDRESS = re.compile(r"\A([A-Z]{1,3})([0-9]{1,7})\Z")

_OTHER_PARTS = (("xl/comments", "comments"), ("xl/threadedComments", "comments"))
_PICTURES = ("xl/media/", "Pictures/")
_TABLE = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"
_ERRORS = frozenset(
    {"#NAME?", "#REF!", "#VALUE!", "#DIV/0!", "#N/A", "#NUM!", "#NULL!", "#SPILL!", "#CALC!"}
)
_MAX_WHOLE_NUMBER = 1e15
"""From here on spreadsheets keep no more than the first digits of a number."""

_IS_DATE = "stored as a date or time, as spreadsheets make of 1-2 or 1:30"


@dataclass
class _Seen:
    """What a sheet's own XML says that its values do not.

    Attributes:
        formulas: What was typed, by row and column, both from 1.
        hidden_rows: How many rows with something in them are hidden or filtered away.
    """

    formulas: dict[tuple[int, int], str] = field(default_factory=dict)
    hidden_rows: int = 0


def read_spreadsheet(content: bytes) -> Sheet:
    """Return a spreadsheet's one sheet.

    Raises:
        UnreadableFileError: If it is no spreadsheet, too large, or has several sheets.
    """
    seen: dict[str, _Seen] = {}
    about: list[str] = []
    if content.startswith(b"PK"):
        with archive.opened(content, "a spreadsheet") as file:
            seen = _seen_in(file)
            about = _left_out(file)
    elif not content.startswith(b"\xd0\xcf\x11\xe0"):
        msg = "is not a spreadsheet: save it as .xlsx, .ods or .csv"
        raise UnreadableFileError(msg)
    elif "EncryptedPackage".encode("utf-16-le") in content:
        msg = "is protected by a password: save it without one"
        raise UnreadableFileError(msg)
    try:
        book = CalamineWorkbook.from_filelike(io.BytesIO(content))
        return _sheet(book, seen, about)
    except PasswordError as error:
        msg = "is protected by a password: save it without one"
        raise UnreadableFileError(msg) from error
    except (CalamineError, ValueError, OSError) as error:
        if isinstance(error, UnreadableFileError):
            raise
        msg = "is a spreadsheet that cannot be read: open it and save it again"
        raise UnreadableFileError(msg) from error


def _sheet(book: CalamineWorkbook, seen: Mapping[str, _Seen], about: list[str]) -> Sheet:
    filled, hidden = [], []
    for meta in book.sheets_metadata:
        rows = book.get_sheet_by_name(meta.name).to_python(skip_empty_area=False)
        if not any(cell != "" for row in rows for cell in row):
            continue
        if meta.visible is not SheetVisibleEnum.Visible:
            hidden.append(meta.name)
        else:
            filled.append((meta.name, rows))
    about += [f"the hidden sheet {name!r} is left out" for name in hidden]
    if len(filled) > 1:
        names = ", ".join(repr(name) for name, _ in filled)
        msg = f"has {len(filled)} sheets with something in them ({names}): keep one of them"
        raise UnreadableFileError(msg)
    if not filled:
        msg = "holds nothing" + (" but hidden sheets" if hidden else "")
        raise UnreadableFileError(msg)
    name, rows = filled[0]
    of_sheet = seen.get(name, _Seen())
    if of_sheet.hidden_rows:
        about.append(f"{counted(of_sheet.hidden_rows, 'hidden or filtered row')} taken like others")
    notes: dict[str, str] = {}
    unsure: dict[str, str] = {}
    texts: list[list[str]] = []
    for number, row in enumerate(rows, start=1):
        texts.append([])
        for at, cell in enumerate(row, start=1):
            text, note, why = _text(cell, of_sheet.formulas.get((number, at)))
            texts[-1].append(text)
            if note:
                notes[f"{number}:{at}"] = note
            if why:
                unsure[f"{number}:{at}"] = why
    return Sheet(texts, notes, unsure, about)


def _text(cell: object, formula: str | None) -> tuple[str, str, str]:
    """Return a cell's text, what is odd about it, and why it may not be what was typed."""
    shown, note, why = _shown(cell)
    if formula is None or why == _IS_DATE:
        return shown, note, why
    if shown not in {"", "0"} and shown not in _ERRORS:
        return shown, "worked out by a formula: its value as it was saved is taken", why
    # Excel and programs make a formula of a text that begins with "=", which has no value.
    typed = "stored as a formula"
    return f"={formula}", f"{typed}: what was typed is taken", typed


def _shown(cell: object) -> tuple[str, str, str]:
    if isinstance(cell, bool):
        return "TRUE" if cell else "FALSE", "", ""
    if isinstance(cell, (int, float)):
        is_whole = float(cell).is_integer()
        why = ""
        if abs(cell) >= _MAX_WHOLE_NUMBER:
            why = "stored as a number that is longer than a spreadsheet keeps exactly"
        return str(int(cell)) if is_whole else repr(cell), "stored as a number", why
    if isinstance(cell, (datetime.date, datetime.time, datetime.timedelta)):
        return str(cell), "", _IS_DATE
    text = str(cell)
    return text, "", "stored as a formula that cannot be worked out" if text in _ERRORS else ""


def _left_out(file: zipfile.ZipFile) -> list[str]:
    """Return what a spreadsheet holds beside its cells, for people."""
    names = file.namelist()
    found = dict.fromkeys(
        word for start, word in _OTHER_PARTS for n in names if n.startswith(start)
    )
    if any(name.startswith(_PICTURES) for name in names):
        found["pictures"] = None
    if "content.xml" in names and b"<office:annotation" in file.read("content.xml"):
        found["comments"] = None
    return [f"{word} left out" for word in found]


def _seen_in(file: zipfile.ZipFile) -> dict[str, _Seen]:
    """Refuse far cells, and return what each sheet's XML says, by the sheet's name."""
    names = file.namelist()
    if "content.xml" in names:
        return _seen_in_ods(file)
    found = {part: _seen_in_part(file, part) for part in names if _SHEET.fullmatch(part)}
    if not any(seen.formulas or seen.hidden_rows for seen in found.values()):
        return {}
    return {name: found[part] for name, part in _sheet_parts(file).items() if part in found}


def _seen_in_part(file: zipfile.ZipFile, part: str) -> _Seen:
    last_row = last_column = n_cells = 0
    seen = _Seen()
    with file.open(part) as source:
        for element in _elements(source):
            tag = _local(element)
            if tag == "c":
                n_cells += 1
                row, column = _place(element.get("r"))
                last_row, last_column = max(last_row, row), max(last_column, column)
                if max(last_row * last_column, n_cells) > MAX_CELLS:
                    msg = (
                        f"has a cell at {element.get('r')}, so that its sheet would be larger"
                        f" than {MAX_CELLS:,} cells: delete what stands far outside the table"
                    )
                    raise UnreadableFileError(msg)
                typed = next((c.text for c in element if _local(c) == "f"), None)
                if typed:
                    seen.formulas[row, column] = typed
            if tag == "row":
                is_hidden = element.get("hidden") in {"1", "true"}
                seen.hidden_rows += is_hidden and any(len(cell) for cell in element)
                element.clear()
    return seen


def _seen_in_ods(file: zipfile.ZipFile) -> dict[str, _Seen]:
    found: dict[str, _Seen] = {}
    seen = _Seen()
    with file.open("content.xml") as source:
        for element in _elements(source):
            if element.tag == f"{_TABLE}table-row":
                is_hidden = element.get(f"{_TABLE}visibility") in {"collapse", "filter"}
                seen.hidden_rows += is_hidden and any(len(cell) for cell in element)
                element.clear()
            elif element.tag == f"{_TABLE}table":
                found[str(element.get(f"{_TABLE}name"))], seen = seen, _Seen()
    return found


def _elements(source: IO[bytes]) -> Iterator[etree._Element]:
    try:
        for _, element in etree.iterparse(
            source, events=("end",), resolve_entities=False, no_network=True
        ):
            yield element
    except etree.XMLSyntaxError as error:
        msg = "is a spreadsheet whose content is broken: open it and save it again"
        raise UnreadableFileError(msg) from error


def _local(element: etree._Element) -> str:
    return etree.QName(element).localname if isinstance(element.tag, str) else ""


def _place(address: str | None) -> tuple[int, int]:
    match = _ADDRESS.match(address or "")
    if match is None:
        return 0, 0
    column = 0
    for letter in match[1]:
        column = column * 26 + ord(letter) - ord("A") + 1
    return int(match[2]), column


def _sheet_parts(file: zipfile.ZipFile) -> dict[str, str]:
    """Return the part that holds each sheet, by its name."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    try:
        relations = {
            each.get("Id"): each.get("Target", "")
            for each in etree.fromstring(file.read("xl/_rels/workbook.xml.rels"), parser)
        }
        book = etree.fromstring(file.read("xl/workbook.xml"), parser)
    except (KeyError, etree.XMLSyntaxError):
        return {}
    parts = {}
    for sheet in book.iter(f"{_MAIN}sheet", f"{_STRICT}sheet"):
        key = next((v for k, v in sheet.attrib.items() if str(k).endswith("}id")), "")
        target = relations.get(key, "")
        parts[str(sheet.get("name"))] = (
            target.lstrip("/") if target.startswith("/") else f"xl/{target}"
        )
    return parts
