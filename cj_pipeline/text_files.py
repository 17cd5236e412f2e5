"""Files from outside become text: the encodings that are taken, and what no text may hold.

Only encoding and line ends are normalised; a text is judged as handed in. Which files a batch is
made of is `ingestion`; showing texts to people is `plain_text`.
"""

from __future__ import annotations

import codecs
import re
import unicodedata

MAX_CHARACTERS = 100_000
"""About 16,000 words: two such essays and their instructions fit a context of 128,000 tokens."""

MAX_BYTES = 4 * MAX_CHARACTERS
"""No text within MAX_CHARACTERS needs more, so a larger file is refused before it is read."""

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_OTHER_FORMATS = (
    (b"PK\x03\x04", "a Word, LibreOffice or zip file"),
    (b"%PDF", "a PDF"),
    (b"{\\rtf", "a rich-text (RTF) file"),
    (b"\xd0\xcf\x11\xe0", "an old Word file"),
)
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_LINE_END = re.compile("\r\n?")


def decode(content: bytes) -> str:
    """Return the text in a file's bytes, without its byte order mark.

    Raises:
        ValueError: If it is neither UTF-8 nor UTF-16 with a byte order mark; the message goes on
            from the file's name ("anna.txt is ...").
    """
    for magic, what in _OTHER_FORMATS:
        if content.startswith(magic):
            msg = f"is {what}, not plain text: save it as plain text in UTF-8"
            raise ValueError(msg)
    if content.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        msg = "is in UTF-32: save it as UTF-8"
        raise ValueError(msg)
    encoding = next((e for mark, e in _BYTE_ORDER_MARKS if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        byte = content[error.start]
        name = "UTF-16" if encoding == "utf-16" else "UTF-8"
        msg = (
            f"is not {name} (byte 0x{byte:02x} at position {error.start}), perhaps Windows-1252"
            " or Latin-1: save it as UTF-8"
        )
        raise ValueError(msg) from None


def with_plain_line_ends(text: str) -> str:
    """Return the text with each of CR LF and CR as LF."""
    return _LINE_END.sub("\n", text)


def text_flaw(text: str) -> str | None:
    """Return why a text cannot be taken in, going on from its name; None when it can."""
    if len(text) > MAX_CHARACTERS:
        return f"has {len(text):,} characters, more than the {MAX_CHARACTERS:,} a judge is shown"
    if not text.strip():
        return "is empty"
    control = _CONTROL.search(text)
    if control:
        line = text.count("\n", 0, control.start()) + 1
        return (
            f"holds the control character U+{ord(control[0]):04X} on line {line}, which no text"
            " has: save it as plain text anew"
        )
    if not any(character.isalnum() for character in text):
        return "holds no letter and no digit"
    return None


def same_words(text: str) -> str:
    """Return what two copies of one text share, however they were saved."""
    return " ".join(unicodedata.normalize("NFC", text).split())
