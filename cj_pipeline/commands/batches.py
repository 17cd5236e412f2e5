"""`cj execute`, `status`, `cancel`, `report`, `regrade`: a batch from its folder to its grades."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from cj_pipeline.commands.terminal import completion, tables
from cj_pipeline.commands.terminal.answers import answer, reads
from cj_pipeline.commands.terminal.arguments import (
    Again,
    BatchDir,
    BatchLabel,
    BatchName,
    Explicit,
    LogFile,
    name_of_batch,
    takes_settings,
)
from cj_pipeline.commands.terminal.console import console, errors
from cj_pipeline.commands.terminal.home import open_runtime, open_store
from cj_pipeline.progress.text import describe_outlook, describe_unattended, has_no_outlook
from cj_pipeline.text import visible

if TYPE_CHECKING:
    from cj_pipeline.operations.preflight import PreflightItem
    from cj_pipeline.operations.regrade import Regraded
    from cj_pipeline.runtime import Runtime


_WAIT_FOR_ROWS_S = 20.0
"""How long a cancelled batch's command waits for rows that are about to be there."""


@takes_settings
def execute(
    batch_dir: BatchDir,
    *,
    batch_id: BatchLabel = None,
    explicit: Explicit,
    await_completion: Annotated[
        bool, typer.Option("--await-completion", help="Go on until the batch has ended.")
    ] = False,
    completion_timeout: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Seconds to wait for the end; then what is there is published as partial and the"
            " exit code is 3. Unlimited if unset.",
        ),
    ] = None,
    again: Again = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Ask a judge more that gave no verdict in its first answers, which are paid for.",
        ),
    ] = False,
    log_file: LogFile = None,
) -> None:
    """Start a batch (submits its first wave); with --await-completion, run it to its end.

    Runs `cj preflight` first, unless the batch is in the store already.
    """
    from cj_pipeline.logs import logs_in_file
    from cj_pipeline.operations.execute import ask_first_wave, run_to_end, take_in

    runtime = open_runtime()
    name = name_of_batch(batch_dir, batch_id)
    with logs_in_file(log_file):
        taken_in = take_in(
            runtime,
            batch_dir,
            explicit=explicit,
            batch_id=name,
            may_repeat=again or batch_id is not None,
            may_return=again,
            resume=resume,
            on_examined=_show_what_was_allowed,
        )
        if not await_completion:
            n_requests, n_jobs = ask_first_wave(runtime, taken_in.batch_id)
            console.print(
                f"{taken_in.batch_id}: {n_requests} comparisons requested in {n_jobs} provider "
                f"jobs. `cj execute {batch_dir}{_named(name, batch_id)} --await-completion` or the"
                " sensors take it on."
            )
            return
        with tables.progress_bar(console) as bar:
            task = bar.add_task(taken_in.batch_id, total=None)
            waits: set[str] = set()
            result = run_to_end(
                runtime,
                taken_in.batch_id,
                timeout_s=completion_timeout,
                on_step=lambda done: bar.update(
                    task, total=done.completion_denominator, completed=done.ended
                ),
                on_wait=lambda words: _print_once(bar.console, words, waits),
            )
        if result.timed_out:
            message = (
                f"Batch '{taken_in.batch_id}' is not at its end after {completion_timeout:g} s; "
                "nothing is lost. Its artefact so far is marked as partial. Run the same "
                "command again."
            )
            _show_run(runtime, taken_in.batch_id)
            errors.print(tables.problems(message))
            raise typer.Exit(3)
        _show_outcome(runtime, taken_in.batch_id)


def _named(name: str, label: str | None) -> str:
    """Return the option that names a batch again, where its folder does not."""
    return "" if label is None else f" --batch-id {name}"


def _show_what_was_allowed(examined: Sequence[PreflightItem]) -> None:
    """Show what a person has let through: files paid for again, a batch that cannot succeed."""
    for each in examined:
        if each.about == "repetition" or each.finding.endswith("as requested"):
            errors.print(f"Warning: {each.finding}", markup=False, highlight=False, soft_wrap=True)


