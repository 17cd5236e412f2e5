"""Tokens written to and taken from `installation.yaml`, in which all else stays as it was typed.

What a token is, is `tokens`; what the file says besides, `installation`.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import yaml

from cj_pipeline.errors import SettingsError
from cj_pipeline.installation import (
    INSTALLATION_FILE,
    Installation,
    read_installation,
    read_installation_file,
)
from cj_pipeline.storage.private_files import PRIVATE_FILE, make_home
from cj_pipeline.tokens import AccessToken, hash_of


def add_token(
    home: Path,
    name: str,
    token: str,
    *,
    scopes: Sequence[str],
    batches: Sequence[str],
    expires: date,
) -> None:
    """Write a new token's hash to a home's file.

    Raises:
        SettingsError: If the name is taken, or something of it cannot be used.
    """
    entry = (
        f"{name}: {{sha256: {hash_of(token)}, scopes: [{', '.join(scopes)}],"
        f" batches: {_quoted(batches)}, expires: {expires.isoformat()}}}"
    )

    def with_entry(text: str, known: Installation) -> str:
        if any(held.name == name for held in known.tokens):
            msg = f"There is a token {name!r} already: revoke it first, or give another name."
            raise SettingsError(msg)
        place = _place_of(text)
        if place is None:
            return f"{text}tokens:\n  {entry}\n"
        line, indent = place
        lines = text.splitlines(keepends=True)
        return "".join([*lines[:line], f"{' ' * indent}{entry}\n", *lines[line:]])

    _change(home, with_entry)


def remove_token(home: Path, name: str) -> None:
    """Take a token from a home's file.

    Raises:
        SettingsError: If there is none of that name.
    """

    def without_entry(text: str, known: Installation) -> str:
        if all(held.name != name for held in known.tokens):
            names = ", ".join(held.name for held in known.tokens) or "none"
            msg = f"There is no token {name!r}; there are: {names}."
            raise SettingsError(msg)
        first, last = _lines_of(text, name)
        lines = text.splitlines(keepends=True)
        return "".join([*lines[:first], *lines[last:]])

    _change(home, without_entry)


def tokens_of(home: Path) -> Callable[[], Sequence[AccessToken]]:
    """Return a function that gives a home's tokens as they are at that moment.

    The file is read again once it has changed. While it cannot be read nobody is let in by it.
    """
    file = home / INSTALLATION_FILE
    held: tuple[object, tuple[AccessToken, ...]] = (None, ())

    def tokens() -> Sequence[AccessToken]:
        nonlocal held
        try:
            status = file.stat()
        except OSError:
            return ()
        version = (status.st_mtime_ns, status.st_size, status.st_ino)
        if held[0] != version:
            try:
                held = (version, read_installation(home).tokens)
            except SettingsError:
                return ()
        return held[1]

    return tokens


def _change(home: Path, change: Callable[[str, Installation], str]) -> None:
    """Rewrite the file whole or not at all; one process at a time."""
    make_home(home)
    file = home / INSTALLATION_FILE
    with _alone(home):
        known = read_installation(home)
        before = file.read_text("utf-8") if file.exists() else ""
        before += "" if before.endswith("\n") or not before else "\n"
        unfinished = file.with_name(f".{INSTALLATION_FILE}.new")
        written = change(before, known)
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_FILE)
        with os.fdopen(descriptor, "w", encoding="utf-8") as to:
            to.write(written)
            to.flush()
            os.fsync(to.fileno())
        try:
            # What was written has to be understood before it counts.
            read_installation_file(unfinished)
        except SettingsError as error:
            unfinished.unlink()
            raise SettingsError(str(error).replace(str(unfinished), str(file))) from None
        unfinished.replace(file)


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    descriptor = os.open(home, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _quoted(texts: Sequence[str]) -> str:
    return "[" + ", ".join("'" + text.replace("'", "''") + "'" for text in texts) + "]"


def _tokens_node(text: str) -> tuple[yaml.Node, yaml.Node] | None:
    document = yaml.compose(text, yaml.SafeLoader)
    if not isinstance(document, yaml.MappingNode):
        return None
    return next((pair for pair in document.value if pair[0].value == "tokens"), None)


def _place_of(text: str) -> tuple[int, int] | None:
    """Return the line before which a token is written, and how far in; None without any yet.

    Raises:
        SettingsError: If tokens stand there in a form that no line can be added to.
    """
    found = _tokens_node(text)
    if found is None:
        return None
    key, value = found
    if isinstance(value, yaml.MappingNode) and value.value and not value.flow_style:
        first = value.value[0][0].start_mark
        return first.line, first.column
    if isinstance(value, yaml.ScalarNode) and not value.value:
        return key.start_mark.line + 1, 2
    msg = (
        f"The tokens in {INSTALLATION_FILE} stand in braces: write each on a line of its own below"
        " `tokens:`, so that one can be added."
    )
    raise SettingsError(msg)


def _lines_of(text: str, name: str) -> tuple[int, int]:
    """Return the first line of a token's entry and the line after its last."""
    found = _tokens_node(text)
    if found is None or not isinstance(found[1], yaml.MappingNode) or found[1].flow_style:
        msg = f"Take the token {name!r} out of {INSTALLATION_FILE} by hand: it stands in braces."
        raise SettingsError(msg)
    key, value = next(pair for pair in found[1].value if pair[0].value == name)
    # A value over several lines ends where the next token begins; one in braces on its own line.
    is_block = isinstance(value, yaml.CollectionNode) and not value.flow_style
    return key.start_mark.line, value.end_mark.line + (0 if is_block else 1)
