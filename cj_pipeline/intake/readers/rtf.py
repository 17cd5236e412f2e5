"""Rich text (.rtf): its words; what striprtf cannot tell apart is told."""

from __future__ import annotations

import re

from striprtf.striprtf import rtf_to_text

from cj_pipeline.intake.readers.extracted import (
    TINY_POINTS,
    UNSEEN,
    Extracted,
    UnreadableFileError,
)

_CELL = re.compile(r"\\(nest)?cell(?![a-z])")

_TOLD = (
    ("deleted", "deleted words of tracked changes may be in the text: compare"),
    ("footnote", "footnotes left out"),
    ("annotation", "comments left out"),
    ("header[lrf]?", "the page header left out"),
    ("footer[lrf]?", "the page footer left out"),
    ("shptxt", "text boxes left out"),
    ("pict", "pictures left out"),
    ("trowd", "a table taken as lines of text"),
)
"""Control words, as a regular expression each, and what they mean for a reader of the text."""


def read_rtf(content: bytes) -> Extracted:
    """Return a rich-text file's words.

    Raises:
        UnreadableFileError: If it cannot be read.
    """
    if not content.startswith(b"{\\rtf"):
        msg = "is not a rich-text (RTF) file"
        raise UnreadableFileError(msg)
    raw = content.decode("latin-1")
    try:
        # Each cell is a line, as in the other formats; striprtf would draw bars between them.
        lines = _CELL.sub(r"\\par", raw)
        text = rtf_to_text(lines, errors="strict")  # type: ignore[no-untyped-call]
    except (ValueError, LookupError, TypeError, OverflowError) as error:
        msg = "is a rich-text file that cannot be read: save it as .docx or as plain text"
        raise UnreadableFileError(msg) from error
    notes = [note for word, note in _TOLD if re.search(rf"\\{word}(?![a-z])", raw)]
    if _holds_unseen(raw):
        notes.append(UNSEEN)
    return Extracted(text.replace("\uf095", "-"), notes)


def _holds_unseen(raw: str) -> bool:
    """Whether letters are hidden, in a white of the file's table of colours, or tiny."""
    table = re.search(r"\\colortbl([^}]*)}", raw)
    colours = table[1].split(";")[:-1] if table else []
    white = [
        str(index)
        for index, colour in enumerate(colours)
        if all(f"\\{part}255" in colour for part in ("red", "green", "blue"))
    ]
    sizes = "|".join(str(half) for half in range(1, 2 * TINY_POINTS + 1))
    looks = rf"\\v(?![a-z0-9])|\\fs(?:{sizes})(?!\d)"
    if white:
        looks += rf"|\\cf(?:{'|'.join(white)})(?!\d)"
    begin = max(raw.find("\\pard"), 0)  # fonts, colours and styles come before
    return re.search(looks, raw[begin:]) is not None
