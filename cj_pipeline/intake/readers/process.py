"""Have a file of a foreign format read, in a process of its own with limits.

The process lives as long as files come and is restarted after one that ended it. Whatever
happens in it becomes a problem that names the file; never an outage here.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from cj_pipeline.intake.readers.extracted import Extracted, Sheet, UnreadableFileError

MAX_FILE_BYTES = 20 * 1024 * 1024
"""Of a Word, OpenDocument, rich-text or PDF file or a spreadsheet."""

MEMORY_BYTES = 512 * 1024 * 1024
COMPUTING_S = 10
"""What reading one file may take of a processor."""

WAITING_S = 60.0
"""What it may take on the clock, on a machine that is busy with other things."""

DOCUMENTS = {
    ".docx": "docx",
    ".odt": "odt",
    ".pdf": "pdf",
    ".rtf": "rtf",
    ".html": "html",
    ".htm": "html",
}
"""The endings of documents that are read, and their readers."""

SPREADSHEETS = (".xlsx", ".ods", ".xls")

_TOO_LONG = f"takes more than {COMPUTING_S} s to read: open it and save it again"
_UNSAFE = (
    f"could not be read safely within {COMPUTING_S} s and {MEMORY_BYTES // 1024**2} MB:"
    " open it and save it again"
)


@dataclass
class ReaderProcess:
    """The process that reads; it is started when the first file comes."""

    _process: subprocess.Popen[bytes] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read_document(self, ending: str, content: bytes) -> Extracted:
        """Return a document's text.

        Args:
            ending: One of `DOCUMENTS`.
            content: The whole file.

        Raises:
            UnreadableFileError: If it cannot be read, or not within the limits.
        """
        real = _real_ending(content)
        if real and real != ending and DOCUMENTS.get(ending) != "html":
            msg = f"is no {ending} file but a {real} file: give its name the ending {real}"
            raise UnreadableFileError(msg)
        return Extracted(**self._ask(DOCUMENTS[ending], content))

    def read_sheet(self, content: bytes) -> Sheet:
        """Return a spreadsheet's one sheet; raises as `read_document`."""
        return Sheet(**self._ask("spreadsheet", content))

    def close(self) -> None:
        """End the process, if one was started."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    if pipe is not None:
                        pipe.close()

    def _ask(self, kind: str, content: bytes) -> dict[str, Any]:
        with self._lock:
            answer = self._answer(kind, content)
        if "problem" in answer:
            raise UnreadableFileError(answer["problem"])
        return answer

    def _answer(self, kind: str, content: bytes) -> dict[str, Any]:
        process = self._process = self._process or _started()
        if process.stdin is None or process.stdout is None:
            return {"problem": _UNSAFE}
        timer = threading.Timer(WAITING_S, process.kill)
        timer.start()
        try:
            request = json.dumps({"kind": kind, "n_bytes": len(content)}).encode() + b"\n"
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(request + content)
                process.stdin.flush()
            line = process.stdout.readline()
            found: dict[str, Any] | None = json.loads(line) if line.endswith(b"\n") else None
        finally:
            timer.cancel()
        if found is not None:
            return found
        process.wait()
        ended_by = process.returncode
        self.close()
        is_slow = ended_by in {-signal.SIGXCPU, -signal.SIGKILL}
        return {"problem": _TOO_LONG if is_slow else _UNSAFE}


def _real_ending(content: bytes) -> str:
    """Return the ending that a file of another name should have; empty where that is unknown."""
    if content.startswith(b"%PDF"):
        return ".pdf"
    if content.startswith(b"{\\rtf"):
        return ".rtf"
    if content.startswith(b"PK\x03\x04"):
        if content[30:].startswith(b"mimetypeapplication/vnd.oasis.opendocument.text"):
            return ".odt"
        return ".docx" if b"word/document.xml" in content else ""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(content[:4096])
    except UnicodeDecodeError:
        return ""
    is_typed = all(letter.isprintable() or letter in "\r\n\t" for letter in text)
    return ".txt" if is_typed and text.strip() and "%PDF" not in text else ""


@contextmanager
def reader_process() -> Iterator[ReaderProcess]:
    """Give a process that reads files, and end it afterwards."""
    process = ReaderProcess()
    try:
        yield process
    finally:
        process.close()


def _started() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "cj_pipeline.intake.readers.child"),
            *(str(MEMORY_BYTES), str(COMPUTING_S)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=_bare_environment(),
        close_fds=True,
    )


def _bare_environment() -> dict[str, str]:
    """Return an environment without keys: only what Python needs to find its modules."""
    kept = ("PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "SYSTEMROOT")
    # One thread: each of OpenBLAS's would take its share of the memory that is allowed.
    return {name: os.environ[name] for name in kept if name in os.environ} | {
        "OPENBLAS_NUM_THREADS": "1"
    }
