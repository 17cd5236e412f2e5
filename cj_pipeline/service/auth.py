"""Who may call the service, from where, and how much they may send.

The token is compared in constant time, is kept nowhere and is never logged. A browser trades it for
a cookie that holds no token either. Without a token only this machine is answered, and only when
it is called by a name of its own, so that no web page can reach it through the visitor's browser.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cj_pipeline.errors import SettingsError
from cj_pipeline.service.problems import problem_response

MIN_TOKEN_CHARACTERS = 16
COOKIE = "cj_session"
SESSION_S = 12 * 3600
MAX_BODY_BYTES = 64 * 1024 * 1024

OPEN_PATHS = frozenset({"/", "/judge", "/healthz", "/openapi.json", "/session", "/favicon.ico"})
"""Nothing of a batch is shown there."""

OPEN_PREFIXES = ("/batches/", "/webhooks/", "/judge/")
"""The live page's frame, which fetches what it shows; webhooks, which bring a signature; and the
judging page, which brings a personal link's token."""


@dataclass(frozen=True)
class Access:
    """Who may call the service.

    Attributes:
        token: None where only this machine is answered.
        max_body_bytes: The largest body that is read.
        clock: Unix seconds, for a session's end.
    """

    token: str | None
    max_body_bytes: int = MAX_BODY_BYTES
    clock: Callable[[], float] = time.time

    def is_token(self, given: str) -> bool:
        """Return whether this is the token; takes as long for a wrong one as for the right one."""
        return self.token is not None and hmac.compare_digest(given.encode(), self.token.encode())

    def new_session(self) -> str:
        """Return a cookie's value that opens a session; the token cannot be learned from it."""
        expires = int(self.clock()) + SESSION_S
        return f"{expires}.{self._signature(expires)}"

    def is_session(self, cookie: str) -> bool:
        """Return whether a cookie's value is of a session that has not expired."""
        expires, _, signature = cookie.partition(".")
        if self.token is None or not expires.isascii() or not expires.isdecimal():
            return False
        if len(expires) > 12 or int(expires) < self.clock():
            return False
        return hmac.compare_digest(signature.encode(), self._signature(int(expires)).encode())

    def _signature(self, expires: int) -> str:
        key = (self.token or "").encode()
        return hmac.new(key, f"cj session until {expires}".encode(), hashlib.sha256).hexdigest()

    def admits(self, headers: Headers) -> bool:
        """Return whether a request's own headers let it in."""
        if self.token is None:
            return True
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self.is_token(given.strip())
        return self.is_session(_cookie(headers.get("cookie", "")))


def require_safe(host: str, token: str | None) -> None:
    """Refuse to be reachable from elsewhere without a strong token.

    Raises:
        SettingsError: If there is none, or it is short.
    """
    if token is None and not is_loopback(host):
        msg = (
            f"{host} can be reached from other machines: set CJ_SERVE_TOKEN to"
            f" {MIN_TOKEN_CHARACTERS} characters or more, or listen on 127.0.0.1."
        )
        raise SettingsError(msg)
    if token is not None and len(token) < MIN_TOKEN_CHARACTERS:
        msg = f"CJ_SERVE_TOKEN must have {MIN_TOKEN_CHARACTERS} characters or more."
        raise SettingsError(msg)


def is_loopback(host: str) -> bool:
    """Return whether a host's name or address can only mean this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class AccessMiddleware:
    """Lets allowed callers in; all others get a problem, and a WebSocket is not opened."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope["path"], Headers(scope=scope))
        if refusal is None:
            limited = self._limited(receive) if scope["type"] == "http" else receive
            await self._app(scope, limited, send)
        elif scope["type"] == "http":
            status, detail = refusal
            headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
            await problem_response(status, detail, headers=headers)(scope, receive, send)
        else:
            # Before it is accepted, closing refuses the handshake with 403.
            await send({"type": "websocket.close", "code": 1008, "reason": refusal[1][:100]})

    def _refusal(self, path: str, headers: Headers) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if self._access.token is None and not is_loopback(_host_name(host)):
            return 403, "Without a token this service answers only to this machine's own names."
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return 403, "Pages of other sites may not call this service."
        is_open = path in OPEN_PATHS or path.startswith(OPEN_PREFIXES)
        if not is_open and not self._access.admits(headers):
            return 401, "Send the service's token as `Authorization: Bearer ...`."
        declared = headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared) > self._access.max_body_bytes:
            return 413, self._too_large
        return None

    def _limited(self, receive: Receive) -> Receive:
        """A body's stated length may be wrong or missing: what arrives is counted."""
        n_bytes = 0

        async def limited() -> Message:
            nonlocal n_bytes
            message = await receive()
            n_bytes += len(message.get("body", b""))
            if n_bytes > self._access.max_body_bytes:
                raise HTTPException(413, self._too_large)
            return message

        return limited

    @property
    def _too_large(self) -> str:
        return (
            f"A body may have {self._access.max_body_bytes:,} bytes here: put a larger batch into"
            " the inbox folder itself."
        )


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _cookie(header: str) -> str:
    try:
        found = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""
