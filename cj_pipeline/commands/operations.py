"""`cj preflight`, `assert` and `metrics`: what operators of the pipeline read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cj_pipeline.commands.terminal import completion
from cj_pipeline.commands.terminal.answers import answer, reads
from cj_pipeline.commands.terminal.arguments import (
    Again,
    BatchLabel,
    BatchName,
    Explicit,
    name_of_batch,
    takes_settings,
)
from cj_pipeline.commands.terminal.console import NOT_NOW, console, write
from cj_pipeline.commands.terminal.home import open_runtime, open_store

if TYPE_CHECKING:
    from cj_pipeline.metrics.assertions import OwnAssertion


def notify(
    test: Annotated[
        bool, typer.Option("--test", help="Send each address a test notification instead.")
    ] = False,
) -> None:
    """Tell the addresses in installation.yaml what has happened to batches since the last time.

    Dagster's `notification_sensor` does the same; this is for machines without Dagster.
    """
    from cj_pipeline.commands.terminal import tables
    from cj_pipeline.commands.terminal.console import errors
    from cj_pipeline.operations.notify import notify as notify_all
    from cj_pipeline.operations.notify import send_test

    runtime = open_runtime()
    if not test:
        told = notify_all(runtime)
        console.print(
            f"{told.n_recorded} new, {told.n_sent} sent, {told.n_failed} failed and tried again"
            " later."
        )
        return
    problems = send_test(runtime)
    for number, problem in enumerate(problems):
        console.print(f"notify[{number}]: {problem or 'taken'}", markup=False, highlight=False)
    if not problems:
        errors.print(tables.problems("CJ_HOME/installation.yaml names no address under `notify`."))
    if not problems or any(problems):
        raise typer.Exit(1)


@reads("cj preflight 1")
@takes_settings
def preflight_(
    batch: Annotated[
        str | None,
        typer.Argument(
            help="A batch folder, or a batch's name in the store.",
            autocompletion=completion.batch_names,
        ),
    ] = None,
    *,
    batch_id: BatchLabel = None,
    explicit: Explicit,
    again: Again = False,
) -> None:
    """Check everything a batch needs before money is spent, and list all problems.

    Store, disk, files, anchors, prices, budget, and each judge's provider with its key; nothing
    is stored and nothing is paid. Exit code 1 where there is a problem, 4 where the only one is
    that a provider does not answer now.
    """
    from cj_pipeline.commands.terminal import tables
    from cj_pipeline.operations.preflight import is_ready, only_waits, preflight, preflight_folder

    if batch is not None and Path(batch).is_dir():
        folder = Path(batch).resolve()
        _, examined = preflight_folder(
            open_runtime(),
            folder,
            explicit=explicit,
            batch_id=name_of_batch(folder, batch_id),
            may_repeat=again or batch_id is not None,
        )
    elif batch_id is not None or explicit:
        msg = "settings and --batch-id are for a batch folder that is not in the store yet"
        raise typer.BadParameter(msg)
    else:
        examined = preflight(open_runtime(), batch_id=batch)
    answer(is_ready=is_ready(examined), found=examined)
    console.print(tables.preflight(f"Preflight{f' for {batch}' if batch else ''}", examined))
    if only_waits(examined):
        raise typer.Exit(NOT_NOW)
    if not is_ready(examined):
        raise typer.Exit(1)


@reads("cj metrics 1")
def metrics(
    batch: Annotated[
        str | None,
        typer.Argument(
            help="Of one batch, with those only a batch has.", autocompletion=completion.batch_names
        ),
    ] = None,
    serve: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="Answer at http://HOST:PORT/metrics until interrupted."
        ),
    ] = None,
) -> None:
    """Print every metric as Prometheus reads it, or serve them for it to scrape."""
    from cj_pipeline.metrics.readings import current_readings, exposition

    if serve is None:
        readings = current_readings(open_store(), batch_id=batch)
        answer(
            metrics=[
                {
                    "name": each.metric.name,
                    "kind": each.metric.kind,
                    "help": each.metric.help,
                    "series": [
                        {
                            "labels": dict(zip(each.metric.labels, one.labels, strict=True)),
                            "value": one.value,
                        }
                        for one in each.series
                    ],
                }
                for each in readings
            ]
        )
        write(exposition(readings))
        return
    if batch is not None:
        msg = "A batch's metrics are printed, not served: leave the batch or --serve out."
        raise typer.BadParameter(msg)
    host, port = _address(serve)
    _serve(host, port)


@reads("cj assert 1")
def assert_(
    batch: BatchName,
    expressions: Annotated[
        list[str] | None,
        typer.Argument(
            help="Such as 'cj_comparisons_total{status=\"failed\"} == 0'; if left out, the "
            "claims that hold for every batch, and this batch's own assertions."
        ),
    ] = None,
) -> None:
    """Check assertions about a batch, each with its figure; exit code 1 where one fails.

    A claim that only warns is shown and does not fail the command.
    """
    from cj_pipeline.checks.batch_checks import check_assertions, check_batch
    from cj_pipeline.commands.terminal import tables
    from cj_pipeline.queries.batch_record import load_batch

    asserted = _read(expressions or [])
    now = datetime.now(UTC)
    with open_store().read() as db:
        is_over = load_batch(db, batch).has_ended
        checked = (
            check_assertions(db, batch, asserted, now) if asserted else check_batch(db, batch, now)
        )
    answer(batch_id=batch, is_over=is_over, claims=checked)
    console.print(tables.checks_table(batch, checked))
    if not is_over:
        console.print("The batch goes on: these are its figures so far.")
    if any(each.is_blocking and not each.finding.holds for each in checked):
        raise typer.Exit(1)


def _read(expressions: Sequence[str]) -> list[OwnAssertion]:
    from pydantic import ValidationError

    from cj_pipeline.errors import SettingsError
    from cj_pipeline.metrics.assertions import OwnAssertion

    read, problems = [], []
    for expression in expressions:
        try:
            read.append(OwnAssertion.read(expression))
        except ValidationError as error:
            problems += [
                f"{expression}: {each['msg'].removeprefix('Value error, ')}"
                for each in error.errors()
            ]
    if problems:
        raise SettingsError("\n".join(problems))
    return read


def _serve(host: str, port: int) -> None:
    from cj_pipeline.commands.services import access_from_environment
    from cj_pipeline.commands.terminal.home import open_runtime
    from cj_pipeline.installation import read_installation
    from cj_pipeline.metrics.readings import metrics_app
    from cj_pipeline.service.auth import ScopeMiddleware
    from cj_pipeline.service.serving import serve as listen

    access = access_from_environment(host)
    console.print(f"Metrics: http://{host}:{port}/metrics (Ctrl-C ends it)")
    runtime = open_runtime()
    ceilings = read_installation(runtime.home, runtime.environment).ceilings
    app = ScopeMiddleware(metrics_app(runtime.store, ceilings), access, "read")
    listen(app, host, port, lifespan="off")


def _address(given: str) -> tuple[str, int]:
    host, _, port = given.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        msg = f"{given!r} is no HOST:PORT, such as 127.0.0.1:9464."
        raise typer.BadParameter(msg, param_hint="--serve")
    return host.strip("[]") or "127.0.0.1", int(port)
