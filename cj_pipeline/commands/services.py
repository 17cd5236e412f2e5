"""`cj ui`, `serve` and `emulator`: what runs until it is stopped."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cj_pipeline.commands.console import console
from cj_pipeline.commands.home import home_folder, open_runtime

if TYPE_CHECKING:
    from cj_pipeline.service.auth import Access


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

    Every caller needs CJ_SERVE_TOKEN or a token of `cj token create`; where there is neither, only
    this machine is served.
    """
    from cj_pipeline.service.app import create_app
    from cj_pipeline.service.serving import serve as listen

    access = replace(access_from_environment(host), max_body_bytes=max_body_mb * 1024 * 1024)
    console.print(f"Batches: {address(host, port)} (Ctrl-C ends it)", highlight=False)
    listen(create_app(open_runtime(), access), host, port)


def access_from_environment(host: str) -> Access:
    """Return who may call what listens on an address: `CJ_SERVE_TOKEN`, installation.yaml.

    Raises:
        SettingsError: If others can reach it and nobody would be asked for a token.
    """
    from cj_pipeline.installation import read_installation
    from cj_pipeline.service.auth import Access, require_safe
    from cj_pipeline.storage.token_file import tokens_of

    home = home_folder()
    token = os.environ.get("CJ_SERVE_TOKEN") or None
    require_safe(host, token, scoped=bool(read_installation(home).tokens))
    return Access(token, tokens_of(home))


def address(host: str, port: int) -> str:
    """Return where a browser finds what listens on a host and port."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/"


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
    """Serve the provider emulator over HTTP; point CJ_EMULATOR_URL at it.

    With CJ_EMULATOR_TOKEN set, here and where it is called from, no other key is taken; without,
    only this machine is served.
    """
    from cj_pipeline.emulator import create_app
    from cj_pipeline.emulator.config import EmulatorConfig
    from cj_pipeline.service.auth import require_safe
    from cj_pipeline.service.serving import serve as listen

    token = os.environ.get("CJ_EMULATOR_TOKEN", "").strip() or None
    require_safe(host, token, variable="CJ_EMULATOR_TOKEN")

    given = {"CJ_EMULATOR_SETTINGS": settings}
    config = EmulatorConfig.from_environment(given, home_folder())
    listen(create_app(config, token=token), host, port, lifespan="off")
