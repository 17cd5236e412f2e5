"""Where commands answer, and how they say that something went wrong.

Everything a person at a terminal is shown leaves through here, whoever wrote it: a file's name, a
title, a provider's message, a row of `cj sql`. On its way out whatever a terminal would obey or
not show is spelled, as `[U+001B]`; colours and lines are the console's own.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from cj_pipeline.commands.terminal import tables
from cj_pipeline.errors import CJError, SettingsError, TransientError
from cj_pipeline.storage.private_files import keep_to_ourselves
from cj_pipeline.text import visible

P = ParamSpec("P")
T = TypeVar("T")


class InertConsole(Console):
    """A console on which no text is obeyed, in a table, a bar or a traceback either."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Return what is to be written, with every text spelled out by `visible`."""
        for segment in super().render(renderable, options):
            shown = segment.text if segment.control else visible(segment.text)
            yield segment if shown == segment.text else Segment(shown, segment.style)


# Into a file or a pipe nothing is cut to the width of a terminal that is not there.
console = InertConsole(width=None if sys.stdout.isatty() else 120)
errors = InertConsole(stderr=True)


def write(text: str) -> None:
    """Print a text for programs, whose lines no console may break; it is spelled out as well."""
    if not console.quiet:
        typer.echo(visible(text), nl=False)


def write_json(document: Any) -> None:
    """Print a JSON document on one line; what a terminal would obey is escaped as JSON does it."""
    import json

    text = json.dumps(document, ensure_ascii=False)
    for unseen in {each for each in text if visible(each) != each}:
        text = text.replace(unseen, json.dumps(unseen)[1:-1])
    typer.echo(text)


def is_attended() -> bool:
    """Whether a person can be asked: a terminal is there to answer at."""
    return sys.stdin.isatty()


def confirm(question: str) -> None:
    """Ask, and end the command unless the answer is yes.

    Raises:
        SettingsError: If there is no terminal to ask at; a script is never left waiting.
    """
    if not is_attended():
        msg = f"Without a terminal there is no answer to: {question} --yes says yes."
        raise SettingsError(msg)
    typer.confirm(visible(question), abort=True, err=console.quiet)


NOT_NOW = 4
"""The exit code where nothing is wrong here: a provider, or the store, does not answer now."""


def with_plain_errors(command: Callable[P, T]) -> Callable[P, T]:
    """Show a known error as a message instead of a traceback; what is written is its owner's."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        keep_to_ourselves()
        try:
            return command(*args, **kwargs)
        except CJError as error:
            errors.print(tables.problems(str(error)))
            raise typer.Exit(NOT_NOW if isinstance(error, TransientError) else 1) from error
        except (typer.Exit, typer.Abort, typer.TyperException, EOFError, BrokenPipeError):
            raise
        except OSError as error:
            if error.errno not in _REMEDIES:
                errors.print_exception()
            else:
                errors.print(tables.problems(_plainly(error)))
            raise typer.Exit(1) from error
        except Exception as error:
            # A fault of ours: its message may hold anything, so it leaves through here as well.
            errors.print_exception()
            raise typer.Exit(1) from error

    return run


_REMEDIES = {
    errno.EMFILE: "raise the limit (`ulimit -n 1024`) and try again",
    errno.ENFILE: "end programs that hold many files open, and try again",
    errno.ENOSPC: "free space on that disk and try again",
    errno.EDQUOT: "free space in your quota and try again",
    errno.EROFS: "have it mounted for writing, or name another place",
    errno.EACCES: "get the right to it, or name another place",
    errno.EPERM: "get the right to it, or name another place",
}
"""What helps where the machine refuses; another error of it is a fault of ours."""


def _plainly(error: OSError) -> str:
    where = f": {error.filename}" if error.filename else ""
    return f"{error.strerror}{where}. To go on, {_REMEDIES[error.errno or 0]}."


@contextmanager
def inert_usage_errors() -> Iterator[None]:
    """Spell out what was typed where an argument or option is refused."""
    try:
        yield
    except typer.TyperException as error:
        error.message = visible(error.message)
        raise
