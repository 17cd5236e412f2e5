"""A batch folder that comes as a zip file is unpacked, or all that is wrong with it is told."""

from __future__ import annotations

import errno
import stat
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from cj_pipeline.intake.readers.archive import BROKEN, part_name
from cj_pipeline.intake.readers.extracted import UnreadableFileError

MAX_FILES = 20_000
MAX_UNPACKED_BYTES = 512 * 1024 * 1024
"""Of a zip file: a few kilobytes can unpack to a full disk."""

OUR_DISKS_FAULT = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO})
"""OSErrors that are about the disk here, and not the file that was sent."""

_CHUNK_BYTES = 1024 * 1024


class ZipProblemsError(ValueError):
    """A zip file cannot be unpacked; `problems` lists everything that is wrong with it."""

    def __init__(
        self, message: str, problems: Sequence[str] = (), *, is_too_large: bool = False
    ) -> None:
        self.problems = tuple(problems)
        self.is_too_large = is_too_large
        super().__init__(message)


def unpack(file: IO[bytes], folder: Path) -> str:
    """Unpack a zip file into a folder; return the one folder that holds everything, or nothing.

    Raises:
        ZipProblemsError: If it is broken or holds what must not reach a disk.
        OSError: If the disk here is full or cannot be written.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            problems = _flaws(entries) or _named_rightly(entries)
            if problems:
                msg = "The zip file cannot be unpacked safely."
                raise ZipProblemsError(msg, problems)
            left = MAX_UNPACKED_BYTES
            for entry in entries:
                left -= _unpack_entry(archive, entry, folder, left)
    except ZipProblemsError:
        raise
    except BROKEN as error:
        if isinstance(error, OSError) and error.errno in OUR_DISKS_FAULT:
            raise  # a full disk is nothing the sender can fix
        msg = "The body is no zip file that can be read."
        raise ZipProblemsError(msg, [str(error)]) from None
    tops = {PurePosixPath(entry.filename).parts[0] for entry in entries}
    (top,) = tops if len(tops) == 1 else ("",)
    return top if top and (folder / top / "batch.yaml").is_file() else ""


def _named_rightly(entries: Sequence[zipfile.ZipInfo]) -> list[str]:
    """Give each file the name that whoever made the zip file saw; return what is wrong with one."""
    problems = []
    for entry in entries:
        try:
            entry.filename = part_name(entry)
        except UnreadableFileError as error:
            problems.append(f"it {error}")
    times = Counter(entry.filename for entry in entries)
    return problems or [f"{name!r} is there twice" for name, n in times.items() if n > 1]


def _flaws(entries: Sequence[zipfile.ZipInfo]) -> list[str]:
    """Return everything about a zip file's entries that must not reach a disk."""
    if len(entries) > MAX_FILES:
        return [f"it has {len(entries):,} files, more than the {MAX_FILES:,} allowed"]
    problems = []
    names: set[str] = set()
    for entry in entries:
        shown = repr(entry.filename[:200])
        path = PurePosixPath(entry.filename)
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if (problem := name_problem(entry.filename)) is not None:
            problems.append(problem)
        if kind not in {0, stat.S_IFREG}:
            problems.append(f"{shown} is a link or a device, not a file")
        if entry.flag_bits & 0x1:
            problems.append(f"{shown} is encrypted")
        if str(path) in names:
            problems.append(f"{shown} is there twice")
        names.add(str(path))
    return problems


def name_problem(name: str) -> str | None:
    """Return why a file that a stranger sent may not be written under a name; None where it may."""
    shown, path = repr(name[:200]), PurePosixPath(name)
    if path.is_absolute() or not path.parts or {"..", "."} & set(name.split("/")):
        return f"{shown} leads out of the batch's folder"
    if "\\" in name or ":" in name or "\0" in name:
        return f"{shown} is no plain name"
    if len(path.parts) > 4 or any(len(part.encode()) > 255 for part in path.parts):
        return f"{shown} is too long or lies too deep"
    return None


def _unpack_entry(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path, at_most: int
) -> int:
    """Write one file and return its bytes; what the zip file states as its size is not trusted."""
    target = folder.joinpath(*PurePosixPath(entry.filename).parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    n_bytes = 0
    with archive.open(entry) as source, target.open("wb") as file:
        while chunk := source.read(_CHUNK_BYTES):
            n_bytes += len(chunk)
            if n_bytes > at_most:
                msg = f"The zip file unpacks to more than {MAX_UNPACKED_BYTES:,} bytes."
                raise ZipProblemsError(
                    msg,
                    is_too_large=True,
                )
            file.write(chunk)
    return n_bytes
