"""`cj people` and `cj verdicts`: who judges in a batch, and verdicts that come from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cj_pipeline.commands.terminal import completion, tables
from cj_pipeline.commands.terminal.answers import answer, reads
from cj_pipeline.commands.terminal.arguments import BatchName
from cj_pipeline.commands.terminal.console import confirm, console, write
from cj_pipeline.commands.terminal.home import note_export, open_runtime, open_store

if TYPE_CHECKING:
    from cj_pipeline.diagnostics.human_agreement import Validity

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
        write(csv_of(rows))
        return
    note_export(file, "verdicts", [batch])
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


@reads("cj verdicts list 1")
def list_(batch: BatchName) -> None:
    """Show a batch's imports that count."""
    from cj_pipeline.people.exchange import imports

    with open_runtime().store.read() as db:
        rows = imports(db, batch)
    answer(
        batch_id=batch,
        imports=[
            {name: r[name] for name in ("import_name", "n_verdicts", "stored_at")} for r in rows
        ],
    )
    console.print(
        tables.table(
            f"Imports of {batch}",
            ("name", "verdicts", "imported"),
            [(r["import_name"], r["n_verdicts"], f"{r['stored_at']:%Y-%m-%d %H:%M}") for r in rows],
        )
    )


def link(
    batch: BatchName,
    persons: Annotated[list[str], typer.Argument(help="Names of the persons, for you alone.")],
    *,
    url: Annotated[
        str, typer.Option(help="Where people reach `cj serve`.")
    ] = "http://127.0.0.1:8421",
    days: Annotated[float, typer.Option(help="For how many days a link is good.")] = 14,
    quota: Annotated[
        int | None,
        typer.Option(min=1, help="Verdicts expected of each; by default as many as there are."),
    ] = None,
    by: By = None,
) -> None:
    """Make a personal link to the judging page for each person; it is shown only now."""
    from cj_pipeline.people.links import make_links

    made = make_links(open_runtime(), batch, persons, by=whoever(by), days=days, quota=quota)
    for each in made:
        write(f"{each.person}\t{each.url(url)}\n")
    console.print(
        f"Good until {made[0].expires_at:%Y-%m-%d %H:%M} UTC. Send each to one person alone.",
        markup=False,
    )


def revoke(
    batch: BatchName,
    person: Annotated[str, typer.Argument(help="Whose links are revoked.")],
    reason: Annotated[str, typer.Option(help="Why; it is stored.")] = "revoked",
    by: By = None,
) -> None:
    """Revoke a person's links at once; what was judged by them stays."""
    from cj_pipeline.people.links import revoke_links

    n = revoke_links(open_runtime(), batch, person, by=whoever(by), reason=reason)
    console.print(f"{n} links of {person} are revoked.", markup=False)


def export(
    person: Annotated[str, typer.Argument(help="The name, as `cj people show` gives it.")],
    file: Annotated[Path, typer.Argument(help="The JSON file to write.", dir_okay=False)],
) -> None:
    """Write all that is kept on a person who judged, graded or decided, for when they ask."""
    import json

    from cj_pipeline.operations.personal_data.access import record_of_person
    from cj_pipeline.outputs.artefact import write_atomically

    with open_store().read() as db:
        record = record_of_person(db, person)
    batches = {row["batch_id"] for rows in record.values() for row in rows}
    note_export(file, "record of who judged", sorted(batches))
    text = json.dumps(record, ensure_ascii=False, indent=2, default=str)
    write_atomically(file, text.encode())
    n_rows = sum(map(len, record.values()))
    console.print(f"{n_rows} rows: {file}", markup=False, soft_wrap=True)


