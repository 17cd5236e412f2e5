"""`cj moderate` and `cj release`: what a person looks at, decides, and lets leave."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cj_pipeline.commands.people import By, whoever
from cj_pipeline.commands.terminal import completion, tables
from cj_pipeline.commands.terminal.answers import answer, reads
from cj_pipeline.commands.terminal.arguments import BatchName
from cj_pipeline.commands.terminal.console import console, write
from cj_pipeline.commands.terminal.home import note_export, open_runtime
from cj_pipeline.text import visible

if TYPE_CHECKING:
    from cj_pipeline.outputs.readings.reading_queue import QueueEntry
    from cj_pipeline.queries.history import BatchHistory
    from cj_pipeline.runtime import Runtime

MAX_LISTED = 30


@reads("cj moderate 1")
def moderate(
    batch: BatchName,
    *,
    accept: Annotated[
        list[str] | None,
        typer.Option(
            help="An essay whose grade is accepted; may be repeated.",
            autocompletion=completion.essay_names,
        ),
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option(help="Another grade, as ESSAY=GRADE; may be repeated. Needs --reason."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            help="An essay that gets no grade; may be repeated. Needs --reason.",
            autocompletion=completion.essay_names,
        ),
    ] = None,
    judge: Annotated[
        list[str] | None,
        typer.Option(
            help="An essay that people are to judge; may be repeated. Needs --reason.",
            autocompletion=completion.essay_names,
        ),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(help="Instead: draw this many students at random, to be graded by hand."),
    ] = None,
    stratified: Annotated[
        bool, typer.Option("--stratified", help="With --sample: about alike from each grade.")
    ] = False,
    grades: Annotated[
        Path | None,
        typer.Option(help="Instead: a sheet of --sample, filled in.", dir_okay=False),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; stored with each decision.")] = "",
    by: By = None,
) -> None:
    """Show what a person should look at, what gains most first, or store what one decided."""
    from cj_pipeline.people.moderation import Decision, decide_grades
    from cj_pipeline.steps.publish import publish

    runtime = open_runtime()
    _grade_late_verdicts(runtime, batch)
    who = whoever(by)
    if sample is not None or grades is not None:
        _sample(runtime, batch, sample, grades, stratified=stratified, by=who)
        return
    decisions = [Decision(e, "accept", who, reason) for e in accept or []]
    for given in override or []:
        essay_id, equals, grade = given.rpartition("=")
        if not equals or not grade:
            msg = f"{given!r} is not written as ESSAY=GRADE"
            raise typer.BadParameter(msg)
        decisions.append(Decision(essay_id.strip(), "override", who, reason, grade.strip()))
    decisions += [Decision(e, "exclude", who, reason) for e in exclude or []]
    decisions += [Decision(e, "judge", who, reason) for e in judge or []]
    if decisions:
        decide_grades(runtime, batch, decisions)
        publish(runtime, batch)
        console.print(f"{len(decisions)} decisions were stored, by {who}.", markup=False)
    _show_queue(runtime, batch)


def release(
    batch: BatchName,
    by: Annotated[str | None, typer.Option("--by", help="Who releases; needed.")] = None,
    note: Annotated[str, typer.Option(help="What else is to be kept with it.")] = "",
    withdraw: Annotated[
        bool, typer.Option("--withdraw", help="Withdraw the release instead. Needs --note.")
    ] = False,
) -> None:
    """Release a batch's grades by name: they are final from now on."""
    from cj_pipeline.outputs.readings.reading_queue import moderation_queue
    from cj_pipeline.people.moderation import release_grades, withdraw_release
    from cj_pipeline.queries.history import read_history
    from cj_pipeline.steps.publish import publish

    runtime = open_runtime()
    if withdraw:
        done = withdraw_release(runtime, batch, by=by or "", note=note)
    else:
        with runtime.store.read() as db:
            queue = [entry.essay_id for entry in moderation_queue(read_history(db, batch))]
        done = release_grades(runtime, batch, by=by or "", note=note, queue=queue)
    publish(runtime, batch)
    console.print(done.release.statement, markup=False, soft_wrap=True)
    if done.is_new and done.looked_at:
        n, of = done.looked_at["n_looked_at"], done.looked_at["n_in_queue"]
        console.print(f"Of {of} essays in the queue, {n} were looked at.", markup=False)


def _sample(
    runtime: Runtime,
    batch_id: str,
    n: int | None,
    sheet: Path | None,
    *,
    stratified: bool,
    by: str,
) -> None:
    from cj_pipeline.people.sample import draw_sample, take_grades, write_sheets

    if sheet is not None:
        done = take_grades(runtime, batch_id, sheet, by=by)
        if done.against is not None:
            console.print(done.against.statement, markup=False, soft_wrap=True)
        console.print(f"Grading {done.revision}: {done.statement}", markup=False, soft_wrap=True)
        return
    drawn = draw_sample(
        runtime, batch_id, n or 0, by=by, method="stratified" if stratified else "random"
    )
    for path in write_sheets(drawn, runtime.published_folder / batch_id):
        console.print(str(path), markup=False, soft_wrap=True)
    console.print(
        f"{len(drawn.essays)} students were drawn. Have the texts graded without looking at their"
        f" grades, fill the workbook in, then: cj moderate {batch_id} --grades FILE.xlsx",
        markup=False,
        soft_wrap=True,
    )


