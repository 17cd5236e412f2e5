"""How every server of ours listens: never for ever to a caller who does not speak, or not read.

uvicorn waits for a request's head as long as a connection stays open, and as long for whoever does
not read an answer; `PatientProtocol` does neither.
How long a body may take is `auth.AccessMiddleware`'s.
"""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_PATIENCE_S = 15.0
READER_PATIENCE_S = 60.0
"""How long nothing of an answer may be taken; then its connection is closed."""
MAX_CONNECTIONS = 500
"""Beyond it callers are answered with 503, and those who are being answered go on."""


class PatientProtocol(H11Protocol):
    """HTTP that closes a connection on which no whole head arrives in time."""

    patience_s = HEAD_PATIENCE_S
    reader_patience_s = READER_PATIENCE_S
    _waiting: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Go on waiting, or stop once a request is being answered."""
        super().data_received(data)
        if self._is_answering():
            self._stop_waiting()
        elif self._waiting is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._stop_waiting()
        self._was_read()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Hold the answer back while the caller takes none of it, and give up in the end."""
        super().pause_writing()
        # Closing would wait until the caller has read what is left.
        self._unread = self.loop.call_later(self.reader_patience_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on with the answer."""
        self._was_read()
        super().resume_writing()

    def _was_read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait(self) -> None:
        self._waiting = self.loop.call_later(self.patience_s, self._give_up)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _give_up(self) -> None:
        self._waiting = None
        # A connection that has become a WebSocket is another protocol's by now.
        if self.transport.get_protocol() is self and not self._is_answering():
            self.transport.close()


def serving(app: Any, host: str, port: int, **more: Any) -> uvicorn.Config:
    """Return how an application is served.

    Args:
        app: Any ASGI application.
        host: The address to listen on.
        port: The port.
        more: What uvicorn is told besides.
    """
    usual: dict[str, Any] = {
        "http": PatientProtocol,
        "log_level": "warning",
        # Lines would hold whatever strangers put into an address.
        "access_log": False,
        "server_header": False,
        "ws_max_size": 4096,
        "limit_concurrency": MAX_CONNECTIONS,
        "timeout_graceful_shutdown": 5,
    }
    return uvicorn.Config(app, host=host, port=port, **(usual | more))


def serve(app: Any, host: str, port: int, **more: Any) -> None:
    """Serve an application until it is interrupted; the arguments are those of `serving`."""
    uvicorn.Server(serving(app, host, port, **more)).run()
