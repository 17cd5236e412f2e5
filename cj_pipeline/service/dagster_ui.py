"""Dagster's UI behind a login: a proxy that lets through who may run everything.

Dagster asks nobody who they are and answers to any name, so a page in a visitor's browser could
launch runs. Whoever comes through here was asked for a token with the scope `admin`, or, where
there are no tokens, called this machine by a name of its own, from no other site's page.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs

import httpx2
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.typing import Subprotocol

from cj_pipeline.service.auth import SESSION_S, Access, ScopeMiddleware, cookie_of
from cj_pipeline.service.problems import problem_response

COOKIE = "cj_ui_session"
"""Browsers give a cookie to every port of a host: the service has one of its own."""

SIGN_IN, SIGN_OUT = "/cj-sign-in", "/cj-sign-out"

_OF_ONE_HOP = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te"),
        *("trailer", "transfer-encoding", "upgrade", "host", "origin", "authorization", "cookie"),
    }
)
"""Headers that are between two programs alone, or that say who somebody is."""

_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Sign in</title></head>
<body><main><h1>Sign in</h1><p>{problem}</p>
<form method="post" action="{sign_in}"><label>Token, with the scope <code>admin</code>
<input name="token" type="password" autocomplete="current-password" required autofocus></label>
<button>Sign in</button></form></main></body></html>"""
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; form-action 'self'; base-uri 'none';"
    " frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
}


def dagster_ui(upstream: str, access: Access) -> ASGIApp:
    """Return an application that answers what Dagster's webserver answers, to those who may.

    Args:
        upstream: Where the webserver listens, as `http://HOST:PORT`.
        access: Who may come through; its cookie is to be `COOKIE`.
    """
    return _Doorman(_Proxy(upstream.rstrip("/")), access)


class _Doorman:
    """Signs browsers in and out, and hands on what is left."""

    def __init__(self, proxy: ASGIApp, access: Access) -> None:
        self._access = access
        self._proxy = proxy
        self._guarded = ScopeMiddleware(
            self._inside, access, "admin", is_open=lambda path: path in {SIGN_IN, SIGN_OUT}
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._is_a_page_for_nobody(scope):
            await RedirectResponse(SIGN_IN, 303)(scope, receive, send)
            return
        await self._guarded(scope, receive, send)

    def _is_a_page_for_nobody(self, scope: Scope) -> bool:
        headers = Headers(scope=scope)
        is_page = scope["method"] == "GET" and "text/html" in headers.get("accept", "")
        return (
            is_page
            and scope["path"] not in {SIGN_IN, SIGN_OUT}
            and self._access.grant(headers) is None
        )

    async def _inside(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] in {SIGN_IN, SIGN_OUT}:
            request = Request(scope, receive)
            answer = await (self._sign_in if scope["path"] == SIGN_IN else self._sign_out)(request)
            await answer(scope, receive, send)
            return
        await self._proxy(scope, receive, send)

    async def _sign_in(self, request: Request) -> Response:
        if request.method != "POST":
            return _page("")
        given = parse_qs((await request.body()).decode("utf-8", "replace")).get("token", [""])[0]
        grant = self._access.grant_of(given)
        if grant is None or not grant.allows("admin") or not grant.covers_all:
            return _page("That token is not known here, has expired, or is not for this.", 401)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            COOKIE,
            self._access.begin_session(given) or "",
            max_age=SESSION_S,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return answer

    async def _sign_out(self, request: Request) -> Response:
        if request.method != "POST":
            return problem_response(405, "Sign out with POST.", headers={"Allow": "POST"})
        self._access.end_session(cookie_of(request.headers, COOKIE))
        answer = RedirectResponse(SIGN_IN, 303)
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return answer


def _page(problem: str, status: int = 200) -> HTMLResponse:
    return HTMLResponse(_PAGE.format(problem=problem, sign_in=SIGN_IN), status, _PAGE_HEADERS)


class _Proxy:
    """Sends each request on as it came, and its answer back as it comes."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        # A subscription says nothing for hours; whoever asked may go at any time.
        self._client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(None, connect=5.0), trust_env=False, follow_redirects=False
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "websocket":
            await self._talk(WebSocket(scope, receive, send))
        else:
            await (await self._answer(Request(scope, receive)))(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        asked = self._client.build_request(
            request.method,
            self._upstream + _target(request.scope),
            headers=list(_handed_on(request.headers.items())),
            content=request.stream(),
        )
        try:
            found = await self._client.send(asked, stream=True)
        except httpx2.TransportError:
            return problem_response(
                502,
                "Dagster's webserver does not answer yet: try again in a few seconds.",
                headers={"Retry-After": "3"},
            )
        answer = StreamingResponse(_raw(found), found.status_code)
        answer.raw_headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in found.headers.multi_items()
            if name.lower() not in _OF_ONE_HOP
        ]
        # No page of another site may show this one under its own buttons.
        answer.headers["X-Frame-Options"] = "DENY"
        return answer

    async def _talk(self, socket: WebSocket) -> None:
        address = self._upstream.replace("http", "ws", 1) + _target(socket.scope)
        spoken = [Subprotocol(each) for each in socket.scope.get("subprotocols", ())]
        try:
            async with connect(
                address, subprotocols=spoken or None, max_size=None, proxy=None
            ) as far:
                await socket.accept(subprotocol=far.subprotocol)
                await _first_to_end(_outward(socket, far), _inward(far, socket))
        except (OSError, WebSocketException):
            with suppress(RuntimeError):
                await socket.close(1013, "Dagster's webserver does not answer yet.")


def _target(scope: Scope) -> str:
    path = (scope.get("raw_path") or scope["path"].encode()).decode("ascii")
    query = scope["query_string"].decode("ascii")
    return f"{path}?{query}" if query else path


def _handed_on(headers: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    return ((name, value) for name, value in headers if name.lower() not in _OF_ONE_HOP)


async def _raw(found: httpx2.Response) -> AsyncIterator[bytes]:
    """Yield an answer's bytes as they were sent, compressed or not."""
    try:
        async for piece in found.aiter_raw():
            yield piece
    finally:
        await found.aclose()


async def _outward(socket: WebSocket, far: ClientConnection) -> None:
    with suppress(WebSocketDisconnect, ConnectionClosed):
        while (message := await socket.receive())["type"] == "websocket.receive":
            text = message.get("text")
            await far.send(message["bytes"] if text is None else text)


async def _inward(far: ClientConnection, socket: WebSocket) -> None:
    with suppress(ConnectionClosed, WebSocketDisconnect, RuntimeError):
        async for message in far:
            if isinstance(message, str):
                await socket.send_text(message)
            else:
                await socket.send_bytes(message)
    with suppress(RuntimeError):
        await socket.close(far.close_code or 1000)


async def _first_to_end(*talks: Any) -> None:
    tasks = [asyncio.create_task(talk) for talk in talks]
    _, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
