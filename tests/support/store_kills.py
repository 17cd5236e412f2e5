"""Store commands killed at any instant, and what is in the home afterwards."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from cj_pipeline.cli import app
from tests.support.store_faults import in_a_process, n_comparisons


@dataclass(frozen=True)
class Killed:
    """What a command left that was killed, and what the next ones made of it.

    Attributes:
        was_killed: False where it had ended before.
        rows_before: Comparisons in the store.
        rows_after: The same, opened by another program right after the kill.
        check_code: Exit code of `cj store check --fix` afterwards.
        checked: What that said.
        again_code: Exit code of the same command, done again.
        rows_again: Comparisons after that.
    """

    was_killed: bool
    rows_before: int
    rows_after: int
    check_code: int
    checked: str
    again_code: int
    rows_again: int


def kill_within(home: Path, arguments: Sequence[str], delay_s: float) -> Killed:
    """Begin a command, kill it after so long, and see to the home as its keeper would."""
    before = n_comparisons(home)
    was_killed = _kill_after(home, arguments, delay_s).was_killed
    after = n_comparisons(home)
    check_code, checked = _ended(home, ("store", "check", "--fix"))
    again_code, _ = _ended(home, arguments)
    return Killed(was_killed, before, after, check_code, checked, again_code, n_comparisons(home))


def seconds_of(home: Path, arguments: Sequence[str]) -> float:
    """Return how long a command takes on this machine once it is loaded, by letting it end."""
    return _kill_after(home, arguments, 600.0).seconds


@dataclass(frozen=True)
class _Ended:
    was_killed: bool
    seconds: float


def _kill_after(home: Path, arguments: Sequence[str], delay_s: float) -> _Ended:
    context = get_context("forkserver")
    ready, say = context.Pipe(duplex=False)
    process = context.Process(target=_begin, args=(say, home, tuple(arguments)))
    process.start()
    say.close()
    ready.recv()
    begun = time.monotonic()
    process.join(delay_s)
    if process.exitcode is None and process.pid is not None:
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    return _Ended(process.exitcode == -signal.SIGKILL, time.monotonic() - begun)


def _begin(say: Any, home: Path, arguments: Sequence[str]) -> None:
    os.environ["CJ_HOME"] = str(home)
    CliRunner().invoke(app, ["--version"])  # what loads lazily is no part of the command
    say.send("now")
    CliRunner().invoke(app, list(arguments))


def _ended(home: Path, arguments: Sequence[str]) -> tuple[int, str]:
    return in_a_process(_run, home, tuple(arguments))


def _run(home: Path, arguments: Sequence[str]) -> tuple[int, str]:
    os.environ["CJ_HOME"] = str(home)
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, done.output
