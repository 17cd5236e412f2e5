"""`cj verify`, `essay`, `compare` and `export`: what leaves a batch, from a terminal."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cj_pipeline.commands.terminal import completion, tables
from cj_pipeline.commands.terminal.answers import answer, plain, reads
from cj_pipeline.commands.terminal.arguments import BatchName
from cj_pipeline.commands.terminal.console import console, errors, write, write_json
from cj_pipeline.commands.terminal.home import home_folder, note_export, published
from cj_pipeline.text import find_hidden, visible

if TYPE_CHECKING:
    import duckdb
    from duckdb import DuckDBPyRelation

    from cj_pipeline.outputs.feedback import EssayFeedback
    from cj_pipeline.outputs.side_by_side import Changes
    from cj_pipeline.queries.history import BatchHistory

_MAX_CHANGES = 20
_LOOK_S = 1.0
"""How long a query of the copy waits for the store, to tell what is under way."""


@reads("cj verify 1")
def verify(
    artefact: Annotated[Path, typer.Argument(help="An assessment_run.*.json.")],
    inputs: Annotated[
        Path | None,
        typer.Option(help="The batch folder, to check the inputs too.", file_okay=False),
    ] = None,
    alone: Annotated[
        bool, typer.Option("--alone", help="Do not compare with the store in CJ_HOME.")
    ] = False,
    key: Annotated[
        str | None,
        typer.Option(help="The public key that must have signed it, as the report prints it."),
    ] = None,
    earlier: Annotated[
        list[Path] | None,
        typer.Option(
            help="The artefact of a batch it is linked to; may be repeated.", dir_okay=False
        ),
    ] = None,
) -> None:
    """Hold an artefact against its verdicts, callbacks, store and signature; show what differs."""
    from cj_pipeline.outputs.verification import verify as verify_file
    from cj_pipeline.storage.signing import read_public_key, trusted_keys

    with nullcontext() if alone else published() as db:
        found = verify_file(
            artefact,
            db=db,
            batch_folder=inputs,
            key=read_public_key(key) if key else None,
            own_keys=trusted_keys(home_folder()),
            earlier=earlier or (),
        )
    answer(differences=found.differences, notes=found.notes, not_checked=found.not_checked)
    for line in (*found.notes, *found.differences):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if found.not_checked:
        console.print(
            f"Not checked, for nothing at hand vouches for it: {', '.join(found.not_checked)}.",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    if found.differences:
        raise typer.Exit(1)
    console.print("Nothing differs.")


@reads("cj essay 1")
def essay(
    batch: BatchName,
    essay_id: Annotated[
        str, typer.Argument(help="One of its essays.", autocompletion=completion.essay_names)
    ],
    than: Annotated[
        str | None,
        typer.Option(
            help="Also: how probably it is truly better than this one.",
            autocompletion=completion.essay_names,
        ),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(help="With --than, also write both side by side here.", dir_okay=False),
    ] = None,
) -> None:
    """Show one essay's score and grade, which comparisons it won and lost, and why."""
    from cj_pipeline.outputs.feedback import essay_feedback

    if page is not None and than is None:
        msg = "it takes --than, which names the other essay"
        raise typer.BadParameter(msg, param_hint="--page")
    (history,) = _histories([batch])
    essay_id = history.essay_meant(essay_id)
    feedback = essay_feedback(history, essay_id)
    projection = history.projection_by_id.get(essay_id)
    answer(
        batch_id=batch,
        called=history.label(essay_id),
        essay=feedback,
        probabilities=None if projection is None else projection["probabilities"],
    )
    if than is not None:
        _show_odds(history, essay_id, history.essay_meant(than), page)
    if (hidden := find_hidden(history.essay_by_id[essay_id]["text"] or "")) is not None:
        console.print(f"The text {hidden.describe()}; judges read them.", markup=False)
    console.print(
        tables.table(visible(history.label(essay_id)), ("what", "value"), _feedback_rows(feedback)),
        tables.table(
            "Verdicts",
            ("against", "outcome", "shown as", "confidence", "the judge's reason", "why this pair"),
            [
                (
                    visible(history.label(v.against)),
                    v.outcome,
                    v.shown_as,
                    v.confidence,
                    v.justification,
                    v.why,
                )
                for v in feedback.verdicts
            ],
        ),
    )


@reads("cj compare 1")
def compare(
    batches: Annotated[
        list[str],
        typer.Argument(
            help="Batches; the first is compared with.", autocompletion=completion.batch_names
        ),
    ],
    page: Annotated[
        Path | None, typer.Option(help="Also write a page here.", dir_okay=False)
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Show every shared essay, however little it changed.")
    ] = False,
) -> None:
    """Show batches side by side, and what changed beyond noise on essays they share."""
    from cj_pipeline.outputs.artefact import write_atomically
    from cj_pipeline.outputs.side_by_side import (
        batch_figures,
        changes,
        figure_rows,
        render_side_by_side,
    )

    histories = _histories(batches)
    figures = [batch_figures(history) for history in histories]
    differences = [changes(histories[0], other) for other in histories[1:]]
    answer(batches=figures, changes=differences)
    rows = figure_rows(figures)
    console.print(
        tables.table(
            "Side by side", ("figure", *batches), [(name, *values) for name, values in rows]
        )
    )
    for found in differences:
        _show_changes(found, histories[0], everything=everything)
    if page is not None:
        note_export(page, "comparison", batches)
        write_atomically(page, render_side_by_side(histories).encode())
        console.print(f"Page: {page}", markup=False, soft_wrap=True)


