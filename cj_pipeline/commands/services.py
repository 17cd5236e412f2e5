"""`cj ui`, `serve`, `work` and `emulator`: what runs until it is stopped."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cj_pipeline.commands.terminal.console import console
from cj_pipeline.commands.terminal.home import home_folder, open_runtime
from cj_pipeline.errors import SettingsError

if TYPE_CHECKING:
    from cj_pipeline.service.auth import Access


def ui(
    port: Annotated[int, typer.Option(help="Port of the Dagster UI.")] = 3000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    dagster: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Only the login, before a webserver that runs there already."
        ),
    ] = None,
) -> None:
    """Serve the Dagster UI with its daemon over CJ_HOME, behind a login.

    Callers need CJ_SERVE_TOKEN or a token with the scope admin; where there is neither, only this
    machine is served, and no other site's page gets in.
    """
    from cj_pipeline.service.dagster_ui import COOKIE

    access = replace(access_from_environment(host), cookie=COOKIE)
    with listening_socket(host, port) as listener:
        if dagster is not None:
            console.print(f"Dagster UI: {address(host, port)} (Ctrl-C ends it)", highlight=False)
            _serve_ui(dagster, access, listener)
            return
        _serve_ui_and_dagster(access, listener, address(host, port))


def _serve_ui_and_dagster(access: Access, listener: socket.socket, shown: str) -> None:
    """Become Dagster, at an address that cannot be guessed, with the login beside it."""
    from resources.code_location import carry_over, write_workspace
    from resources.local_instance import local_instance, prepare_dagster_home

    home = home_folder()
    workspace = write_workspace(prepare_dagster_home(home))
    with local_instance(home) as instance:
        carry_over(instance)
    inside, inner_port = _unguessable_address()
    environment = {
        **os.environ,
        "CJ_HOME": str(home),
        "DAGSTER_HOME": str(prepare_dagster_home(home)),
        # `dg dev` starts the same, and is not among what the pipeline needs.
        "PYTHONWARNINGS": "ignore:Function `dev_command` is superseded",
    }
    program = shutil.which("dagster", path=str(Path(sys.executable).parent)) or "dagster"
    command = [program, "dev", "--host", inside, "--port", str(inner_port)]
    command += ["--workspace", str(workspace)]
    console.print(f"Dagster UI: {shown} (Ctrl-C ends it)", highlight=False)
    sys.stdout.flush()
    dagster = os.getpid()
    if os.fork() == 0:
        _end_with(dagster)
        with suppress(KeyboardInterrupt):
            _serve_ui(f"http://{inside}:{inner_port}", access, listener)
        os._exit(0)
    # Become the server, so that ending this command ends it: also where a shell that started it in
    # the background had it ignore interrupts, by which Dagster ends its own children.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.execve(command[0], command, environment)  # noqa: S606


def _serve_ui(upstream: str, access: Access, listener: socket.socket) -> None:
    import uvicorn

    from cj_pipeline.service.dagster_ui import dagster_ui
    from cj_pipeline.service.serving import serving

    host, port = listener.getsockname()[:2]
    # Dagster's own messages over the WebSocket are large.
    config = serving(dagster_ui(upstream, access), host, port, ws_max_size=16 * 1024 * 1024)
    uvicorn.Server(config).run(sockets=[listener])


def _end_with(parent: int) -> None:
    """End this process once the one that started it has ended, however that happened."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def _unguessable_address() -> tuple[str, int]:
    """Return a free address of this machine alone, one of 2^24 where the system has them."""
    for host in (f"127.{'.'.join(str(1 + secrets.randbelow(254)) for _ in range(3))}", "127.0.0.1"):
        try:
            with listening_socket(host, 0) as found:
                return host, found.getsockname()[1]
        except SettingsError:
            continue
    msg = "No address of this machine's own can be listened on."
    raise SettingsError(msg)


def listening_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        SettingsError: If the address is another's, or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        msg = f"{host}:{port} cannot be listened on: {error.strerror}. Give another --port."
        raise SettingsError(msg) from error
    return listener


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
    listen(create_app(open_runtime(is_attended=False), access), host, port)


def work(
    *,
    until_done: Annotated[
        bool, typer.Option("--until-done", help="End once no batch goes on.")
    ] = False,
) -> None:
    """Move all batches along: as many workers as you like, on any host.

    A batch whose worker dies is taken over by another within a minute. SIGTERM ends a worker after
    the step at hand.
    """
    from cj_pipeline.operations.work import new_worker
    from cj_pipeline.steps.advance import StepTaken

    def tell(batch_id: str, taken: StepTaken) -> None:
        if not taken.waited:
            console.print(f"{batch_id}: {taken.step}", markup=False, highlight=False)

    stop = threading.Event()
    worker = new_worker(open_runtime(is_attended=False), stop, tell)
    console.print(f"Worker {worker.holder} (Ctrl-C ends it)", markup=False, highlight=False)
    ends = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: stop.set()) for number in ends]
    try:
        worker.work(until_done=until_done)
    finally:
        for number, handler in zip(ends, before, strict=True):
            signal.signal(number, handler)


def access_from_environment(host: str) -> Access:
    """Return who may call what listens on an address: `CJ_SERVE_TOKEN`, installation.yaml.

    Raises:
        SettingsError: If others can reach it and no token would be asked for.
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
