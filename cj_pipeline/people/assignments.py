"""Which pair a person is shown, and what becomes of the answer.

A pair is assigned in the store before it is shown, so a reload or a second tab shows the same one,
and an answer sent twice counts once. The next pair is assigned ahead, so that nobody waits for it.
"""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import structlog

from cj_pipeline.errors import SettingsError
from cj_pipeline.people.links import JudgeLink
from cj_pipeline.people.verdicts import HumanVerdict, Winner, store_skip, store_verdicts
from cj_pipeline.queries.batch_record import BatchRecord
from cj_pipeline.store.session import Session

log = structlog.get_logger()

AHEAD = 2
"""Pairs a person holds: the one shown, and the next."""

HELD_FOR = timedelta(minutes=30)
"""How long a pair is kept for somebody who has gone away; then another person may get it too."""

MAX_COMMENT = 1_000
MAX_SECONDS = 24 * 3600.0

SkipReason = Literal["cannot read", "know the writer", "concern", "other"]


@dataclass(frozen=True)
class Assignment:
    """A pair as one person is shown it."""

    assignment_id: str
    task_id: str
    number: int
    essay_a: str
    essay_b: str
    repeats: str | None
    assigned_at: datetime


@dataclass(frozen=True)
class Desk:
    """What a person has before them.

    Attributes:
        held: The pairs assigned and not answered, the one to show first.
        n_done: Verdicts given, repeats included.
        n_left: Pairs left for this person, those held included.
        why_nothing: Why there is nothing to judge; empty where there is.
        may_go_back: Whether the last verdict may still be changed.
    """

    held: tuple[Assignment, ...]
    n_done: int
    n_left: int
    why_nothing: str
    may_go_back: bool


@dataclass(frozen=True)
class Answer:
    """What a person sends: a verdict in the order shown, or a skip with its reason.

    Attributes:
        assignment_id: What it answers.
        winner: None for a skip.
        skip: Why it is skipped; None for a verdict.
        comment: Optional.
        active_s: Seconds with the page visible and in use.
        elapsed_s: Seconds since the pair was shown.
        is_change: Whether it is meant to replace the last verdict.
    """

    assignment_id: str
    winner: Winner | None = None
    skip: SkipReason | None = None
    comment: str = ""
    active_s: float | None = None
    elapsed_s: float | None = None
    is_change: bool = False


def desk_of(db: Session, record: BatchRecord, link: JudgeLink, now: datetime) -> Desk:
    """Return what a person has before them, and assign what is missing; in a write transaction."""
    mine = _Mine.read(db, link)
    held = mine.held
    n_open = 0
    if not mine.is_at_quota:
        tasks = _open_tasks(db, link, mine, now)
        n_open = len(tasks)
        while len(held) < AHEAD and not mine.quota_is_held:
            assignment = _repeat(record, mine, now) or _next(link, mine, tasks, now)
            if assignment is None:
                break
            _store_assignment(db, link, assignment)
            mine.add(assignment)
            held = mine.held
    n_left = len(held) + max(0, n_open - sum(1 for a in held if a.repeats is None))
    if link.quota is not None:
        n_left = min(n_left, max(0, link.quota - mine.n_verdicts))
    return Desk(
        held=held,
        n_done=mine.n_verdicts,
        n_left=n_left,
        why_nothing="" if held else _why_nothing(record, mine),
        may_go_back=mine.last_changeable is not None,
    )


def peek(db: Session, link: JudgeLink) -> Desk:
    """Return what a person holds, and assign nothing; enough while the page only reloads."""
    mine = _Mine.read(db, link)
    return Desk(mine.held, mine.n_verdicts, len(mine.held), "", mine.last_changeable is not None)


def store_answer(
    db: Session, record: BatchRecord, link: JudgeLink, answer: Answer, now: datetime
) -> bool:
    """Store an answer, and return whether it is new: one sent twice counts once.

    Raises:
        SettingsError: If the pair is not this person's, ties are not allowed, or a verdict is to be
            changed that is not the last one.
    """
    mine = _Mine.read(db, link)
    assignment = mine.by_id.get(answer.assignment_id)
    if assignment is None:
        msg = "This pair is not yours: reload the page."
        raise SettingsError(msg)
    if answer.winner == "tie" and not record.judge(link.judge_id).allow_ties:
        msg = "This batch has no ties: choose one of the two."
        raise SettingsError(msg)
    earlier = mine.answer_of.get(answer.assignment_id)
    if earlier is not None and not answer.is_change:
        return False
    if answer.is_change:
        return _change(db, link, mine, answer, now)
    if answer.winner is None:
        store_skip(
            db,
            record.batch_id,
            assignment_id=assignment.assignment_id,
            judge_id=link.judge_id,
            person=link.person,
            essays=(assignment.essay_a, assignment.essay_b),
            reason=_with_comment(answer.skip or "other", answer.comment),
            active_s=_seconds(answer.active_s),
            elapsed_s=_seconds(answer.elapsed_s),
            now=now,
        )
        return True
    store_verdicts(db, record.batch_id, [_verdict(link, assignment, answer, now)], now)
    return True


