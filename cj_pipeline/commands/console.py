"""Where commands answer, and how they say that something went wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import typer
from rich.console import Console

from cj_pipeline.commands import tables
from cj_pipeline.errors import CJError, TransientError
from cj_pipeline.storage.private_files import keep_to_ourselves

P = ParamSpec("P")
T = TypeVar("T")

# Into a file or a pipe nothing is cut to the width of a terminal that is not there.
console = Console(width=None if sys.stdout.isatty() else 120)
errors = Console(stderr=True)


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

    return run
