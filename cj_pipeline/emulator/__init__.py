"""An emulator of the providers: OpenAI's, Anthropic's and Gemini's endpoints with simulated judges.

Serve it over HTTP with `cj emulator` (or any ASGI server over `create_app`), or reach it inside the
process by giving `in_process_client` to an official SDK as its HTTP client. Its state is one
SQLite file, so both ways may be used at once and by any number of processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from cj_pipeline.emulator.config import EmulatorConfig, Fault, Limits, QualityJudge, Settings

if TYPE_CHECKING:
    import httpx2

    from cj_pipeline.emulator.transports import EmulatorApp

__all__ = [
    "EmulatorConfig",
    "Fault",
    "Limits",
    "QualityJudge",
    "Settings",
    "change_settings",
    "create_app",
    "in_process_async_client",
    "in_process_client",
    "register_qualities",
]


def create_app(
    config: EmulatorConfig, clock: Callable[[], float] = time.time, token: str | None = None
) -> EmulatorApp:
    """Return the emulator as an ASGI application.

    Args:
        config: Its settings and where its state is.
        clock: Gives Unix seconds.
        token: The one key it takes; any if left out.
    """
    from cj_pipeline.emulator.app import Emulator
    from cj_pipeline.emulator.transports import EmulatorApp

    return EmulatorApp(Emulator(config, clock, token))


def in_process_client(
    config: EmulatorConfig, clock: Callable[[], float] = time.time
) -> httpx2.Client:
    """Return an HTTP client, for any official SDK, whose every request reaches the emulator.

    The address in the request does not matter; give the SDK any `base_url`.
    """
    import httpx2

    from cj_pipeline.emulator.app import Emulator
    from cj_pipeline.emulator.transports import InProcessTransport

    return httpx2.Client(
        transport=InProcessTransport(Emulator(config, clock)), follow_redirects=True, timeout=600
    )


def in_process_async_client(
    config: EmulatorConfig, clock: Callable[[], float] = time.time
) -> httpx2.AsyncClient:
    """Return the same for an official SDK's asynchronous client."""
    import httpx2

    from cj_pipeline.emulator.app import Emulator
    from cj_pipeline.emulator.transports import AsyncInProcessTransport

    return httpx2.AsyncClient(
        transport=AsyncInProcessTransport(Emulator(config, clock)),
        follow_redirects=True,
        timeout=600,
    )


def register_qualities(config: EmulatorConfig, qualities: Mapping[str, float]) -> None:
    """Tell the judge `quality` the latent quality of each text, in logits.

    Kept with the emulator's state; a text's white space does not count.
    """
    from cj_pipeline.emulator.state import State

    State(config).register_qualities(qualities)


def change_settings(config: EmulatorConfig, **changed: object) -> Settings:
    """Change settings (faults among them) for every process that shares the state.

    Raises:
        pydantic.ValidationError: If they cannot be used; then nothing is changed.
    """
    from cj_pipeline.emulator.state import State

    return State(config).change_settings(changed)
