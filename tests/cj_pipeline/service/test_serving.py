"""Callers who say nothing, or not to the end, hold up nobody."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, suppress

import pytest
import websockets.sync.client
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from cj_pipeline.service.auth import Access, AccessMiddleware
from tests.support.listening import PATIENCE_S, listening

FAR_LONGER_S = 20.0
"""What no test waits for, unless the promise is broken."""

PIECE, N_PIECES = b"x" * (1 << 20), 48
"""More than a machine holds back for whoever does not read."""


async def _echo(request: Request) -> PlainTextResponse:
    return PlainTextResponse(await request.body())


async def _talk(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(await websocket.receive_text())
    await websocket.close()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A server that reads bodies and talks over WebSockets."""
    app = Starlette(routes=[Route("/", _echo, methods=["POST"]), WebSocketRoute("/ws", _talk)])
    guarded = AccessMiddleware(
        app, Access(None, body_patience_s=PATIENCE_S), is_open=lambda _: True
    )
    with listening(guarded) as port:
        yield port


def said(port: int, *, first: bytes) -> bytes:
    """Return all that a server sends before it closes on a caller who sends this and no more."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=FAR_LONGER_S)) as caller:
        caller.sendall(first)
        answer = b""
        while piece := caller.recv(65536):
            answer += piece
        return answer


HEAD = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@pytest.mark.parametrize(
    "first",
    [b"", b"POST", HEAD, HEAD + b"Content-Length: 1\r\n\r\nx" + b"GET / HT"],
    ids=["nothing", "a word", "half a head", "half a second head"],
)
def test_a_head_that_never_comes_is_not_waited_for(port: int, first: bytes) -> None:
    """Ten thousand such callers would otherwise be all that is ever served."""
    assert said(port, first=first).count(b"HTTP/1.1 200") == (1 if b"\r\n\r\n" in first else 0)


def test_a_head_that_comes_byte_by_byte_is_not_waited_for_either(port: int) -> None:
    """Each byte is news, and the time for the whole head goes on."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=FAR_LONGER_S)) as caller:
        caller.sendall(HEAD)
        until = time.monotonic() + FAR_LONGER_S
        with suppress(ConnectionError):
            while time.monotonic() < until:
                caller.sendall(b"X")
                time.sleep(PATIENCE_S / 10)
            pytest.fail("the head was waited for")


@pytest.mark.parametrize(
    "body",
    [b"Content-Length: 100\r\n\r\nhalf", b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"],
    ids=["stated", "chunked"],
)
def test_a_body_that_never_comes_is_answered_and_closed(port: int, body: bytes) -> None:
    """With the status that says why."""
    answer = said(port, first=HEAD + body)

    assert answer.startswith(b"HTTP/1.1 408")
    assert b"connection: close" in answer.lower()


def test_whoever_sends_in_time_is_answered(port: int) -> None:
    """Patience is for callers who go on."""
    answer = said(port, first=HEAD + b"Connection: close\r\nContent-Length: 4\r\n\r\nwell")

    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"well")


@pytest.mark.parametrize("patience_s", [PATIENCE_S, FAR_LONGER_S], ids=["over", "not over"])
def test_whoever_does_not_read_is_given_up_when_patience_is_over(patience_s: float) -> None:
    """What is held back for such callers is memory, and a thread of the store's."""

    async def pages() -> AsyncIterator[bytes]:
        for _ in range(N_PIECES):
            yield PIECE

    async def answer(_: Request) -> StreamingResponse:
        return StreamingResponse(pages())

    app = Starlette(routes=[Route("/", answer)])
    with listening(app, reader_patience_s=patience_s) as port:
        came = 0
        with closing(socket.create_connection(("127.0.0.1", port), timeout=FAR_LONGER_S)) as caller:
            caller.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            time.sleep(4 * PATIENCE_S)
            with suppress(ConnectionError):
                while piece := caller.recv(len(PIECE)):
                    came += len(piece)

    assert (came > N_PIECES * len(PIECE)) == (patience_s == FAR_LONGER_S)


def test_a_websocket_outlives_the_patience_for_heads(port: int) -> None:
    """It is another protocol by then, and may be silent for hours."""
    with websockets.sync.client.connect(f"ws://127.0.0.1:{port}/ws") as caller:
        time.sleep(2 * PATIENCE_S)
        caller.send("still here")

        assert caller.recv(timeout=FAR_LONGER_S) == "still here"