def export(
    batch: BatchName,
    folder: Annotated[Path, typer.Argument(help="Where to write.", file_okay=False)],
    person: Annotated[
        str | None,
        typer.Option(
            help="Instead: everything kept on this essay, as one JSON file.",
            autocompletion=completion.essay_names,
        ),
    ] = None,
    provisional: Annotated[
        bool, typer.Option("--provisional", help="Also where the grades are not released yet.")
    ] = False,
) -> None:
    """Write a batch's data frames as Parquet files, or all that is kept on one person."""
    from cj_pipeline.queries.frames import FRAME_NAMES, export_parquet
    from cj_pipeline.queries.release import require_final

    if person is not None:
        _export_person(batch, person, folder)
        return
    if not provisional:
        with published() as db:
            require_final(db, batch, what="An export without --provisional")
    for name in FRAME_NAMES:
        note_export(folder / f"{name}.parquet", "data frame", [batch])
    for path in export_parquet(batch, folder, home=home_folder()):
        console.print(str(path), markup=False, soft_wrap=True)


def _export_person(batch: str, essay_id: str, folder: Path) -> None:
    """Answer whoever asks what is kept on them."""
    import json

    from cj_pipeline.outputs.artefact import write_atomically
    from cj_pipeline.outputs.person import person_record
    from cj_pipeline.queries.essay_names import essay_named
    from cj_pipeline.queries.same_texts import essays_with_the_text
    from cj_pipeline.store.maintenance import archive_of

    with published() as db:
        essay_id = essay_named(db, batch, essay_id)
        record = person_record(db, batch, essay_id, archive=archive_of(home_folder(), batch))
        same = essays_with_the_text(db, batch, essay_id)
    note_export(folder, "person's record", [batch], essay_id=essay_id)
    path = folder / f"{essay_id}.json"
    text = json.dumps(record, ensure_ascii=False, indent=2, default=str)
    write_atomically(path, text.encode())
    console.print(str(path), markup=False, soft_wrap=True)
    for other in same:
        console.print(
            f"The same text is in batch {other['batch_id']}, as essay {other['essay_id']}.",
            markup=False,
            soft_wrap=True,
        )


def _histories(batches: list[str]) -> list[BatchHistory]:
    from cj_pipeline.queries.history import read_history

    with published() as db:
        return [read_history(db, batch) for batch in batches]


def _show_odds(history: BatchHistory, one: str, other: str, page: Path | None) -> None:
    from cj_pipeline.outputs.artefact import write_atomically
    from cj_pipeline.outputs.essay_pair import essay_pair, render_essay_pair

    pair = essay_pair(history, one, other)
    p = pair.probability_above
    answer(than={"essay_id": other, "probability_above": p})
    console.print(
        f"{visible(history.label(one))} is truly better than {visible(history.label(other))} with"
        f" a probability of {p:.0%}.",
        markup=False,
        soft_wrap=True,
    )
    if page is not None:
        note_export(page, "comparison", [history.batch_id])
        write_atomically(page, render_essay_pair(history, pair).encode())
        console.print(f"Page: {page}", markup=False, soft_wrap=True)


def _feedback_rows(feedback: EssayFeedback) -> list[tuple[str, str]]:
    rows = [
        (
            "score",
            f"{feedback.score:+.2f} (95 % between {feedback.lower:+.2f} and {feedback.upper:+.2f})",
        ),
        *(
            [("scaled score", "{:.1f} ± {:.1f}".format(*feedback.scaled))]
            if feedback.scaled is not None
            else []
        ),
        ("verdict-only score", f"{feedback.verdict_score:+.2f}"),
        ("rank", f"{feedback.rank} of {feedback.n_essays}"),
    ]
    if feedback.rank_between is not None:
        rows.append(("true rank, 95 %", "{} to {}".format(*feedback.rank_between)))
    if feedback.known_grade is not None:
        rows.append(("known grade", feedback.known_grade))
    elif feedback.grade is not None:
        rows.append(("grade", feedback.grade))
    if feedback.likely:
        whose = (
            "probable grades by the other anchors" if feedback.known_grade else "probable grades"
        )
        rows.append((whose, ", ".join(feedback.likely)))
    if feedback.among_anchors:
        rows.append(("stands", feedback.among_anchors))
    return rows


