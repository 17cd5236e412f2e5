"""Word files: what a person would read on paper, with insertions in and deletions left out.

mammoth finds it (content controls, text boxes, tables, footnotes); what it leaves out is counted in
the file itself and told. See docs/decisions/0033.
"""

from __future__ import annotations

import io
import re
import zipfile
from html.parser import HTMLParser

import mammoth

from cj_pipeline.intake.readers import archive
from cj_pipeline.intake.readers.extracted import (
    TINY_POINTS,
    UNSEEN,
    Extracted,
    UnreadableFileError,
    counted,
)

_BODY = "word/document.xml"
MAX_PARAGRAPHS = 20_000
"""Far more than an essay has; a few hundred kilobytes can hold millions."""

_BLOCKS = frozenset({"p", "h1", "h2", "h3", "h4", "h5", "h6"})
_RUN = re.compile(rb"<w:r[ >].*?</w:r>", re.DOTALL)
_UNSEEN = re.compile(
    rb'<w:vanish(?:/>| w:val="(?:1|true|on)")|<w:color [^>]*w:val="[fF]{6}"'
    rb'|<w:sz w:val="(?:%s)"' % b"|".join(b"%d" % half for half in range(1, 2 * TINY_POINTS + 1))
)
_TEXT = re.compile(rb"<w:t(?:\s[^>]*)?>([^<]*)</w:t>")


def read_docx(content: bytes) -> Extracted:
    """Return a Word file's text.

    Raises:
        UnreadableFileError: If it is no Word file, or not one that can be read whole.
    """
    with archive.opened(content, "a Word file (.docx)") as file:
        if _BODY not in file.namelist():
            msg = "is not a Word file (.docx): it has no document in it"
            raise UnreadableFileError(msg)
        if len(re.findall(rb"<w:p[ />]", file.read(_BODY))) > MAX_PARAGRAPHS:
            msg = f"has more than {MAX_PARAGRAPHS:,} paragraphs: that is no essay"
            raise UnreadableFileError(msg)
        notes = _left_out(file)
    pictures = 0

    def count(_image: object) -> dict[str, str]:
        nonlocal pictures
        pictures += 1
        return {}

    try:
        result = mammoth.convert_to_html(
            io.BytesIO(content),
            convert_image=mammoth.images.img_element(count),
            ignore_empty_paragraphs=False,
            external_file_access=False,
        )
    except RecursionError:
        raise
    except Exception as error:  # whatever a broken file makes of its XML
        msg = f"is a Word file that cannot be read ({type(error).__name__}): save it again"
        raise UnreadableFileError(msg) from error
    shown = _Paragraphs()
    shown.feed(result.value)
    shown.close()
    if pictures:
        notes.insert(0, f"{counted(pictures, 'picture')} left out")
    return Extracted(shown.text(), notes)


def _left_out(file: zipfile.ZipFile) -> list[str]:
    """Return what a reader of the text will not see, or not where it stands, counted."""
    body = file.read(_BODY)
    notes = []
    if n := body.count(b"<w:tbl>"):
        notes.append(f"{counted(n, 'table')} taken as lines of text")
    inserted, deleted = len(re.findall(rb"<w:ins[ >]", body)), len(re.findall(rb"<w:del[ >]", body))
    if inserted or deleted:
        notes.append(
            f"tracked changes: {counted(inserted, 'insertion')} taken,"
            f" {counted(deleted, 'deletion')} left out"
        )
    if n := _count(file, "word/comments.xml", rb"<w:comment[ >]"):
        notes.append(f"{counted(n, 'comment')} left out")
    if n := len(re.findall(rb"<w:footnoteReference[ />]|<w:endnoteReference[ />]", body)):
        notes.append(f"{counted(n, 'footnote')} put at the end")
    if n := len(re.findall(rb"<m:oMath[ >]", body)):
        notes.append(f"{counted(n, 'formula', 'formulas')} left out")
    if any(_UNSEEN.search(run) and _has_words(run) for run in _RUN.findall(body)):
        notes.append(UNSEEN)
    for part, word in (("header", "page header"), ("footer", "page footer")):
        if any(
            _has_words(file.read(name))
            for name in file.namelist()
            if re.fullmatch(rf"word/{part}\d*\.xml", name)
        ):
            notes.append(f"the {word} left out")
    return notes


def _count(file: zipfile.ZipFile, part: str, pattern: bytes) -> int:
    return len(re.findall(pattern, file.read(part))) if part in file.namelist() else 0


def _has_words(part: bytes) -> bool:
    return any(match.strip() for match in _TEXT.findall(part))


class _Paragraphs(HTMLParser):
    """mammoth's HTML as lines; its marks of footnotes are left out."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._lines: list[list[str]] = []
        self._lists: list[int | None] = []  # for each list around: the next number, None for dots
        self._in_mark = 0
        self._mark = ""

    def text(self) -> str:
        lines = ["".join(parts).rstrip(" ") for parts in self._lines]
        return "\n".join(lines).strip("\n") + "\n"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _BLOCKS:
            self._begin()
        elif tag in {"ul", "ol"}:
            self._lists.append(1 if tag == "ol" else None)
        elif tag == "li":
            self._begin_item()
        elif tag == "br":
            self._write("\n")
        elif (
            tag == "a" and (dict(attrs).get("href") or "").startswith(("#footnote", "#endnote"))
        ) or (tag == "a" and self._in_mark):
            self._in_mark += 1

    def handle_endtag(self, tag: str) -> None:
        if tag in {"ul", "ol"} and self._lists:
            self._lists.pop()
        elif tag == "a" and self._in_mark:
            self._in_mark -= 1

    def handle_data(self, data: str) -> None:
        if not self._in_mark:
            self._write(data)

    def _begin(self) -> None:
        if self._lines and self._lines[-1] == [self._mark] and self._mark:
            self._mark = ""
            return  # a paragraph within the list item that has just begun
        self._lines.append([])

    def _begin_item(self) -> None:
        number = self._lists[-1] if self._lists else None
        self._mark = "- " if number is None else f"{number}. "
        if number is not None:
            self._lists[-1] = number + 1
        self._lines.append([self._mark])

    def _write(self, text: str) -> None:
        if not self._lines:
            self._lines.append([])
        self._lines[-1].append(text)
