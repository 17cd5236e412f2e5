"""The published copy: a whole, read-only database that is replaced by one rename.

Connections that were open before keep the file they opened, so they block nobody and go on
seeing one consistent state.
"""

from __future__ import annotations

import os
from pathlib import Path


def publish(live: Path, published: Path) -> None:
    """Replace `published` by a copy of `live`, which nobody may be writing meanwhile."""
    published.parent.mkdir(mode=0o700, exist_ok=True)
    unfinished = published.with_name(f"{published.name}.{os.getpid()}.tmp")
    try:
        _copy(live, unfinished)
        unfinished.replace(published)
    finally:
        unfinished.unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    """Copy a file inside the kernel, which shares blocks where the file system can."""
    with source.open("rb") as reading:
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            left = os.fstat(reading.fileno()).st_size
            while left > 0:
                copied = os.copy_file_range(reading.fileno(), writing, left)
                left -= copied
            os.fsync(writing)
        finally:
            os.close(writing)