@reads("cj status 1")
def status(
    batch: Annotated[
        str | None,
        typer.Argument(help="One batch; all if left out.", autocompletion=completion.batch_names),
    ] = None,
) -> None:
    """Show the status of batches; of one, also what it waits for, where, and the next look."""
    from cj_pipeline.queries.overview import batch_overview, open_jobs, put_off, what_hinders
    from cj_pipeline.steps.next_step import unattended_since, what_is_awaited

    now = datetime.now(UTC)
    progress, awaited, usual = None, "", ""
    with open_store().read() as db:
        rows = batch_overview(db, batch)
        waiting = put_off(db, batch)
        running = [row["batch_id"] for row in rows if row["state"] == "running"]
        unattended = {name: unattended_since(db, name, now) for name in running}
        jobs = open_jobs(db, batch) if batch is not None else []
        if batch and batch in running:
            # What computes a batch's progress takes longer to load than all else a status needs.
            from cj_pipeline.progress.events import progress_of

            progress, awaited = progress_of(db, batch, now), what_is_awaited(db, batch, now)
        if batch and progress and has_no_outlook(progress):
            from cj_pipeline.operations.cost_estimate import usual_time

            usual = usual_time(db, batch)
    answer(
        batches=[
            row
            | {"hindered_by": what_hinders(row) or None}
            | {"unattended_since": unattended.get(row["batch_id"])}
            for row in rows
        ],
        put_off=[{"batch_id": name, "reason": reason} for name, reason in waiting],
        awaited=awaited.splitlines(),
        jobs=jobs,
        progress=progress,
        usual_time=usual,
    )
    console.print(tables.statuses(rows))
    if progress is not None:
        told = "; ".join(describe_outlook(progress, usual))
        console.print(f"{batch}: {told}", markup=False, highlight=False, soft_wrap=True)
    for line in awaited.splitlines():
        console.print(f"Waits for {line}", markup=False, highlight=False, soft_wrap=True)
    if jobs:
        console.print(tables.open_jobs(jobs))
    for name, since in unattended.items():
        if since is not None:
            console.print(
                describe_unattended(name, since, now), markup=False, highlight=False, soft_wrap=True
            )
    for batch_id, reason in waiting:
        console.print(f"{batch_id}: {reason}", markup=False, highlight=False)
    for row in rows:
        if hindered := what_hinders(row):
            console.print(f"{row['batch_id']}: {visible(hindered)}", markup=False, highlight=False)
        for problem in row["problems"]:
            console.print(f"{row['batch_id']}: {problem}", markup=False)


def cancel(batch: BatchName) -> None:
    """End a batch now: request nothing more, cancel its provider jobs, keep what was paid for."""
    from cj_pipeline.operations.cancel import cancel as cancel_batch
    from cj_pipeline.queries.overview import batch_overview
    from cj_pipeline.steps.advance import advance_to_end

    runtime = open_runtime()
    cancelled = cancel_batch(runtime, batch)
    console.print(f"{batch}: cancelled, {cancelled.n_jobs} provider jobs were asked to stop.")
    for problem in cancelled.problems:
        console.print(problem, markup=False, highlight=False)
    give_up_at = time.monotonic() + _WAIT_FOR_ROWS_S
    for step in advance_to_end(runtime, batch):
        if step.waited and (not _rows_are_near(runtime, batch) or time.monotonic() > give_up_at):
            console.print(f"Waiting: {step.waits_for}", markup=False, highlight=False)
            console.print(
                "A job takes up to ten minutes to stop. The sensors collect what it finished; "
                "so does `cj cancel`, run again."
            )
            return
    with runtime.store.read() as db:
        console.print(tables.statuses(batch_overview(db, batch)))


def _rows_are_near(runtime: Runtime, batch: str) -> bool:
    """Whether a batch waits for nothing but rows of ended jobs that are looked for in a moment."""
    from cj_pipeline.steps.poll import next_poll_due

    with runtime.store.read() as db:
        due = next_poll_due(db, batch)
        row = db.one(
            "SELECT count(*) AS n FROM v_job_phases WHERE batch_id = ?"
            " AND phase <> 'done' AND state <> 'incomplete'",
            [batch],
        )
    is_all = row is not None and not row["n"]
    return is_all and due is not None and (due - runtime.clock()).total_seconds() < _WAIT_FOR_ROWS_S


