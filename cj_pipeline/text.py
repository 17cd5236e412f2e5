"""Files from outside become text: the encodings that are taken, and what no text may hold.

Only encoding and line ends are normalised; a text is judged as handed in. Which files a batch is
made of is `batch.essays`; what people read passes through here.
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
    """YAML's safe subset, in which a key given twice is an error rather than the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping's keys and values, or raise where a key is given twice."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            problem = f"the key {twice[0]!r} is given twice"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return super().construct_mapping(node, deep)
