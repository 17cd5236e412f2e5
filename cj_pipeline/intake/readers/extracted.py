"""What a reader hands back about a file, and how it says that a file cannot be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


class UnreadableFileError(ValueError):
    """A file that cannot be taken; its message goes on from the file's name ("anna.pdf is ...")."""


@dataclass(frozen=True)
class Extracted:
    """A document's text.

    Attributes:
        text: Its words in the order they are read, with LF for line ends.
        notes: What was left out or changed on the way, for people.
    """

    text: str
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Sheet:
    """The one sheet of a spreadsheet that holds something.

    Attributes:
        rows: Its cells as text, as they are shown or were written.
        notes: What was odd about a cell, by `row:column`, both from 1.
        unsure: Why a cell may not hold what was typed into it, likewise.
        about: What is to be told of the whole file.
    """

    rows: Sequence[Sequence[str]]
    notes: Mapping[str, str] = field(default_factory=dict)
    unsure: Mapping[str, str] = field(default_factory=dict)
    about: Sequence[str] = ()


UNSEEN = "holds letters that cannot be seen on the page (hidden, white or tiny): read what they say"
"""They are in the text, where a judge would read them."""

TINY_POINTS = 3
"""Letters up to this size are no longer read."""


def counted(n: int, one: str, many: str | None = None) -> str:
    """Return "1 picture" or "3 pictures"."""
    return f"{n} {one if n == 1 else many or one + 's'}"
