"""`cj plan`, `explain` and `dry-run`: a batch folder before anything is bought."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cj_pipeline.commands.profiles import profile_answer, profile_table
from cj_pipeline.commands.terminal import tables
from cj_pipeline.commands.terminal.answers import answer, reads
from cj_pipeline.commands.terminal.arguments import (
    Again,
    BatchDir,
    BatchLabel,
    Explicit,
    LogFile,
    name_of_batch,
    takes_settings,
)
from cj_pipeline.commands.terminal.console import console
from cj_pipeline.commands.terminal.home import home_folder, logs, open_runtime
from cj_pipeline.text import visible

if TYPE_CHECKING:
    from cj_pipeline.intake.batch_folder import Batch
    from cj_pipeline.operations.cost_estimate import ModeCost
    from cj_pipeline.operations.preview import Preview
    from cj_pipeline.outputs.artefact import WrittenFile
    from cj_pipeline.runtime import Runtime


@reads("cj plan 1")
@takes_settings
def plan(
    batch_dir: BatchDir,
    *,
    batch_id: BatchLabel = None,
    explicit: Explicit,
    again: Again = False,
    pilot: Annotated[
        int, typer.Option(min=0, help="Live calls per judge, to calibrate tokens and USD.")
    ] = 0,
    within: Annotated[
        float | None,
        typer.Option(min=0.01, help="Hours it has to be done in: says what to set for that."),
    ] = None,
    artefact: Annotated[
        Path | None,
        typer.Option(help="Also write assessment_run.plan.json to this folder.", file_okay=False),
    ] = None,
    essays: Annotated[
        bool,
        typer.Option("--essays", help="Also show each essay and what to look at in it."),
    ] = False,
    log_file: LogFile = None,
) -> None:
    """Show what a batch would request and cost, and what stands in its way.

    Stores nothing, and only a pilot sends anything. Ends with the lines of `cj preflight`, but for
    the providers, which are not asked; exit code 1 where one of them is a problem.
    """
    from cj_pipeline.intake.batch_folder import read_batch
    from cj_pipeline.operations.execute import told_preview
    from cj_pipeline.operations.preflight import is_ready, preflight
    from cj_pipeline.operations.preview import preview_batch

    name = name_of_batch(batch_dir, batch_id)
    runtime = _without_a_trace(open_runtime())
    with logs(log_file), told_preview(name, "plan") as is_read:
        batch = read_batch(batch_dir, explicit=explicit, batch_id=name)
        preview = preview_batch(runtime, batch)
        is_read(preview)
        for notice in batch.notices:
            console.print(f"Note: {visible(notice)}", markup=False, soft_wrap=True)
        if essays:
            _show_essays(batch)
        costs = preview.costs()
        answer(
            batch_id=preview.batch_id,
            facts=[{"what": what, "value": value} for what, value in preview.facts(within)],
            costs=[_cost_answer(cost, preview) for cost in costs],
            notices=list(batch.notices),
        )
        console.print(
            tables.table("Plan for " + preview.batch_id, ("what", "value"), preview.facts(within)),
            *tables.cost_tables(costs, preview.record.settings.batching_mode),
        )
        for judge, told in {cost.judge.name: cost.reasoning_from for cost in costs}.items():
            console.print(f"USD expected of {judge}: {told}.", markup=False, soft_wrap=True)
        examined = preflight(
            runtime,
            batch,
            may_repeat=again or batch_id is not None,
            preview=preview,
            asks_providers=False,
        )
        # A plan may be looked at again; it is `cj execute` that does not pay twice.
        examined = [
            replace(each, standing="warning") if each.about == "repetition" else each
            for each in examined
        ]
        answer(is_ready=is_ready(examined), found=examined)
        console.print(tables.preflight("Before it starts", examined))
        if not is_ready(examined):
            raise typer.Exit(1)
        if pilot:
            piloted = preview.pilot(runtime, pilot)
            answer(pilot=[{"judge": judge.name, "whole_batch": found} for judge, found in piloted])
            console.print(tables.pilot_table(piloted))
        if artefact is not None:
            _show(preview.write_artefact(artefact))


def _cost_answer(cost: ModeCost, preview: Preview) -> dict[str, Any]:
    return {
        "judge": cost.judge.name,
        "judge_id": cost.judge.judge_id,
        "mode": cost.mode,
        "is_chosen": cost.mode == preview.record.settings.batching_mode,
        "n_comparisons": cost.n_comparisons,
        "tokens_each": cost.tokens_each,
        "expected_usd": cost.expected_usd,
        "worst_usd": cost.worst_usd,
        "seconds_from": cost.seconds[0],
        "seconds_to": cost.seconds[1],
        "time_rests_on": cost.time_from,
        "answer_length_rests_on": cost.reasoning_from,
        "prefix": cost.caching,
    }


def _without_a_trace(runtime: Runtime) -> Runtime:
    """Return a runtime that makes no store where there is none yet: a plan stores nothing."""
    from cj_pipeline.store.file_store import FileStore

    is_made = not isinstance(runtime.store, FileStore) or runtime.store.path.exists()
    return runtime if is_made else replace(runtime, store=FileStore.in_memory())


def _show_essays(batch: Batch) -> None:
    from cj_pipeline.intake.essay_checks import look_at

    looks = look_at(batch)
    answer(essays=looks)
    for look in looks:
        language = f", {look.language}" if look.language else ""
        head = f"{look.called} ({look.essay_id}): {look.n_words} words{language}"
        for line in (
            head,
            f"  begins  {look.first_line}",
            f"  ends    {look.last_line}",
            *(f"  WARNING {visible(warning)}" for warning in look.warnings),
            *(f"  note    {visible(note)}" for note in look.notes),
        ):
            console.print(line, markup=False, highlight=False, soft_wrap=True)


@reads("cj explain 1")
@takes_settings
def explain(
    batch_dir: BatchDir,
    *,
    explicit: Explicit,
) -> None:
    """Show every setting of a batch folder and where its value came from."""
    from cj_pipeline.intake.batch_folder import read_batch
    from cj_pipeline.queries.live_profile import profile_of_batch

    batch = read_batch(batch_dir, explicit=explicit)
    found = batch.settings
    resolved = profile_of_batch(batch, home_folder(), os.environ)
    answer(
        batch_id=batch.batch_id,
        settings=[
            {"setting": key, "value": value, "from": found.origins[key]}
            for key, value in found.values.model_dump(mode="json").items()
        ],
        profile=profile_answer(resolved),
    )
    console.print(
        tables.table(
            "Settings",
            ("setting", "value", "from"),
            [
                (key, value, found.origins[key])
                for key, value in found.values.model_dump(mode="json").items()
            ],
        ),
        profile_table(resolved),
    )


@reads("cj dry-run 1")
@takes_settings
def dry_run(
    batch_dir: BatchDir,
    *,
    batch_id: BatchLabel = None,
    explicit: Explicit,
    again: Again = False,  # noqa: ARG001 -- a dry run of what another batch has costs nothing
    log_file: LogFile = None,
) -> None:
    """Build the first wave's requests exactly as they would be sent, and send none."""
    from cj_pipeline.intake.batch_folder import read_batch
    from cj_pipeline.operations.execute import told_preview
    from cj_pipeline.operations.preview import preview_batch

    name = name_of_batch(batch_dir, batch_id)
    runtime = open_runtime()
    with logs(log_file), told_preview(name, "dry-run") as is_read:
        batch = read_batch(batch_dir, explicit=explicit, batch_id=name)
        preview = preview_batch(runtime, batch, runner_mode="dry-run")
        is_read(preview)
        folder = home_folder() / "dry-runs" / preview.batch_id
        written = preview.write_requests(folder)
        answer(batch_id=preview.batch_id, files=written)
        console.print(
            tables.table(
                "First wave of " + preview.batch_id,
                ("file", "requests", "bytes"),
                [(str(file.path), file.n_requests, file.n_bytes) for file in written],
            )
        )
        _show(preview.write_artefact(folder, requests=[file.path for file in written]))
    console.print("Nothing was sent.")


def _show(written: WrittenFile) -> None:
    answer(artefact=written.path)
    console.print(f"artefact: {written.path}", markup=False, soft_wrap=True)
