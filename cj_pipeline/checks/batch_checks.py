"""A batch is held to what is claimed of every batch, and to what its own assertions say.

Dagster's asset checks, `cj assert` and the step that grades all call this, so that none of them can
let through what another would have stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cj_pipeline.checks.claims import Finding
from cj_pipeline.checks.standard_checks import CHECKS
from cj_pipeline.errors import FailedCheckError
from cj_pipeline.metrics.assertions import OwnAssertion
from cj_pipeline.metrics.readings import read_metrics
from cj_pipeline.queries.batch_record import load_batch
from cj_pipeline.queries.history import BatchHistory, read_history
from cj_pipeline.store.session import Session

OWN = "the batch's own"


@dataclass(frozen=True)
class Checked:
    """One thing claimed of a batch, and what was found.

    Attributes:
        name: The claim's name, or the assertion as it is written.
        about: The asset it is about; `OWN` for an assertion of the batch's own.
        is_blocking: Whether no grade may leave while it does not hold.
        finding: What was found.
    """

    name: str
    about: str
    is_blocking: bool
    finding: Finding


def check_batch(db: Session, batch_id: str, now: datetime) -> list[Checked]:
    """Return every standard claim and every assertion of the batch's own, as found now."""
    own = load_batch(db, batch_id).settings.assertions
    return [
        *check_claims(read_history(db, batch_id)),
        *check_assertions(db, batch_id, own, now),
    ]


def check_claims(history: BatchHistory) -> list[Checked]:
    """Return every standard claim about a batch, by the asset it is about.

    None is made about one that was rejected: nothing of it was taken, its settings neither.
    """
    if history.batch["state"] == "rejected":
        return []
    return [
        Checked(check.name, asset, check.is_blocking, check.claim(history))
        for asset, checks in CHECKS.items()
        for check in checks
    ]


def check_assertions(
    db: Session, batch_id: str, asserted: Sequence[OwnAssertion], now: datetime
) -> list[Checked]:
    """Return assertions with the figures they are judged by, in their order."""
    metrics = {each.known_metric.name: each.known_metric for each in asserted}
    readings = {
        reading.metric.name: reading
        for reading in read_metrics(db, now=now, batch_id=batch_id, metrics=tuple(metrics.values()))
    }
    return [_checked(each, each.figure(readings[each.known_metric.name])) for each in asserted]


def what_stops_grades(db: Session, history: BatchHistory, now: datetime) -> list[Checked]:
    """Return what does not hold, and without which no grade of this batch may leave."""
    record = load_batch(db, history.batch_id)
    despite = set(record.metadata.get("graded_despite", ()))
    own = check_assertions(db, history.batch_id, record.settings.assertions, now)
    return [
        checked
        for checked in [*check_claims(history), *(c for c in own if c.name not in despite)]
        if checked.is_blocking and not checked.finding.holds
    ]


def refuse_unsound_grades(history: BatchHistory) -> None:
    """Raise where grades are not what is claimed of all grades; nothing of them may be kept.

    Args:
        history: The batch as it would be with them.

    Raises:
        FailedCheckError: With every claim that does not hold.
    """
    failed = [
        checked
        for checked in check_claims(history)
        if checked.about == "grade_projections"
        and checked.is_blocking
        and not checked.finding.holds
    ]
    if failed:
        listed = "\n".join(f"  - {each.name}: {each.finding.statement}" for each in failed)
        msg = (
            f"The grades of batch '{history.batch_id}' are not sound, so none was kept:\n{listed}\n"
            "This is a fault in the program: please report it, with the batch's artefact."
        )
        raise FailedCheckError(msg)


def _checked(assertion: OwnAssertion, figure: float | None) -> Checked:
    statement = "the batch has no such figure" if figure is None else f"it is {figure:g}"
    finding = Finding(
        assertion.holds(figure),
        statement,
        {} if figure is None else {"figure": figure, "value": assertion.value},
    )
    return Checked(str(assertion), OWN, assertion.severity == "error", finding)
