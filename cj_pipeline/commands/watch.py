"""`cj watch`: a batch's progress as it happens, at a terminal or in a log."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.prompt import Confirm
from rich.table import Table
from rich.text import Text

from cj_pipeline.commands.terminal.arguments import BatchName
from cj_pipeline.commands.terminal.console import console, errors, is_attended, write_json
from cj_pipeline.commands.terminal.home import open_runtime
from cj_pipeline.errors import SettingsError, StoreBusyError, UnknownBatchError
from cj_pipeline.progress.text import (
    describe_outlook,
    describe_unattended,
    event_line,
    has_no_outlook,
)
from cj_pipeline.progress.values import Progress
from cj_pipeline.stopping.continuation import BatchOutcome

if TYPE_CHECKING:
    from cj_pipeline.progress.follow import ProgressUpdate
    from cj_pipeline.runtime import Runtime

EXIT_CODES = {
    BatchOutcome.SUCCESS: 0,
    BatchOutcome.PARTIAL: 10,
    BatchOutcome.FAILURE: 11,
    BatchOutcome.EMPTY: 12,
    BatchOutcome.CANCELLED: 13,
    BatchOutcome.EXPIRED: 14,
    BatchOutcome.STALLED: 15,
}
REJECTED = 16
TIMED_OUT = 3
INTERRUPTED = 130

SHAPE = "cj watch 1"
"""The name and version of each line of `cj watch --json`."""

_UNATTENDED_EVERY_S = 60.0

WAIT_FOR_REPORT_S = 30.0
"""Grades and the report follow a batch's end within seconds, if a process runs those steps."""


def watch(
    batch: BatchName,
    *,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="End the batch, after asking; then watch it end.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="With --cancel: do not ask for confirmation.")
    ] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="One line per event, as when not at a terminal.")
    ] = False,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds to watch; unlimited if unset.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object per event; see docs/json-output.md.")
    ] = False,
) -> None:
    """Watch a batch until it ends; at a terminal, `c` asks whether to cancel it.

    Ctrl-C stops watching and leaves the batch running. The exit code says how the batch ended.
    """
    watching = _Watching(open_runtime(), batch, console, timeout, as_json=as_json)
    try:
        watching.require()
        if cancel and (yes or watching.confirms()):
            watching.cancel()
        is_plain = plain or as_json or not console.is_terminal
        code = watching.lines() if is_plain else watching.screen()
    except _TimeIsUpError:
        _say(f"{batch} is not at its end yet; it goes on.", aside=as_json)
        code = TIMED_OUT
    except KeyboardInterrupt:
        _say(f"Stopped watching; {batch} goes on. `cj cancel {batch}` ends it.", aside=as_json)
        code = INTERRUPTED
    raise typer.Exit(code)


def _say(text: str, *, aside: bool) -> None:
    """Print a line for people; beside the lines for programs, where there are any."""
    to = errors if aside else console
    to.print(text, markup=False, highlight=False, soft_wrap=True)


