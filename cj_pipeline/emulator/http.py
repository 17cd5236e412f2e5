"""A request as the emulator's handlers see it, and what they answer with.

Handlers are plain functions from `Request` to `Response`; how a call comes in is `transports`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any


@dataclass(frozen=True)
class Request:
    """One HTTP request; header names are in lower case, the body can be read more than once."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: IO[bytes]
    origin: str  # scheme, host and port, as the client wrote them

    def raw(self) -> bytes:
        """Return the whole body; for the small ones."""
        self.body.seek(0)
        return self.body.read()

    def json(self) -> dict[str, Any]:
        """Return the body as a JSON object.

        Raises:
            RefusedError: If it is none.
        """
        try:
            value = json.loads(self.raw() or b"{}")
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise HTTPError(400, "We could not parse the JSON body of your request.")
        return value


@dataclass(frozen=True)
class Breakage:
    """How an answer is spoiled on its way out.

    Attributes:
        kind: `drop` closes the connection with nothing sent, `hang` waits `seconds` first,
            `truncate` sends `share` of the body and then closes the connection.
    """

    kind: str
    seconds: float = 0.0
    share: float = 1.0


@dataclass(frozen=True)
class Response:
    """One HTTP response; `chunks` is read once, and `length` is its length in bytes."""

    status: int
    chunks: Iterator[bytes]
    length: int
    headers: Mapping[str, str] = field(default_factory=dict)
    breakage: Breakage | None = None
    took_s: float = 0.0  # the caller is kept waiting that long


class HTTPError(Exception):
    """The request is answered with an error; each API words it in its own way."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = headers or {}


def json_answer(
    body: object, *, status: int = 200, headers: Mapping[str, str] | None = None, took_s: float = 0
) -> Response:
    """Return an answer whose body is JSON."""
    raw = json.dumps(body, ensure_ascii=False).encode("utf-8", errors="replace")
    sent = {"content-type": "application/json", **(headers or {})}
    return Response(status, iter([raw]), len(raw), sent, took_s=took_s)


def object_in(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a field that has to be an object; empty where it is not given.

    Raises:
        RefusedError: If it is something else.
    """
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise HTTPError(400, f"Invalid type for '{name}': expected an object.")
    return value


def list_in(body: Mapping[str, Any], name: str) -> list[Any]:
    """Return a field that has to be an array; empty where it is not given.

    Raises:
        RefusedError: If it is something else.
    """
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise HTTPError(400, f"Invalid type for '{name}': expected an array.")
    return value


def limit_in(body: Mapping[str, Any], name: str) -> int | None:
    """Return a field that has to be a positive whole number; None where it is not given.

    Raises:
        RefusedError: If it is something else.
    """
    value = body.get(name)
    if value is not None and (not isinstance(value, int) or value < 1):
        raise HTTPError(400, f"Invalid value for '{name}': expected an integer above 0.")
    return value
