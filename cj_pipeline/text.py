"""Files from outside become text: the encodings that are taken, and what no text may hold.

Only encoding and line ends are normalised; a text is judged as handed in. Which files a batch is
made of is `intake.batch_folder`; what people read passes through here.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

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
_LINE_END = re.compile("\r\n?|[\x0b\x0c]")


ENCODINGS = {
    "windows-1252": "cp1252",
    "windows-1250": "cp1250",
    "windows-1251": "cp1251",
    "windows-1253": "cp1253",
    "windows-1254": "cp1254",
    "windows-1256": "cp1256",
    "iso-8859-1": "latin-1",
    "iso-8859-2": "iso8859-2",
    "iso-8859-15": "iso8859-15",
    "mac-roman": "mac-roman",
    "cp850": "cp850",
    "koi8-r": "koi8-r",
    "utf-16-le": "utf-16-le",
    "utf-16-be": "utf-16-be",
    "gb18030": "gb18030",
    "shift-jis": "cp932",
}
"""Encodings a batch may allow for files that do not say theirs, and Python's names for them."""


def decode(content: bytes, allowed: str | None = None) -> str:
    """Return the text in a file's bytes, without its byte order mark.

    Args:
        content: The whole file.
        allowed: One of `ENCODINGS`, for a file that is neither UTF-8 nor marked as UTF-16.

    Raises:
        ValueError: If it is in no encoding that is allowed; the message goes on from the file's
            name ("anna.txt is ...").
    """
    for magic, what in _OTHER_FORMATS:
        if content.startswith(magic):
            msg = f"is {what}, not plain text: save it as plain text in UTF-8"
            raise ValueError(msg)
    if content.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        msg = "is in UTF-32: save it as UTF-8"
        raise ValueError(msg)
    marked = next((e for mark, e in _BYTE_ORDER_MARKS if content.startswith(mark)), None)
    half = unmarked_utf16(content) if marked is None else None
    try:
        if half is None:
            return content.decode(marked or "utf-8")
    except UnicodeDecodeError as error:
        if marked is not None or allowed is None:
            raise ValueError(_not_unicode(content, error, marked)) from None
    if half is not None and allowed != half:
        msg = f"seems to be {half.upper()} without a byte order mark: save it as UTF-8"
        raise ValueError(msg)
    try:
        return content.decode(ENCODINGS[half or allowed or "utf-8"])
    except UnicodeDecodeError as error:
        msg = (
            f"is neither UTF-8 nor {allowed} (byte 0x{content[error.start]:02x} at position"
            f" {error.start}): save it as UTF-8"
        )
        raise ValueError(msg) from None


def is_unicode(content: bytes) -> bool:
    """Return whether a file's bytes say themselves what they are: UTF-8, or UTF-16 with a mark."""
    try:
        decode(content)
    except ValueError:
        return False
    return True


def unmarked_utf16(content: bytes) -> str | None:
    """Return `utf-16-le` or `utf-16-be` for bytes of which every second is mostly zero, else None.

    Western text in UTF-16 has a zero in nearly every pair of bytes; no text in another encoding
    has any.
    """
    if content.startswith(tuple(mark for mark, _ in _BYTE_ORDER_MARKS)) or len(content) < 4:
        return None
    head = content[:4096]
    low, high = head[0::2].count(0), head[1::2].count(0)
    if max(low, high) * 4 <= len(head):
        return None
    return "utf-16-le" if high > low else "utf-16-be"


def _not_unicode(content: bytes, error: UnicodeDecodeError, marked: str | None) -> str:
    name = "UTF-16" if marked == "utf-16" else "UTF-8"
    return (
        f"is not {name} (byte 0x{content[error.start]:02x} at position {error.start}), perhaps"
        " Windows-1252 or Latin-1: save it as UTF-8"
    )


def with_plain_line_ends(text: str) -> str:
    """Return the text with each of CR LF, CR, vertical tab and form feed as LF.

    Word writes a vertical tab for a line break and a form feed for a page break, and `pdftotext`
    ends each page with one.
    """
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
            f"holds the control character U+{ord(control[0]):04X} on line {line}, which no text "
            "has: save it again as plain text"
        )
    if not any(character.isalnum() for character in text):
        return "holds no letter and no digit"
    return None


def same_words(text: str) -> str:
    """Return what two copies of one text share, however they were saved or marked.

    Characters that nobody sees are left out, all of them: a copy with a zero-width space in each
    word is the same text. `queries.same_texts` does the same in SQL.
    """
    return " ".join(unicodedata.normalize("NFC", _UNSEEN.sub("", text)).split())


