"""`cj pages` and `cj feedback`: what students get, and what a teacher makes of it before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cj_pipeline.commands.people import By, whoever
from cj_pipeline.commands.terminal import completion
from cj_pipeline.commands.terminal.answers import answer, reads
from cj_pipeline.commands.terminal.arguments import BatchName
from cj_pipeline.commands.terminal.console import console
from cj_pipeline.commands.terminal.home import note_export, open_runtime, published


def pages(
    batch: BatchName,
    folder: Annotated[Path, typer.Argument(help="Where to write.", file_okay=False)],
    essay: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this essay's page; may be repeated.", autocompletion=completion.essay_names
        ),
    ] = None,
    pdf: Annotated[bool, typer.Option(help="Also as PDF.")] = True,
) -> None:
    """Write each student's own page: grade, how sure it is, feedback, how to appeal.

    Refused while grades wait for their release.
    """
    from cj_pipeline.outputs.artefact import write_atomically
    from cj_pipeline.outputs.students.student_page import (
        render_student_page,
        student_ids,
        student_page,
    )
    from cj_pipeline.outputs.students.student_pdf import lacking_letters, student_pdf
    from cj_pipeline.queries.history import read_history

    with published() as db:
        history = read_history(db, batch)
    chosen = [history.essay_meant(each) for each in essay] if essay else student_ids(history)
    made = {essay_id: student_page(history, essay_id) for essay_id in chosen}
    note_export(folder, "pages", [batch])
    folder.mkdir(parents=True, exist_ok=True)
    lacking = {}
    for essay_id, page in made.items():
        write_atomically(folder / f"{essay_id}.html", render_student_page(page).encode())
        if pdf:
            write_atomically(folder / f"{essay_id}.pdf", student_pdf(page))
            lacking[essay_id] = lacking_letters(page)
    for essay_id in filter(lacking.get, lacking):
        told = f"{essay_id}.pdf lacks the letters {lacking[essay_id][:20]}: print {essay_id}.html"
        console.print(f"Note: {told}", markup=False, soft_wrap=True)
    console.print(f"{len(made)} pages: {folder}", markup=False, soft_wrap=True)


@reads("cj feedback 1")
def feedback(
    batch: BatchName,
    essay: Annotated[
        str | None,
        typer.Argument(
            help="A student's essay; without it, the class.", autocompletion=completion.essay_names
        ),
    ] = None,
    edit: Annotated[
        Path | None,
        typer.Option(help="Store this text in place of the draft.", exists=True, dir_okay=False),
    ] = None,
    by: By = None,
) -> None:
    """Show what judges said of a student's text or the class, or store it as you edited it.

    Each line ends with the comparison it comes from, as [12], or with [teacher].
    """
    from cj_pipeline.outputs.students.student_page import class_feedback_draft, feedback_draft
    from cj_pipeline.people.feedback_edits import edit_feedback
    from cj_pipeline.queries.history import read_history

    runtime = open_runtime()
    with runtime.store.read() as db:
        history = read_history(db, batch)
    essay_id = history.essay_meant(essay) if essay is not None else None
    if edit is not None:
        text = edit.read_text(encoding="utf-8").strip()
        history = edit_feedback(runtime, batch, essay_id, text, by=whoever(by))
        runtime.store.publish()
    draft = class_feedback_draft(history) if essay_id is None else feedback_draft(history, essay_id)
    edited = history.edited_feedback(essay_id or "")
    shown = edited or draft
    answer(batch_id=batch, essay_id=essay_id, text=shown, is_edited=bool(edited))
    console.print(shown, markup=False, soft_wrap=True, highlight=False)
