"""Makes docs/store-faults.md: every store command meets faults at every step, and that is told.

    python -m tests.support.store_faults > docs/store-faults.md

Each case is a process of its own that is refused by the disk, or killed, at one step of putting a
file in place; nothing in the table is written by hand but the names.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from cj_pipeline.cli import app
from cj_pipeline.commands.terminal import console
from cj_pipeline.storage import file_swap
from cj_pipeline.storage.private_files import keep_to_ourselves, open_to_others
from cj_pipeline.store.file_store import FileStore, connect_file
from cj_pipeline.store.maintenance import backup_store
from tests.support.finished_batches import SPRING, fill

MARKER = "A sentence that only this pupil would write, twenty-three violet umbrellas."
KILLED = "kill -9"
FAULTS: dict[str, int | None] = {
    "disk full": errno.ENOSPC,
    "I/O error": errno.EIO,
    "another file system": errno.EXDEV,
    KILLED: None,
}
MEETS: dict[str, tuple[str, ...]] = {
    "look for room": (KILLED,),
    "write": ("disk full", "I/O error", KILLED),
    "look for a log": (KILLED,),
    "flush the file": ("disk full", "I/O error", KILLED),
    "prove": ("I/O error", KILLED),
    "keep the old one": ("disk full", "another file system", KILLED),
    "rename": ("another file system", KILLED),
    "flush the folder": ("I/O error", KILLED),
}
"""The faults a step can meet; a kill comes before the step is done."""

COMMANDS: dict[str, Sequence[str]] = {
    "cj store compact": ("store", "compact"),
    "cj store backup": ("store", "backup", "{home}/../backup/monday.duckdb"),
    "cj store restore": ("store", "restore", "{home}/../given.duckdb"),
    "cj store archive": ("store", "archive", "--older-than-days", "0"),
    "cj forget": ("forget", SPRING, "--yes"),
    "cj forget, one essay": ("forget", SPRING, "pupil-03", "--yes"),
}
"""Publishing is part of the first, the third and the last two."""


@dataclass(frozen=True)
class Came:
    """What came of a command that met a fault.

    Attributes:
        command: As a person types it.
        step: Which step of the how-manieth file, as `compact 2: rename`.
        fault: Its name.
        exit_code: Of the process; negative for the signal that ended it.
        message: What it said, without the home's name.
        rows_before: Comparisons in the store.
        rows_after: Comparisons in the store, opened again.
        again_code: Exit code of the same command, done again without a fault.
        rows_again: Comparisons in the store after that.
        n_marked: Files of the home that hold the text that was to be forgotten, after that.
        n_left: Files that no command needs, after that and a `cj store check --fix`.
    """

    command: str
    step: str
    fault: str
    exit_code: int
    message: str
    rows_before: int
    rows_after: int
    again_code: int
    rows_again: int
    n_marked: int
    n_left: int


def make_home(home: Path) -> None:
    """Make a store with finished batches, one of them marked, published twice, and a backup."""
    keep_to_ourselves()
    store = FileStore(home)
    with store.write() as db:
        fill(db)
        db.execute(
            "UPDATE essays SET text = ? WHERE batch_id = ? AND essay_id = 'pupil-03'",
            [MARKER, SPRING],
        )
        db.execute("DELETE FROM callbacks WHERE batch_id <> ?", [SPRING])
    (home / "batches" / SPRING).mkdir(parents=True)
    (home / "batches" / SPRING / "report.html").write_text(MARKER)
    store.publish()
    store.publish()
    backup_store(store, home.parent / "given.duckdb", now=datetime(2026, 3, 2, tzinfo=UTC))
    # Each test copies this home; the store is to take its copy for the place it was made in.
    with closing(connect_file(home / "cj.duckdb", read_only=False)) as db:
        db.execute("DELETE FROM store_epochs")


def in_a_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function returns in a process of its own, which has ended by then."""
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def steps_of(template: Path, command: str, folder: Path) -> list[str]:
    """Return the names of the steps a command takes, in order, by letting it run."""
    home = _copied(template, folder)
    _, _, steps = in_a_process(_run, home, command, None, None)
    shutil.rmtree(folder)
    return steps


def try_it(
    template: Path, command: str, steps: Sequence[str], n: int, fault: str, folder: Path
) -> Came:
    """Let one command meet one fault at its n-th step; then do it again without one.

    Args:
        template: A home with what `make_home` makes; it is copied.
        command: One of `COMMANDS`.
        steps: Its steps, from `steps_of`.
        n: Which of them, from 0.
        fault: One of `FAULTS`.
        folder: Where to work; removed afterwards.
    """
    home = _copied(template, folder)
    before = n_comparisons(home)
    code, message = _in_a_process(home, command, n, fault)
    after = n_comparisons(home)
    again, _ = _in_a_process(home, command, None, None)
    rows_again = n_comparisons(home)
    marked = n_marked(home)
    n_left = len(left_behind(folder))
    which = f"{1 + n // len(file_swap.STEPS)}: {steps[n]}"
    shutil.rmtree(folder)
    return Came(
        command, which, fault, code, message, before, after, again, rows_again, marked, n_left
    )


def n_comparisons(home: Path) -> int:
    """Return how many comparisons there are in a store, opened as any program would."""
    with closing(connect_file(home / "cj.duckdb", read_only=True)) as db:
        row = db.execute("SELECT count(*) FROM comparisons").fetchone()
    assert row is not None
    return int(row[0])


def n_marked(home: Path) -> int:
    """Return how many files of a home hold the marked text."""
    files = [path for path in home.rglob("*") if path.is_file()]
    return sum(MARKER.encode() in path.read_bytes() for path in files)


