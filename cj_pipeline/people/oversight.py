"""The human-oversight record of a batch: one page of plain Markdown, from rows alone.

It says what high-risk rules for AI in education ask to be said: which systems were used on what,
how accurate they are known to be, what people judged, changed and released, and who to ask.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cj_pipeline.diagnostics.answering_models import Answered
from cj_pipeline.judging.judges import Judge
from cj_pipeline.outputs.readings.reading_queue import moderation_queue
from cj_pipeline.people.appeals import appeals
from cj_pipeline.queries.batch_record import load_batch
from cj_pipeline.queries.history import BatchHistory, read_history
from cj_pipeline.queries.human_agreement import human_agreement
from cj_pipeline.queries.judges.answering_models import read_who_answered
from cj_pipeline.queries.people import people_progress
from cj_pipeline.store.session import Session
from cj_pipeline.text import visible

_ADDRESS = {
    "emulator": "nowhere: simulated on this machine",
    "human": "nowhere: a page of this installation",
}


def oversight_record(db: Session, batch_id: str, *, contact: str = "") -> str:
    """Return a batch's record as Markdown; the same rows give the same text.

    Args:
        db: The store.
        batch_id: The batch.
        contact: Who answers questions and takes complaints; stated as missing where empty.
    """
    history = read_history(db, batch_id)
    parts = [
        f"# Human oversight of batch {_inert(batch_id)}",
        "\n".join(_overview(history, contact)),
        _section("Systems used, and what was sent where", _systems(db, history)),
        _section("Accuracy, as far as it is known", _accuracy(db, history)),
        _section("People", _people(db, history)),
        _section("Decisions of people", _decisions(history)),
        _section("Release", _releases(history)),
        _section("Complaints and appeals", _appeals(db, batch_id)),
        _section("Records", _records(history)),
    ]
    return "\n\n".join(parts) + "\n"


def _section(title: str, lines: Iterator[str]) -> str:
    return "\n".join([f"## {title}", "", *(list(lines) or ["- none"])])


def _overview(history: BatchHistory, contact: str) -> Iterator[str]:
    batch = history.batch
    yield f"- Title: {_inert(batch['title'])}"
    yield f"- State: {batch['state']}, {batch['end_reason'] or 'under way'}"
    yield f"- Begun {_day(batch['created_at'])}, ended {_day(batch['ended_at'])}"
    n_anchors = len(history.anchor_grades)
    yield f"- {len(history.essays) - n_anchors} students' essays, {n_anchors} anchors"
    yield f"- Grades: {history.release.status}. {history.release.statement}".rstrip()
    yield f"- Contact: {_inert(contact) if contact else 'not stated; give it with --contact'}"


def _systems(db: Session, history: BatchHistory) -> Iterator[str]:
    answered = {each.judge.name: each for each in read_who_answered(db, history.batch_id)}
    for row in history.judges:
        judge = Judge.from_definition(row["definition"])
        n = sum(c["judge_id"] == row["judge_id"] for c in history.succeeded)
        where = _ADDRESS.get(
            row["provider"], judge.base_url or f"{row['provider']}'s usual address"
        )
        yield (
            f"- {_inert(row['name'])} (`{row['judge_id']}`): {row['provider']}, model"
            f" {_inert(row['model'])}, prompt {row['template']}; {n} verdicts. Texts of essays,"
            f" instructions and rubric went {'' if where.startswith('nowhere') else 'to '}{where}."
            f"{_version(answered.get(row['name']))}"
        )
    for row in history.documents:
        yield f"- {_inert(row['kind'])}: SHA-256 `{row['sha256']}`"
    prompts = sorted({row["prompt_sha256"] for row in history.attempts if row["prompt_sha256"]})
    yield f"- {len(prompts)} different prompts; the hash of each is with its request in the ledger"


def _version(answered: Answered | None) -> str:
    """Return by which names a judge's model answered, and by which fingerprints."""
    if answered is None or not answered.models:
        return ""
    named = ", ".join(_inert(model) for model in answered.models)
    marks = ", ".join(_inert(mark) for mark in answered.fingerprints)
    return f" It answered as {named}{', fingerprint ' if marks else ''}{marks}."


def _accuracy(db: Session, history: BatchHistory) -> Iterator[str]:
    found, differing = human_agreement(db, [history.batch_id])
    for each in found:
        with_whom = "each other" if each.judge_id == "people" else _inert(each.judge)
        drawn = each.drawn
        if drawn.n:
            yield (
                f"- People agree with {with_whom} on {drawn.n_agree} of {drawn.n} pairs drawn at"
                f" random (95 % between {drawn.lower:.0%} and {drawn.upper:.0%})"
            )
        else:
            yield f"- People and {with_whom}: no pair drawn at random was judged by both"
    yield f"- {len(differing)} verdicts of models differ from those of people"
    yield from _of_the_scale(history.statistics)
    if history.grading is not None and history.grading["statement"]:
        yield f"- {_inert(history.grading['statement'])}"
    yield f"- {len(history.failed)} comparisons failed for good"


