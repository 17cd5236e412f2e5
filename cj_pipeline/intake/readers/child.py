"""The process in which foreign files are parsed: one request a line, limits on each.

    python -m cj_pipeline.intake.readers.child N_BYTES_OF_MEMORY N_SECONDS

It reads `{"kind": ..., "n_bytes": ...}` and that many bytes from standard input, and answers with
one line of JSON. It opens no file for writing, no connection and no process, has no keys in its
environment, and is ended by the system when it takes more time or memory than it may.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import resource
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

from cj_pipeline.intake.readers.extracted import Extracted, Sheet, UnreadableFileError

_FORBIDDEN = ("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork")


def main(memory_bytes: int, seconds: int) -> None:
    """Answer requests until standard input ends."""
    requests, answers = sys.stdin.buffer, _kept_stdout()
    _limit_memory(memory_bytes)
    sys.addaudithook(_refuse)
    while line := requests.readline():
        request = json.loads(line)
        content = requests.read(request["n_bytes"])
        _limit_time(seconds)
        answers.write(json.dumps(_answer(request["kind"], content)).encode() + b"\n")
        answers.flush()


def _answer(kind: str, content: bytes) -> dict[str, Any]:
    try:
        return dataclasses.asdict(_reader(kind)(content))
    except UnreadableFileError as error:
        return {"problem": str(error)}
    except MemoryError:
        return {"problem": "needs too much memory to be read safely: open it and save it again"}
    except RecursionError:
        return {"problem": "is nested too deeply to be read safely: open it and save it again"}
    except Exception as error:  # whatever a library makes of a broken file
        return {"problem": f"cannot be read ({type(error).__name__}): open it and save it again"}


def _reader(kind: str) -> Callable[[bytes], Extracted | Sheet]:
    """Return a format's reader; each brings its own library, so only this one is loaded."""
    if kind == "docx":
        from cj_pipeline.intake.readers.docx import read_docx

        return read_docx
    if kind == "odt":
        from cj_pipeline.intake.readers.odt import read_odt

        return read_odt
    if kind == "pdf":
        from cj_pipeline.intake.readers.pdf import read_pdf

        return read_pdf
    if kind == "rtf":
        from cj_pipeline.intake.readers.rtf import read_rtf

        return read_rtf
    if kind == "html":
        from cj_pipeline.intake.readers.html import read_html

        return read_html
    from cj_pipeline.intake.readers.spreadsheet import read_spreadsheet

    return read_spreadsheet


def _limit_memory(n_bytes: int) -> None:
    with contextlib.suppress(ValueError, OSError):  # a lower limit than this may be set already
        resource.setrlimit(resource.RLIMIT_AS, (n_bytes, n_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _limit_time(seconds: int) -> None:
    """Have the system end this process after so much more computing time."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    until = math.ceil(used.ru_utime + used.ru_stime) + seconds
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    if hard == resource.RLIM_INFINITY or until < hard:
        resource.setrlimit(resource.RLIMIT_CPU, (until, hard))


def _kept_stdout() -> BinaryIO:
    """Keep standard output for answers: whatever a library prints goes nowhere."""
    kept = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    return kept


def _refuse(event: str, _args: tuple[Any, ...]) -> None:
    if event.startswith(_FORBIDDEN):
        msg = f"a reader may not do this: {event}"
        raise PermissionError(msg)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