def report(batch: BatchName) -> None:
    """Rewrite a batch's report and show where it is."""
    from cj_pipeline.steps.publish import publish_report

    runtime = open_runtime()
    written = publish_report(runtime, batch)
    _show_outcome(runtime, batch)
    console.print(f"Report: {written.path}", markup=False, soft_wrap=True)


def regrade(
    batch: BatchName,
    *,
    scale: Annotated[str | None, typer.Option(help="Another grade scale.")] = None,
    scale_file: Annotated[
        Path | None,
        typer.Option(help="A grade scale of your own, as YAML.", exists=True, dir_okay=False),
    ] = None,
    anchor_grade: Annotated[
        list[str] | None,
        typer.Option(help="An anchor's grade put right, as ESSAY=GRADE; may be repeated."),
    ] = None,
    despite: Annotated[
        list[str] | None,
        typer.Option(
            help="An assertion of the batch's own that need not hold any more; may be repeated."
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A threshold of batch.yaml or use_priors, as KEY=VALUE; may be repeated.",
        ),
    ] = None,
) -> None:
    """Regrade an ended batch; nothing is requested or paid, and earlier gradings stay stored."""
    import yaml

    from cj_pipeline.operations.regrade import regrade as grade_again
    from cj_pipeline.operations.regrade import what_changed
    from cj_pipeline.steps.publish import publish

    pairs = [given.rpartition("=") for given in anchor_grade or []]
    settings = [given.partition("=") for given in setting or []]
    runtime = open_runtime()
    projected = grade_again(
        runtime,
        batch,
        scale=scale,
        own_scale=scale_file.read_bytes() if scale_file is not None else None,
        anchor_grades={essay.strip(): grade.strip() for essay, _, grade in pairs},
        settings={key: yaml.safe_load(value) for key, _, value in settings},
        despite=despite or [],
    )
    publish(runtime, batch)
    _show_outcome(runtime, batch)
    console.print(f"This is grading {projected.revision} of the batch.")
    with runtime.store.read() as db:
        _show_regraded(what_changed(db, batch, projected.revision))


def _show_regraded(found: Regraded) -> None:
    """Say whose grade changed, and what the gradings differ in."""
    if found.changes:
        console.print(
            tables.table(
                "Whose grade changed",
                ("essay", "before", "now"),
                [(each.called, each.before or "-", each.after or "-") for each in found.changes],
            )
        )
    console.print(f"{len(found.changes)} of {found.n_students} students have another grade.")
    for reason in found.reasons:
        console.print(f"Other than before: {reason}", markup=False, highlight=False)
    if found.changes and not found.reasons:
        console.print("Anchors, scale and thresholds are as before: verdicts came since.")


def _print_once(to: Console, waits_for: str, printed: set[str]) -> None:
    """Print what is waited for, once per kind: numbers and times alone are no news."""
    kind = "".join(c for c in waits_for if not c.isdigit())
    if kind and kind not in printed:
        printed.add(kind)
        to.print(f"Waiting: {waits_for}", markup=False, highlight=False)


