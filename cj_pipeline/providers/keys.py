"""Where a judge's key comes from: a variable, or a file or command that yields a fresh token.

`OPENAI_API_KEY_FILE=/run/secrets/token` and `OPENAI_API_KEY_COMMAND="az account get-access-token
..."` stand in for `OPENAI_API_KEY`, and likewise for every variable that a judge names. They are
the operator's: a batch's own judge can name a variable, never a command.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import httpx2

from cj_pipeline.errors import SettingsError
from cj_pipeline.judging.judges import Judge

LASTS_S = 300.0
"""A command is asked again after this long; tokens of Entra and of Google live for an hour."""

COMMAND_TIMEOUT_S = 60.0

_FIELDS = ("accessToken", "access_token", "token")
"""What programs call it that answer in JSON, as `az account get-access-token` does."""


class TokenSource:
    """A file or a command that yields today's token; asked again when it may have changed.

    Args:
        variable: The variable that names the file or command.
        read: Returns what it yields now.
        lasts_s: For how long that is taken to hold; 0 asks each time.
    """

    def __init__(self, variable: str, read: Callable[[], str], lasts_s: float) -> None:
        self.variable = variable
        self._read = read
        self._lasts_s = lasts_s
        self._lock = threading.Lock()
        self._known: tuple[str, float] | None = None

    def current(self) -> str:
        """Return a token that holds now.

        Raises:
            SettingsError: If the file or command yields none.
        """
        with self._lock:
            if self._known is None or time.monotonic() - self._known[1] >= self._lasts_s:
                token = _token_in(self._read())
                if not token:
                    msg = f"{self.variable} yields no token: try what it names in a terminal."
                    raise SettingsError(msg)
                self._known = token, time.monotonic()
            return self._known[0]

    def sign(self, request: httpx2.Request) -> None:
        """Put today's token where the SDK put the one it was opened with."""
        token = self.current()
        for name in ("x-api-key", "x-goog-api-key", "api-key"):
            if name in request.headers:
                request.headers[name] = token
        if request.headers.get("authorization", "").startswith("Bearer "):
            request.headers["authorization"] = f"Bearer {token}"

    def sign_later(self) -> Callable[[httpx2.Request], Awaitable[None]]:
        """Return `sign` for an asynchronous client."""

        async def sign(request: httpx2.Request) -> None:
            self.sign(request)

        return sign


def token_source(
    judge: Judge, environment: Mapping[str, str], own_command: str | None = None
) -> TokenSource | None:
    """Return what yields a judge's token; None where its key stands in a variable.

    `own_command` is the installation's, of its provider's definition: the last to be asked.
    """
    variable = judge.key_variable
    if variable is None or environment.get(variable, "").strip():
        return None
    if file := environment.get(f"{variable}_FILE", "").strip():
        name = f"{variable}_FILE"
        return TokenSource(name, lambda: _file(name, Path(file)), 0.0)
    if command := environment.get(f"{variable}_COMMAND", "").strip():
        name = f"{variable}_COMMAND"
        return TokenSource(name, lambda: _output(name, command, environment), LASTS_S)
    if own_command:
        name = f"token_command of {judge.provider}"
        return TokenSource(name, lambda: _output(name, own_command, environment), LASTS_S)
    return None


def _file(variable: str, path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{variable}: {path} cannot be read: {error}"
        raise SettingsError(msg) from None


def _output(variable: str, command: str, environment: Mapping[str, str]) -> str:
    """Return what a command prints; its errors may hold a secret, so they are left out."""
    try:
        done = subprocess.run(
            shlex.split(command),
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=True,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        why = type(error).__name__
        if isinstance(error, subprocess.CalledProcessError):
            why = f"it ended with {error.returncode}"
        msg = f"{variable} yields no token ({why}): try its command in a terminal."
        raise SettingsError(msg) from None
    return done.stdout


def _token_in(text: str) -> str:
    """Return the token in what a file or command yields: plain, or a field of JSON."""
    plain = text.strip()
    try:
        said = json.loads(plain)
    except ValueError:
        return plain
    if isinstance(said, dict):
        return next((said[name] for name in _FIELDS if isinstance(said.get(name), str)), "").strip()
    return plain
