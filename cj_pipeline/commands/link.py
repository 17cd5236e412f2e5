"""`cj link`: an ended batch on the scale of earlier ones, and how far their anchors moved."""

from __future__ import annotations

from typing import Annotated

import typer

from cj_pipeline import terminal
from cj_pipeline.commands.console import console
from cj_pipeline.commands.home import open_engine


def link(
    batch: Annotated[str, typer.Argument(help="The batch to place.")],
    to: Annotated[
        list[str] | None,
        typer.Option(help="A batch on whose scale it is to be; may be repeated, oldest first."),
    ] = None,
    alone: Annotated[
        bool, typer.Option("--alone", help="Take it off the scales of others again.")
    ] = False,
) -> None:
    """Place an ended batch on the scale of earlier ones and grade it there; nothing is asked.

    The batches are tied through anchors that both have judged (three at least). Earlier
    gradings are kept.
    """
    from cj_pipeline.batch_history import read_history
    from cj_pipeline.steps import link as place
    from cj_pipeline.steps import publish

    if bool(to) == alone:
        msg = "give the batches to link to with --to, or --alone to undo it"
        raise typer.BadParameter(msg)
    engine = open_engine()
    projected = place(engine, batch, to or ())
    publish(engine, batch)
    with engine.store.read() as db:
        history = read_history(db, batch)
    if history.links:
        console.print(
            terminal.table(
                f"Anchors from {history.links[0]['onto_batch_id']} to {batch}",
                ("placed", "anchor", "before", "now", "drift", "± SE", "left out"),
                [
                    (
                        history.links[row["position"] - 1]["placed_batch_id"],
                        row["essay_id"],
                        f"{row['earlier_score']:+.2f}",
                        f"{row['later_score']:+.2f}",
                        f"{row['drift']:+.2f}",
                        f"{row['standard_error']:.2f}",
                        "yes" if row["is_drifted"] else "",
                    )
                    for row in history.drifts
                ],
            )
        )
    console.print(projected.statement, markup=False, soft_wrap=True)
    console.print(f"This is grading {projected.revision} of the batch.")
