"""Spreadsheets (.xlsx, .ods, .xls): the one sheet that holds something, each cell as text.

calamine reads them, after the cells' own addresses were looked at: one cell at the far corner of a
sheet makes it ask for more memory than there is and end the process.
"""

from __future__ import annotations

import datetime
import io
import re
import zipfile

from lxml import etree
from python_calamine import CalamineError, CalamineWorkbook, PasswordError, SheetVisibleEnum

from cj_pipeline.intake.readers import archive
from cj_pipeline.intake.readers.extracted import Sheet, UnreadableFileError

MAX_CELLS = 1_000_000
"""Rows times columns of a sheet."""

_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_STRICT = "{http://purl.oclc.org/ooxml/spreadsheetml/main}"
_SHEET = re.compile(r"xl/worksheets/[^/]+\.xml")
_ADDRESS = re.compile(r"\A([A-Z]{1,3})([0-9]{1,7})\Z")

Formulas = dict[tuple[int, int], str]


def read_spreadsheet(content: bytes) -> Sheet:
    """Return a spreadsheet's one sheet.

    Raises:
        UnreadableFileError: If it is no spreadsheet, too large, or has several sheets.
    """
    if content.startswith(b"PK"):
        with archive.opened(content, "a spreadsheet") as file:
            formulas = _check_cells(file)
    elif content.startswith(b"\xd0\xcf\x11\xe0"):
        formulas = {}
    else:
        msg = "is not a spreadsheet: save it as .xlsx, .ods or .csv"
        raise UnreadableFileError(msg)
    try:
        book = CalamineWorkbook.from_filelike(io.BytesIO(content))
        return _sheet(book, formulas)
    except PasswordError as error:
        msg = "is protected by a password: save it without one"
        raise UnreadableFileError(msg) from error
    except (CalamineError, ValueError, OSError) as error:
        if isinstance(error, UnreadableFileError):
            raise
        msg = "is a spreadsheet that cannot be read: open it and save it again"
        raise UnreadableFileError(msg) from error


def _sheet(book: CalamineWorkbook, formulas: dict[str, Formulas]) -> Sheet:
    filled, hidden = [], []
    for meta in book.sheets_metadata:
        rows = book.get_sheet_by_name(meta.name).to_python(skip_empty_area=False)
        if not any(cell != "" for row in rows for cell in row):
            continue
        if meta.visible is not SheetVisibleEnum.Visible:
            hidden.append(meta.name)
        else:
            filled.append((meta.name, rows))
    about = [f"the hidden sheet {name!r} is left out" for name in hidden]
    if len(filled) > 1:
        names = ", ".join(repr(name) for name, _ in filled)
        msg = f"has {len(filled)} sheets with something in them ({names}): keep one of them"
        raise UnreadableFileError(msg)
    if not filled:
        msg = "holds nothing" + (" but hidden sheets" if hidden else "")
        raise UnreadableFileError(msg)
    name, rows = filled[0]
    notes: dict[str, str] = {}
    written = formulas.get(name, {})
    texts = []
    for number, row in enumerate(rows, start=1):
        texts.append(
            [
                _text(cell, f"{number}:{at}", written.get((number, at)), notes)
                for at, cell in enumerate(row, start=1)
            ]
        )
    return Sheet(texts, notes, about)


def _text(cell: object, place: str, formula: str | None, notes: dict[str, str]) -> str:
    if formula is not None:
        notes[place] = "stored as a formula: what was typed is taken"
        return f"={formula}"
    if isinstance(cell, bool):
        return "TRUE" if cell else "FALSE"
    if isinstance(cell, float):
        notes[place] = "stored as a number"
        return str(int(cell)) if cell.is_integer() else repr(cell)
    if isinstance(cell, int):
        notes[place] = "stored as a number"
        return str(cell)
    if isinstance(cell, (datetime.date, datetime.time, datetime.timedelta)):
        notes[place] = "stored as a date or time, as spreadsheets make of 1-2 or 1:30"
        return str(cell)
    return str(cell)


def _check_cells(file: zipfile.ZipFile) -> dict[str, Formulas]:
    """Refuse far cells, and return what was typed where a sheet has formulas, by sheet."""
    parts = [name for name in file.namelist() if _SHEET.fullmatch(name)]
    found = {part: _formulas(file, part) for part in parts}
    if not any(found.values()):
        return {}
    return {name: found[part] for name, part in _sheet_parts(file).items() if part in found}


def _formulas(file: zipfile.ZipFile, part: str) -> Formulas:
    last_row = last_column = n_cells = 0
    formulas: Formulas = {}
    with file.open(part) as source:
        try:
            for _, element in etree.iterparse(
                source, events=("end",), resolve_entities=False, no_network=True
            ):
                tag = etree.QName(element).localname
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
                        formulas[row, column] = typed
                if tag == "row":
                    element.clear()
        except etree.XMLSyntaxError as error:
            msg = "is a spreadsheet whose content is broken: open it and save it again"
            raise UnreadableFileError(msg) from error
    return formulas


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
