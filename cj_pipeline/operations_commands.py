"""`cj metrics`: what those who keep the pipeline running look at."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from cj_pipeline.store import Store


def add_operations_commands(
    app: typer.Typer,
    told_plainly: Callable[[Callable[..., Any]], Callable[..., Any]],
    console: Console,
) -> None:
    """Add the commands to `cj`.

    Args:
        app: `cj` itself.
        told_plainly: Shows a known error as a message instead of a traceback.
        console: Where answers go.
    """

    @app.command()
    @told_plainly
    def metrics(
        batch: Annotated[
            str | None, typer.Argument(help="Of one batch, with those only a batch has.")
        ] = None,
        serve: Annotated[
            str | None,
            typer.Option(
                metavar="HOST:PORT", help="Answer at http://HOST:PORT/metrics until interrupted."
            ),
        ] = None,
    ) -> None:
        """Print every metric as Prometheus reads it, or serve them for it to scrape."""
        from cj_pipeline.metrics import render_metrics

        if serve is None:
            # Not through the console: it would wrap what has to stay as it is.
            typer.echo(render_metrics(_store(), batch_id=batch), nl=False)
            return
        if batch is not None:
            msg = "A batch's metrics are printed, not served: leave the batch or --serve out."
            raise typer.BadParameter(msg)
        host, port = _address(serve)
        console.print(f"Metrics: http://{host}:{port}/metrics (Ctrl-C ends it)")
        _serve(host, port)


def _store() -> Store:
    from cj_pipeline.store import default_home, open_store

    return open_store(default_home(os.environ), os.environ)


def _serve(host: str, port: int) -> None:
    import uvicorn

    from cj_pipeline.metrics import metrics_app

    uvicorn.run(metrics_app(_store()), host=host, port=port, lifespan="off", log_level="warning")


def _address(given: str) -> tuple[str, int]:
    host, _, port = given.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        msg = f"{given!r} is no HOST:PORT, such as 127.0.0.1:9464."
        raise typer.BadParameter(msg, param_hint="--serve")
    return host.strip("[]") or "127.0.0.1", int(port)