def changeable(db: Session, link: JudgeLink) -> Assignment | None:
    """Return the pair whose verdict may still be changed; None where there is none."""
    return _Mine.read(db, link).last_changeable


def _change(
    db: Session,
    link: JudgeLink,
    mine: _Mine,
    answer: Answer,
    now: datetime,
) -> bool:
    assignment = mine.by_id[answer.assignment_id]
    earlier = mine.answer_of.get(assignment.assignment_id)
    if earlier is not None and earlier["replaces"] is not None:
        if earlier["winner"] == answer.winner:
            return False
        msg = "This verdict was changed already, and can be changed once."
        raise SettingsError(msg)
    if earlier is None or answer.winner is None or mine.last_changeable != assignment:
        msg = "Only the last verdict can be changed, and only until the next one is given."
        raise SettingsError(msg)
    if earlier["winner"] == answer.winner:
        return False
    changed = _verdict(link, assignment, answer, now, replaces=earlier["answer_id"])
    store_verdicts(db, link.batch_id, [changed], now)
    return True


def _verdict(
    link: JudgeLink,
    assignment: Assignment,
    answer: Answer,
    now: datetime,
    replaces: str | None = None,
) -> HumanVerdict:
    assert answer.winner is not None  # noqa: S101 -- a skip never comes here
    return HumanVerdict(
        judge_id=link.judge_id,
        person=link.person,
        essay_a=assignment.essay_a,
        essay_b=assignment.essay_b,
        winner=answer.winner,
        decided_at=now,
        assignment_id=assignment.assignment_id,
        reason=answer.comment.strip()[:MAX_COMMENT] or None,
        active_s=_seconds(answer.active_s),
        elapsed_s=_seconds(answer.elapsed_s),
        counts=assignment.repeats is None,
        replaces=replaces,
    )


def _with_comment(reason: str, comment: str) -> str:
    comment = comment.strip()[:MAX_COMMENT]
    return f"{reason}: {comment}" if comment else reason


def _seconds(given: float | None) -> float | None:
    return None if given is None else min(max(given, 0.0), MAX_SECONDS)


@dataclass
class _Mine:
    """What one person was assigned and answered, over all their links to a batch."""

    assignments: list[Assignment]
    answer_of: dict[str, Mapping[str, Any]]
    quota: int | None

    @classmethod
    def read(cls, db: Session, link: JudgeLink) -> _Mine:
        assignments = db.records(
            Assignment,
            "FROM judging_assignments WHERE batch_id = ? AND person = ? ORDER BY number",
            [link.batch_id, link.person],
        )
        answers = db.rows(
            "SELECT * FROM human_answers WHERE batch_id = ? AND person = ? AND source = 'page'"
            " ORDER BY number",
            [link.batch_id, link.person],
        )
        return cls(assignments, {row["assignment_id"]: row for row in answers}, link.quota)

    @property
    def by_id(self) -> dict[str, Assignment]:
        return {each.assignment_id: each for each in self.assignments}

    @property
    def held(self) -> tuple[Assignment, ...]:
        return tuple(a for a in self.assignments if a.assignment_id not in self.answer_of)

    @property
    def n_verdicts(self) -> int:
        return sum(row["kind"] == "verdict" for row in self.answer_of.values())

    @property
    def is_at_quota(self) -> bool:
        return self.quota is not None and self.n_verdicts >= self.quota

    @property
    def quota_is_held(self) -> bool:
        return self.quota is not None and self.n_verdicts + len(self.held) >= self.quota

    @property
    def last_changeable(self) -> Assignment | None:
        """The last answered pair, if its answer is a verdict that was not changed yet."""
        last = max(self.answer_of.values(), key=lambda row: row["number"], default=None)
        if last is None or last["kind"] != "verdict" or last["replaces"] is not None:
            return None
        return self.by_id.get(last["assignment_id"])

    @property
    def judged(self) -> list[Assignment]:
        """The pairs with a verdict, in the order in which they were shown."""
        return [
            a
            for a in self.assignments
            if self.answer_of.get(a.assignment_id, {}).get("kind") == "verdict"
        ]

    def add(self, assignment: Assignment) -> None:
        self.assignments.append(assignment)


