"""Calls on disk as they leave and replies as they arrive, until the store has them.

The store takes a tenth of a second per transaction, so replies go there by the checkpoint; a
process killed in between would have to buy them again. One appended line each closes that gap:
what a kill can cost is the calls in flight, and those are known by the lines they left. The
operating system keeps what was written when the process dies; for a power cut the gap is a
checkpoint.

Where the store is encrypted, so are these lines.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path
from typing import Any

FOLDER = "live-replies"


class Journal:
    """The replies of one provider job; opened when the first arrives.

    Args:
        home: The store's folder, `CJ_HOME`.
        batch_id: The batch; its journals share a folder, so that they can be forgotten together.
        submission_key: The job.
        key: The store's, where it is encrypted.
    """

    def __init__(self, home: Path, batch_id: str, submission_key: str, key: str | None) -> None:
        self.path = folder_of(home, batch_id) / f"{submission_key}.jsonl"
        self._seal = _seal(key) if key else None
        self._descriptor: int | None = None

    def append(self, row: dict[str, Any]) -> None:
        """Keep one reply, whole or not at all."""
        if self._descriptor is None:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            self._descriptor = os.open(self.path, flags, 0o600)
            if os.fstat(self._descriptor).st_size:
                os.write(self._descriptor, b"\n")  # ends a line that a kill may have cut short
        line = json.dumps(row).encode()  # ASCII: half a surrogate pair has to survive as well
        if self._seal is not None:
            line = self._seal.encrypt(line)
        os.write(self._descriptor, line + b"\n")

    def rows(self) -> list[dict[str, Any]]:
        """Return what was written, in the order it came; a line cut short by a kill is left out.

        Raises:
            ValueError: If it was written under another key.
        """
        if not self.path.exists():
            return []
        rows = []
        for line in self.path.read_bytes().split(b"\n"):
            plain = self._opened(line) if line else None
            if plain is None:
                continue
            try:
                rows.append(json.loads(plain))
            except ValueError:
                continue
        return rows

    def sending(self, custom_id: str, n_tries: int) -> None:
        """Keep that a call is about to leave."""
        self.append({"sent": [custom_id, n_tries]})

    def resolved(self, custom_id: str, n_tries: int) -> None:
        """Keep that a call left nothing in doubt: it was not carried out, or is counted."""
        self.append({"resolved": [custom_id, n_tries]})

    def replies(self) -> list[dict[str, Any]]:
        """Return the replies that were written, as `rows` does."""
        return [row for row in self.rows() if "kind" in row]

    def lost(self) -> list[str]:
        """Return the custom id of each call that left and of which nothing more is known.

        It may have been answered and paid for; one that was lost twice is there twice.
        """
        sent: dict[tuple[str, int], None] = {}
        for row in self.rows():
            if "sent" in row:
                sent[tuple(row["sent"])] = None
            elif "resolved" in row:
                sent.pop(tuple(row["resolved"]), None)
            else:
                sent.pop((row["custom_id"], row["n_tries"]), None)
        return [custom_id for custom_id, _ in sent]

    def close(self) -> None:
        """Close the file; it stays."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def remove(self) -> None:
        """Remove it, once the store has everything in it."""
        self.close()
        self.path.unlink(missing_ok=True)
        if self.path.parent.exists() and not any(self.path.parent.iterdir()):
            self.path.parent.rmdir()

    def _opened(self, line: bytes) -> bytes | None:
        if self._seal is None:
            return line
        from cryptography.fernet import InvalidToken

        try:
            opened: bytes = self._seal.decrypt(line)
        except InvalidToken:
            return None
        return opened


def folder_of(home: Path, batch_id: str) -> Path:
    """Return where the journals of a batch lie, if there are any."""
    return home / FOLDER / batch_id


def _seal(key: str) -> Any:
    from cryptography.fernet import Fernet

    digest = hashlib.sha256(b"cj live replies " + key.encode()).digest()
    return Fernet(base64.urlsafe_b64encode(digest))
