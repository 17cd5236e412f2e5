"""`cj trial ...`: run trials, list them, and see how they have come out over time."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cj_pipeline.commands.terminal import tables
from cj_pipeline.commands.terminal.answers import answer, reads
from cj_pipeline.commands.terminal.arguments import BatchLabel, filled_in
from cj_pipeline.commands.terminal.console import console, errors, write
from cj_pipeline.commands.terminal.help_text import PlainGroup
from cj_pipeline.commands.terminal.home import configure_logs, home_folder, open_store
from cj_pipeline.ids import id_for

if TYPE_CHECKING:
    from assets.automation.in_process import TrialRun
    from cj_pipeline.trials.definitions import TrialDefinition


RUN_SHAPE = "cj trial run 1"
"""The name and version of each line of `cj trial run --json`."""

_STOPS = (signal.SIGTERM, signal.SIGINT)


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
    batch_id: BatchLabel = None,
) -> None:
    """Run trials through Dagster; simulated judges are served by an emulator over HTTP.

    Prints every expectation with its figure. On SIGTERM or Ctrl-C it ends within seconds and begins
    no other trial; the same command goes on with what was interrupted.
    """
    _run(names or [], quick=quick, as_json=as_json, batch_id=batch_id)


@reads("cj trial list 1")
def list_() -> None:
    """Show the trials there are: built-in ones, and yours in CJ_HOME/trials."""
    from cj_pipeline.errors import SettingsError
    from cj_pipeline.trials.definitions import load_trial, trial_names

    home = home_folder()
    rows: list[tuple[object, ...]] = []
    told: list[dict[str, object]] = []
    for name in trial_names(home):
        try:
            trial = load_trial(name, home)
        except SettingsError as error:
            rows.append((name, "own", "", "", "", str(error)))
            told.append({"trial": name, "problem": str(error)})
        else:
            rows.append(_listed(trial))
            told.append(
                {
                    "trial": name,
                    "origin": trial.origin,
                    "is_quick": trial.is_quick,
                    "cron": trial.schedule.cron if trial.schedule else None,
                    "spend_cap_usd": trial.explicit_settings["spend_cap_usd"],
                    "about": trial.about.strip(),
                    "problem": None,
                }
            )
    answer(trials=told)
    console.print(
        tables.table("Trials", ("trial", "from", "quick", "cron", "USD at most", "about"), rows)
    )


@reads("cj trial history 1")
def history(name: Annotated[str, typer.Argument(help="A trial.")]) -> None:
    """Show every run of a trial, newest first, and drift since the run before it."""
    from cj_pipeline.errors import SettingsError
    from cj_pipeline.trials.runs import trial_history

    with open_store().read() as db:
        runs = trial_history(db, name)
    if not runs:
        msg = f"No run of a trial '{name}' is in the store: `cj trial {name}` makes one."
        raise SettingsError(msg)
    answer(trial=name, runs=runs)
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


STOP_WITHIN_S = 5.0
"""How long the step under way has, once a trial is told to stop; then it is left as it is."""


def _run(names: Sequence[str], *, quick: bool, as_json: bool, batch_id: str | None) -> None:
    from cj_pipeline.errors import SettingsError, TrialDefinitionError
    from cj_pipeline.trials.definitions import built_in_trial_names, load_trial

    configure_logs("ERROR")
    home = home_folder()
    chosen, broken = [], []
    for name in dict.fromkeys(names):
        try:
            chosen.append(load_trial(name, home))
        except TrialDefinitionError as error:
            broken.append(str(error))
    if broken:
        errors.print(tables.problems("\n".join(broken)))
        raise typer.Exit(2)
    if quick:
        others = [name for name in built_in_trial_names() if name not in names]
        chosen += [t for t in (load_trial(n, home) for n in others) if t.is_quick]
    if not chosen:
        msg = "Name a trial, or run all the quick ones with --quick; `cj trial list` shows them."
        raise SettingsError(msg)
    if batch_id is not None and len(chosen) > 1:
        msg = "--batch-id names one run: give one trial with it."
        raise SettingsError(msg)
    label = None if batch_id is None else id_for(filled_in(batch_id), prefix="trial")
    outcomes = _Trials(home, chosen, label, as_json=as_json).run()
    if not all(outcomes):
        raise typer.Exit(1)


class _Trials:
    """Trials run one after the other in a thread, so that this one hears signals all the time."""

    def __init__(
        self, home: Path, chosen: Sequence[TrialDefinition], label: str | None, *, as_json: bool
    ) -> None:
        self._home, self._chosen, self._label, self._as_json = home, chosen, label, as_json
        self._stopping = threading.Event()
        self._signal = 0
        self._met: list[bool] = []
        self._broken: list[str] = []
        self._fault: BaseException | None = None
        self._at = ""

    def run(self) -> list[bool]:
        """Return for each trial whether everything expected of it holds.

        Raises:
            typer.Exit: If one could not be run, or all were asked to stop.
        """
        before = {number: signal.signal(number, self._told) for number in _STOPS}
        worker = threading.Thread(target=self._work, daemon=True)
        try:
            worker.start()
            while worker.is_alive() and not self._stopping.is_set():
                worker.join(0.1)
            worker.join(STOP_WITHIN_S)
            if self._stopping.is_set():
                self._stopped(worker)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self._fault is not None:
            raise self._fault
        if self._broken:
            errors.print(tables.problems("\n".join(self._broken)))
            raise typer.Exit(2)
        return self._met

    def _told(self, number: int, _: object) -> None:
        if self._stopping.is_set():
            os._exit(128 + number)  # asked twice: at once, and without a word
        self._signal = number
        self._stopping.set()

    def _stopped(self, worker: threading.Thread) -> None:
        if not worker.is_alive() and len(self._met) == len(self._chosen):
            return  # it had come to its end by itself
        errors.print(
            f"Stopped{f' in the trial {self._at}' if self._at else ''}. Nothing is lost: the same"
            " command goes on from there.",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        sys.stdout.flush()
        sys.stderr.flush()
        # A step that waits for a provider would keep the process: it may be left anywhere.
        os._exit(128 + self._signal)

    def _work(self) -> None:
        from assets.automation.in_process import run_trial
        from cj_pipeline.definitions import defs
        from cj_pipeline.errors import TrialError, TrialStoppedError
        from resources.local_instance import local_instance

        try:
            with local_instance(self._home) as instance:
                for trial in self._chosen:
                    if self._stopping.is_set():
                        return
                    self._at = trial.name
                    try:
                        done = run_trial(
                            instance,
                            defs,
                            self._home,
                            trial,
                            batch_id=self._label,
                            stopping=self._stopping,
                            on_note=_note,
                        )
                    except TrialError as error:
                        self._broken.append(str(error))
                        continue
                    self._met.append(done.is_met)
                    if self._as_json:
                        write(json.dumps(_as_json(done), default=str) + "\n")
                    else:
                        _show(done)
        except TrialStoppedError:
            return
        except BaseException as error:
            self._fault = error


def _note(line: str) -> None:
    errors.print(line, markup=False, highlight=False, soft_wrap=True)


def _show(done: TrialRun) -> None:
    outcome = done.outcome
    if done.steps:
        console.print(
            tables.table(
                f"{outcome.trial}, step by step",
                ("done", "command", "seconds", "what came out"),
                [
                    ("yes" if step.holds else "NO", step.name, f"{step.seconds:.1f}", step.found)
                    for step in done.steps
                ],
            )
        )
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
        "shape": RUN_SHAPE,
        **asdict(done.outcome),
        "is_met": done.is_met,
        "steps": [asdict(step) for step in done.steps],
        "seconds": round(done.seconds, 3),
        "runs": [asdict(run) for run in done.runs],
    }