def _why_nothing(record: BatchRecord, mine: _Mine) -> str:
    if mine.is_at_quota:
        return "You have judged your share. Thank you."
    if not record.has_ended:
        return "There is nothing to judge now. More pairs come while the batch goes on."
    return "Everything is judged. Thank you."


def _open_tasks(
    db: Session, link: JudgeLink, mine: _Mine, now: datetime
) -> list[Mapping[str, Any]]:
    """Return the tasks this person may get, and which are free."""
    rows = db.rows(
        """
        SELECT t.task_id, t.essay_a, t.essay_b, t.place FROM judging_tasks t
        WHERE t.batch_id = $batch AND t.judge_id = $judge
          AND NOT EXISTS (
              FROM human_answers h JOIN judging_assignments s USING (assignment_id)
              WHERE s.task_id = t.task_id AND h.batch_id = $batch
                AND h.kind = 'verdict' AND h.comparison_id IS NOT NULL)
          AND NOT EXISTS (
              FROM judging_assignments s
              ANTI JOIN human_answers h ON h.assignment_id = s.assignment_id
              WHERE s.task_id = t.task_id AND s.batch_id = $batch
                AND s.person <> $person AND s.assigned_at > $since)
        """,
        {
            "batch": link.batch_id,
            "judge": link.judge_id,
            "person": link.person,
            "since": now - HELD_FOR,
        },
    )
    seen = {frozenset((a.essay_a, a.essay_b)) for a in mine.assignments}
    return [row for row in rows if frozenset((row["essay_a"], row["essay_b"])) not in seen]


def _next(
    link: JudgeLink, mine: _Mine, tasks: list[Mapping[str, Any]], now: datetime
) -> Assignment | None:
    """Return the next pair: what somebody waits for, then texts this person has seen least."""
    seen = {frozenset((a.essay_a, a.essay_b)) for a in mine.assignments}
    free = [t for t in tasks if frozenset((t["essay_a"], t["essay_b"])) not in seen]
    n_seen = Counter(e for a in mine.assignments for e in (a.essay_a, a.essay_b))
    chosen = min(
        free,
        key=lambda t: (t["place"] >= 0, n_seen[t["essay_a"]] + n_seen[t["essay_b"]], t["place"]),
        default=None,
    )
    if chosen is None:
        return None
    first, second = _in_order(link, mine, chosen["essay_a"], chosen["essay_b"])
    return _assignment(mine, chosen["task_id"], (first, second), now)


def _in_order(link: JudgeLink, mine: _Mine, one: str, other: str) -> tuple[str, str]:
    """Return two essays so that each is shown first about as often as second to this person."""
    lean = Counter[str]()
    for a in mine.assignments:
        lean[a.essay_a] += 1
        lean[a.essay_b] -= 1
    if lean[one] != lean[other]:
        return (one, other) if lean[one] < lean[other] else (other, one)
    drawn = hashlib.sha256(f"{link.batch_id}:{link.person}:{one}:{other}".encode()).digest()[0]
    return (one, other) if drawn % 2 else (other, one)


def _repeat(record: BatchRecord, mine: _Mine, now: datetime) -> Assignment | None:
    """Return a pair of this person's own once more, sides exchanged, where one is due."""
    every = record.settings.people.repeat_every
    if not every:
        return None
    since = 0
    for assignment in reversed(mine.assignments):
        if assignment.repeats is not None:
            break
        since += 1
    if since < every:
        return None
    repeated = {a.repeats for a in mine.assignments}
    own = [a for a in mine.judged if a.repeats is None and a.assignment_id not in repeated]
    if not own:
        return None
    again = own[0]
    swapped = (again.essay_b, again.essay_a)
    return _assignment(mine, again.task_id, swapped, now, repeats=again.assignment_id)


def _assignment(
    mine: _Mine,
    task_id: str,
    shown: tuple[str, str],
    now: datetime,
    *,
    repeats: str | None = None,
) -> Assignment:
    return Assignment(
        assignment_id=uuid.uuid4().hex,
        task_id=task_id,
        number=max((a.number for a in mine.assignments), default=0) + 1,
        essay_a=shown[0],
        essay_b=shown[1],
        repeats=repeats,
        assigned_at=now,
    )


def _store_assignment(db: Session, link: JudgeLink, assignment: Assignment) -> None:
    row = vars(assignment) | {
        "batch_id": link.batch_id,
        "link_id": link.link_id,
        "person": link.person,
    }
    db.insert("judging_assignments", [row])
