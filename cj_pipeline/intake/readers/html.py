"""Web pages, as learning platforms keep what was typed into their editors: the words on the page.

Moodle and Canvas hand out such texts as `onlinetext.html` and `..._text.html`.
"""

from __future__ import annotations

import codecs
import re
from html.parser import HTMLParser

from cj_pipeline.intake.readers.extracted import (
    UNSEEN,
    Extracted,
    UnreadableFileError,
    counted,
)
from cj_pipeline.text import ENCODINGS


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_BLOCKS = _words(
    """
    address article aside blockquote body caption center dd div dl dt figure figcaption footer form
    h1 h2 h3 h4 h5 h6 header hr li main nav ol p pre section table tbody td tfoot th thead tr ul
    """
)
_NOT_SHOWN = frozenset({"head", "script", "style", "template", "noscript", "title", "select"})
_EMPTY = frozenset({"br", "hr", "img", "input", "link", "meta", "col", "wbr", "area", "base"})
_LEFT_OUT = {
    "img": "picture",
    "svg": "picture",
    "iframe": "embedded page",
    "object": "embedded object",
    "video": "film",
    "audio": "recording",
    "math": "formula",
}
_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?([\w-]{1,40})", re.IGNORECASE)
_UNSEEN = re.compile(
    r"display:none|visibility:hidden|opacity:0(?![.\d])|font-size:[0-3](?:\.\d+)?p[xt]"
    r"|(?<!-)color:(?:#fff(?:fff)?\b|white|rgb\(255,255,255\))"
)


def read_html(content: bytes) -> Extracted:
    """Return the words of a web page, each paragraph a line.

    Raises:
        UnreadableFileError: If its encoding is unknown.
    """
    page = _Page()
    page.feed(_decoded(content))
    page.close()
    notes = [
        f"{counted(n, word, 'formulas' if word == 'formula' else None)} left out"
        for word, n in page.left_out.items()
    ]
    if page.n_tables:
        notes.append(f"{counted(page.n_tables, 'table')} taken as lines of text")
    if page.holds_unseen:
        notes.append(UNSEEN)
    return Extracted(page.text(), notes)


def _decoded(content: bytes) -> str:
    for mark, name in ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")):
        if content.startswith(mark):
            return content.decode(name, errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = _CHARSET.search(content[:4096])
        said = found[1].decode("ascii").lower() if found else ""
        if said not in ENCODINGS:
            msg = "is not UTF-8 and does not say what else it is: save it as UTF-8"
            raise UnreadableFileError(msg) from error
        try:
            return content.decode(ENCODINGS[said])
        except UnicodeDecodeError:
            msg = f"says that it is {said}, and is not: save it as UTF-8"
            raise UnreadableFileError(msg) from error


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.left_out: dict[str, int] = {}
        self.n_tables = 0
        self.holds_unseen = False
        self._lines: list[str] = [""]
        self._hidden_by: list[str] = []  # what is open from the first element that is not shown
        self._unseen_by: list[str] = []  # likewise from the first that looks like nothing
        self._numbers: list[int | None] = []  # for each list around: the last number
        self._mark = ""  # of the list item that has just begun

    def text(self) -> str:
        lines = [re.sub(r"[ \t]*\n[ \t]*", "\n", line).strip(" ") for line in self._lines]
        return "\n".join(lines).strip("\n") + "\n"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._hidden_by:
            if tag not in _EMPTY:
                self._hidden_by.append(tag)
            return
        if tag in _NOT_SHOWN:
            self._hidden_by.append(tag)
            return
        if word := _LEFT_OUT.get(tag):
            self.left_out[word] = self.left_out.get(word, 0) + 1
        self.n_tables += tag == "table"
        looks = "".join((dict(attrs).get("style") or "").lower().split())
        is_unseen = "hidden" in dict(attrs) or bool(_UNSEEN.search(looks))
        if tag not in _EMPTY and (self._unseen_by or is_unseen):
            self._unseen_by.append(tag)
        if tag in {"ol", "ul"}:
            self._numbers.append(0 if tag == "ol" else None)
        if tag == "br":
            self._lines[-1] += "\n"
        elif tag in _BLOCKS:
            self._begin()
        if tag == "li":
            self._mark_item()

    def handle_endtag(self, tag: str) -> None:
        for opened in (self._hidden_by, self._unseen_by):
            if tag in opened:
                while opened.pop() != tag:
                    pass
        if tag in {"ol", "ul"} and self._numbers:
            self._numbers.pop()
        if tag in _BLOCKS and not self._hidden_by:
            self._begin()

    def handle_data(self, data: str) -> None:
        if self._hidden_by:
            return
        self.holds_unseen = self.holds_unseen or bool(self._unseen_by and data.strip())
        words = re.sub(r"[ \t\r\n\f]+", " ", data)
        is_after_blank = not self._lines[-1] or self._lines[-1][-1] in " \n"
        self._lines[-1] += words.lstrip(" ") if is_after_blank else words

    def _begin(self) -> None:
        if self._lines[-1].strip(" ") and self._lines[-1] != self._mark:
            self._lines.append("")
            self._mark = ""

    def _mark_item(self) -> None:
        number = self._numbers[-1] if self._numbers else None
        if number is not None:
            number = self._numbers[-1] = number + 1
        self._lines[-1] = self._mark = "- " if number is None else f"{number}. "
