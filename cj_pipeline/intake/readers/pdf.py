"""PDF files with a text layer: their lines, without what repeats on every page.

pypdf reads them, since it limits what each filter may unpack to and says honestly what it could not
do. See docs/decisions/0033 for what was compared.
"""

from __future__ import annotations

import io
import logging
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pypdf import PdfReader
from pypdf.errors import FileNotDecryptedError, LimitReachedError, PyPdfError

from cj_pipeline.intake.readers.extracted import (
    TINY_POINTS,
    UNSEEN,
    Extracted,
    UnreadableFileError,
    counted,
)

MAX_PAGES = 500
MIN_PAGES_FOR_REPEATS = 2
MIN_LETTERS_BESIDE_PICTURES = 30
MIN_WORDS_TO_TELL = 20
LONGEST_WORD = 50
"""Longer ones than people write, `Donaudampfschifffahrtsgesellschaftskapitän` (42) among them."""

_WHITE = 0.97
_INVISIBLE = 3
"""A text rendering mode: neither filled nor drawn, as below the picture of a scan."""

# Ligatures and the presentation forms of Arabic, which no keyboard writes.
_PRESENTATION = re.compile("[\ufb00-\ufb06\ufb50-\ufdff\ufe70-\ufefc]")
_JOINED_LINE_END = re.compile("[\u00ad\ufffe]\\s*\n\\s*")
_HYPHEN_LINE_END = re.compile(r"(\w+)[-\u2010][ \t]*\n[ \t]*([a-zà-öø-ÿß-ÿ]\w*)")
_PRIVATE_USE = re.compile("[\ue000-\uf8ff]")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u05ff\u0600-\u06ff\ufb1d-\ufdff\ufe70-\ufefc]")
_ALPHABETIC = re.compile("[A-Za-z\u00c0-\u024f\u0370-\u052f]+")
_NUMBER = re.compile(r"\d+")
_AND_WORDS = frozenset({"und", "oder", "and", "or", "och", "eller", "et", "ou", "bzw"})


def read_pdf(content: bytes) -> Extracted:
    """Return the text layer of a PDF.

    Raises:
        UnreadableFileError: If it has none, is protected by a password, or is broken.
    """
    complaints = _Complaints()
    logger = logging.getLogger("pypdf")
    logger.addHandler(complaints)
    logger.propagate = False
    try:
        pages, pictures, looks = _pages(content)
    except FileNotDecryptedError as error:
        msg = "is protected by a password: save it without one"
        raise UnreadableFileError(msg) from error
    except LimitReachedError as error:
        msg = "would unpack to more than a PDF of an essay can: refused"
        raise UnreadableFileError(msg) from error
    except (UnreadableFileError, MemoryError, RecursionError):
        raise
    except (PyPdfError, Exception) as error:
        msg = f"is a PDF that cannot be read ({type(error).__name__}): print it again"
        raise UnreadableFileError(msg) from error
    finally:
        logger.removeHandler(complaints)
    text = "\n".join(pages)
    if complaints.of_limits:
        msg = "would unpack to more than a PDF of an essay can: refused"
        raise UnreadableFileError(msg)
    _refuse_unreadable(text, pages, sum(pictures))
    extracted = _cleaned(pages, pictures)
    if looks.holds_unseen:
        return replace(extracted, notes=[*extracted.notes, UNSEEN])
    return extracted


class _Complaints(logging.Handler):
    """Hear what pypdf only logs: that a limit was reached and a page is empty for it."""

    def __init__(self) -> None:
        super().__init__()
        self.of_limits = False

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage().lower()
        self.of_limits = self.of_limits or "limit" in said


def _pages(content: bytes) -> tuple[list[str], list[int], _Looks]:
    """Return each page's text and how many pictures it has, and how letters were drawn."""
    reader = PdfReader(io.BytesIO(content), strict=False)
    if reader.is_encrypted and not reader.decrypt(""):
        msg = "is protected by a password: save it without one"
        raise UnreadableFileError(msg)
    n_pages = len(reader.pages)
    if n_pages > MAX_PAGES:
        msg = f"has {n_pages:,} pages, more than the {MAX_PAGES} allowed"
        raise UnreadableFileError(msg)
    if not n_pages:
        msg = "is a PDF without a page"
        raise UnreadableFileError(msg)
    texts, pictures, looks = [], [], _Looks()
    for page in reader.pages:
        looks.begin_page()
        texts.append(page.extract_text(visitor_operand_before=looks.note))
        pictures.append(_n_pictures(page))
    return texts, pictures, looks


@dataclass
class _Looks:
    """How letters are drawn; see PDF 32000-1, 8.6 (colour), 9.3 (size and rendering mode)."""

    holds_unseen: bool = False
    _now: dict[str, Any] = field(default_factory=dict)
    _before: list[dict[str, Any]] = field(default_factory=list)

    def begin_page(self) -> None:
        self._now, self._before = {"ink": (0.0,), "size": 12.0, "mode": 0}, []

    def note(self, operator: bytes, operands: list[Any], cm: list[float], tm: list[float]) -> None:
        """Hear an operator before it is carried out, with the matrices as they are."""
        if operator == b"q":
            self._before.append(dict(self._now))
        elif operator == b"Q" and self._before:
            self._now = self._before.pop()
        elif operator in {b"g", b"rg", b"k", b"sc", b"scn"}:
            self._now["ink"] = tuple(operands)
        elif operator == b"Tf" and len(operands) > 1:
            self._now["size"] = operands[1]
        elif operator == b"Tr" and operands:
            self._now["mode"] = operands[0]
        elif operator in {b"Tj", b"TJ", b"'", b'"'}:
            self.holds_unseen = self.holds_unseen or self._is_unseen(cm, tm)

    def _is_unseen(self, cm: list[float], tm: list[float]) -> bool:
        try:
            scale = math.sqrt(abs(_area(cm) * _area(tm)))
            points = abs(float(self._now["size"])) * scale
            inks = [float(ink) for ink in self._now["ink"]]
        except (TypeError, ValueError, IndexError):
            return False  # a pattern, or figures that are none
        is_white = {1: inks == [1.0], 3: min(inks, default=0) >= _WHITE, 4: inks == [0.0] * 4}
        return (
            self._now["mode"] == _INVISIBLE
            or points <= TINY_POINTS
            or is_white.get(len(inks), False)
        )


