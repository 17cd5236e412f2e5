"""`cj trial ...`: run trials, list them, and see how they have come out over time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cj_pipeline.commands.terminal import tables
from cj_pipeline.commands.terminal.console import console, write
from cj_pipeline.commands.terminal.help_text import PlainGroup
from cj_pipeline.commands.terminal.home import configure_logs, home_folder, open_store

if TYPE_CHECKING:
    from assets.automation.in_process import TrialRun
    from cj_pipeline.trials.definitions import TrialDefinition


class NamesRun(PlainGroup):
    """`cj trial lower5` is `cj trial run lower5`: whatever is no command is a trial's name."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            args = ["run", *args]
        return super().resolve_command(ctx, args)


def run(
    names: Annotated[
        list[str] | None, typer.Argument(help="Trials, as `cj trial list` shows them.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="All that take seconds, in addition to those named.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a trial instead.")
    ] = False,
) -> None:
    """Run trials through Dagster; simulated judges are served by an emulator over HTTP.

    Prints every expectation with its figure. Exit code 1 if any does not hold.
    """
    _run(names or [], quick=quick, as_json=as_json)


def list_() -> None:
    """Show the trials there are: built-in ones, and yours in CJ_HOME/trials."""
    from cj_pipeline.errors import SettingsError
    from cj_pipeline.trials.definitions import load_trial, trial_names

    home, rows = home_folder(), []
    for name in trial_names(home):
        try:
            rows.append(_listed(load_trial(name, home)))
        except SettingsError as error:
            rows.append((name, "own", "", "", "", str(error)))
    console.print(
        tables.table("Trials", ("trial", "from", "quick", "cron", "USD at most", "about"), rows)
    )


def history(
    name: Annotated[str, typer.Argument(help="A trial.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Show every run of a trial, newest first, and drift since the run before it."""
    from cj_pipeline.errors import SettingsError
    from cj_pipeline.trials.runs import trial_history

    with open_store().read() as db:
        runs = trial_history(db, name)
    if not runs:
        msg = f"No run of a trial '{name}' is in the store: `cj trial {name}` makes one."
        raise SettingsError(msg)
    if as_json:
        write(json.dumps(runs, indent=2, default=str) + "\n")
        return
    console.print(tables.table(f"Runs of {name}", _HISTORY, [_past(row) for row in runs]))
    for row in runs:
        for drifted in (row["drift"] or {}).get("drifted", []):
            console.print(f"{row['batch_id']}: {drifted}", markup=False)


_HISTORY = (
    "batch",
    "as expected",
    "ended",
    "verdicts",
    "USD",
    "seconds",
    "changed",
    "rank corr.",
    "same grade",
    "agreement",
    "drift",
)


def _past(row: dict[str, Any]) -> tuple[object, ...]:
    figures, drift = row["figures"] or {}, row["drift"] or {}
    met = {True: "yes", False: "NO", None: "not ended"}[row["is_met"]]
    fraction = [_number(drift.get(n)) for n in ("rank_correlation", "same_grade", "agreement")]
    changed = drift.get("essays_beyond_noise")
    return (
        row["batch_id"],
        met,
        row["end_reason"] or row["state"] or "",
        figures.get("completed", ""),
        _number(figures.get("cost_usd"), 4),
        _number(figures.get("duration_s"), 1),
        "" if changed is None else f"{changed} of {drift['n_shared']}",
        *fraction,
        "yes" if drift.get("drifted") else "no" if drift else "first",
    )


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _listed(trial: TrialDefinition) -> tuple[object, ...]:
    return (
        trial.name,
        trial.origin,
        "yes" if trial.is_quick else "no",
        trial.schedule.cron if trial.schedule else "nightly" if trial.origin == "own" else "",
        f"{trial.explicit_settings['spend_cap_usd']:g}",
        trial.about.strip(),
    )


def _run(names: Sequence[str], *, quick: bool, as_json: bool) -> None:
    from assets.automation.in_process import run_trial
    from cj_pipeline.definitions import defs
    from cj_pipeline.errors import SettingsError
    from cj_pipeline.trials.definitions import load_trial, trial_names
    from resources.local_instance import local_instance

    configure_logs("ERROR")
    home = home_folder()
    chosen = [load_trial(name, home) for name in dict.fromkeys(names)]
    if quick:
        built_in = [load_trial(name, home) for name in trial_names(home) if name not in names]
        chosen += [t for t in built_in if t.is_quick and t.origin == "built-in"]
    if not chosen:
        msg = "Name a trial, or run all the quick ones with --quick; `cj trial list` shows them."
        raise SettingsError(msg)
    all_met = True
    with local_instance(home) as instance:
        for trial in chosen:
            done = run_trial(instance, defs, home, trial)
            all_met = all_met and done.outcome.is_met
            if as_json:
                write(json.dumps(_as_json(done), default=str) + "\n")
            else:
                _show(done)
    if not all_met:
        raise typer.Exit(1)


def _show(done: TrialRun) -> None:
    outcome = done.outcome
    console.print(
        tables.table(
            f"{outcome.trial}: {outcome.batch_id}",
            ("holds", "expected", "found"),
            [("yes" if f.holds else "NO", f.expectation, f.found) for f in outcome.findings],
        )
    )
    met = sum(finding.holds for finding in outcome.findings)
    console.print(
        f"{met} of {len(outcome.findings)} expectations hold; {len(done.runs)} runs,"
        f" {done.seconds:.1f} s, {float(outcome.figures['cost_usd'] or 0):.4f} USD (nominal where"
        " judges are simulated).",
        highlight=False,
    )
    if outcome.drift is not None:
        drifted = "; ".join(outcome.drift.drifted) or "none beyond the bands"
        console.print(f"Drift since {outcome.drift.compared_with}: {drifted}.", highlight=False)


def _as_json(done: TrialRun) -> dict[str, Any]:
    return {
        **asdict(done.outcome),
        "is_met": done.outcome.is_met,
        "seconds": round(done.seconds, 3),
        "runs": [asdict(run) for run in done.runs],
    }
