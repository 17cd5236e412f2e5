"""Which programs hold a file, so that whoever waits can be told whom to ask.

Where the system has no `/proc`, nobody can be named.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_LOCKS = Path("/proc/locks")


@dataclass(frozen=True)
class Holder:
    """A process, and the program it runs."""

    pid: int
    program: str

    def __str__(self) -> str:
        return f"{self.program} (PID {self.pid})"


def holders_of(path: Path, *, with_self: bool = False) -> list[Holder]:
    """Return the processes that hold a lock on a file; without waiters.

    Args:
        path: The file.
        with_self: Whether this process counts, of which another thread may hold it.
    """
    try:
        inode = path.stat().st_ino
        lines = _LOCKS.read_text().splitlines()
    except OSError:
        return []
    left_out = {None} if with_self else {None, os.getpid()}
    pids = {pid for line in lines if (pid := _holder_in(line, inode)) not in left_out}
    return [Holder(pid, _program(pid)) for pid in sorted(filter(None, pids))]


def named(holders: list[Holder]) -> str:
    """Return holders as the subject of a sentence; "Another program" where none is known."""
    return " and ".join(str(each) for each in holders) or "Another program"


def _holder_in(line: str, inode: int) -> int | None:
    """Return who holds the lock in a line of `/proc/locks`, if it is on a file of this number.

    A waiter's line has `->` after its number. The device is not compared: on some file systems
    the kernel gives another one than `stat`.
    """
    fields = line.split()
    if len(fields) < 8 or fields[1] == "->":
        return None
    pid, where = fields[4], fields[5]
    is_it = where.rpartition(":")[2] == str(inode)
    return int(pid) if is_it and pid.isdecimal() else None


def _program(pid: int) -> str:
    """Return what was started, as it was typed, or the program's name alone."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        name = Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        return "a program that has ended"
    return " ".join(_told(words)) or name


def _told(words: list[str]) -> Iterator[str]:
    """Yield the program and its first words; arguments may hold what is nobody's business."""
    for word in words[:3]:
        if word and not word.startswith("-"):
            yield Path(word).name[:40]