def forget(
    person: Annotated[str, typer.Argument(help="The name, as `cj people show` gives it.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Replace the name of a person who judged, graded or decided, in every batch, for good."""
    from datetime import UTC, datetime

    from cj_pipeline.commands.store import forget_beyond, tell_what_left
    from cj_pipeline.operations.personal_data.erase import forget_person
    from cj_pipeline.store.file_store import own_file

    if not yes:
        confirm(f"Replace the name {person} in every batch for good?")
    store = own_file(open_store())
    for done in forget_person(store, person, now=datetime.now(UTC), beyond=forget_beyond):
        text = (
            f"batch {done.batch_id}: {done.n_rows} rows bear the name {done.essay_alias} now;"
            " exports were removed, `cj report` rewrites them."
        )
        console.print(text, markup=False, soft_wrap=True)
        tell_what_left(done)


@reads("cj people show 1")
def show(batch: BatchName) -> None:
    """Show how far a batch's people are, and who may need a word; for you alone."""
    from cj_pipeline.people.statistics import person_statistics
    from cj_pipeline.queries.batch_record import load_batch
    from cj_pipeline.queries.people import people_progress

    with open_runtime().store.read() as db:
        record = load_batch(db, batch)
        progress = people_progress(db, record)
        rows = person_statistics(db, record)
    answer(batch_id=batch, people=rows, progress=progress, minutes_left=progress.minutes_left)
    console.print(
        tables.table(
            f"People of {batch}",
            (
                "person",
                "verdicts",
                "skips",
                "median s",
                "first won",
                "repeats alike",
                "infit",
                "usual for these pairs",
                "remarks",
            ),
            [row.cells for row in rows],
        )
    )
    measured = "measured" if progress.is_measured else "planned"
    console.print(
        f"{progress.n_done} of {progress.n_tasks} pairs are judged; {progress.n_left} are left,"
        f" about {progress.minutes_left:.0f} minutes ({progress.seconds_per_verdict:.0f} s a"
        f" verdict, {measured}); {progress.seconds_used / 60:.0f} minutes were used.",
        markup=False,
        soft_wrap=True,
    )


@reads("cj people agreement 1")
def agreement(
    batches: Annotated[
        list[str],
        typer.Argument(help="Batches; they are pooled.", autocompletion=completion.batch_names),
    ],
) -> None:
    """Show how people agree with each model and each other, and where they differ most."""
    from cj_pipeline.diagnostics.human_agreement import Validity
    from cj_pipeline.queries.batch_record import load_batch
    from cj_pipeline.queries.human_agreement import human_agreement
    from cj_pipeline.queries.joint_scale import pooled, validity_of

    with open_runtime().store.read() as db:
        for batch in batches:
            load_batch(db, batch)
        found, differing = human_agreement(db, batches)
        models = [
            (batch, model) for batch in batches for model in validity_of(db, load_batch(db, batch))
        ]
        validities = [
            (
                batch,
                model.judge,
                Validity(j.validity, j.validity_lower, j.validity_upper, j.n_people),
            )
            for batch, model in models
            for j in (model.joint,)
        ]
        validities += [("all", *each) for each in pooled([model for _, model in models])]
        checks = [(batch, model.judge, each) for batch, model in models for each in model.checks]
    answer(
        agreement=found,
        validity=[
            {
                "batch_id": batch,
                "judge": judge,
                "n_people": valid.n_people,
                "validity": valid.value,
                "lower": valid.lower,
                "upper": valid.upper,
            }
            for batch, judge, valid in validities
        ],
        checks=[
            {
                "batch_id": batch,
                "judge": judge,
                "people_name": each.of,
                "n": each.powered.n,
                "share": each.powered.value,
                "lower": each.powered.lower,
                "upper": each.powered.upper,
                "by_model": each.powered.predicted,
                "by_joint_model": each.joint,
                "is_at_odds": each.is_at_odds,
            }
            for batch, judge, each in checks
        ],
        differing=differing,
    )
    console.print(_agreement_table(found))
    if validities:
        console.print(_validity_table(validities))
    if checks:
        console.print(_checks_table(checks))
    console.print(
        tables.table(
            "Where they differ most",
            ("batch", "people said", "the model said", "judge", "apart on the scale"),
            [
                (d.batch_id, d.by_people, d.by_model, d.judge, f"{d.apart:+.2f}")
                for d in differing[:20]
            ],
        )
    )


def _agreement_table(found: Sequence[Any]) -> Any:
    """Return how often people agreed with each model and each other, as a table."""
    rows = [
        (
            each.judge,
            kind,
            share.n,
            f"{share.share:.0%}" if share.n else "-",
            f"{share.lower:.0%} to {share.upper:.0%}",
            "-" if share.kappa is None else f"{share.kappa:.2f}",
        )
        for each in found
        for kind, share in (("drawn at random", each.drawn), ("all", each.all_pairs))
    ]
    columns = ("people with", "pairs", "n", "agree", "95 % interval", "kappa")
    return tables.table("Agreement", columns, rows)


def _validity_table(validities: Sequence[tuple[str, str, Validity]]) -> Any:
    """Return validity by batch and judge, as a table."""
    return tables.table(
        "Validity: share of people's scale that the model's explains",
        ("batch", "judge", "people's verdicts", "expected", "95 % interval"),
        [
            (batch, judge, v.n_people, f"{v.value:.2f}", f"{v.lower:.2f} to {v.upper:.2f}")
            for batch, judge, v in validities
        ],
    )


def _checks_table(checks: Sequence[tuple[str, str, Any]]) -> Any:
    """Return what people named of the models' pairs beside what was expected, as a table."""
    return tables.table(
        "Check: of the model's pairs, people name",
        ("batch", "judge", "whom", "pairs", "share", "95 % interval", "model", "both"),
        [
            (
                batch,
                judge,
                each.of,
                each.powered.n,
                f"{each.powered.value:.0%}",
                f"{each.powered.lower:.0%} to {each.powered.upper:.0%}",
                f"{each.powered.predicted:.0%}",
                f"{each.joint:.0%}{' (at odds)' if each.is_at_odds else ''}",
            )
            for batch, judge, each in checks
        ],
    )
