"""LibreOffice's text files: the body as it is read, without comments and tracked deletions."""

from __future__ import annotations

import re
from collections import Counter

from lxml import etree

from cj_pipeline.intake.readers import archive
from cj_pipeline.intake.readers.extracted import (
    TINY_POINTS,
    UNSEEN,
    Extracted,
    UnreadableFileError,
    counted,
)

_TEXT = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
_OFFICE = "{urn:oasis:names:tc:opendocument:xmlns:office:1.0}"
_TABLE = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"
_STYLE = "{urn:oasis:names:tc:opendocument:xmlns:style:1.0}"
_LOOKS = "{urn:oasis:names:tc:opendocument:xmlns:xsl-fo-compatible:1.0}"
_DRAW = "{urn:oasis:names:tc:opendocument:xmlns:drawing:1.0}"

MAX_BLANKS = 1_000
"""Of one `text:s`: a number in a file may be anything."""

_LEFT_OUT = frozenset(
    {
        f"{_OFFICE}annotation",
        f"{_OFFICE}annotation-end",
        f"{_TEXT}tracked-changes",
        f"{_OFFICE}forms",
        f"{_TEXT}sequence-decls",
        f"{_TEXT}note-citation",
        f"{_TEXT}ruby-text",
    }
)


def read_odt(content: bytes) -> Extracted:
    """Return a LibreOffice or OpenDocument text's words.

    Raises:
        UnreadableFileError: If it is no such file, or not one that can be read whole.
    """
    with archive.opened(content, "an OpenDocument text (.odt)") as file:
        names = file.namelist()
        if "META-INF/manifest.xml" in names and b"encryption-data" in file.read(
            "META-INF/manifest.xml"
        ):
            msg = "is protected by a password: save it without one"
            raise UnreadableFileError(msg)
        if "content.xml" not in names:
            msg = "is not an OpenDocument text (.odt): it has no content in it"
            raise UnreadableFileError(msg)
        xml = file.read("content.xml")
        styles = file.read("styles.xml") if "styles.xml" in names else b""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False)
    try:
        root = etree.fromstring(xml, parser)
    except etree.XMLSyntaxError as error:
        msg = "is an OpenDocument text whose content is broken: open it and save it again"
        raise UnreadableFileError(msg) from error
    body = root.find(f"{_OFFICE}body/{_OFFICE}text")
    if body is None:
        msg = "is an OpenDocument file, but no text: save it as .odt"
        raise UnreadableFileError(msg)
    walk = _Walk()
    walk.children(body)
    notes = _notes(walk.counts, styles)
    if _holds_unseen(root, body):
        notes.append(UNSEEN)
    return Extracted(walk.text(), notes)


def _holds_unseen(root: etree._Element, body: etree._Element) -> bool:
    """Whether words stand in a style of this file that makes them hidden, white or tiny."""
    unseen = {
        style.get(f"{_STYLE}name")
        for style in root.iter(f"{_STYLE}style")
        for looks in style.iter(f"{_STYLE}text-properties")
        if looks.get(f"{_TEXT}display") == "none"
        or (looks.get(f"{_LOOKS}color") or "").lower() == "#ffffff"
        or _points(looks.get(f"{_LOOKS}font-size")) <= TINY_POINTS
    }
    return any(
        (
            element.get(f"{_TEXT}style-name") in unseen
            or element.get(f"{_TEXT}display") in {"none", "condition"}
        )
        and "".join(element.itertext()).strip()
        for element in body.iter(f"{_TEXT}p", f"{_TEXT}h", f"{_TEXT}span", f"{_TEXT}section")
    )


def _points(written: str | None) -> float:
    size = re.fullmatch(r"(\d+(?:\.\d+)?)pt", written or "")
    return float(size[1]) if size else float("inf")


