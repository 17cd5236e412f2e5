"""Word files: what a person would read on paper, with insertions in and deletions left out.

mammoth finds it (content controls, text boxes, tables, footnotes); what it leaves out is counted in
the file itself and told. See docs/decisions/0033.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser

import mammoth
from lxml import etree

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

_WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_EITHER = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
_VML = "{urn:schemas-microsoft-com:vml}"
_BREAKS = frozenset({"page", "column"})


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
        content, written = _plainly_written(file)
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
    text = shown.text()
    if missing := sum((written - _letters(text)).values()):
        notes.append(f"{counted(missing, 'letter')} of the file could not be taken: compare")
    return Extracted(text, notes)


def _plainly_written(file: zipfile.ZipFile) -> tuple[bytes, Counter[str]]:
    """Return the file in words that mammoth knows, and how often each letter stands in it."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False)
    try:
        root = etree.fromstring(file.read(_BODY), parser)
    except etree.XMLSyntaxError as error:
        msg = "is a Word file that cannot be read (its content is broken): save it again"
        raise UnreadableFileError(msg) from error
    if root.find(f".//{_WORD}altChunk") is not None:
        msg = "holds another document that Word has not merged yet: open it in Word and save it"
        raise UnreadableFileError(msg)
    for element in list(root.iter(f"{_WORD}cr", f"{_WORD}br", f"{_WORD}fldSimple", f"{_WORD}ruby")):
        _rewrite(element)
    for box in list(root.iter(f"{_WORD}txbxContent")):
        _rewrite_box(box)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as plain:
        for name in file.namelist():
            part = etree.tostring(root, encoding="utf-8") if name == _BODY else file.read(name)
            plain.writestr(name, part)
    return content.getvalue(), Counter(_written(root))


def _rewrite(element: etree._Element) -> None:
    """Give mammoth a line break, a field's words or a ruby's base where it would drop them."""
    if element.tag == f"{_WORD}cr":
        element.tag = f"{_WORD}br"
    elif element.tag == f"{_WORD}br":
        if element.get(f"{_WORD}type") in _BREAKS:
            del element.attrib[f"{_WORD}type"]
    elif element.tag == f"{_WORD}fldSimple":
        element.tag = f"{_WORD}smartTag"
    else:
        base = element.find(f"{_WORD}rubyBase")
        run = element.getparent()
        if base is not None and run is not None and run.getparent() is not None:
            base.tag = f"{_WORD}smartTag"
            run.addnext(base)
            run.remove(element)


def _rewrite_box(box: etree._Element) -> None:
    """Give mammoth a text box that has no form for old programs in that form."""
    around = {etree.QName(each).localname: each for each in box.iterancestors()}
    if "Fallback" in around or "textbox" in around or "drawing" not in around:
        return
    either = around.get("AlternateContent")
    if either is not None and either.find(f"{_EITHER}Fallback") is not None:
        return
    whole = around["drawing"] if either is None else either
    shape = etree.SubElement(etree.Element(f"{_WORD}pict"), f"{_VML}shape")
    etree.SubElement(shape, f"{_VML}textbox").append(box)
    parent, picture = whole.getparent(), shape.getparent()
    if parent is not None and picture is not None:
        parent.replace(whole, picture)


def _written(root: etree._Element) -> Iterator[str]:
    """Yield the letters and figures of a document, without what is there twice or was moved."""
    for text in root.iter(f"{_WORD}t"):
        around = {each.tag for each in text.iterancestors()}
        is_twice = f"{_EITHER}Choice" in around
        if not is_twice and f"{_WORD}moveFrom" not in around and f"{_WORD}del" not in around:
            yield from _letters(text.text or "").elements()


def _letters(text: str) -> Counter[str]:
    return Counter(letter for letter in text if letter.isalnum())


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
    for pattern, one, many in (
        (rb"<m:oMath[ >]", "formula", "formulas"),
        (rb"<w:object[ >]", "embedded object", None),
        (rb'uri="[^"]*/(?:chart|diagram)"', "chart or diagram", "charts or diagrams"),
    ):
        if n := len(re.findall(pattern, body)):
            notes.append(f"{counted(n, one, many)} left out")
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
