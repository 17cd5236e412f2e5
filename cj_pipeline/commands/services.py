"""`cj ui`, `serve` and `emulator`: what runs until it is stopped."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from cj_pipeline.commands.console import console
from cj_pipeline.commands.home import home_folder, open_runtime


def ui(port: Annotated[int, typer.Option(help="Port of the Dagster UI.")] = 3000) -> None:
    """Serve the Dagster UI with its daemon over CJ_HOME."""
    from resources.local_instance import prepare_dagster_home

    home = home_folder()
    environment = {
        **os.environ,
        "CJ_HOME": str(home),
        "DAGSTER_HOME": str(prepare_dagster_home(home)),
    }
    dagster = shutil.which("dagster", path=str(Path(sys.executable).parent)) or "dagster"
    command = [dagster, "dev", "--port", str(port), "-m", "cj_pipeline.definitions"]
    console.print(f"Dagster UI: http://127.0.0.1:{port} (Ctrl-C ends it)")
    # Become the server, so that ending this command ends it.
    os.execve(command[0], command, environment)  # noqa: S606


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8421,
    max_body_mb: Annotated[
        int, typer.Option(min=1, max=4096, help="The largest batch that is taken, in MiB.")
    ] = 64,
) -> None:
    """Serve the API and the live page; Dagster (`make ui`) runs what is submitted.

    Every caller needs CJ_SERVE_TOKEN; without one, only this machine is served.
    """
    import uvicorn

    from cj_pipeline.service.app import create_app
    from cj_pipeline.service.auth import Access, require_safe

    token = os.environ.get("CJ_SERVE_TOKEN") or None
    require_safe(host, token)
    access = Access(token, max_body_bytes=max_body_mb * 1024 * 1024)
    shown = f"[{host}]" if ":" in host else host
    console.print(f"Batches: http://{shown}:{port}/ (Ctrl-C ends it)", highlight=False)
    uvicorn.run(
        create_app(open_runtime(), access),
        host=host,
        port=port,
        log_level="warning",
        # Lines would hold whatever strangers put into an address.
        access_log=False,
        server_header=False,
        ws_max_size=4096,
        timeout_graceful_shutdown=5,
    )


def emulator(
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8765,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    settings: Annotated[
        str,
        typer.Option(
            envvar="CJ_EMULATOR_SETTINGS",
            help="Settings and faults as JSON, over those of emulator.yaml; see docs/emulator.md.",
        ),
    ] = "",
) -> None:
    """Serve the provider emulator over HTTP; point CJ_EMULATOR_URL at it."""
    from cj_pipeline.emulator import serve
    from cj_pipeline.emulator.config import EmulatorConfig

    given = {"CJ_EMULATOR_SETTINGS": settings}
    serve(EmulatorConfig.from_environment(given, home_folder()), host, port)