UNSEEN_RANGES = (
    (0x00, 0x08),
    (0x0E, 0x1B),
    (0x7F, 0x84),
    (0x86, 0x9F),
    (0xAD, 0xAD),
    (0x034F, 0x034F),
    (0x061C, 0x061C),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),
    (0x202A, 0x202E),
    (0x2060, 0x206F),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFFB),
    (0xE0000, 0xE0FFF),
)
"""First and last code points of what has no width and is no space, joiners and variation selectors
among it. Unicode calls most of it `Default_Ignorable_Code_Point`."""

_UNSEEN = re.compile(
    "[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in UNSEEN_RANGES) + "]"
)
_HIDDEN = re.compile(
    # Controls but for line break and tab, soft hyphen, zero-width spaces, bidirectional controls,
    # fillers, tags.
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb"
    "\U000e0000-\U000e0fff\ud800-\udfff]"
    # The joiners U+200C and U+200D belong between letters of Persian and Indic scripts and in
    # emoji, variation selectors after a sign. Anywhere else they can carry what nobody sees.
    "|(?:^|(?<=[\x00-\u024f\u200c\u200d]))[\u200c\u200d]"
    "|(?:^|(?<=[\x00-\u024f\u200c\u200d\ufe00-\ufe0f])(?<![0-9#*\u00a9\u00ae]))[\ufe00-\ufe0f]"
)
_KINDS = (
    (0x00, 0x1F, "control"),
    (0x7F, 0x9F, "control"),
    (0x061C, 0x061C, "direction"),
    (0x200E, 0x200F, "direction"),
    (0x202A, 0x202E, "direction"),
    (0x2066, 0x2069, "direction"),
    (0xE0000, 0xE007F, "tag"),
)


@dataclass(frozen=True)
class HiddenText:
    """What stands in a text and cannot be seen there.

    Attributes:
        kinds: How many there are of each kind (tag, direction, control, zero-width).
        line: Where the first one is; the first line is 1.
    """

    kinds: Mapping[str, int]
    line: int

    def describe(self) -> str:
        """Return it in words, to go on from the text's name ("holds 3 hidden characters ...")."""
        n = sum(self.kinds.values())
        listed = ", ".join(f"{count} {kind}" for kind, count in self.kinds.items())
        return (
            f"holds {n} hidden {'character' if n == 1 else 'characters'} ({listed}), the first on"
            f" line {self.line}"
        )


def find_hidden(text: str) -> HiddenText | None:
    """Return what a judge reads in a text and a person does not see; None where all is seen.

    Soft hyphens, separators of lines and a byte order mark at the beginning are left by word
    processors and hide nothing.
    """
    found = [
        match
        for match in _HIDDEN.finditer(text)
        if match[0] not in _HARMLESS and (match[0], match.start()) != ("\ufeff", 0)
    ]
    if not found:
        return None
    kinds = Counter(_kind(ord(match[0])) for match in found)
    return HiddenText(dict(kinds.most_common()), text.count("\n", 0, found[0].start()) + 1)


_HARMLESS = "\u00ad\u2028\u2029"


def _kind(code: int) -> str:
    named = (kind for first, last, kind in _KINDS if first <= code <= last)
    return next(named, "zero-width")


def visible(text: str) -> str:
    """Return the text with every hidden or direction-changing character spelled as `[U+200B]`.

    Line breaks and tabs stay. Letters of right-to-left scripts stay as they are: only controls
    that reorder other text are spelled out.
    """
    return _HIDDEN.sub(lambda match: f"[U+{ord(match[0]):04X}]", text)


def is_seen_whole(name: str) -> bool:
    """Return whether a name is one line and holds nothing that nobody sees.

    Firm blanks are seen, and so are the joiners that belong in Persian and Indic names.
    """
    return visible(name) == name and not re.search("[\t\n\x0b\x0c\r\x85]", name)


def excerpt(text: str, n_characters: int) -> str:
    """Return the text's beginning, made visible; its end states what was left out."""
    shown = visible(text[:n_characters])
    left_out = len(text) - n_characters
    return shown if left_out <= 0 else f"{shown} … ({left_out:,} characters more)"


def without_folders(text: str, folders: Iterable[Path]) -> str:
    """Return a text in which no folder of this machine is named; what is below one still is.

    Args:
        text: A message, with paths in it or not.
        folders: Those that nobody elsewhere need know; the root of all is left alone.
    """
    names = {str(each) for folder in folders for each in (folder, folder.resolve())}
    for name in sorted(names - {"/", "."}, key=len, reverse=True):
        text = text.replace(name, "…")
    return text
