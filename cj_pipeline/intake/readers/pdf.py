"""PDF files with a text layer: their lines, without what repeats on every page.

pypdf reads them, since it limits what each filter may unpack to and says honestly what it could not
do. See docs/decisions/0033 for what was compared.
"""

from __future__ import annotations

import io
import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from pypdf import PdfReader
from pypdf.errors import FileNotDecryptedError, LimitReachedError, PyPdfError

from cj_pipeline.intake.readers.extracted import Extracted, UnreadableFileError, counted

MAX_PAGES = 500
MIN_PAGES_FOR_REPEATS = 2

# Ligatures and the presentation forms of Arabic, which no keyboard writes.
_PRESENTATION = re.compile("[\ufb00-\ufb06\ufb50-\ufdff\ufe70-\ufefc]")
_JOINED_LINE_END = re.compile("[\u00ad\ufffe]\\s*\n\\s*")
_HYPHEN_LINE_END = re.compile(r"(\w+)[-\u2010][ \t]*\n[ \t]*([a-zà-öø-ÿß-ÿ]\w*)")
_PRIVATE_USE = re.compile("[\ue000-\uf8ff]")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u05ff\u0600-\u06ff\ufb1d-\ufdff\ufe70-\ufefc]")
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
        pages, n_pictures = _pages(content)
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
    _refuse_unreadable(text, pages, n_pictures)
    return _cleaned(pages, n_pictures)


class _Complaints(logging.Handler):
    """Hear what pypdf only logs: that a limit was reached and a page is empty for it."""

    def __init__(self) -> None:
        super().__init__()
        self.of_limits = False

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage().lower()
        self.of_limits = self.of_limits or "limit" in said


def _pages(content: bytes) -> tuple[list[str], int]:
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
    texts, n_pictures = [], 0
    for page in reader.pages:
        texts.append(page.extract_text())
        n_pictures += _n_pictures(page)
    return texts, n_pictures


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


def _cleaned(pages: list[str], n_pictures: int) -> Extracted:
    notes = []
    empty = [str(number) for number, page in enumerate(pages, start=1) if not page.strip()]
    if empty and n_pictures:
        notes.append(f"no text on page {', '.join(empty)}: perhaps a scan")
    if n_pictures:
        notes.append(f"{counted(n_pictures, 'picture')} left out")
    pages, repeated = _without_repeats(pages)
    if repeated:
        notes.append(f"{counted(repeated, 'line')} that repeat on the pages left out")
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
    if _RIGHT_TO_LEFT.search(text):
        notes.append("the order of right-to-left words in a PDF is not certain: compare")
    notes.append("a PDF does not show what was inserted or deleted: it is read as printed")
    return Extracted(text.strip("\n") + "\n", notes)


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
