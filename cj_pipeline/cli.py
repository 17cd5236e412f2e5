"""`cj`: the same steps as the Dagster assets, from a terminal and without a daemon."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, ParamSpec, TypeVar

import typer
from rich.console import Console

from cj_pipeline import terminal
from cj_pipeline.commands.cost import add_cost_commands
from cj_pipeline.commands.judge_comparison import add_judge_comparison_command
from cj_pipeline.commands.judges import judge_commands
from cj_pipeline.commands.ledger import add_ledger_commands
from cj_pipeline.commands.link import add_link_command
from cj_pipeline.commands.operations import add_operations_commands
from cj_pipeline.commands.outputs import add_output_commands
from cj_pipeline.commands.profiles import (
    ProfileName,
    ProfileSet,
    profile_commands,
    profile_table,
    read_fields,
)
from cj_pipeline.commands.queue import add_queue_command
from cj_pipeline.commands.service import add_service_commands
from cj_pipeline.commands.store import add_store_commands
from cj_pipeline.commands.trials import trial_commands
from cj_pipeline.commands.watch import add_watch_commands
from cj_pipeline.errors import CJError

if TYPE_CHECKING:
    from cj_pipeline.steps.engine import Engine

P = ParamSpec("P")
T = TypeVar("T")

app = typer.Typer(
    name="cj",
    help="Comparative judgement of essays by LLM judges.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
# Into a file or a pipe nothing is cut to the width of a terminal that is not there.
console = Console(width=None if sys.stdout.isatty() else 120)
errors = Console(stderr=True)

EXAMPLES = Path(__file__).parents[1] / "examples"
"""Beside the package in a checkout; an installed package has no demo."""

BatchDir = Annotated[
    Path, typer.Argument(help="A batch folder.", exists=True, file_okay=False, resolve_path=True)
]
BatchName = Annotated[str, typer.Argument(help="A batch's name, as `cj status` lists it.")]
MaxComparisons = Annotated[
    int | None,
    typer.Option("--max-comparisons", min=1, help="A cap on comparisons, never an obligation."),
]
LogFile = Annotated[
    Path | None,
    typer.Option(
        help="Add a JSON line here for everything that happens; see docs/operations.md.",
        dir_okay=False,
    ),
]
Seed = Annotated[int | None, typer.Option(help="Seed for pairs and positions.")]


def told_plainly(command: Callable[P, T]) -> Callable[P, T]:
    """Show a known error as a message instead of a traceback."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except CJError as error:
            errors.print(terminal.problems(str(error)))
            raise typer.Exit(1) from error

    return run


app.add_typer(judge_commands(told_plainly, console), name="judge")
app.add_typer(profile_commands(told_plainly, console), name="profile")
app.add_typer(trial_commands(told_plainly, console), name="trial")
add_queue_command(app, told_plainly, console)
add_judge_comparison_command(app, told_plainly, console)
add_output_commands(app, told_plainly, console)
add_store_commands(app, told_plainly, console)
add_cost_commands(app, told_plainly, console)


def open_engine() -> Engine:
    """Return the engine over `CJ_HOME`, the only place the environment is read."""
    from cj_pipeline.logs import configure_logs
    from resources.engine import open_engine as open_from_environment

    configure_logs(level=os.environ.get("CJ_LOG_LEVEL", "WARNING"))
    return open_from_environment(os.environ)


def _logs(to: Path | None) -> AbstractContextManager[None]:
    """Return the block in which everything is told to a file, or, without one, what is grave."""
    from cj_pipeline.logs import configure_logs, logs_in_file

    configure_logs(level=os.environ.get("CJ_LOG_LEVEL", "WARNING"))
    return logs_in_file(to)


add_watch_commands(app, told_plainly, console, open_engine)
add_operations_commands(app, told_plainly, console, open_engine)
add_link_command(app, told_plainly, console, open_engine)
add_service_commands(app, told_plainly, console, open_engine)
add_ledger_commands(app, told_plainly, console, open_engine)


