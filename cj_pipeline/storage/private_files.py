"""A home that is its owner's alone: the folder 0700, everything in it without rights for others.

Essays, class lists and grades lie here. Whoever calls may name rights that the group shall have
all the same, as for a published copy that analysts with accounts of their own look into.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

PRIVATE_FOLDER = 0o700
PRIVATE_FILE = 0o600
_OTHERS = 0o077

Rights = Callable[[Path], int]
"""Which rights the group shall have to a file or folder, as bits of its mode."""


def no_rights(path: Path) -> int:
    """Give the group nothing."""
    del path
    return 0


def keep_to_ourselves() -> None:
    """Let whatever this process makes from now on be its owner's alone."""
    os.umask(_OTHERS)


def make_home(home: Path, group_rights: Rights = no_rights) -> Path:
    """Make a home, or take an empty folder for one; return it.

    A folder that holds something already keeps its mode: `open_to_others` says what is wrong.

    Raises:
        OSError: If it cannot be made.
    """
    keep_to_ourselves()
    if not home.exists():
        home.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    elif home.stat().st_mode & _OTHERS & ~group_rights(home) and _is_ours_and_empty(home):
        home.chmod(PRIVATE_FOLDER)
    return home


def is_open_to_others(home: Path) -> bool:
    """Whether others can list a home that holds something."""
    return home.exists() and bool(home.stat().st_mode & 0o055 & ~0o010) and not _is_empty(home)


def open_to_others(home: Path, group_rights: Rights = no_rights) -> Iterator[Path]:
    """Yield the home and whatever in it others have a right to; links are not followed."""
    if not home.exists():
        return
    for path in (home, *sorted(home.rglob("*"))):
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:  # somebody is at work here
            continue
        if not stat.S_ISLNK(mode) and mode & _OTHERS & ~group_rights(path):
            yield path


def close_to_others(home: Path, group_rights: Rights = no_rights) -> list[Path]:
    """Take from others every right but those named; return what was changed.

    Raises:
        OSError: If something is another account's.
    """
    changed = list(open_to_others(home, group_rights))
    for path in changed:
        path.chmod(stat.S_IMODE(path.stat().st_mode) & ~(_OTHERS & ~group_rights(path)))
    return changed


def _is_ours_and_empty(folder: Path) -> bool:
    return folder.stat().st_uid == os.geteuid() and _is_empty(folder)


def _is_empty(folder: Path) -> bool:
    return next(folder.iterdir(), None) is None
