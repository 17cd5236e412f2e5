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

import errno
import fcntl
import os
from pathlib import Path

from cj_pipeline.storage.file_swap import (
    copy_file,
    give_second_name,
    put_in_place,
    remove_unfinished,
    write_at,
)
from cj_pipeline.storage.private_files import PRIVATE_FILE, PRIVATE_FOLDER

_HEADERS_BYTES = 3 * 4096
_BLOCK_BYTES = 256 * 1024
"""DuckDB's file format: a main header, two database headers, then blocks."""


def publish(live: Path, published: Path, *, mode: int = PRIVATE_FILE) -> None:
    """Replace `published` by a copy of `live`.

    The caller holds the store's lock: nobody writes `live`, and nobody else publishes.

    Args:
        live: The store's file, without a log.
        published: The copy.
        mode: The rights to it.

    Raises:
        StoreError: If there is too little room. Nothing changed.
        OSError: If it cannot be written. The copy that was published before stays.
    """
    published.parent.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    spare = spare_of(published)
    if spare.exists() and published.exists() and spare.samefile(published):
        spare.unlink()  # killed between keeping the old copy and the rename
    remove_unfinished(published)  # a killed publisher's; it may be torn
    needed = live.stat().st_size
    if spare.exists():
        needed -= min(needed, spare.stat().st_size)

    put_in_place(
        published,
        write=lambda unfinished: _write_copy(live, spare, unfinished),
        prove=lambda unfinished: _refuse_unlike(live, unfinished),
        n_bytes=needed,
        keep=lambda: give_second_name(published, spare) if published.exists() else None,
        mode=mode,
    )


def spare_of(published: Path) -> Path:
    """Return where the copy before the published one lies."""
    return published.with_name(f"{published.name}.spare")


def _write_copy(live: Path, spare: Path, unfinished: Path) -> None:
    descriptor = _take_spare(spare, unfinished)
    if descriptor is None:
        spare.unlink(missing_ok=True)  # whoever has it open keeps it until they close it
        copy_file(live, unfinished)
        return
    try:
        _copy_changes(live, descriptor)
    finally:
        os.close(descriptor)


def _refuse_unlike(live: Path, copy: Path) -> None:
    """Raise unless a copy, its blocks written one by one, has the size and the headers it should.

    Raises:
        OSError: If it has not.
    """
    with live.open("rb") as one, copy.open("rb") as other:
        if (
            one.read(_HEADERS_BYTES) != other.read(_HEADERS_BYTES)
            or live.stat().st_size != copy.stat().st_size
        ):
            raise OSError(errno.EIO, "What was written is not what was to be", str(copy))


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
        write_at(descriptor, os.pread(reading, _HEADERS_BYTES, 0), 0)
        for offset in range(_HEADERS_BYTES, size, _BLOCK_BYTES):
            block = os.pread(reading, _BLOCK_BYTES, offset)
            if os.pread(descriptor, _BLOCK_BYTES, offset) != block:
                write_at(descriptor, block, offset)
        os.fsync(descriptor)