def explicit_settings(
    max_comparisons: int | None,
    seed: int | None,
    profile: str | None = None,
    fields: list[str] | None = None,
) -> dict[str, Any]:
    """Return what was set by hand, and only that."""
    given = {
        "max_pairwise_comparisons": max_comparisons,
        "seed": seed,
        "profile": profile,
        "profile_set": read_fields(fields) or None,
    }
    return {key: value for key, value in given.items() if value is not None}


@app.command()
@told_plainly
def plan(
    batch_dir: BatchDir,
    *,
    max_comparisons: MaxComparisons = None,
    seed: Seed = None,
    profile: ProfileName = None,
    profile_set: ProfileSet = None,
    pilot: Annotated[
        int, typer.Option(min=0, help="Live calls per judge, to calibrate tokens and USD.")
    ] = 0,
    artefact: Annotated[
        Path | None,
        typer.Option(help="Also write assessment_run.plan.json to this folder.", file_okay=False),
    ] = None,
    log_file: LogFile = None,
) -> None:
    """Show what a batch would ask and cost; nothing is stored, and only a pilot sends anything."""
    from cj_pipeline.steps.preview import preview_batch
    from cj_pipeline.steps.runner import told_preview
    from cj_pipeline.store import default_home

    explicit = explicit_settings(max_comparisons, seed, profile, profile_set)
    with _logs(log_file), told_preview(batch_dir, "plan") as is_read:
        preview = preview_batch(batch_dir, explicit, os.environ, default_home(os.environ))
        is_read(preview)
        console.print(
            terminal.table("Plan for " + preview.batch_id, ("what", "value"), preview.facts()),
            *terminal.cost_tables(preview.costs(), preview.record.settings.batching_mode),
        )
        if pilot:
            console.print(terminal.pilot_table(preview.pilot(pilot)))
        if artefact is not None:
            _write_preview_artefact(batch_dir, artefact, "plan", explicit, [])


@app.command()
@told_plainly
def explain(batch_dir: BatchDir) -> None:
    """Show every setting of a batch folder and where its value came from."""
    from cj_pipeline.ingestion import read_batch
    from cj_pipeline.steps.live_profile import profile_of_batch
    from cj_pipeline.store import default_home

    batch = read_batch(batch_dir)
    settings = batch.settings
    profile = profile_of_batch(batch, default_home(os.environ))
    console.print(
        terminal.table(
            "Settings",
            ("setting", "value", "from"),
            [
                (key, value, settings.origins[key])
                for key, value in settings.values.model_dump(mode="json").items()
            ],
        ),
        profile_table(profile),
    )


@app.command("dry-run")
@told_plainly
def dry_run(
    batch_dir: BatchDir,
    *,
    max_comparisons: MaxComparisons = None,
    seed: Seed = None,
    log_file: LogFile = None,
) -> None:
    """Build the first wave's requests exactly as they would be sent, and send none."""
    from cj_pipeline.steps.preview import preview_batch
    from cj_pipeline.steps.runner import told_preview
    from cj_pipeline.store import default_home

    home = default_home(os.environ)
    explicit = explicit_settings(max_comparisons, seed)
    with _logs(log_file), told_preview(batch_dir, "dry-run") as is_read:
        preview = preview_batch(batch_dir, explicit, os.environ, home)
        is_read(preview)
        folder = home / "dry-runs" / preview.batch_id
        written = preview.write_requests(folder)
        console.print(
            terminal.table(
                "First wave of " + preview.batch_id,
                ("file", "requests", "bytes"),
                [(str(file.path), file.n_requests, file.n_bytes) for file in written],
            )
        )
        _write_preview_artefact(
            batch_dir, folder, "dry-run", explicit, [file.path for file in written]
        )
    console.print("Nothing was sent.")


