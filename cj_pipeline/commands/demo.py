"""`cj demo`: the example batches, from their folders to their grades, through Dagster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cj_pipeline.commands.terminal import tables
from cj_pipeline.commands.terminal.arguments import BatchLabel, name_of_batch
from cj_pipeline.commands.terminal.console import console
from cj_pipeline.commands.terminal.home import open_runtime

if TYPE_CHECKING:
    from cj_pipeline.runtime import Runtime

EXAMPLES = Path(__file__).parents[2] / "examples"
"""Beside the package in a checkout; an installed package has no demo."""

DEMO = ("uniform-bad", "uniform-good", "school-sport", "graded-english")


def demo(
    batches: Annotated[
        list[str] | None,
        typer.Argument(help=f"Example batches; if left out: {', '.join(DEMO)}."),
    ] = None,
    *,
    batch_id: BatchLabel = None,
) -> None:
    """Take the example batches through a real, persistent Dagster instance and show the outcome."""
    examples = tuple(batches or DEMO)
    if batch_id is not None and len(examples) > 1:
        msg = "--batch-id names one batch: name one example too, such as `cj demo graded-english`"
        raise typer.BadParameter(msg)

    from assets.automation.in_process import run_batch
    from cj_pipeline.definitions import defs
    from resources.local_instance import local_instance

    runtime = open_runtime()
    folders = {name_of_batch(EXAMPLES / each, batch_id): EXAMPLES / each for each in examples}
    names = tuple(folders)
    with local_instance(runtime.home) as instance, tables.progress_bar(console) as bar:
        for name, folder in folders.items():
            task = bar.add_task(name, total=None)
            for run in run_batch(instance, defs, runtime, name, folder):
                counts = _counts(runtime, name)
                bar.update(
                    task,
                    description=f"{name}: {run.job}",
                    total=counts["completion_denominator"],
                    completed=counts["completed"] + counts["failed"],
                )
            bar.update(task, description=name)
    _show_demo(runtime, names)


def _show_demo(runtime: Runtime, names: tuple[str, ...]) -> None:
    from cj_pipeline.queries.overview import (
        batch_overview,
        final_scores,
        grading_statement,
        outputs,
    )

    with runtime.store.read() as db:
        rows = [row for row in batch_overview(db) if row["batch_id"] in names]
        shown = {
            name: (final_scores(db, name), grading_statement(db, name), outputs(db, name))
            for name in names
        }
    for name in names:
        scores, statement, _ = shown[name]
        graded = any(score["grade"] for score in scores)
        console.print(tables.grades(name, scores if graded else scores[:5], statement))
    console.print(tables.statuses(rows))
    console.print(
        tables.table(
            "Reports",
            ("batch", "report"),
            [
                (name, str(runtime.published_folder / files["report"].path))
                for name in names
                if "report" in (files := shown[name][2])
            ],
        ),
        "The judges are simulated: votes of real people replayed, and for graded-english a",
        "simulated judge on machine-written texts. Costs are nominal; nothing was billed.",
    )
    for line in (
        f"Database, to query while the pipeline runs: {_where_to_query(runtime)}",
        "Dagster UI over all this: make ui",
    ):
        console.print(line, markup=False, soft_wrap=True)
    if any(row["state"] != "succeeded" for row in rows):
        raise typer.Exit(2)


def _where_to_query(runtime: Runtime) -> str:
    """Return the published copy's path; where all see the tables themselves, where those are."""
    return str(runtime.store.published_path or runtime.store.where)


def _counts(runtime: Runtime, batch_id: str) -> dict[str, int]:
    from cj_pipeline.queries.batch_record import load_batch
    from cj_pipeline.steps.decide import comparison_counts
    from cj_pipeline.stopping.continuation import completion_denominator

    with runtime.store.read() as db:
        record = load_batch(db, batch_id)
        counts = comparison_counts(db, batch_id)
    ends_at = completion_denominator(len(record.essay_ids), record.rules)
    return counts | {"completion_denominator": ends_at}
