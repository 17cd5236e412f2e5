"""The published copy: a whole, read-only database that is replaced by one rename.

Connections that were open before keep the file they opened, so they block nobody and go on
seeing one consistent state.

A publication writes what changed, not the whole store. The copy before last is kept as a spare:
where nobody has it open any more, only the blocks that differ from the live file are written into
it, and it becomes the next copy. Blocks are compared whole, at about five gigabytes a second: the
checksum that DuckDB begins each with is the sum of its words in any order, so two blocks that
differ may have the same.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

_HEADERS_BYTES = 3 * 4096
_BLOCK_BYTES = 256 * 1024
"""DuckDB's file format: a main header, two database headers, then blocks."""


def publish(live: Path, published: Path) -> None:
    """Replace `published` by a copy of `live`.

    The caller holds the store's lock: nobody writes `live`, and nobody else publishes.
    """
    published.parent.mkdir(mode=0o700, exist_ok=True)
    spare = published.with_name(f"{published.name}.spare")
    unfinished = published.with_name(f"{published.name}.unfinished")
    unfinished.unlink(missing_ok=True)  # a killed publisher's; it may be torn
    if spare.exists() and published.exists() and spare.samefile(published):
        spare.unlink()  # killed between the two renames below
    descriptor = _take_spare(spare, unfinished)
    try:
        if descriptor is None:
            spare.unlink(missing_ok=True)  # whoever has it open keeps it until they close it
            copy_file(live, unfinished)
        else:
            _copy_changes(live, descriptor)
    except OSError:
        unfinished.unlink(missing_ok=True)  # on a full disk it would hold the last of the space
        raise
    finally:
        if descriptor is not None:
            os.close(descriptor)
    if published.exists():
        spare.hardlink_to(published)
    unfinished.replace(published)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file inside the kernel, which shares blocks where the file system can."""
    with source.open("rb") as reading:
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            left = os.fstat(reading.fileno()).st_size
            while left > 0:
                left -= os.copy_file_range(reading.fileno(), writing, left)
            os.fsync(writing)
        finally:
            os.close(writing)


def _take_spare(spare: Path, unfinished: Path) -> int | None:
    """Rename the spare and return a locked descriptor of it; None if there is none to use.

    The rename comes before any change: a spare is always whole. DuckDB locks what it reads,
    but such locks do not hold within one process, and closing any descriptor drops them. So this
    process looks among its own open files first.
    """
    if not spare.exists() or _is_open_here(spare):
        return None
    descriptor = os.open(spare, os.O_RDWR)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    spare.rename(unfinished)
    return descriptor


def _is_open_here(path: Path) -> bool:
    wanted = path.stat()
    for entry in Path("/dev/fd").iterdir():
        try:
            found = os.fstat(int(entry.name))
        except OSError:  # the listing's own descriptor is closed by now
            continue
        if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
            return True
    return False


def _copy_changes(live: Path, descriptor: int) -> None:
    """Make the file behind `descriptor` equal to `live` by writing the blocks that differ."""
    with live.open("rb") as file:
        reading = file.fileno()
        size = os.fstat(reading).st_size
        os.ftruncate(descriptor, size)
        os.pwrite(descriptor, os.pread(reading, _HEADERS_BYTES, 0), 0)
        for offset in range(_HEADERS_BYTES, size, _BLOCK_BYTES):
            block = os.pread(reading, _BLOCK_BYTES, offset)
            if os.pread(descriptor, _BLOCK_BYTES, offset) != block:
                os.pwrite(descriptor, block, offset)
        os.fsync(descriptor)
