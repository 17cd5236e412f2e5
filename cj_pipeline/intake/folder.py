"""A batch folder while it is read: plain files only, and everything that is to be told about them.

Nothing outside the folder is ever read: links are a problem, not followed. What the files mean is
`batch_folder`.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from cj_pipeline.intake.readers.extracted import Extracted, Sheet, UnreadableFileError
from cj_pipeline.intake.readers.process import MAX_FILE_BYTES, ReaderProcess
from cj_pipeline.text import MAX_BYTES, decode, is_seen_whole, is_unicode, unmarked_utf16

# What file managers leave behind without asking.
_LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


@dataclass(frozen=True)
class Reading:
    """A folder while it is read.

    Attributes:
        root: The folder.
        problems: What keeps the batch from being taken, each naming its file.
        notices: What was taken otherwise than it stands there, or left out, and is no problem.
        checksums: Of each file read, by its path in the folder.
        encoding: What a file may be in that is not Unicode (`text.ENCODINGS`), in a list of at
            most one: it is known once `batch.yaml` has been read.
        readers: The process in which files of word processors and the like are read.
        headings: Of the columns of every table that was read, as they are written.
    """

    root: Path
    problems: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    checksums: dict[str, str] = field(default_factory=dict)
    encoding: list[str] = field(default_factory=list)
    readers: ReaderProcess = field(default_factory=ReaderProcess)
    headings: set[str] = field(default_factory=set)

    def has(self, relative: str) -> bool:
        """Whether there is anything of this name, a broken link included."""
        return os.path.lexists(self.root / relative)

    def is_folder(self, relative: str) -> bool:
        """Whether this is a folder, not a link to one."""
        path = self.root / relative
        return path.is_dir() and not path.is_symlink()

    def names(self, relative: str, *, required: bool = True) -> list[str]:
        """Return the names in a folder, sorted, without what file managers leave behind."""
        path = self.root / relative
        if not self.has(relative) and not required:
            return []
        if path.is_symlink() or not path.is_dir():
            self.problems.append(f"{relative} is not a folder")
            return []
        try:
            found = sorted(entry.name for entry in path.iterdir())
        except OSError as error:
            self.problems.append(f"{relative} cannot be listed: {error.strerror}")
            return []
        names = []
        for name in found:
            if is_litter(name):
                continue
            if shown(name) != name:
                place = shown(name) if relative == "." else f"{relative}/{shown(name)}"
                self.problems.append(
                    f"{place} has a name that is not UTF-8, perhaps from a zip file made on"
                    " Windows: rename it"
                )
                continue
            if not is_seen_whole(name):
                place = name if relative == "." else f"{relative}/{name}"
                self.problems.append(
                    f"{place!r} has a name with signs that cannot be seen: rename it"
                )
                continue
            names.append(name)
        return names

    def bytes_of(self, relative: str, max_bytes: int) -> bytes | None:
        """Return a file's bytes; None, and a problem, when it is no plain file of this size."""
        path = self.root / relative
        try:
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                self.problems.append(f"{relative} is a link: put the file itself there")
                return None
            if not stat.S_ISREG(status.st_mode):
                self.problems.append(f"{relative} is not a file")
                return None
            if status.st_size > max_bytes:
                self.problems.append(
                    f"{relative} has {status.st_size:,} bytes, more than the {max_bytes:,} allowed"
                )
                return None
            content = path.read_bytes()
        except FileNotFoundError:
            self.problems.append(f"{relative} is missing")
            return None
        except OSError as error:
            self.problems.append(f"{relative} cannot be read: {error.strerror}")
            return None
        self.checksums[relative] = sha256_of(content)
        return content

    def text_of(
        self, relative: str, max_bytes: int = MAX_BYTES, *, in_unicode: bool = False
    ) -> tuple[str, bytes] | None:
        """Return a file's text, line ends as they are, and its bytes; None with a problem.

        Args:
            relative: Its path in the folder.
            max_bytes: How large it may be.
            in_unicode: Whether it must be Unicode whatever the batch allows.
        """
        content = self.bytes_of(relative, max_bytes)
        if content is None:
            return None
        text = self.decoded(relative, content, in_unicode=in_unicode)
        return None if text is None else (text, content)

    def decoded(self, relative: str, content: bytes, *, in_unicode: bool = False) -> str | None:
        """Return the text in bytes that were read; None, and a problem, when they hold none."""
        if not content:
            self.problems.append(f"{relative} is empty")
            return None
        allowed = None if in_unicode or not self.encoding else self.encoding[0]
        try:
            text = decode(content, allowed)
        except ValueError as error:
            hint = ""
            likely = unmarked_utf16(content) or ("windows-1252" if "Latin-1" in str(error) else "")
            if allowed is None and not in_unicode and likely:
                hint = f", or say in batch.yaml what it is, as in `encoding: {likely}`"
            self.problems.append(f"{relative} {error}{hint}")
            return None
        if allowed is not None and not is_unicode(content):
            self.notices.append(f"{relative} is read as {allowed}: see that its letters are right")
        return text

    def document_in(self, relative: str, content: bytes) -> Extracted | None:
        """Return the text of a word processor's file; None, and a problem, when there is none."""
        try:
            return self.readers.read_document("." + relative.rpartition(".")[2].lower(), content)
        except UnreadableFileError as error:
            self.problems.append(f"{relative} {error}")
            return None

    def sheet_of(self, relative: str) -> Sheet | None:
        """Return a spreadsheet's one sheet; None, and a problem, when it has none."""
        content = self.bytes_of(relative, MAX_FILE_BYTES)
        if content is None:
            return None
        try:
            sheet = self.readers.read_sheet(content)
        except UnreadableFileError as error:
            self.problems.append(f"{relative} {error}")
            return None
        self.notices.extend(f"{relative}: {note}" for note in sheet.about)
        return sheet


def shown(name: str) -> str:
    """Return a file's name with bytes that are no UTF-8 as U+FFFD, so that it can be printed."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def is_litter(name: str) -> bool:
    """Return whether a file is one that file managers, editors or archivers leave behind."""
    return name.startswith((".", "~$")) or name.lower() in _LITTER


def sha256_of(content: bytes) -> str:
    """Return the SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
