"""An operator's ceilings, allowed judges and connections, held against what batches ask for.

They are looked at when a batch is planned, checked, taken in and sent. The file is read each time,
so a change holds for whatever is sent next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path

from cj_pipeline.errors import CeilingReachedError, SettingsError
from cj_pipeline.installation import INSTALLATION_FILE, Installation, read_installation
from cj_pipeline.judging.connections import connection_problems
from cj_pipeline.judging.judges import Judge, load_judge, own_file
from cj_pipeline.judging.provider_definitions import known_definitions
from cj_pipeline.queries.batch_record import BatchRecord
from cj_pipeline.runtime import Runtime
from cj_pipeline.store.session import Session
from cj_pipeline.tokens import covers

_COMMITTED = """
    SELECT coalesce(sum(coalesce(billed_usd, reserved_usd) + coalesce(possible_usd, 0)), 0) AS usd
    FROM provider_jobs
"""
"""What jobs were billed, or may be while they are not; and what may have been paid beyond."""


def installation(runtime: Runtime) -> Installation:
    """Return the operator's settings as they are now, the environment's before the file's."""
    return read_installation(runtime.home, runtime.environment)


def unallowed_judges(judges: Sequence[Judge], said: Installation) -> list[str]:
    """Return one line for each judge that the operator does not allow; people cost nothing."""
    if said.allowed_judges is None:
        return []
    allowed = ", ".join(said.allowed_judges) or "none"
    return [
        f"judge '{judge.name}' ({place_of(judge)}) is not allowed in this installation, whose"
        f" {INSTALLATION_FILE} allows: {allowed}"
        for judge in judges
        if judge.provider != "human" and not any(_is(judge, entry) for entry in said.allowed_judges)
    ]


def refused_connections(runtime: Runtime, judges: Sequence[Judge], folder: Path) -> list[str]:
    """Return one line for each address or key that judges of a folder may not name here.

    Args:
        runtime: The pipeline's connections.
        judges: As they were loaded; built-in ones are left out.
        folder: Where the files of the batch's own judges are.
    """
    files = [(judge, file) for judge in judges if (file := own_file(judge.name, folder))]
    if not files:
        return []
    rules, known = installation(runtime).of_batches, known_definitions(runtime.providers_folder)
    return [
        f"judges/{file.name}: {problem}"
        for judge, file in files
        for problem in connection_problems(
            judge, rules, is_own=runtime.has_own_folder(file), known=known
        )
    ]


def place_of(judge: Judge) -> str:
    """Return what a pattern of allowed judges is held against: provider, model and own address."""
    own = f"@{judge.base_url}" if judge.has_own_address else ""
    return f"{judge.provider}/{judge.model}{own}"


def _is(judge: Judge, entry: str) -> bool:
    """Whether an entry stands for a judge; a name stands for the built-in one of that name.

    A batch's own file may bear any name, so its name allows nothing: its fingerprint does, or its
    provider, model and address.
    """
    if "/" in entry:
        # An address of the judge's own is allowed only where the pattern names one.
        names_an_address = "@" in entry
        return names_an_address == judge.has_own_address and fnmatchcase(place_of(judge), entry)
    if judge.judge_id == entry:
        return True
    if judge.name != entry:
        return False
    try:
        return load_judge(entry).judge_id == judge.judge_id
    except SettingsError:
        return False


def passes_spend_cap(db: Session, record: BatchRecord, more_usd: float) -> bool:
    """Return whether billed plus still reserved plus this would pass the batch's own cap."""
    cap = record.settings.spend_cap_usd
    if cap is None:
        return False
    row = db.one(
        "SELECT coalesce(sum(CASE kind WHEN 'released' THEN -usd ELSE usd END), 0) AS usd"
        " FROM ledger WHERE batch_id = ?",
        [record.batch_id],
    )
    return row is not None and row["usd"] + more_usd > cap


def breached_ceilings(
    db: Session, said: Installation, batch_id: str, more_usd: float, now: datetime
) -> list[str]:
    """Return one line for each ceiling that spending this much more on a batch would pass."""
    return [
        line
        for room in rooms(db, said, batch_id, now)
        for line in _over(room.used, more_usd, room.most, room.per, room.whose)
    ]