def _show_outcome(runtime: Runtime, batch_id: str) -> None:
    """Show grades, cost and files; a batch that failed ends the command with a non-zero code."""
    from cj_pipeline.checks.batch_checks import what_stops_grades
    from cj_pipeline.queries.history import read_history
    from cj_pipeline.queries.overview import (
        batch_overview,
        final_scores,
        grading_statement,
        what_hinders,
    )

    with runtime.store.read() as db:
        (row,) = batch_overview(db, batch_id)
        history = read_history(db, batch_id)
        failed = what_stops_grades(db, history, runtime.clock())
        scores = final_scores(db, batch_id)
        statement = grading_statement(db, batch_id)
    console.print(tables.grades(batch_id, scores, statement), tables.statuses([row]))
    _show_run(runtime, batch_id)
    if row["state"] == "rejected":
        listed = "\n".join(f"  - {visible(problem)}" for problem in history.batch["problems"])
        errors.print(tables.problems(f"Batch '{batch_id}' was rejected. Fix these:\n{listed}"))
        raise typer.Exit(2)
    if row["state"] != "succeeded":
        told = f"Batch '{batch_id}' ended as {row['end_reason']}. {visible(what_hinders(row))}"
        errors.print(tables.problems(told.rstrip()))
        raise typer.Exit(2)
    if failed:
        listed = "\n".join(f"{each.name}: {each.finding.statement}" for each in failed)
        errors.print(tables.problems(f"Batch '{batch_id}' fails its checks:\n{listed}"))
        raise typer.Exit(2)


def _show_run(runtime: Runtime, batch_id: str) -> None:
    """Show what a run asked and cost, whether it is whole, where its files are, and what next."""
    from cj_pipeline.queries.batch_record import load_batch
    from cj_pipeline.queries.overview import batch_overview, models_used, outputs
    from cj_pipeline.steps.decide import comparison_counts
    from cj_pipeline.stopping.continuation import completion_denominator

    with runtime.store.read() as db:
        (row,) = batch_overview(db, batch_id)
        record = load_batch(db, batch_id)
        counts = comparison_counts(db, batch_id)
        used = models_used(db, batch_id)
        files = outputs(db, batch_id)
    ends_at = completion_denominator(len(record.essay_ids), record.rules)
    n_calls = sum(each.n_calls for each in used)
    n_retries = sum(each.n_retries for each in used)
    pending = counts["submitted"] - counts["completed"] - counts["failed"]
    is_partial = row["state"] != "succeeded" or pending > 0
    console.print(tables.models_used(batch_id, used))
    lines = [
        f"{counts['submitted']} comparisons of at most {ends_at}, in {row['n_waves']} waves:"
        f" {counts['completed']} with a verdict, {counts['failed']} failed, {pending} pending.",
        f"{n_calls} calls, {n_retries} of them retries, which come on top of the comparisons (up to"
        f" {record.settings.max_attempts} calls for one).",
        f"partial_data: {'true' if is_partial else 'false'}",
        *(f"{kind}: {runtime.published_folder / file.path}" for kind, file in files.items()),
        f"database: {runtime.store.published_path or runtime.store.where}",
        f"Go on with: cj sql \"SELECT * FROM v_comparisons WHERE batch_id = '{batch_id}'\"",  # noqa: S608
    ]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def link(
    batch: Annotated[
        str, typer.Argument(help="The batch to place.", autocompletion=completion.batch_names)
    ],
    to: Annotated[
        list[str] | None,
        typer.Option(
            help="A batch on whose scale it is to be; may be repeated, oldest first.",
            autocompletion=completion.batch_names,
        ),
    ] = None,
    alone: Annotated[
        bool, typer.Option("--alone", help="Take it off the scales of others again.")
    ] = False,
) -> None:
    """Place an ended batch on the scale of earlier ones and grade it there; nothing is requested.

    The batches are tied through anchors that both have judged (three at least). Earlier
    gradings are kept.
    """
    from cj_pipeline.operations.regrade import link as place
    from cj_pipeline.queries.history import read_history
    from cj_pipeline.steps.publish import publish

    if bool(to) == alone:
        msg = "give the batches to link to with --to, or --alone to undo it"
        raise typer.BadParameter(msg)
    runtime = open_runtime()
    projected = place(runtime, batch, to or ())
    publish(runtime, batch)
    with runtime.store.read() as db:
        history = read_history(db, batch)
    if history.links:
        console.print(
            tables.table(
                f"Anchors from {history.links[0]['onto_batch_id']} to {batch}",
                ("placed", "anchor", "before", "now", "drift", "± SE", "moved"),
                [
                    (
                        history.links[row["position"] - 1]["placed_batch_id"],
                        visible(history.label(row["essay_id"])),
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
