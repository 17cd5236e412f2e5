"""How calls come in: over HTTP as an ASGI application, or inside this process without a socket.

Both transports put the body into a file, call the same `Emulator.handle`, and send its answer in
pieces, so that neither ever holds a whole upload or download in memory.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import IO, Any
from urllib.parse import parse_qsl

import httpx2
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool

from cj_pipeline.emulator.app import Emulator
from cj_pipeline.emulator.http import Request, Response

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_IN_MEMORY = 1 << 20
_CUT_SHORT = "peer closed connection without sending complete message body"


class EmulatorApp:
    """The emulator as an ASGI application."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one HTTP request; lifespan events need nothing done."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        with _spooled() as body:
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                await run_in_threadpool(body.write, message.get("body", b""))
                more = message.get("more_body", False)
            headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
            host = headers.get("host", "localhost")
            call = Request(
                method=scope["method"],
                path=scope["path"],
                query=dict(parse_qsl(scope["query_string"].decode("latin-1"))),
                headers=headers,
                body=body,
                origin=f"{scope.get('scheme', 'http')}://{host}",
            )
            answer = await run_in_threadpool(self._emulator.handle, call)
            await _send_answer(answer, send)


class InProcessTransport(httpx2.BaseTransport):
    """Carries an SDK's requests to the emulator without leaving the process or the thread."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Return the answer to one request.

        Raises:
            httpx2.RemoteProtocolError: If a fault drops the connection.
            httpx2.ReadTimeout: If the answer takes longer than the request waits; at once.
        """
        with _spooled() as body:
            for chunk in request.stream:  # type: ignore[union-attr]
                body.write(chunk)
            answer = self._emulator.handle(_call_of(request, body))
        time.sleep(_wait_s(request, answer))
        _drop(request, answer)
        headers = {**answer.headers, "content-length": str(answer.length)}
        return httpx2.Response(answer.status, headers=headers, stream=_Body(answer, request))


class AsyncInProcessTransport(httpx2.AsyncBaseTransport):
    """The same for asynchronous clients; the emulator's own work is done in a thread."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Return the answer to one request; see `InProcessTransport.handle_request`."""
        with _spooled() as body:
            body.write(await request.aread())
            answer = await run_in_threadpool(self._emulator.handle, _call_of(request, body))
        await asyncio.sleep(_wait_s(request, answer))
        _drop(request, answer)
        content = b"".join(_sent_chunks(answer))
        if _is_cut_short(answer):
            raise httpx2.RemoteProtocolError(_CUT_SHORT, request=request)
        return httpx2.Response(answer.status, headers=answer.headers, content=content)


def _call_of(request: httpx2.Request, body: IO[bytes]) -> Request:
    return Request(
        method=request.method,
        path=request.url.path,
        query=dict(request.url.params),
        headers={k.lower(): v for k, v in request.headers.items()},
        body=body,
        origin=f"{request.url.scheme}://{request.url.netloc.decode('ascii')}",
    )


def _wait_s(request: httpx2.Request, answer: Response) -> float:
    """Return how long an answer takes.

    Raises:
        httpx2.ReadTimeout: If that is longer than the request waits; at once.
    """
    hang_s = answer.took_s
    if answer.breakage is not None and answer.breakage.kind == "hang":
        hang_s += answer.breakage.seconds
    patience_s = request.extensions.get("timeout", {}).get("read")
    if patience_s is not None and hang_s > patience_s:
        msg = f"No answer within {patience_s} s."
        raise httpx2.ReadTimeout(msg, request=request)
    return hang_s


def _drop(request: httpx2.Request, answer: Response) -> None:
    if answer.breakage is not None and answer.breakage.kind == "drop":
        msg = "Server disconnected without sending a response."
        raise httpx2.RemoteProtocolError(msg, request=request)


class _Body(httpx2.SyncByteStream):
    """A response's body, in pieces; breaks off where a fault says so."""

    def __init__(self, answer: Response, request: httpx2.Request) -> None:
        self._answer, self._request = answer, request

    def __iter__(self) -> Iterator[bytes]:
        yield from _sent_chunks(self._answer)
        if _is_cut_short(self._answer):
            raise httpx2.RemoteProtocolError(_CUT_SHORT, request=self._request)


async def _send_answer(answer: Response, send: Send) -> None:
    await asyncio.sleep(answer.took_s)
    if answer.breakage is not None and answer.breakage.kind == "hang":
        await asyncio.sleep(answer.breakage.seconds)
    if answer.breakage is not None and answer.breakage.kind == "drop":
        _hang_up(send)
        return
    headers = {**answer.headers, "content-length": str(answer.length)}
    raw = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": raw})
    async for chunk in iterate_in_threadpool(_sent_chunks(answer)):
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    if _is_cut_short(answer):
        _hang_up(send)
        return
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _hang_up(send: Send) -> None:
    """Close the connection as a dying server does.

    ASGI has no word for it; uvicorn's `send` belongs to the object that holds the connection.
    """
    cycle = getattr(send, "__self__", None)
    if cycle is None or not hasattr(cycle, "transport"):
        msg = "This fault needs uvicorn, whose connections can be closed from inside."
        raise RuntimeError(msg)
    cycle.transport.close()
    cycle.disconnected = True


def _sent_chunks(answer: Response) -> Iterator[bytes]:
    left = answer.length
    if answer.breakage is not None and answer.breakage.kind == "truncate":
        left = int(answer.length * answer.breakage.share)
    for chunk in answer.chunks:
        if left <= 0:
            return
        yield chunk[:left]
        left -= len(chunk)


def _is_cut_short(answer: Response) -> bool:
    return answer.breakage is not None and answer.breakage.kind == "truncate"


def _spooled() -> IO[bytes]:
    return tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