def require_within(
    db: Session, said: Installation, batch_id: str, more_usd: float, now: datetime
) -> None:
    """Refuse to send what would pass a ceiling.

    Raises:
        CeilingReachedError: With every ceiling that it would pass; nothing was sent.
    """
    if breached := breached_ceilings(db, said, batch_id, more_usd, now):
        msg = (
            f"Batch '{batch_id}' was not sent: {'; '.join(breached)}. Ask the"
            " operator of this installation to raise it, then run the same command: nothing is"
            " lost."
        )
        raise CeilingReachedError(msg)


def require_trials_within(
    db: Session, said: Installation, judges: Sequence[Judge], most_usd: float, now: datetime
) -> None:
    """Refuse calls that try judges and belong to no batch where they would pass a ceiling.

    They count for the day; and one command may cost no more than one batch.

    Raises:
        CeilingReachedError: With every judge that is not allowed and every ceiling it would pass.
    """
    refused = unallowed_judges(judges, said)
    most = said.ceilings
    if most.usd_per_batch is not None:
        refused += _over(0.0, most_usd, most.usd_per_batch, "a batch", "these calls")
    if most.usd_per_day is not None:
        refused += _over(_usd_today(db, now), most_usd, most.usd_per_day, "a day", "today (UTC)")
    if refused:
        msg = f"Nothing was sent: {'; '.join(refused)}. Ask the operator of this installation."
        raise CeilingReachedError(msg)


@dataclass(frozen=True)
class Room:
    """What a ceiling leaves.

    Attributes:
        most: The ceiling, in USD.
        used: Of it, reservations included.
        per: What it is for: a batch, a day or a token.
        whose: Whose use is meant.
        renews: Whether waiting gives more.
    """

    most: float
    used: float
    per: str
    whose: str
    renews: bool = False

    @property
    def left(self) -> float:
        """What may still be spent."""
        return max(0.0, self.most - self.used)


def rooms(db: Session, said: Installation, batch_id: str, now: datetime) -> list[Room]:
    """Return what each of an installation's ceilings leaves a batch."""
    return list(_rooms(db, said, batch_id, now))


def _rooms(db: Session, said: Installation, batch_id: str, now: datetime) -> Iterator[Room]:
    most = said.ceilings
    if most.usd_per_batch is not None:
        yield Room(most.usd_per_batch, _usd(db, [batch_id]), "a batch", "this one")
    if most.usd_per_day is not None:
        yield Room(most.usd_per_day, _usd_today(db, now), "a day", "today (UTC)", renews=True)
    if most.usd_per_token is None:
        return
    rows = db.rows("SELECT batch_id FROM batches UNION SELECT batch_id FROM forgotten_costs")
    names = {batch_id, *(row["batch_id"] for row in rows)}
    for token in said.tokens:
        if covers(token.batches, batch_id):
            reached = [name for name in names if covers(token.batches, name)]
            whose = f"the batches of token '{token.name}'"
            yield Room(most.usd_per_token, _usd(db, reached), "a token", whose)


def _over(used: float, more: float, most: float, per: str, whose: str) -> Iterator[str]:
    if used + more > most:
        yield (
            f"this installation's ceiling is {most:g} USD for {per}, {whose} used or reserved"
            f" {used:.4f}, and this may cost {more:.4f} more"
        )


def _usd(db: Session, batches: Sequence[str]) -> float:
    """Return what some batches came to so far, those of these names that were forgotten too."""
    row = db.one(f"{_COMMITTED} WHERE batch_id IN (SELECT unnest(?))", [list(batches)])
    gone = db.one(
        "SELECT coalesce(sum(reserved_usd + billed_usd + possible_usd), 0) AS usd"
        " FROM forgotten_costs WHERE batch_id IN (SELECT unnest(?))",
        [list(batches)],
    )
    return float(row["usd"] if row else 0.0) + float(gone["usd"] if gone else 0.0)


def _usd_today(db: Session, now: datetime) -> float:
    """Return what was sent today came to: for batches, forgotten ones too, and for trials."""
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    rows = (
        db.one(f"{_COMMITTED} WHERE intended_at >= ?", [today]),
        db.one(
            "SELECT coalesce(sum(reserved_usd + billed_usd + possible_usd), 0) AS usd"
            " FROM forgotten_costs WHERE day = ?",
            [today.date()],
        ),
        db.one(
            "SELECT coalesce(sum(coalesce(billed_usd, reserved_usd)), 0) AS usd"
            " FROM spent_on_trials WHERE begun_at >= ?",
            [today],
        ),
    )
    return sum(float(row["usd"]) for row in rows if row)
