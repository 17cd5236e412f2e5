"""`cj verdicts`: what people judged elsewhere comes in, and a batch's verdicts go out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cj_pipeline.commands import tables
from cj_pipeline.commands.arguments import BatchName
from cj_pipeline.commands.console import console
from cj_pipeline.commands.home import open_runtime

By = Annotated[str | None, typer.Option("--by", help="Who does this; by default your user name.")]


def whoever(by: str | None) -> str:
    """Return the name given, or that of the user who runs the command."""
    import getpass

    return by or getpass.getuser()


def import_(
    batch: BatchName,
    file: Annotated[Path, typer.Argument(help="A CSV or Parquet file.", dir_okay=False)],
    name: Annotated[
        str | None, typer.Option(help="What the import is called; by default as the file.")
    ] = None,
) -> None:
    """Take verdicts made elsewhere into a batch: essay_a, essay_b, winner, judge, decided_at."""
    from cj_pipeline.people.exchange import import_verdicts

    done = import_verdicts(open_runtime(), batch, file, name=name)
    by_judge = ", ".join(f"{judge}: {n}" for judge, n in done.judges.items())
    if not done.is_new:
        text = f"Import '{done.name}' is in batch {batch} already; nothing changed."
    else:
        text = f"{done.n_verdicts} verdicts were imported as '{done.name}' ({by_judge})."
    if done.revision is not None:
        text += f" Batch {batch} was scored and graded again: grading {done.revision}."
    console.print(text, markup=False, soft_wrap=True)


def export_(
    batch: BatchName,
    file: Annotated[
        Path | None,
        typer.Argument(help="A .csv or .parquet file; by default the terminal.", dir_okay=False),
    ] = None,
    people: Annotated[
        bool, typer.Option("--people", help="Only those that people gave, imported ones included.")
    ] = False,
) -> None:
    """Write a batch's verdicts as `cj verdicts import` reads them."""
    from cj_pipeline.people.exchange import csv_of, exported_verdicts, write_verdicts

    with open_runtime().store.read() as db:
        rows = exported_verdicts(db, batch, people_only=people)
    if file is None:
        typer.echo(csv_of(rows), nl=False)
        return
    write_verdicts(rows, file)
    console.print(f"{len(rows)} verdicts: {file}", markup=False, soft_wrap=True)


def withdraw(
    batch: BatchName,
    name: Annotated[str, typer.Argument(help="An import's name, as `cj verdicts list` shows it.")],
    reason: Annotated[str, typer.Option(help="Why; it is stored.")] = "taken back",
    by: By = None,
) -> None:
    """Take an import back by its name: it counts no more, and stays in the store as withdrawn."""
    from cj_pipeline.people.exchange import withdraw_verdicts

    n = withdraw_verdicts(open_runtime(), batch, name, by=whoever(by), reason=reason)
    console.print(f"{n} verdicts of '{name}' count no more.", markup=False, soft_wrap=True)


def list_(batch: BatchName) -> None:
    """Show a batch's imports that count."""
    from cj_pipeline.people.exchange import imports

    with open_runtime().store.read() as db:
        rows = imports(db, batch)
    console.print(
        tables.table(
            f"Imports of {batch}",
            ("name", "verdicts", "imported"),
            [(r["import_name"], r["n_verdicts"], f"{r['stored_at']:%Y-%m-%d %H:%M}") for r in rows],
        )
    )