@app.command()
@told_plainly
def execute(
    batch_dir: BatchDir,
    *,
    max_comparisons: MaxComparisons = None,
    seed: Seed = None,
    profile: ProfileName = None,
    profile_set: ProfileSet = None,
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
    again: Annotated[
        bool,
        typer.Option(
            "--again", help="Judge and pay for files once more that another batch holds already."
        ),
    ] = False,
    log_file: LogFile = None,
) -> None:
    """Take a batch in and ask its first wave; with --await-completion, take it to its end.

    First comes what `cj preflight` looks at, unless the batch is in the store already. Exit codes:
    0 done, 1 not in order, 2 ended badly or failed its checks, 3 partial.
    """
    from cj_pipeline.logs import logs_in_file
    from cj_pipeline.steps.runner import ask_first_wave, run_to_end, take_in

    engine = open_engine()
    with logs_in_file(log_file):
        explicit = explicit_settings(max_comparisons, seed, profile, profile_set)
        taken_in = take_in(engine, batch_dir, explicit=explicit, may_repeat=again)
        if not await_completion:
            n_requests, n_jobs = ask_first_wave(engine, taken_in.batch_id)
            console.print(
                f"{taken_in.batch_id}: {n_requests} comparisons asked in {n_jobs} provider "
                f"jobs. `cj execute {batch_dir} --await-completion` or the sensors take it on."
            )
            return
        with terminal.progress_bar(console) as bar:
            task = bar.add_task(taken_in.batch_id, total=None)
            waits: set[str] = set()
            result = run_to_end(
                engine,
                taken_in.batch_id,
                timeout_s=completion_timeout,
                on_step=lambda done: bar.update(
                    task, total=done.completion_denominator, completed=done.ended
                ),
                on_wait=lambda words: _tell_once(bar.console, words, waits),
            )
        if result.timed_out:
            told = (
                f"Batch '{taken_in.batch_id}' is not at its end after {completion_timeout:g} s; "
                "nothing is lost. Its artefact so far says that it is partial. Run the same "
                "command again."
            )
            errors.print(terminal.problems(told))
            raise typer.Exit(3)
        _show_outcome(engine, taken_in.batch_id)


@app.command()
@told_plainly
def status(
    batch: Annotated[str | None, typer.Argument(help="One batch; all if left out.")] = None,
) -> None:
    """Show how batches stand."""
    from cj_pipeline.steps.overview import batch_overview

    engine = open_engine()
    with engine.store.read() as db:
        rows = batch_overview(db, batch)
    console.print(terminal.statuses(rows))
    for row in rows:
        for problem in row["problems"]:
            console.print(f"{row['batch_id']}: {problem}", markup=False)


@app.command()
@told_plainly
def report(batch: BatchName) -> None:
    """Write a batch's report anew and say where it is."""
    from cj_pipeline.steps import publish_report

    engine = open_engine()
    written = publish_report(engine, batch)
    _show_outcome(engine, batch)
    console.print(f"Report: {written.path}", markup=False, soft_wrap=True)


@app.command()
@told_plainly
def regrade(
    batch: BatchName,
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
) -> None:
    """Grade an ended batch anew; nothing is asked or paid, and earlier gradings are kept."""
    from cj_pipeline.steps import publish
    from cj_pipeline.steps import regrade as grade_again

    pairs = [given.partition("=") for given in anchor_grade or []]
    engine = open_engine()
    projected = grade_again(
        engine,
        batch,
        scale=scale,
        own_scale=scale_file.read_bytes() if scale_file is not None else None,
        anchor_grades={essay: grade for essay, _, grade in pairs},
        despite=despite or [],
    )
    publish(engine, batch)
    _show_outcome(engine, batch)
    console.print(f"This is grading {projected.revision} of the batch.")


