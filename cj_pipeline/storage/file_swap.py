"""Putting one whole file in another's place, or leaving everything as it was.

Whatever a store command writes goes this way: is there room, write it under another name, no log
beside it, on the disk, proven, the old one kept where that is wanted, renamed, the folder on the
disk. Nothing is renamed that was not proven; a kill or an error at any step leaves the old file
in its place, and at most an `.unfinished` file beside it, which the next swap removes.

What is in the files is the caller's: it hands in what writes one and what proves one.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from cj_pipeline.errors import StoreError
from cj_pipeline.storage.private_files import PRIVATE_FILE

UNFINISHED = ".unfinished"
_COPIED_AT_ONCE = 8 * 1024 * 1024
_NOT_BY_THE_KERNEL = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}
"""Two file systems, or one that cannot: then bytes are read and written."""

_NO_SECOND_NAME = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
"""File systems without hard links, as on memory cards and some shares: a copy is made."""

STEPS = (
    "look for room",
    "write",
    "look for a log",
    "flush the file",
    "prove",
    "keep the old one",
    "rename",
    "flush the folder",
)
"""What is done, in this order."""

_T = TypeVar("_T")


class NotFlushedError(StoreError):
    """A file is in place, whole and proven, and only its name may not outlast a power cut."""


def put_in_place(
    target: Path,
    *,
    write: Callable[[Path], Any],
    prove: Callable[[Path], Any],
    n_bytes: int,
    keep: Callable[[], Any] | None = None,
    mode: int = PRIVATE_FILE,
) -> None:
    """Make a file and give it the name `target` once it is whole, proven and on the disk.

    The caller holds whatever lock guards `target`.

    Args:
        target: Where it shall lie; what lies there is replaced by one rename.
        write: Makes the file under the name it is given, and closes it.
        prove: Raises unless the file under the name it is given is what it should be.
        n_bytes: How large it may become; where the disk has less room, nothing is begun.
        keep: Called once the new file is proven, before the rename: gives the old one a name.
        mode: The rights to it.

    Raises:
        StoreError: If there is too little room, or a log lies beside the file. Nothing changed.
        NotFlushedError: If the last step failed: the new file is in place.
        Exception: What `write`, `prove` or `keep` raised, or the file system. Nothing changed.
    """
    unfinished = target.with_name(f"{target.name}{UNFINISHED}")
    remove_unfinished(target)
    _step("look for room", require_room, target.parent, n_bytes, target.name)
    try:
        _step("write", write, unfinished)
        _step("look for a log", _refuse_log, unfinished)
        _step("flush the file", _flush, unfinished, mode)
        _step("prove", prove, unfinished)
        _refuse_log(unfinished)
        if keep is not None:
            _step("keep the old one", keep)
        _step("rename", os.replace, unfinished, target)
    except BaseException:
        # On a full disk it would hold the last of the space.
        remove_unfinished(target)
        raise
    try:
        _step("flush the folder", flush_folder, target.parent)
    except OSError as error:
        msg = (
            f"{target.name} is in place, whole and with every row, but the disk did not confirm"
            f" it ({error}): look after that disk before you rely on it."
        )
        raise NotFlushedError(msg) from error


def _step(name: str, do: Callable[..., _T], *args: Any) -> _T:
    """Do one step; tests put faults here."""
    del name
    return do(*args)


def unfinished_of(target: Path) -> tuple[Path, ...]:
    """Return the names under which a swap that was killed may have left something."""
    name = f"{target.name}{UNFINISHED}"
    return tuple(target.with_name(each) for each in (name, f"{name}.wal", f"{name}.tmp"))


def remove_unfinished(target: Path) -> None:
    """Remove what a swap that was killed has left beside `target`."""
    for path in unfinished_of(target):
        if path.is_dir():
            for inside in path.iterdir():
                inside.unlink(missing_ok=True)
            path.rmdir()
        else:
            path.unlink(missing_ok=True)


def require_room(folder: Path, n_bytes: int, what: str) -> None:
    """Raise unless the disk of a folder has room for so many bytes.

    Raises:
        StoreError: If it has not.
    """
    there = os.statvfs(folder)
    free = there.f_bavail * there.f_frsize
    if free < n_bytes:
        msg = (
            f"{what} needs {n_bytes:,} bytes of room in {folder}, and its disk has {free:,}. "
            "Nothing was changed: free space there, then do it again."
        )
        raise StoreError(msg)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file: inside the kernel, which shares blocks where it can, else byte by byte.

    The copy is its owner's alone, and on the disk when this returns.

    Raises:
        OSError: If it cannot be read or written, or became shorter meanwhile.
    """
    with source.open("rb") as reading:
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_FILE)
        try:
            size = os.fstat(reading.fileno()).st_size
            done = _copied_by_kernel(reading.fileno(), writing, size)
            while done < size:
                piece = os.pread(reading.fileno(), _COPIED_AT_ONCE, done)
                if not piece:
                    raise OSError(errno.EIO, "It became shorter while it was copied", str(source))
                done += os.pwrite(writing, piece, done)
            os.fsync(writing)
        finally:
            os.close(writing)


def _copied_by_kernel(reading: int, writing: int, size: int) -> int:
    """Return how many bytes the kernel copied; the rest is for the caller."""
    done = 0
    while done < size:
        try:
            copied = os.copy_file_range(reading, writing, size - done, done, done)
        except OSError as error:
            if error.errno in _NOT_BY_THE_KERNEL:
                return done
            raise
        if not copied:
            return done
        done += copied
    return done


def write_at(descriptor: int, data: bytes, offset: int) -> None:
    """Write all of some bytes at a place of a file; a disk that fills up may take half of them."""
    done = 0
    while done < len(data):
        done += os.pwrite(descriptor, data[done:], offset + done)


def give_second_name(path: Path, second: Path) -> None:
    """Let a file bear a second name; where the file system knows no such thing, copy it."""
    second.unlink(missing_ok=True)  # of a swap that was killed here
    try:
        os.link(path, second)
    except OSError as error:
        if error.errno not in _NO_SECOND_NAME:
            raise
        copy_file(path, second)


def flush_folder(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush(path: Path, mode: int) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse_log(path: Path) -> None:
    log = path.with_name(f"{path.name}.wal")
    if log.exists():
        msg = (
            f"{path} was not written to its end: a log of {log.stat().st_size:,} bytes lies beside"
            " it, as when the disk is full. Nothing was changed."
        )
        raise StoreError(msg)