def _of_the_scale(statistics: Mapping[str, Any]) -> Iterator[str]:
    """Say how far scores tell students apart, and how far they are what people see."""
    found = statistics.get("student_reliability")
    if found and found["is_worth_a_figure"]:
        yield (
            f"- Reliability among students {found['value']:.2f}"
            f" (95 % between {found['lower']:.2f} and {found['upper']:.2f})"
        )
    elif found:
        yield "- Reliability among students: there are too few for a figure"
    valid = statistics.get("validity")
    if valid is None:
        yield "- Validity is not known: no person judged or graded enough of this batch"
        return
    yield (
        f"- Scores explain {valid['r2']:.0%} of what people see, by {valid['n']} {valid['by']} of"
        f" people (95 % between {valid['lower']:.0%} and {valid['upper']:.0%})"
    )
    if valid["level"] is not None:
        yield (
            f"- People's grades lie {valid['level']:+.1f} steps from the judges' (95 % between"
            f" {valid['level_lower']:+.1f} and {valid['level_upper']:+.1f})"
        )


def _people(db: Session, history: BatchHistory) -> Iterator[str]:
    progress = people_progress(db, load_batch(db, history.batch_id))
    human = {row["judge_id"] for row in history.judges if row["provider"] == "human"}
    n_human = sum(row["judge_id"] in human for row in history.succeeded)
    share = n_human / len(history.succeeded) if history.succeeded else 0.0
    persons = db.one(
        "SELECT count(DISTINCT person) AS n FROM human_answers WHERE batch_id = ?",
        [history.batch_id],
    )
    yield f"- {persons['n'] if persons else 0} persons gave {n_human} verdicts, {share:.0%} of all"
    yield f"- {progress.seconds_used / 60:.0f} minutes of active reading and deciding"
    yield f"- {progress.n_left} of {progress.n_tasks} pairs given to people are open"
    yield f"- {len(history.skips)} pairs were skipped with a reason"


def _decisions(history: BatchHistory) -> Iterator[str]:
    queue = moderation_queue(history)
    decided = [entry for entry in queue if entry.decision is not None]
    yield f"- {len(decided)} of {len(queue)} essays in the queue were decided at this grading"
    n_changed = sum(row["kind"] == "override" for row in history.moderation)
    looks = len(history.moderation)
    if looks:
        yield f"- {n_changed} of {looks} decisions set another grade ({n_changed / looks:.0%})"
        if looks >= 20 and not n_changed:
            yield "- No look changed a grade: ask whether they were looks"
    for row in history.moderation:
        to = f" to {row['grade']}" if row["grade"] else ""
        because = f": {_inert(row['reason'])}" if row["reason"] else ""
        yield (
            f"- {_day(row['decided_at'])} {_inert(row['decided_by'])}: {row['kind']} of"
            f" {row['essay_id']} (machine's grade {row['machine_grade']}){to}{because}"
        )


def _releases(history: BatchHistory) -> Iterator[str]:
    for row in history.releases:
        looked: Mapping[str, Any] = row["looked_at"]
        seen = (
            f", {looked['n_looked_at']} of {looked['n_in_queue']} in the queue looked at"
            if looked
            else ""
        )
        note = f": {_inert(row['note'])}" if row["note"] else ""
        yield (
            f"- {_day(row['released_at'])} grading {row['revision']} {row['kind']} by"
            f" {_inert(row['released_by'])}{seen}{note}"
        )


def _appeals(db: Session, batch_id: str) -> Iterator[str]:
    for each in appeals(db, batch_id):
        yield (
            f"- {_day(each.requested_at)} {each.essay_id}, asked by {_inert(each.requested_by)}:"
            f" {_inert(each.reason)}. Then graded {each.grade_before}; {each.outcome}"
        )


def _records(history: BatchHistory) -> Iterator[str]:
    yield f"- Correlation id {history.batch['correlation_id']}"
    yield f"- {_count(history.attempts)} requests, each with time, prompt hash, outcome and cost"
    yield f"- {_count(history.jobs)} provider jobs, each with its account and what it cost"
    yield "- Everything above is in the store's tables and in the batch's artefact"


def _count(rows: Sequence[Any]) -> str:
    return f"{len(rows):,}"


def _day(when: Any) -> str:
    return "-" if when is None else f"{when:%Y-%m-%d %H:%M}"


def _inert(text: str) -> str:
    """Return text from outside as one line that Markdown takes for text."""
    line = " ".join(visible(str(text)).split())
    return "".join(f"\\{c}" if c in "\\`*_[]<>#|!" else c for c in line)
