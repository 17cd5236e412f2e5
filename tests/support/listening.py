"""An application served as all of ours are, on a socket, with little patience."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from cj_pipeline.service.serving import PatientProtocol, serving

PATIENCE_S = 0.15
"""How long a request's head may take, and a connection may be idle."""

_QUIET: dict[str, Any] = {
    "log_level": "critical",
    "lifespan": "off",
    "timeout_keep_alive": PATIENCE_S,
}


@contextmanager
def listening(app: Any, *, reader_patience_s: float = 60.0) -> Iterator[int]:
    """Serve an application as all are served, with little patience; give the port."""
    hasty = {"patience_s": PATIENCE_S, "reader_patience_s": reader_patience_s}
    protocol = type("Hasty", (PatientProtocol,), hasty)
    server = uvicorn.Server(serving(app, "127.0.0.1", 0, http=protocol, **_QUIET))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.005)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = server.force_exit = True
            thread.join(timeout=10)