def _area(matrix: list[float]) -> float:
    return float(matrix[0]) * float(matrix[3]) - float(matrix[1]) * float(matrix[2])


def _n_pictures(page: object) -> int:
    try:
        resources = page["/Resources"].get_object()  # type: ignore[index]
        objects = resources.get("/XObject", {}).get_object()
        return sum(
            objects[name].get_object().get("/Subtype") == "/Image" for name in list(objects)[:1000]
        )
    except (KeyError, AttributeError, TypeError):
        return 0


def _refuse_unreadable(text: str, pages: Sequence[str], n_pictures: int) -> None:
    if not text.strip():
        what = "is a scan without a text layer" if n_pictures else "is a PDF without any text"
        where = f" ({counted(len(pages), 'page')})"
        msg = f"{what}{where}: type it, or have a program recognise its letters and check them"
        raise UnreadableFileError(msg)
    visible = [c for c in text if not c.isspace()]
    odd = sum(c == "\ufffd" or unicodedata.category(c) in {"Cc", "Co", "Cn"} for c in visible)
    if odd * 2 > len(visible) or text.count("(cid:") * 20 > len(visible):
        msg = "has a text layer that cannot be read: export the essay as text, or type it"
        raise UnreadableFileError(msg)


def _cleaned(pages: list[str], pictures: Sequence[int]) -> Extracted:
    notes = []
    n_pictures = sum(pictures)
    bare = [
        str(number)
        for number, (page, n) in enumerate(zip(pages, pictures, strict=True), start=1)
        if n and sum(map(str.isalnum, page)) < MIN_LETTERS_BESIDE_PICTURES
    ]
    if bare:
        notes.append(
            f"hardly any text on page {', '.join(bare)}, which has a picture: perhaps a scan"
        )
    if n_pictures:
        notes.append(f"{counted(n_pictures, 'picture')} left out")
    pages, repeated = _without_repeats(pages)
    if repeated:
        lines = counted(repeated, "line that repeats", "lines that repeat")
        notes.append(f"{lines} on the pages left out")
    text = "\n".join(page.strip("\n") for page in pages)
    text = _PRESENTATION.sub(lambda m: unicodedata.normalize("NFKC", m[0]), text)
    text = _JOINED_LINE_END.sub("", text)
    text, n_joined = _without_hyphens(text)
    if n_joined:
        notes.append(f"{counted(n_joined, 'word')} joined that was parted at a line's end")
    text, n_private = _PRIVATE_USE.subn("", text)
    if n_private:
        notes.append(f"{counted(n_private, 'sign')} without a meaning (bullets) left out")
    text = text.replace("\x00", "")
    if said := _torn_or_glued(text):
        notes.append(said)
    if _RIGHT_TO_LEFT.search(text):
        notes.append("the order of right-to-left words in a PDF is not certain: compare")
    notes.append("a PDF does not show what was inserted or deleted: it is read as printed")
    return Extracted(text.strip("\n") + "\n", notes)


def _torn_or_glued(text: str) -> str:
    """Return a note where blanks seem to be missing or too many; a PDF has none of its own.

    Where words begin is worked out from how far letters stand apart, which a file may defy.
    """
    words = _ALPHABETIC.findall(text)
    if len(words) >= MIN_WORDS_TO_TELL and sum(len(w) == 1 for w in words) > len(words) / 3:
        return "many letters stand alone: words may be torn: compare"
    if any(len(word) > LONGEST_WORD for word in words):
        return f"a word has more than {LONGEST_WORD} letters: words may be glued: compare"
    return ""


def _without_repeats(pages: list[str]) -> tuple[list[str], int]:
    """Return the pages without first and last lines that stand on each of them, numbers aside."""
    if len(pages) < MIN_PAGES_FOR_REPEATS:
        return pages, 0
    split = [page.strip("\n").split("\n") for page in pages]
    n_left_out = 0
    for at in (0, -1):
        while True:
            ends = [lines[at].strip() for lines in split if lines]
            alike = {_NUMBER.sub("#", end) for end in ends}
            counts = Counter(ends)
            is_repeated = len(ends) == len(split) and len(alike) == 1 and ends[0] != ""
            # The same words with other numbers are a page number; a lone figure on each page too.
            if not is_repeated or (len(counts) > 1 and not _NUMBER.search(ends[0])):
                break
            for lines in split:
                lines.pop(at)
            n_left_out += 1
    return ["\n".join(lines) for lines in split], n_left_out


def _without_hyphens(text: str) -> tuple[str, int]:
    n_joined = 0

    def join(match: re.Match[str]) -> str:
        nonlocal n_joined
        if match[2].casefold() in _AND_WORDS:
            return match[0]
        n_joined += 1
        return f"{match[1]}{match[2]}\n"

    return _HYPHEN_LINE_END.sub(join, text).replace("\n ", "\n"), n_joined
