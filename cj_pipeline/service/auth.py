"""Who may call the service, from where, for what, and how much they may send.

`CJ_SERVE_TOKEN` may do everything; the tokens of `installation.yaml` do what they are for, with
their own batches. Tokens are compared by their hashes and never logged. A browser trades one for
a cookie that says nothing. Without any token only this machine is answered, and only when it is
called by a name of its own, so that no web page can reach it through the visitor's browser.

An operation names the scope it needs with `needs`; one that names none needs `admin`. Whoever
hands out tokens of their own, as personal links do, adds them to what `Access.tokens` returns.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.cookies import CookieError, SimpleCookie
from threading import Event
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cj_pipeline.errors import SettingsError
from cj_pipeline.service.problems import problem_response
from cj_pipeline.service.sessions import SESSION_S, Sessions
from cj_pipeline.tokens import MIN_CHARACTERS, SCOPES, AccessToken, covers, hash_of, weakness

__all__ = ["COOKIE", "SESSION_S", "Access", "AccessMiddleware", "Grant", "require_safe"]

COOKIE = "cj_session"
MAX_BODY_BYTES = 64 * 1024 * 1024
BODY_PATIENCE_S = 20.0
LEAST_BYTES_PER_S = 8 * 1024
"""A body may take `BODY_PATIENCE_S`, and longer for as long as this much arrives each second."""

OPEN_PATHS = frozenset(
    {
        *("/", "/judge", "/start", "/start/sign-in"),
        *("/healthz", "/openapi.json", "/session", "/favicon.ico"),
    }
)
"""Nothing of a batch is shown there: `/start` shows its form to those who may submit batches."""

OPEN_PREFIXES = ("/batches/", "/webhooks/", "/judge/", "/moderation/")
"""The live page's frame, which fetches what it shows; webhooks, which bring a signature; and the
judging page, which brings a personal link's token."""


@dataclass(frozen=True)
class Grant:
    """What a caller may do.

    Attributes:
        name: The token's.
        scopes: Some of `tokens.SCOPES`.
        batches: Names of batches, with `*` and `?`.
    """

    name: str
    scopes: frozenset[str]
    batches: tuple[str, ...] = ("*",)

    def allows(self, scope: str) -> bool:
        """Return whether a scope was granted; `admin` has them all."""
        return scope in self.scopes or "admin" in self.scopes

    def covers(self, batch_id: str) -> bool:
        """Return whether a batch is among those it was granted for."""
        return covers(self.batches, batch_id)

    @property
    def covers_all(self) -> bool:
        """Whether it was granted for every batch there may be."""
        return "*" in self.batches


EVERYTHING = Grant("CJ_SERVE_TOKEN", frozenset(SCOPES))


def _no_tokens() -> Sequence[AccessToken]:
    return ()


@dataclass(frozen=True)
class Access:
    """Who may call the service.

    Attributes:
        token: May do everything; None where there is none.
        tokens: Returns the scoped tokens as they are now, so that one that is revoked ends at once.
        max_body_bytes: The largest body that is read.
        body_patience_s: How long a body may take that hardly arrives.
        cookie: What a session's cookie is called.
        clock: Unix seconds, for what expires.
    """

    token: str | None
    tokens: Callable[[], Sequence[AccessToken]] = _no_tokens
    max_body_bytes: int = MAX_BODY_BYTES
    body_patience_s: float = BODY_PATIENCE_S
    cookie: str = COOKIE
    clock: Callable[[], float] = time.time
    _sessions: Sessions = field(init=False, repr=False, compare=False)
    _guarded: Event = field(init=False, repr=False, compare=False, default_factory=Event)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_sessions", Sessions(self.clock))

    @property
    def is_guarded(self) -> bool:
        """Whether anybody needs a token.

        Once anybody did, everybody does: a service is not opened by its last token being revoked.
        """
        if self.token is not None or self.tokens():
            self._guarded.set()
        return self._guarded.is_set()

    def grant_of(self, token: str) -> Grant | None:
        """Return what a token lets its bearer do; None for one that is unknown or has expired."""
        return self._grant_of_hash(_hash(token))

    def begin_session(self, token: str) -> str | None:
        """Return the value of a cookie that stands for a token; None where it grants nothing."""
        digest = _hash(token)
        return self._sessions.begin(digest) if self._grant_of_hash(digest) is not None else None

    def end_session(self, cookie: str) -> None:
        """End a session for good, wherever the cookie has been copied to."""
        self._sessions.end(cookie)

    def grant(self, headers: Headers) -> Grant | None:
        """Return what a request's own headers let it do; None where they let it do nothing."""
        if not self.is_guarded:
            return EVERYTHING
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self.grant_of(given.strip())
        held = self._sessions.token_of(cookie_of(headers, self.cookie))
        # Asked anew each time: the session of a token that was revoked is over.
        return None if held is None else self._grant_of_hash(held)

    def _grant_of_hash(self, digest: str) -> Grant | None:
        if self.token is not None and digest == _hash(self.token):
            return EVERYTHING
        today = datetime.fromtimestamp(self.clock(), UTC).date()
        for token in self.tokens():
            if token.sha256 == digest and today <= token.expires:
                return Grant(token.name, token.scopes, token.batches)
        return None


