"""A trial is opened as a batch of its own, and concluded once that batch has ended."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from cj_pipeline.checks.batch_checks import Checked, check_assertions
from cj_pipeline.ids import id_for
from cj_pipeline.queries.batch_record import load_batch
from cj_pipeline.queries.history import BatchHistory, read_history
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.ingest import Ingested, ingest
from cj_pipeline.store.session import Session
from cj_pipeline.trials.definitions import DriftBands, TrialDefinition, load_trial
from cj_pipeline.trials.drift import MOST_RUNS_BEFORE, TrialDrift, drift_between
from cj_pipeline.trials.figures import Expectation, ExpectationFinding, Figure, trial_figures

log = structlog.get_logger()


@dataclass(frozen=True)
class TrialOutcome:
    """What a run of a trial came to.

    Attributes:
        batch_id: The batch it was.
        trial: Its definition's name.
        figures: As `trial_figures` names them.
        findings: One per expectation, then one per assertion of the batch's own.
        drift: Since the run before; None for the first of its definition.
    """

    batch_id: str
    trial: str
    figures: dict[str, Figure]
    findings: tuple[ExpectationFinding, ...]
    drift: TrialDrift | None

    @property
    def is_met(self) -> bool:
        """Whether every expectation holds."""
        return all(finding.holds for finding in self.findings)


def trial_batch_id(trial: str, due_at: datetime) -> str:
    """Return the batch's name for a run that is due then; one minute, one batch.

    It is told in UTC, whatever the schedule's time zone: in autumn an hour comes twice.
    """
    return id_for(f"trial-{trial}-{due_at.astimezone(UTC):%Y-%m-%d-%H%Mz}", prefix="trial")


def open_trial(
    runtime: Runtime, trial: str, *, batch_id: str, due_at: datetime | None = None
) -> Ingested:
    """Take a trial's batch in under a name of its own; opening it twice changes nothing.

    Raises:
        SettingsError: If there is no such trial, or its definition is wrong.
        BatchProblemsError: With everything that is wrong with its batch folder.
    """
    definition = load_trial(trial, runtime.home)
    taken_in = ingest(
        runtime,
        definition.batch_folder(runtime.home),
        explicit=definition.explicit_settings,
        batch_id=batch_id,
    )
    row = {
        "batch_id": batch_id,
        "trial": definition.name,
        "fingerprint": definition.fingerprint,
        "definition": definition.as_json(),
        "due_at": due_at or runtime.clock(),
    }
    with runtime.store.write() as db:
        db.insert("trial_runs", [row], on_conflict="ignore")
    log.info("trial_opened", trial=trial, batch_id=batch_id)
    return taken_in


@dataclass(frozen=True)
class InterruptedRun:
    """A run of a trial that a command began and did not end."""

    batch_id: str
    fingerprint: str
    started_by: str


def this_process() -> str:
    """Return which process runs a trial, for a later command to see whether it still does."""
    return f"{socket.gethostname()}:{os.getpid()}:{_begun_at(os.getpid())}"


def is_alive(process: str) -> bool:
    """Return whether the process that `this_process` named may still run; unknown elsewhere."""
    host, number, begun_at = process.rsplit(":", 2)
    if host != socket.gethostname():
        return True
    if int(number) == os.getpid():
        return False  # a trial of this very command that has come back
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    # After a restart another program may have its number.
    return begun_at == _begun_at(int(number))


def _begun_at(number: int) -> str:
    """Return when a process began, in the system's own count; empty where it does not say."""
    try:
        stat = Path(f"/proc/{number}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]


def register_run(
    runtime: Runtime, definition: TrialDefinition, batch_id: str, started_by: str
) -> None:
    """Note which process runs a trial, before its batch is opened or when it goes on."""
    with runtime.store.write() as db:
        known = db.one("SELECT * FROM trial_runs WHERE batch_id = ?", [batch_id])
        row = known or {
            "batch_id": batch_id,
            "trial": definition.name,
            "fingerprint": definition.fingerprint,
            "definition": definition.as_json(),
            "due_at": runtime.clock(),
        }
        noted = row | {"definition": row["definition"] | {"started_by": started_by}}
        db.insert("trial_runs", [noted], on_conflict="replace")


def interrupted_runs(db: Session, trial: str) -> list[InterruptedRun]:
    """Return the runs of a trial that a command began and that are not over, the latest first."""
    return db.records(
        InterruptedRun,
        "SELECT t.batch_id, t.fingerprint, t.definition->>'started_by' AS started_by"
        " FROM trial_runs t JOIN batches b USING (batch_id)"
        " WHERE t.trial = ? AND t.concluded_at IS NULL AND b.state = 'running'"
        " AND (t.definition->>'started_by') IS NOT NULL ORDER BY t.due_at DESC, t.batch_id DESC",
        [trial],
    )


def conclude_trial(runtime: Runtime, batch_id: str) -> TrialOutcome | None:
    """Hold an ended trial against what was expected and against the runs before it, and keep that.

    Returns:
        None for a batch that is no trial's, or that has not ended.
    """
    with runtime.store.read() as db:
        row = db.one("SELECT * FROM trial_runs WHERE batch_id = ?", [batch_id])
        if row is None:
            return None
        history = read_history(db, batch_id)
        if history.batch["state"] == "running":
            return None
        before = _runs_before(db, row)
        last = read_history(db, before[0]["batch_id"]) if before else None
        asserted = load_batch(db, batch_id).settings.assertions
        checked = check_assertions(db, batch_id, asserted, runtime.clock())
    outcome = _outcome(row, history, before, last, checked)
    concluded = {
        **row,
        "is_met": outcome.is_met,
        "figures": outcome.figures,
        "findings": [asdict(finding) for finding in outcome.findings],
        "drift": asdict(outcome.drift) if outcome.drift else None,
        "concluded_at": runtime.clock(),
    }
    with runtime.store.write() as db:
        db.insert("trial_runs", [concluded], on_conflict="replace")
    log.info(
        "trial_concluded",
        trial=outcome.trial,
        batch_id=batch_id,
        is_met=outcome.is_met,
        n_drifted=len(outcome.drift.drifted) if outcome.drift else 0,
    )
    return outcome


def stored_outcome(db: Session, batch_id: str) -> TrialOutcome | None:
    """Return what a run of a trial came to, as it was kept; None before that."""
    row = db.one(
        "SELECT * FROM trial_runs WHERE batch_id = ? AND concluded_at IS NOT NULL", [batch_id]
    )
    if row is None:
        return None
    drift = row["drift"]
    return TrialOutcome(
        batch_id=batch_id,
        trial=row["trial"],
        figures=row["figures"],
        findings=tuple(ExpectationFinding(**finding) for finding in row["findings"]),
        drift=TrialDrift(**{**drift, "drifted": tuple(drift["drifted"])}) if drift else None,
    )


def trial_history(db: Session, trial: str) -> list[dict[str, Any]]:
    """Return every run of a trial, newest first."""
    return db.rows(
        "SELECT t.*, b.state, b.end_reason FROM trial_runs t LEFT JOIN batches b USING (batch_id)"
        " WHERE t.trial = ? ORDER BY t.due_at DESC, t.batch_id DESC",
        [trial],
    )


def _runs_before(db: Session, row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the concluded runs of the same definition that ended well, newest first."""
    return db.rows(
        "SELECT t.batch_id, t.figures FROM trial_runs t JOIN batches b USING (batch_id)"
        " WHERE t.trial = $trial AND t.fingerprint = $fingerprint AND t.batch_id <> $batch"
        " AND t.concluded_at IS NOT NULL AND b.state = 'succeeded'"
        " AND (t.due_at, t.batch_id) < ($due, $batch)"
        " ORDER BY t.due_at DESC, t.batch_id DESC LIMIT $most",
        {
            "trial": row["trial"],
            "fingerprint": row["fingerprint"],
            "batch": row["batch_id"],
            "due": row["due_at"],
            "most": MOST_RUNS_BEFORE,
        },
    )


def _outcome(
    row: dict[str, Any],
    history: BatchHistory,
    before: list[dict[str, Any]],
    last: BatchHistory | None,
    checked: Sequence[Checked],
) -> TrialOutcome:
    figures = trial_figures(history)
    definition = row["definition"]
    expected = [Expectation.read(text) for text in definition["expect"]]
    bands = DriftBands.model_validate(definition["drift"])
    drift = (
        drift_between(last, history, figures, [each["figures"] for each in before], bands)
        if last is not None
        else None
    )
    return TrialOutcome(
        batch_id=row["batch_id"],
        trial=row["trial"],
        figures=figures,
        findings=(
            *(expectation.finding(figures) for expectation in expected),
            *(_as_expectation(each) for each in checked),
        ),
        drift=drift,
    )


def _as_expectation(checked: Checked) -> ExpectationFinding:
    found = checked.finding.figures.get("figure")
    return ExpectationFinding(checked.name, found, checked.finding.holds)