def left_behind(folder: Path) -> list[Path]:
    """Return files beside a store that are part of no finished command, or others' to read."""
    names = ("*.unfinished*", "*.before-compact", "*.tmp/*")
    return [*(p for name in names for p in folder.rglob(name)), *open_to_others(folder / "home")]


def _copied(template: Path, folder: Path) -> Path:
    folder.mkdir()
    folder.chmod(0o700)
    shutil.copytree(template, folder / "home")
    shutil.copy(template.parent / "given.duckdb", folder / "given.duckdb")
    return folder / "home"


def _in_a_process(home: Path, command: str, n: int | None, fault: str | None) -> tuple[int, str]:
    """Return the exit code of a command in a process of its own, and what it said."""
    context = multiprocessing.get_context("forkserver")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_told, args=(send, home, command, n, fault))
    process.start()
    send.close()
    try:
        code, message, _ = receive.recv()
    except EOFError:
        code, message = 0, ""
    process.join()
    return (process.exitcode or code), message


def _told(send: Any, *case: Any) -> None:
    send.send(_run(*case))


def _run(home: Path, command: str, n: int | None, fault: str | None) -> tuple[int, str, list[str]]:
    """Run a command; its exit code, its last words, and the steps it took."""
    os.environ["CJ_HOME"] = str(home)
    # Else a path would be broken where the line ends, which differs with the length of the path.
    console.console.width = console.errors.width = 10_000
    taken: list[str] = []
    file_swap._step = _faulty(taken, n, fault)  # type: ignore[assignment]
    arguments = [word.replace("{home}", str(home)) for word in COMMANDS[command]]
    result = CliRunner().invoke(app, arguments)
    if n is None:
        CliRunner().invoke(app, ["store", "check", "--fix"])
    said = " ".join(re.sub(r"[╭╮╰╯│─]", " ", result.output).split())
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        said = f"{said} {result.exception!r}"
    for path in (home.parent.resolve(), home.parent):
        said = said.replace(str(path), "")
    return result.exit_code, re.sub(r"[\d,]{4,}", "N", said).strip(), taken


def _faulty(taken: list[str], n: int | None, fault: str | None) -> Callable[..., Any]:
    """Return what does a step, and lets the n-th meet the fault."""

    def step(name: str, do: Callable[..., Any], *args: Any) -> Any:
        taken.append(name)
        if n is not None and len(taken) == n + 1:
            number = FAULTS[fault or KILLED]
            if number is None:
                os.kill(os.getpid(), signal.SIGKILL)
            else:
                raise OSError(number, os.strerror(number))
        return do(*args)

    return step


def everything(template: Path, folder: Path, command: str) -> Iterator[Came]:
    """Yield what comes of a command at each of its steps with each fault."""
    steps = steps_of(template, command, folder / "steps")
    for n in range(len(steps)):
        for fault in MEETS[steps[n]]:
            yield try_it(template, command, steps, n, fault, folder / "case")


def section(command: str, came: Sequence[Came]) -> str:
    """Return what the page says of one command; lines that say the same become one."""
    lines = [
        f"## `{command}`",
        "",
        "| file and step | fault | rows before | after | exit code | done again | message |",
        "|---|---|---:|---:|---:|---|---|",
    ]
    told: dict[tuple[Any, ...], list[Came]] = {}
    for each in came:
        key = (each.step, each.rows_before, each.rows_after, each.exit_code, each.message)
        told.setdefault(_without_errno(key), []).append(each)
    for group in told.values():
        one = group[0]
        faults = ", ".join(each.fault for each in group)
        again = f"{one.again_code}, {one.rows_again} rows"
        message = one.message.replace("|", "\\|") or "-"
        lines.append(
            f"| {one.step} | {faults} | {one.rows_before} | {one.rows_after} | {one.exit_code} |"
            f" {again} | {message} |"
        )
    return "\n".join(lines)


def _without_errno(key: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*key[:-1], re.sub(r"\[Errno \d+\] [A-Z][A-Za-z/\- ]+", "", str(key[-1])))


def page(folder: Path) -> str:
    """Return the whole page."""
    template = folder / "template" / "home"
    template.parent.mkdir()
    make_home(template)
    sections = [
        section(command, list(everything(template, folder, command))) for command in COMMANDS
    ]
    return "\n\n".join((_HEAD, *sections))


_HEAD = """# What a fault comes to in the store

Every command that puts a file of the store in place meets, at every step, what can befall it there:
the disk is full, it fails, the place is on another file system, the process is killed before it.
*Rows* are comparisons in the store, opened again by another program. *Done again* is the exit code
of the same command afterwards, and the rows there are then. The steps are those of
`cj_pipeline/storage/file_swap.py`; the number before one says which file of the command it is: a
compaction puts the store's file in place first and the published copy second.

`python -m tests.support.store_faults > docs/store-faults.md` makes this page. A test makes it
again, fails where it differs, and asserts of every line that no row was lost, that the same
command comes to its end afterwards (a backup that is there already is not written over), that what
was to be forgotten is then in no file, and that nothing is left behind."""


multiprocessing.get_context("forkserver").set_forkserver_preload(
    [
        "cj_pipeline.operations.personal_data.erase",
        "cj_pipeline.cli",
        "tests.support.finished_batches",
    ]
)

if __name__ == "__main__":
    from tests.support.store_faults import page as made

    with tempfile.TemporaryDirectory() as work:
        sys.stdout.write(made(Path(work)) + "\n")