def _grade_late_verdicts(runtime: Runtime, batch_id: str) -> None:
    from cj_pipeline.queries.batch_record import load_batch
    from cj_pipeline.steps.next_step import late_verdicts
    from cj_pipeline.steps.rescore import rescore

    with runtime.store.read() as db:
        is_late = load_batch(db, batch_id).has_ended and late_verdicts(db, batch_id)
    if is_late:
        projected = rescore(runtime, batch_id)
        console.print(
            "Verdicts of people have come since the last grading: graded again, grading"
            f" {projected.revision}.",
            markup=False,
        )


def _show_queue(runtime: Runtime, batch_id: str) -> None:
    from cj_pipeline.outputs.readings.reading_queue import moderation_queue
    from cj_pipeline.queries.history import read_history

    with runtime.store.read() as db:
        history = read_history(db, batch_id)
    queue = moderation_queue(history)
    answer(
        batch_id=batch_id,
        release=history.release.statement or None,
        queue=[entry.as_json() for entry in queue],
    )
    console.print(
        tables.table(
            f"What a person should look at in {batch_id}",
            ("essay", "gain", "grade", "why", "next to", "verdicts to read", "decided"),
            [_row(history, entry) for entry in queue[:MAX_LISTED]],
        )
    )
    if len(queue) > MAX_LISTED:
        console.print(f"{len(queue) - MAX_LISTED} more are not shown.", markup=False)
    if history.release.statement:
        console.print(history.release.statement, markup=False, soft_wrap=True)


def _row(history: BatchHistory, entry: QueueEntry) -> tuple[str, ...]:
    grade = entry.grade or "anchor"
    if entry.given_grade not in {None, entry.grade}:
        grade = f"{entry.given_grade} (by the verdicts: {entry.grade})"
    decided = ""
    if entry.decision is not None:
        decided = f"{entry.decision['kind']} by {entry.decision['decided_by']}"
    return (
        visible(history.label(entry.essay_id)),
        f"{entry.gain:.2f}",
        grade,
        "; ".join(reason.text for reason in entry.reasons),
        ", ".join(f"{visible(history.label(e))} ({known})" for e, known in entry.neighbours),
        "; ".join(entry.verdicts),
        decided,
    )


@reads("cj rejudge 1")
def rejudge(
    batch: BatchName,
    essay: Annotated[
        str | None,
        typer.Argument(
            help="A student's essay; without, all appeals.", autocompletion=completion.essay_names
        ),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why another look is asked for; needed.")] = "",
    by: By = None,
) -> None:
    """Have an essay rejudged by people who had no part in it, for an appeal; or show appeals."""
    from cj_pipeline.people.appeals import appeals
    from cj_pipeline.people.appeals import rejudge as appeal
    from cj_pipeline.queries.essay_names import essay_labels

    runtime = open_runtime()
    if essay is None:
        _grade_late_verdicts(runtime, batch)
        with runtime.store.read() as db:
            found = appeals(db, batch)
            called = essay_labels(db, batch)
        answer(batch_id=batch, appeals=found, made=None)
        console.print(
            tables.table(
                f"Appeals in {batch}",
                ("essay", "asked by", "reason", "outcome"),
                [
                    (called[each.essay_id], each.requested_by, each.reason, each.outcome)
                    for each in found
                ],
            )
        )
        return
    made = appeal(runtime, batch, essay, by=whoever(by), reason=reason)
    answer(batch_id=batch, appeals=[], made=made)
    console.print(
        f"{made.n_pairs} new pairs of {essay} go to people who judged nothing of it before:"
        f" `cj people link {batch} NAME`. What comes of it: `cj rejudge {batch}`.",
        markup=False,
        soft_wrap=True,
    )


@reads("cj oversight 1")
def oversight(
    batch: BatchName,
    file: Annotated[
        Path | None, typer.Argument(help="Where to write; by default the terminal.", dir_okay=False)
    ] = None,
    contact: Annotated[str, typer.Option(help="Who answers questions and complaints.")] = "",
) -> None:
    """Write a batch's human-oversight record: systems, accuracy, people, decisions, release."""
    from cj_pipeline.outputs.artefact import write_atomically
    from cj_pipeline.people.oversight import oversight_record

    with open_runtime().store.read() as db:
        text = oversight_record(db, batch, contact=contact)
    answer(batch_id=batch, record=text)
    if file is None:
        write(text)
        return
    note_export(file, "oversight record", [batch])
    write_atomically(file, text.encode())
    console.print(str(file), markup=False, soft_wrap=True)