@app.command()
@told_plainly
def cancel(batch: BatchName) -> None:
    """End a batch now: ask nothing more, cancel its provider jobs, keep what was paid for."""
    from cj_pipeline.steps import advance_to_end
    from cj_pipeline.steps import cancel as cancel_batch
    from cj_pipeline.steps.overview import batch_overview

    engine = open_engine()
    cancelled = cancel_batch(engine, batch)
    console.print(f"{batch}: cancelled, {cancelled.n_jobs} provider jobs told to stop.")
    for step in advance_to_end(engine, batch):
        if step.waited:
            console.print(f"Waiting: {step.waits_for}", markup=False, highlight=False)
            console.print(
                "A job takes up to ten minutes to stop. The sensors bring home what it finished;"
                " so does `cj cancel` again."
            )
            return
    with engine.store.read() as db:
        console.print(terminal.statuses(batch_overview(db, batch)))


@app.command()
@told_plainly
def sql(query: Annotated[str, typer.Argument(help="A query over the published copy.")]) -> None:
    """Run a query over the published, read-only copy of the store."""
    import duckdb

    from cj_pipeline import open_published

    with open_published() as connection:
        try:
            result = connection.sql(query)
        except duckdb.Error as error:
            errors.print(terminal.problems(str(error)))
            raise typer.Exit(1) from error
        if result is not None:
            console.print(terminal.table("", result.columns, result.fetchall()))


@app.command()
@told_plainly
def emulator(
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8765,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    settings: Annotated[
        str,
        typer.Option(
            envvar="CJ_EMULATOR_SETTINGS",
            help="Settings and faults as JSON, over those of emulator.yaml; see docs/emulator.md.",
        ),
    ] = "",
) -> None:
    """Serve the provider emulator over HTTP; point CJ_EMULATOR_URL at it."""
    from cj_pipeline.emulator import EmulatorConfig, serve
    from cj_pipeline.store import default_home

    given = {"CJ_EMULATOR_SETTINGS": settings}
    serve(EmulatorConfig.from_environment(given, default_home(os.environ)), host, port)


DEMO = ("uniform-bad", "uniform-good", "school-sport", "graded-english")


@app.command()
@told_plainly
def demo(
    batches: Annotated[
        list[str] | None,
        typer.Argument(help=f"Example batches; if left out: {', '.join(DEMO)}."),
    ] = None,
) -> None:
    """Take the example batches through a real, persistent Dagster instance and show the outcome."""
    from assets.local_run import run_batch
    from cj_pipeline.definitions import defs
    from resources.local_instance import local_instance

    engine = open_engine()
    names = tuple(batches or DEMO)
    with local_instance(engine.home) as instance, terminal.progress_bar(console) as bar:
        for name in names:
            task = bar.add_task(name, total=None)
            for run in run_batch(instance, defs, engine, name, EXAMPLES / name):
                counts = _counts(engine, name)
                bar.update(
                    task,
                    description=f"{name}: {run.job}",
                    total=counts["completion_denominator"],
                    completed=counts["completed"] + counts["failed"],
                )
            bar.update(task, description=name)
    _show_demo(engine, names)


def _show_demo(engine: Engine, names: tuple[str, ...]) -> None:
    from cj_pipeline.steps.overview import batch_overview, final_scores, grading_statement, outputs

    with engine.store.read() as db:
        rows = [row for row in batch_overview(db) if row["batch_id"] in names]
        shown = {
            name: (final_scores(db, name), grading_statement(db, name), dict(outputs(db, name)))
            for name in names
        }
    for name in names:
        scores, statement, _ = shown[name]
        graded = any(score["grade"] for score in scores)
        console.print(terminal.grades(name, scores if graded else scores[:5], statement))
    console.print(terminal.statuses(rows))
    console.print(
        terminal.table(
            "Reports",
            ("batch", "report"),
            [(name, shown[name][2].get("report", "")) for name in names],
        ),
        "The judges are simulated: votes of real people replayed, and for graded-english a",
        "simulated judge on machine-written texts. Costs are nominal; nobody was billed.",
    )
    for line in (
        f"Database, to query while the pipeline runs: {engine.store.published_path}",
        "Dagster UI over all this: make ui",
    ):
        console.print(line, markup=False, soft_wrap=True)
    if any(row["state"] != "succeeded" for row in rows):
        raise typer.Exit(2)