def _show_changes(found: Changes, before: BatchHistory, *, everything: bool) -> None:
    from cj_pipeline.diagnostics.changes import MIN_SHARED

    if not found.essays:
        console.print(
            f"{found.before} and {found.after} share fewer than {MIN_SHARED} essays with a score,"
            " so their scores cannot be compared."
        )
        return
    console.print(
        tables.table(
            f"From {found.before} to {found.after}, largest change first",
            ("essay", "before", "after", "change", "± SE", "beyond noise", "grades"),
            [
                (
                    visible(before.label(each.essay_id)),
                    f"{each.before:+.2f}",
                    f"{each.after:+.2f}",
                    f"{each.change:+.2f}",
                    f"{each.standard_error:.2f}",
                    "yes" if each.is_beyond_noise else "no",
                    f"{each.grade_before or '-'} -> {each.grade_after or '-'}",
                )
                for each in (found.essays if everything else found.essays[:_MAX_CHANGES])
            ],
        )
    )
    if (n_left_out := len(found.essays) - _MAX_CHANGES) > 0 and not everything:
        console.print(f"{n_left_out} more are left out, which changed less: --all shows them.")
    console.print(
        f"{found.n_beyond_noise} of {len(found.essays)} shared essays changed beyond noise; one"
        f" essay's change would have been seen from about {found.seen_from:.1f} logits on.",
        soft_wrap=True,
    )


SQL_SHAPE = "cj sql 1"
"""The name and version of what `cj sql --json` prints; a change that breaks a reader counts up."""


def sql(
    query: Annotated[str, typer.Argument(help="A query over the published copy.")],
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV, as into a pipe or a file.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object with columns and rows.")
    ] = False,
    parquet: Annotated[
        Path | None, typer.Option(help="Write a Parquet file here instead.", dir_okay=False)
    ] = None,
) -> None:
    """Run a query over the published, read-only copy of the store, or over a server's tables.

    At a terminal it shows a table; into a pipe or a file it writes CSV with every column. On a
    server it changes nothing there, and reaches no file of its machine. Batches under way that the
    copy does not show yet are told beside the answer.
    """
    import duckdb

    from cj_pipeline import open_published
    from cj_pipeline.errors import StoreError

    if as_csv + as_json + (parquet is not None) > 1:
        msg = "--csv, --json and --parquet are three ways to get one result: give one of them."
        raise typer.BadParameter(msg)
    try:
        opened = open_published()
    except StoreError as error:
        if under_way := _under_way(frozenset()):
            msg = "\n".join(["Nothing is published yet.", *under_way])
            raise StoreError(msg) from error
        raise
    with opened as connection:
        for line in _under_way(_scored(connection)):
            errors.print(line, markup=False, highlight=False, soft_wrap=True)
        try:
            result = connection.sql(query)
            if result is None:
                return
            if parquet is not None:
                _write_parquet(result, parquet)
                return
            columns, rows = result.columns, result.fetchall()
        except duckdb.Error as error:
            errors.print(tables.problems(str(error)))
            raise typer.Exit(1) from error
    if as_json:
        write_json(_as_json(columns, rows))
    elif as_csv or not console.is_terminal:
        write(_as_csv(columns, rows))
    else:
        console.print(tables.table("", columns, rows))


def _write_parquet(result: DuckDBPyRelation, path: Path) -> None:
    import io

    import pyarrow.parquet

    from cj_pipeline.outputs.artefact import write_atomically
    from cj_pipeline.outputs.exported import ANY_BATCH

    note_export(path, "query", [ANY_BATCH])
    content = io.BytesIO()
    pyarrow.parquet.write_table(result.to_arrow_table(), content)
    write_atomically(path, content.getvalue())
    console.print(str(path), markup=False, soft_wrap=True)


def _as_json(columns: list[str], rows: list[tuple[object, ...]]) -> dict[str, object]:
    if len(set(columns)) < len(columns):
        msg = f"Two columns have one name ({', '.join(columns)}): name them apart with AS."
        raise typer.BadParameter(msg)
    named = [dict(zip(columns, map(plain, row), strict=True)) for row in rows]
    return {"shape": SQL_SHAPE, "columns": columns, "rows": named}


def _as_csv(columns: list[str], rows: list[tuple[object, ...]]) -> str:
    from cj_pipeline.outputs.csv_files import csv_text

    return csv_text(columns, rows, line_end="\n")


def _scored(connection: duckdb.DuckDBPyConnection) -> frozenset[str]:
    """Return the batches of which the copy shows a wave with its scores."""
    rows = connection.execute("SELECT DISTINCT batch_id FROM essay_scores").fetchall()
    return frozenset(row[0] for row in rows)


def _under_way(shown: frozenset[str]) -> list[str]:
    """Return one line for each running batch that is before its first scores.

    Nobody who queries the copy has to wait for the store itself: where it is held, or cannot be
    read, nothing is said of it.
    """
    from cj_pipeline.commands.terminal.home import open_store
    from cj_pipeline.errors import CJError
    from cj_pipeline.queries.overview import running_batches

    if not home_folder().is_dir():
        return []
    try:
        with open_store().waiting(_LOOK_S).read() as db:
            rows = [row for row in running_batches(db) if row["batch_id"] not in shown]
    except (CJError, OSError):
        return []
    return [
        f"Under way: '{row['batch_id']}', wave {row['wave']}: {row['n_ended']} of"
        f" {row['n_asked']} comparisons requested have ended; scores are published after the wave."
        f" `cj watch {row['batch_id']}` shows it."
        for row in rows
    ]
