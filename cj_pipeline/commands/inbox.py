"""`cj inbox`: what was put into the inbox, and what became of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from cj_pipeline.commands.terminal import tables
from cj_pipeline.commands.terminal.answers import answer, reads
from cj_pipeline.commands.terminal.console import console
from cj_pipeline.commands.terminal.home import open_runtime
from cj_pipeline.text import visible


@reads("cj inbox 1")
def inbox(
    retry: Annotated[
        str | None,
        typer.Option(help="Have this item opened again, whatever its state; then list."),
    ] = None,
) -> None:
    """List what was put into the inbox: its state, since when, how often it was tried, and why."""
    from cj_pipeline.operations.inbox import arrivals
    from cj_pipeline.operations.inbox import retry as try_again

    runtime = open_runtime()
    if retry is not None:
        with runtime.store.write() as db:
            is_there = try_again(db, retry, datetime.now(UTC))
        if not is_there:
            console.print(f"Nothing named {retry!r} was seen in the inbox.", markup=False)
            raise typer.Exit(1)
    with runtime.store.read() as db:
        rows = arrivals(db)
    answer(items=rows)
    if not rows:
        console.print("Nothing was seen in the inbox yet.")
        return
    console.print(
        tables.table(
            f"Inbox {runtime.inbox}",
            ("item", "state", "batch", "first seen", "last seen", "tries", "why"),
            [
                (
                    visible(row.name),
                    row.state,
                    row.batch_id,
                    f"{row.first_seen_at:%Y-%m-%d %H:%M}",
                    f"{row.last_seen_at:%Y-%m-%d %H:%M}",
                    row.tries,
                    visible(row.reason or ("" if row.place == "inbox" else f"now in {row.place}")),
                )
                for row in rows
            ],
        )
    )
