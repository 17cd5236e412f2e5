"""`cj serve`: the HTTP service, for whoever is not at this machine's terminal."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from cj_pipeline.steps.engine import Engine


def add_service_commands(
    app: typer.Typer,
    told_plainly: Callable[[Callable[..., Any]], Callable[..., Any]],
    console: Console,
    open_engine: Callable[[], Engine],
) -> None:
    """Add the command to `cj`.

    Args:
        app: `cj` itself.
        told_plainly: Shows a known error as a message instead of a traceback.
        console: Where its address is said.
        open_engine: The engine over the home folder.
    """

    @app.command()
    @told_plainly
    def serve(
        host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
        port: Annotated[int, typer.Option(help="Port to listen on.")] = 8421,
        max_body_mb: Annotated[
            int, typer.Option(min=1, max=4096, help="The largest batch that is taken, in MiB.")
        ] = 64,
    ) -> None:
        """Serve the API and the live page; what is handed in is moved by Dagster (`make ui`).

        CJ_SERVE_TOKEN is asked of whoever comes; without it only this machine is answered.
        """
        import uvicorn

        from cj_pipeline.service.access import Access, require_safe
        from cj_pipeline.service.app import create_app

        token = os.environ.get("CJ_SERVE_TOKEN") or None
        require_safe(host, token)
        access = Access(token, max_body_bytes=max_body_mb * 1024 * 1024)
        shown = f"[{host}]" if ":" in host else host
        console.print(f"Batches: http://{shown}:{port}/ (Ctrl-C ends it)", highlight=False)
        uvicorn.run(
            create_app(open_engine(), access),
            host=host,
            port=port,
            log_level="warning",
            # Lines would hold whatever strangers put into an address.
            access_log=False,
            server_header=False,
            ws_max_size=4096,
            timeout_graceful_shutdown=5,
        )
