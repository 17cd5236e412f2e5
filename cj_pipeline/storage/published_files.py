"""The files that a batch leaves for people outside: a folder here, and objects all machines share.

The store records each by its name below that folder, with its checksum. So any machine can give out
what another one wrote, and a home that is moved finds its files again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from cj_pipeline.errors import TransientError

if TYPE_CHECKING:
    from cj_pipeline.storage.objects import Objects

PUBLISHED_IN = "batches"
"""The folder of a home, and of an object store, with one folder per batch."""


@dataclass(frozen=True)
class PublishedFiles:
    """Where published files are: on this machine, and at `objects` if machines share them."""

    home: Path
    objects: Objects | None = None

    @property
    def folder(self) -> Path:
        """Where this machine has them, one folder per batch."""
        return self.home / PUBLISHED_IN

    def recorded(self, path: Path) -> str:
        """Return what the store records of a file in the folder."""
        return path.relative_to(self.folder).as_posix()

    def share(self, paths: list[Path]) -> None:
        """Give other machines files of the folder, in this order; do nothing if none share.

        Raises:
            TransientError: If the object store does not take them now.
        """
        if self.objects is None:
            return
        for path in paths:
            self.objects.put(f"{PUBLISHED_IN}/{self.recorded(path)}", path.read_bytes())

    def read(self, recorded: str, sha256: str) -> bytes | None:
        """Return a file as it was recorded, whichever machine wrote it.

        None if there is none, or the record names no file of the folder. What another machine
        wrote is not kept here, so that what is forgotten is gone.

        Raises:
            TransientError: If the object store does not answer, or the file is being replaced.
        """
        path = self.folder / recorded
        if not path.resolve().is_relative_to(self.folder.resolve()):
            return None
        content = path.read_bytes() if path.is_file() else None
        if self.objects is None or (content is not None and _sha256(content) == sha256):
            return content
        content = self.objects.get(f"{PUBLISHED_IN}/{PurePosixPath(recorded)}")
        if content is not None and _sha256(content) != sha256:
            msg = f"{recorded} is being rewritten on another machine; try again."
            raise TransientError(msg)
        return content

    def forget(self, batch_id: str) -> int:
        """Delete a batch's shared files; return how many. Those here belong to the home."""
        if self.objects is None:
            return 0
        names = self.objects.names(f"{PUBLISHED_IN}/{batch_id}")
        self.objects.delete(names)
        return len(names)


def open_published_files(home: Path, environment: Mapping[str, str]) -> PublishedFiles:
    """Return the published files of a home, shared where CJ_FILES says.

    Args:
        home: The folder of this machine's files.
        environment: Read for CJ_FILES: `s3://BUCKET/PREFIX`, or `gs://` or `az://` likewise.

    Raises:
        StoreError: If the object store cannot be used as it is set up.
    """
    address = environment.get("CJ_FILES")
    return PublishedFiles(home, _open_objects(address, os.getpid()) if address else None)


@cache
def _open_objects(address: str, _process: int) -> Objects:
    """Return the objects at an address; each process has its own connection, a fork too."""
    from cj_pipeline.storage.objects import Objects

    return Objects(address)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
