"""`--json`: what a reading command found, as one JSON object for programs.

A command is marked with `@reads("cj status 1")`, says once what it found with `answer(...)`, and
then shows it to people as ever. With `--json` only the answer is printed, with the name and the
version of its shape; a change that breaks a reader counts the version up. docs/json-output.md
lists every shape.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import wraps
from math import isfinite
from pathlib import PurePath
from types import NoneType
from typing import Annotated, Any, ParamSpec
from uuid import UUID

import typer

from cj_pipeline.commands.terminal.console import console, write_json

P = ParamSpec("P")

_AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object instead; see docs/json-output.md.")
]
_found: ContextVar[dict[str, Any] | None] = ContextVar("found", default=None)


def reads(shape: str) -> Callable[[Callable[P, None]], Callable[..., None]]:
    """Give a command that reads its `--json`.

    Args:
        shape: The command as it is typed, and the version of what it prints, as `cj status 1`.
    """

    def marked(command: Callable[P, None]) -> Callable[..., None]:
        @wraps(command)
        def run(*args: Any, as_json: bool = False, **kwargs: Any) -> None:
            if not as_json:
                command(*args, **kwargs)
                return
            with _unshown() as found:
                try:
                    command(*args, **kwargs)
                except typer.Exit:
                    # The exit code says that something is wrong; the answer says what.
                    _print(shape, found)
                    raise
            _print(shape, found)

        taken = inspect.signature(command, eval_str=True)
        more = inspect.Parameter(
            "as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=_AsJson
        )
        run.__signature__ = taken.replace(  # type: ignore[attr-defined]
            parameters=[*taken.parameters.values(), more]
        )
        run.__annotations__ = {**command.__annotations__, "as_json": _AsJson}
        run.shape = shape  # type: ignore[attr-defined]
        return run

    return marked


def answer(**found: Any) -> None:
    """Say what a command found: fields by name; what is said again replaces what was."""
    if (whole := _found.get()) is not None:
        whole.update(found)


def plain(value: Any) -> Any:
    """Return a value as JSON has it: dataclasses are objects, moments texts, NaN is null.

    Raises:
        TypeError: If it is of a kind that has no form here yet.
    """
    for kind, form in _FORMS:
        if isinstance(value, kind):
            return form(value)
    if is_dataclass(value):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    if hasattr(value, "model_dump"):
        return plain(value.model_dump(mode="json"))
    if hasattr(value, "tolist"):  # numpy's arrays and scalars
        return plain(value.tolist())
    msg = f"{type(value).__name__} has no form in JSON yet"
    raise TypeError(msg)


_FORMS: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (Enum, lambda value: plain(value.value)),
    ((NoneType, bool, int, str), lambda value: value),
    (float, lambda value: value if isfinite(value) else None),
    (Decimal, lambda value: plain(float(value))),
    ((date, time), lambda value: value.isoformat()),
    (timedelta, lambda value: value.total_seconds()),
    ((PurePath, UUID), str),
    (bytes, bytes.hex),
    (Mapping, lambda value: {str(key): plain(each) for key, each in value.items()}),
    ((list, tuple), lambda value: [plain(each) for each in value]),
    (Set, lambda value: sorted(map(plain, value))),
)
"""What each kind of value becomes; the first that fits."""


@contextmanager
def _unshown() -> Iterator[dict[str, Any]]:
    """Collect what a command answers; what it shows to people stays unshown."""
    found: dict[str, Any] = {}
    token, was_quiet = _found.set(found), console.quiet
    console.quiet = True
    try:
        yield found
    finally:
        console.quiet = was_quiet
        _found.reset(token)


def _print(shape: str, found: Mapping[str, Any]) -> None:
    write_json({"shape": shape, **{key: plain(value) for key, value in found.items()}})
