"""What the report says first: who is where, how sure that is in all, and what to read first.

How many grades are expected to be right is the sum of their own probabilities; what to read first
is `reading_queue`'s order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cj_pipeline.batch.essays import label
from cj_pipeline.outputs.language import tr
from cj_pipeline.outputs.readings.reading_queue import QueueEntry, moderation_queue, to_read
from cj_pipeline.queries.history import BatchHistory, Row
from cj_pipeline.text import excerpt


@dataclass(frozen=True)
class ExpectedGrades:
    """How many of the grades that verdicts gave are expected to be right.

    Attributes:
        n: Students whose grade is the machine's.
        exact: Of these, expected to be exactly right.
        within_one: Expected to be right or one step off.
        by_people: Students whose grade a person set, or withheld.
    """

    n: int
    exact: float
    within_one: float
    by_people: int


def expected_grades(history: BatchHistory) -> ExpectedGrades | None:
    """Return how many of a batch's grades are expected to be right; None without grades."""
    students = [row for row in history.projections if not row["is_anchor"]]
    if not history.is_graded or not students:
        return None
    own = [row for row in students if _is_machines(history, row["essay_id"])]
    return ExpectedGrades(
        n=len(own),
        exact=sum(row["probabilities"][row["grade"]] for row in own),
        within_one=sum(_within_one(row["probabilities"], row["grade"]) for row in own),
        by_people=len(students) - len(own),
    )


def _is_machines(history: BatchHistory, essay_id: str) -> bool:
    decision = history.decision_by_id.get(essay_id)
    return decision is None or decision["kind"] == "accept"


def _within_one(probabilities: Mapping[str, float], grade: str) -> float:
    steps = list(probabilities)
    at = steps.index(grade)
    return sum(probabilities[step] for step in steps[max(at - 1, 0) : at + 2])


@dataclass(frozen=True)
class Readings:
    """What to read, and what to say of each essay.

    Attributes:
        queue: What nobody has decided yet, by what a reading gains.
        place: Where in that order each of its students is, from 1, under the essay's id.
        remarks: What is to be said of an essay, most telling first; only essays with a remark.
    """

    queue: Sequence[QueueEntry]
    place: Mapping[str, int]
    remarks: Mapping[str, Sequence[str]]


def readings(history: BatchHistory) -> Readings:
    """Return what to read of a batch, in which order and why."""
    entries = moderation_queue(history)
    open_entries = list(to_read(entries).values())
    students = [entry.essay_id for entry in open_entries if not entry.is_anchor]
    remarks: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        remarks[entry.essay_id] += [reason.text for reason in entry.reasons]
    for essay_id, decision in history.decision_by_id.items():
        projection = history.projection_by_id.get(essay_id)
        if projection is not None and (said := decision_in_words(decision, projection)):
            remarks[essay_id].insert(0, said)
    return Readings(
        queue=open_entries,
        place={essay_id: place for place, essay_id in enumerate(students, start=1)},
        remarks=remarks,
    )


def decision_in_words(decision: Row, projection: Row) -> str:
    """Return what a person decided of a grade; empty where it was accepted."""
    values = {
        "by": decision["decided_by"],
        "reason": excerpt(decision["reason"], 200),
        "grade": projection["grade"],
    }
    if decision["kind"] == "override":
        return tr("grade set by {by}: {reason} (by the verdicts: {grade})", **values)
    if decision["kind"] == "exclude":
        return tr("grade withheld by {by}: {reason} (by the verdicts: {grade})", **values)
    return ""


def same_text_remarks(history: BatchHistory) -> dict[str, list[str]]:
    """Return, under the essay judged, who handed in the same text."""
    found: dict[str, list[str]] = defaultdict(list)
    for person in history.shared:
        called = label(person["essay_id"], person.get("given_id"), person.get("name"))
        found[person["judged_id"]].append(
            tr("the same text as {name}, judged once for both", name=excerpt(called, 100))
        )
    return found
