"""The emulator served over HTTP from a thread of this process, for as long as it is needed."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from cj_pipeline.emulator import create_app
from cj_pipeline.emulator.config import EmulatorConfig
from cj_pipeline.errors import ProviderUnavailableError

_START_TIMEOUT_S = 30.0


@contextmanager
def served(config: EmulatorConfig) -> Iterator[str]:
    """Serve the emulator on a free port of this machine; give its address.

    Raises:
        ProviderUnavailableError: If it does not come up.
    """
    import uvicorn

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        settings = uvicorn.Config(create_app(config), log_level="critical", lifespan="off")
        server = uvicorn.Server(settings)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                msg = "The emulator could not be served on this machine; see its log."
                raise ProviderUnavailableError(msg)
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=10)