@app.command()
def ui(port: Annotated[int, typer.Option(help="Port of the Dagster UI.")] = 3000) -> None:
    """Serve the Dagster UI with its daemon over CJ_HOME."""
    from cj_pipeline.store import default_home
    from resources.local_instance import prepare_dagster_home

    home = default_home(os.environ).resolve()
    environment = {
        **os.environ,
        "CJ_HOME": str(home),
        "DAGSTER_HOME": str(prepare_dagster_home(home)),
    }
    dagster = shutil.which("dagster", path=str(Path(sys.executable).parent)) or "dagster"
    command = [dagster, "dev", "--port", str(port), "-m", "cj_pipeline.definitions"]
    console.print(f"Dagster UI: http://127.0.0.1:{port} (Ctrl-C ends it)")
    # Become the server, so that whoever ends this command ends it.
    os.execve(command[0], command, environment)  # noqa: S606


def _write_preview_artefact(
    batch_dir: Path,
    folder: Path,
    runner_mode: Literal["plan", "dry-run"],
    explicit: dict[str, Any],
    requests: list[Path],
) -> None:
    from cj_pipeline.steps.preview_artefact import write_preview_artefact
    from resources.engine import open_engine as open_from_environment

    written = write_preview_artefact(
        open_from_environment(os.environ),
        batch_dir,
        folder,
        runner_mode=runner_mode,
        explicit=explicit,
        requests=requests,
    )
    console.print(f"artefact: {written.path}", markup=False, soft_wrap=True)


def _tell_once(console: Console, waits_for: str, told: set[str]) -> None:
    """Say what is waited for, once per kind: numbers and times alone are no news."""
    kind = "".join(c for c in waits_for if not c.isdigit())
    if kind and kind not in told:
        told.add(kind)
        console.print(f"Waiting: {waits_for}", markup=False, highlight=False)


def _counts(engine: Engine, batch_id: str) -> dict[str, int]:
    from cj_pipeline.steps.decide import comparison_counts
    from cj_pipeline.steps.records import load_batch
    from cj_pipeline.workflow import completion_denominator

    with engine.store.read() as db:
        record = load_batch(db, batch_id)
        counts = comparison_counts(db, batch_id)
    ends_at = completion_denominator(len(record.essay_ids), record.rules)
    return counts | {"completion_denominator": ends_at}


def _show_outcome(engine: Engine, batch_id: str) -> None:
    """Show grades, cost and files; a batch that failed ends the command with a non-zero code."""
    from cj_pipeline.batch_history import read_history
    from cj_pipeline.steps.batch_checks import what_stops_grades
    from cj_pipeline.steps.overview import batch_overview, final_scores, grading_statement, outputs

    with engine.store.read() as db:
        (row,) = batch_overview(db, batch_id)
        failed = what_stops_grades(db, read_history(db, batch_id), engine.clock())
        scores = final_scores(db, batch_id)
        statement = grading_statement(db, batch_id)
        files = outputs(db, batch_id)
    console.print(terminal.grades(batch_id, scores, statement), terminal.statuses([row]))
    for kind, path in files:
        console.print(f"{kind}: {path}", markup=False, soft_wrap=True)
    if row["state"] != "succeeded":
        errors.print(terminal.problems(f"Batch '{batch_id}' ended as {row['end_reason']}."))
        raise typer.Exit(2)
    if failed:
        listed = "\n".join(f"{each.name}: {each.finding.statement}" for each in failed)
        errors.print(terminal.problems(f"Batch '{batch_id}' fails its checks:\n{listed}"))
        raise typer.Exit(2)