class _Walk:
    def __init__(self) -> None:
        self.lines: list[list[str]] = []
        self.footnotes: list[etree._Element] = []
        self.counts: Counter[str] = Counter()

    def text(self) -> str:
        notes = self.footnotes
        while notes:
            self.footnotes = []
            for note in notes:
                self.children(note)
            notes = self.footnotes
        return "\n".join("".join(line) for line in self.lines).strip("\n") + "\n"

    def children(self, element: etree._Element) -> None:
        for child in element:
            self._one(child)
            if child.tail and self._holds_text(element):
                self._write_words(child.tail)

    def _one(self, element: etree._Element) -> None:
        tag = element.tag
        if not isinstance(tag, str):
            return  # a comment or an instruction of XML itself
        self._count(element, tag)
        if tag in _LEFT_OUT:
            return
        if tag in {f"{_TEXT}p", f"{_TEXT}h"}:
            self.lines.append([])
        elif tag == f"{_TEXT}list-item":
            self.counts["list item"] += 1
        if tag == f"{_TEXT}s":
            self._write(" " * _number(element.get(f"{_TEXT}c")))
        elif tag == f"{_TEXT}tab":
            self._write("\t")
        elif tag == f"{_TEXT}line-break":
            self._write("\n")
        elif tag == f"{_TEXT}note":
            body = element.find(f"{_TEXT}note-body")
            if body is not None:
                self.footnotes.append(body)
        elif tag.startswith(_DRAW) and element.find(f".//{_TEXT}p") is not None:
            self._aside(element)
        else:
            if element.text and self._holds_text(element):
                self._write_words(element.text)
            self.children(element)

    def _aside(self, element: etree._Element) -> None:
        """Put the lines of a text box or a shape at the end, once."""
        box = element.find(f"{_DRAW}text-box")
        self.footnotes.append(element if box is None else box)
        self.counts["text box"] += 1

    def _count(self, element: etree._Element, tag: str) -> None:
        for name, word in (
            (f"{_TABLE}table", "table"),
            (f"{_DRAW}image", "picture"),
            (f"{_DRAW}object", "embedded object"),
            (f"{_DRAW}object-ole", "embedded object"),
            (f"{_OFFICE}annotation", "comment"),
            (f"{_TEXT}deletion", "deletion"),
            (f"{_TEXT}change-start", "insertion"),
            (f"{_TEXT}note", "footnote"),
        ):
            self.counts[word] += tag == name
        if tag == f"{_TEXT}tracked-changes":
            self.counts["deletion"] += len(element.findall(f".//{_TEXT}deletion"))

    def _write_words(self, text: str) -> None:
        """Write words; any blanks and line breaks between them are one blank (ODF 1.3, 6.1.2)."""
        words = re.sub("[ \t\r\n]+", " ", text)
        line = "".join(self.lines[-1][-1:]) if self.lines else ""
        self._write(words.lstrip(" ") if not line or line[-1] in " \n" else words)

    def _write(self, text: str) -> None:
        if self.lines:
            self.lines[-1].append(text)

    @staticmethod
    def _holds_text(element: etree._Element) -> bool:
        return str(element.tag).startswith(_TEXT) and element.tag not in {
            f"{_TEXT}list",
            f"{_TEXT}list-item",
            f"{_TEXT}section",
        }


def _number(written: str | None) -> int:
    return min(int(written), MAX_BLANKS) if written and written.isdigit() else 1


def _notes(counts: Counter[str], styles: bytes) -> list[str]:
    notes = [
        f"{counted(counts[word], word)} {what}"
        for word, what in (
            ("picture", "left out"),
            ("embedded object", "left out"),
            ("comment", "left out"),
            ("table", "taken as lines of text"),
            ("footnote", "put at the end"),
            ("text box", "put at the end"),
        )
        if counts[word]
    ]
    if counts["insertion"] or counts["deletion"]:
        notes.append(
            f"tracked changes: {counted(counts['insertion'], 'insertion')} taken,"
            f" {counted(counts['deletion'], 'deletion')} left out"
        )
    for part, word in ((b"style:header", "page header"), (b"style:footer", "page footer")):
        if b"<" + part + b">" in styles:
            notes.append(f"the {word} left out")
    return notes