def _hash(token: str) -> str:
    """Return a token's hash: comparing those takes as long for a wrong token as for a right one.

    A token that was chosen is told apart from one that was made, whose hash is written down.
    """
    made = hash_of(token)
    return made or "chosen " + hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def require_safe(
    host: str, token: str | None, *, scoped: bool = False, variable: str = "CJ_SERVE_TOKEN"
) -> None:
    """Refuse to be reachable from elsewhere without a strong token.

    Args:
        host: The address that is to be listened on.
        token: What the variable holds, if it is set.
        scoped: Whether `installation.yaml` has tokens that count here.
        variable: Which environment variable the token is in.

    Raises:
        SettingsError: If there is none, or it is weak.
    """
    if token is None and not scoped and not is_loopback(host):
        msg = (
            f"{host} can be reached from other machines: set {variable} to {MIN_CHARACTERS}"
            " random characters or more, or listen on 127.0.0.1."
        )
        raise SettingsError(msg)
    if token is not None and (flaw := weakness(token)) is not None:
        msg = (
            f'{variable} could be guessed: {flaw}. `python3 -c "import secrets;'
            ' print(secrets.token_urlsafe(32))"` prints one that cannot.'
        )
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
    """Lets allowed callers in; all others get a problem, and a WebSocket is not opened.

    What the caller may do is `request.state.grant` from here on.
    """

    def __init__(
        self, app: ASGIApp, access: Access, *, is_open: Callable[[str], bool] | None = None
    ) -> None:
        self._app = app
        self._access = access
        self._is_open = is_open or is_open_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        grant = self._access.grant(headers)
        refusal = self._refusal(scope["path"], headers, grant)
        if refusal is None:
            scope.setdefault("state", {})["grant"] = grant
            limited = self._limited(receive) if scope["type"] == "http" else receive
            await self._app(scope, limited, send)
        elif scope["type"] == "http":
            status, detail = refusal
            answer = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
            await problem_response(status, detail, headers=answer)(scope, receive, send)
        else:
            # Before it is accepted, closing refuses the handshake with 403.
            await send({"type": "websocket.close", "code": 1008, "reason": refusal[1][:100]})

    def _refusal(self, path: str, headers: Headers, grant: Grant | None) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if not self._access.is_guarded and not is_loopback(_host_name(host)):
            return 403, "Without a token this service answers only to this machine's own names."
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return 403, "Pages of other sites may not call this service."
        if not self._is_open(path) and grant is None:
            return 401, "Send a token that is known here and has not expired, as a bearer token."
        declared = headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared) > self._access.max_body_bytes:
            return 413, self._too_large
        return None

    def _limited(self, receive: Receive) -> Receive:
        """A body's stated length may be wrong or missing, and it may never come."""
        n_bytes, has_ended = 0, False
        begun: float | None = None

        async def limited() -> Message:
            nonlocal n_bytes, has_ended, begun
            if has_ended:  # what comes now is only that the caller has gone
                return await receive()
            begun = time.monotonic() if begun is None else begun
            until = begun + self._access.body_patience_s + n_bytes / LEAST_BYTES_PER_S
            try:
                async with asyncio.timeout(max(0.0, until - time.monotonic())):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(
                    408, "The body did not arrive in time.", headers={"Connection": "close"}
                ) from None
            n_bytes += len(message.get("body", b""))
            has_ended = not message.get("more_body", False)
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


class ScopeMiddleware:
    """Lets into a whole application those alone whose token has a scope, for every batch."""

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        scope: str,
        *,
        is_open: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._app = app
        self._needed = scope
        self._is_open = is_open
        self._guarded = AccessMiddleware(self._check, access, is_open=is_open)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on."""
        await self._guarded(scope, receive, send)

    async def _check(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in {"http", "websocket"} and not self._is_open(scope["path"]):
            grant = scope["state"]["grant"]
            if not grant.allows(self._needed) or not grant.covers_all:
                detail = f"This needs a token with the scope `{self._needed}` for all batches."
                if scope["type"] == "http":
                    await problem_response(403, detail)(scope, receive, send)
                else:
                    await send({"type": "websocket.close", "code": 1008, "reason": detail})
                return
        await self._app(scope, receive, send)


def is_open_path(path: str) -> bool:
    """Return whether nothing of a batch is shown at a path of the service."""
    return path in OPEN_PATHS or path.startswith(OPEN_PREFIXES)


def cookie_of(headers: Headers, name: str = COOKIE) -> str:
    """Return the session's cookie in a request's headers; empty where there is none."""
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return ""
    return found.value if found else ""


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