class _Watching:
    """One batch on one terminal."""

    def __init__(
        self,
        runtime: Runtime,
        batch_id: str,
        console: Console,
        timeout_s: float | None,
        *,
        as_json: bool = False,
    ) -> None:
        self._runtime = runtime
        self._batch_id = batch_id
        self._console = console
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._ask_again_at = 0.0
        self._usual_time = ""
        self._as_json = as_json

    def require(self) -> None:
        """Fail at once if there is no such batch; one that waits in the inbox is waited for."""
        from cj_pipeline.progress.follow import read_progress

        is_announced = False
        while True:
            try:
                read_progress(self._runtime, self._batch_id)
            except UnknownBatchError:
                if not self._is_in_inbox():
                    raise
            else:
                return
            if not is_announced:
                self._print(f"{self._batch_id} is in the inbox and not yet ingested.")
                is_announced = True
            self._pause_or_leave(0.5)

    def _is_in_inbox(self) -> bool:
        from cj_pipeline.ids import ID

        is_name = ID.fullmatch(self._batch_id) is not None
        return is_name and (self._runtime.inbox / self._batch_id).is_dir()

    def _pause_or_leave(
        self, seconds: float, pause: Callable[[float], object] = time.sleep
    ) -> None:
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise _TimeIsUpError
        pause(seconds)

    def confirms(self) -> bool:
        """Ask whether the batch is to end; anything but a clear yes leaves it alone.

        Raises:
            SettingsError: If there is no terminal to ask at.
        """
        if not is_attended():
            msg = (
                f"Without a terminal there is no answer to: End {self._batch_id} now?"
                " --yes says yes."
            )
            raise SettingsError(msg)
        question = Text(f"End {self._batch_id} now? What was paid for is kept.")
        try:
            return Confirm.ask(question, console=self._console, default=False)
        except EOFError:
            return False

    def cancel(self) -> None:
        """End the batch as `cj cancel` does."""
        from cj_pipeline.operations.cancel import cancel

        cancelled = cancel(self._runtime, self._batch_id)
        self._print(
            f"{self._batch_id}: ending, {cancelled.n_jobs} provider jobs were asked to stop."
        )

    def lines(self) -> int:
        """Print one line per event until the batch has ended; return the exit code."""
        for update in self._updates(time.sleep):
            for event in update.events:
                if self._as_json:
                    write_json({"shape": SHAPE, **event.as_json()})
                else:
                    self._print(event_line(event))
            if has_no_outlook(update.progress) and not self._usual_time:
                self._print(f"{self._batch_id} takes {self._usual()} at most.")
        return self._end(update.progress)

    def screen(self) -> int:
        """Show the batch on a live screen until it has ended; return the exit code."""
        # Not on the alternate screen: how the batch ended stays to be read.
        live = Live(console=self._console, auto_refresh=False)
        with _keys() as next_key, live:

            def pause(seconds: float) -> None:
                if next_key(seconds) != "c":
                    return
                live.stop()
                with next_key.line_mode():
                    if self.confirms():
                        self.cancel()
                live.start()

            for update in self._updates(pause):
                usual = self._usual() if has_no_outlook(update.progress) else ""
                live.update(screen_of(update.progress, usual), refresh=True)
        return self._end(update.progress)

    def _usual(self) -> str:
        """How long the batch takes at most, looked up once."""
        if not self._usual_time:
            from cj_pipeline.operations.cost_estimate import usual_time

            with self._runtime.store.read() as db:
                self._usual_time = usual_time(db, self._batch_id)
        return self._usual_time

    def _updates(self, pause: Callable[[float], object]) -> Iterator[ProgressUpdate]:
        from cj_pipeline.progress.follow import follow

        def wait(seconds: float) -> None:
            self._tell_if_unattended()
            self._pause_or_leave(seconds, pause)

        yield from follow(self._runtime, self._batch_id, pause=wait)

    def _tell_if_unattended(self) -> None:
        """Say, about once a minute, that no process takes the batch on, where that is so."""
        from cj_pipeline.steps.next_step import unattended_since

        if time.monotonic() < self._ask_again_at:
            return
        self._ask_again_at = time.monotonic() + _UNATTENDED_EVERY_S
        now = self._runtime.clock()
        try:
            with self._runtime.store.read() as db:
                since = unattended_since(db, self._batch_id, now)
        except StoreBusyError:
            return  # who holds the store is at work
        if since is not None:
            self._print(describe_unattended(self._batch_id, since, now))

    def _end(self, progress: Progress) -> int:
        if progress.outcome is None:
            self._print(f"{self._batch_id} was rejected: `cj status {self._batch_id}` says why.")
            return REJECTED
        self._print(f"{self._batch_id}: {progress.outcome.value} ({progress.end_reason})")
        report = self._report() if progress.outcome.has_scores else None
        if report is not None:
            self._print(f"Report: {report}")
        return EXIT_CODES[progress.outcome]

    def _report(self) -> str | None:
        from cj_pipeline.queries.overview import outputs

        deadline = time.monotonic() + WAIT_FOR_REPORT_S
        if self._deadline is not None:
            deadline = min(deadline, self._deadline)
        while True:
            with self._runtime.store.read() as db:
                found = outputs(db, self._batch_id).get("report")
            if found is not None:
                return str(self._runtime.published_folder / found.path)
            if time.monotonic() > deadline:
                return None
            time.sleep(0.5)

    def _print(self, text: str) -> None:
        if self._as_json:
            _say(text, aside=True)
        else:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class _TimeIsUpError(Exception):
    """The time given with --timeout has passed."""


def screen_of(progress: Progress, usual_time: str = "") -> Group:
    """Return what a live terminal shows of a batch."""
    state = progress.outcome.value if progress.outcome else progress.state
    if progress.is_cancelling:
        state = "being cancelled; collecting what was paid for"
    facts = Table.grid(padding=(0, 3))
    facts.add_row(
        Text(f"{progress.n_done} of {progress.n_expected}, {progress.n_failed} failed"),
        *map(Text, describe_outlook(progress, usual_time)),
    )
    return Group(
        Text.assemble((progress.batch_id, "bold"), f"  wave {progress.wave}  {state}"),
        ProgressBar(total=1.0, completed=progress.share_done, width=60),
        facts,
        _targets(progress),
        Text("" if progress.outcome else "c: cancel (asks)   Ctrl-C: stop watching", "dim"),
    )


def _targets(progress: Progress) -> Table:
    drawn = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("judge", "model", "status"):
        drawn.add_column(column)
    for column in ("completed", "requested", "failed", "in flight", "per s", "tokens", "USD"):
        drawn.add_column(column, justify="right")
    for target in progress.targets:
        each = "" if target.comparisons_per_s is None else f"{target.comparisons_per_s:.2f}"
        cells = (
            target.name,
            target.model,
            target.status,
            f"{target.n_done}",
            f"{target.n_asked}",
            f"{target.n_failed}",
            f"{target.n_in_flight}",
            each,
            f"{target.tokens:,}",
            f"{target.cost_usd:.4f}",
        )
        drawn.add_row(*(Text(cell) for cell in cells))
    return drawn


class _Keys:
    """Single keys from a terminal, without waiting for a line to end."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def __call__(self, seconds: float) -> str:
        """Wait for a key for so long; return it, or nothing."""
        if self._descriptor is None:
            time.sleep(seconds)
            return ""
        ready, _, _ = select.select([self._descriptor], [], [], seconds)
        return os.read(self._descriptor, 1).decode(errors="replace") if ready else ""

    @contextmanager
    def line_mode(self) -> Iterator[None]:
        """Have the terminal read whole lines again, for a question."""
        if self._descriptor is None:
            yield
            return
        import termios
        import tty

        single = termios.tcgetattr(self._descriptor)
        whole = list(single)
        whole[3] |= termios.ICANON | termios.ECHO
        termios.tcsetattr(self._descriptor, termios.TCSADRAIN, whole)
        try:
            yield
        finally:
            tty.setcbreak(self._descriptor)


@contextmanager
def _keys() -> Iterator[_Keys]:
    """Give single keys where standard input is a terminal; it is put back as it was."""
    if not sys.stdin.isatty():
        yield _Keys(None)
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield _Keys(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
