"""Files from outside become text: the encodings that are taken, and what no text may hold.

Only encoding and line ends are normalised; a text is judged as handed in. Which files a batch is
made of is `intake.batch_folder`; what people read passes through here.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from typing import Any

import yaml

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
    """Return what two copies of one text share, however they were saved."""
    return " ".join(unicodedata.normalize("NFC", text).split())


_KEPT = "\n\t"
_HIDDEN = re.compile(
    # Controls, soft hyphen, zero-width spaces, bidirectional controls, fillers, tags. The joiners
    # U+200C and U+200D and variation selectors stay: Persian, Indic scripts and emoji need them.
    "[\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb"
    "\U000e0000-\U000e0fff\ud800-\udfff]"
)


def visible(text: str) -> str:
    """Return the text with every hidden or direction-changing character spelled as `[U+200B]`.

    Line breaks and tabs stay. Letters of right-to-left scripts stay as they are: only controls
    that reorder other text are spelled out.
    """
    return _HIDDEN.sub(lambda m: m[0] if m[0] in _KEPT else f"[U+{ord(m[0]):04X}]", text)


def excerpt(text: str, n_characters: int) -> str:
    """Return the text's beginning, made visible; its end states what was left out."""
    shown = visible(text[:n_characters])
    left_out = len(text) - n_characters
    return shown if left_out <= 0 else f"{shown} … ({left_out:,} characters more)"


class StrictLoader(yaml.SafeLoader):
    """YAML's safe subset, without its traps: what is read otherwise than written is an error.

    That is a key given twice, and a number that YAML reads in another base: `010` as 8, `1:30` as
    90.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping's keys and values, or raise where a key is given twice."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in sorted({str(key) for key in keys if keys.count(key) > 1}):
            self.flaw(f"the key {key!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)

    def number(self, node: yaml.ScalarNode) -> Any:
        """Return an integer or a float, or raise where YAML would read another than is written."""
        written = node.value
        is_float = node.tag.endswith(":float")
        plain: Any = self.construct_yaml_float if is_float else self.construct_yaml_int
        if ":" in written or re.fullmatch(r"[-+]?0[0-7_]+", written):
            read = plain(node)
            self.flaw(
                f"{written} would be read as {read}: put it in quotes if it is a name or a grade,"
                " or write the number plainly",
                node.start_mark,
            )
        return plain(node)

    def flaw(self, problem: str, mark: yaml.Mark) -> None:
        """Raise what is wrong, where it stands."""
        raise yaml.constructor.ConstructorError(None, None, problem, mark)


StrictLoader.add_constructor("tag:yaml.org,2002:int", StrictLoader.number)
StrictLoader.add_constructor("tag:yaml.org,2002:float", StrictLoader.number)


class _ListingLoader(StrictLoader):
    """The same, but each flaw is listed and reading goes on."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.flaws: list[str] = []

    def flaw(self, problem: str, mark: yaml.Mark) -> None:
        """List what is wrong, where it stands."""
        self.flaws.append(f"is not YAML as meant on line {mark.line + 1}: {problem}")


def read_yaml(text: str) -> tuple[dict[Any, Any] | None, list[str]]:
    """Return what a YAML file of settings holds, and everything that is wrong with it.

    Each problem goes on from the file's name. What can be used is returned beside problems, so
    that the rest can be checked too; None where nothing can.
    """
    loader = _ListingLoader(text)
    try:
        content = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" on line {mark.line + 1}" if mark is not None else ""
        said = f"is not YAML{where}: {error.problem or error.context}"
        return None, [*loader.flaws, said]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        return None, [*loader.flaws, f"is not YAML: {type(error).__name__}: {error}"]
    finally:
        loader.dispose()
    if not isinstance(content, dict):
        return None, [*loader.flaws, "must hold `key: value` lines, nothing else"]
    return content, loader.flaws
