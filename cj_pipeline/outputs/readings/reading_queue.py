"""What a person should read before a batch's grades leave, ordered by what a reading would gain.

The one order for report, class list, moderation and release. It is worked out from what the store
knows; what people decided is `people.moderation`.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cj_pipeline.outputs.language import counted, number, percent, signed, tr
from cj_pipeline.queries.history import BatchHistory, Row
from cj_pipeline.text import excerpt, visible

TOSS_UP = 0.6
"""A most probable grade less probable than this is named as a toss-up."""
MISFIT_Z = 2.0
UNLIKE = 0.25
"""Of the usual length, or of the usual likeness to the other texts, that counts as unlike them."""
DOUBTED = 0.05
"""Probability of its known grade, by the other anchors, below which an anchor is doubted."""
MAX_VERDICTS = 4

_INSTRUCTION = re.compile(
    r"\b(ignore|disregard|forget)\b.{0,40}\b(instruction|previous|above|prompt|rubric)s?\b"
    r"|\b(as an? (ai|language) model|system prompt|you are (a|the) judge)"
    r"|\bchoose (text|essay) [ab]\b"
    r"|</?(system|assistant|essay|instructions?)\b",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True)
class Reason:
    """One reason for a look, and how much a look would gain by it, from 0 to 1."""

    kind: str
    text: str
    gain: float


@dataclass(frozen=True)
class QueueEntry:
    """An essay that a person should look at.

    Attributes:
        essay_id: The essay.
        is_anchor: Whether it is one.
        gain: What a look would gain, from 0 to 1; the reasons together.
        reasons: Most telling first.
        grade: The grading's; None for anchors.
        confidence: Of that grade.
        given_grade: What would be given now.
        decision: What a person decided of it at this grading; None where nobody did.
        neighbours: Anchors next to it by score, each with its grade, nearest first.
        verdicts: The most telling verdicts on it, in words.
    """

    essay_id: str
    is_anchor: bool
    gain: float
    reasons: tuple[Reason, ...]
    grade: str | None
    confidence: float | None
    given_grade: str | None
    decision: Row | None
    neighbours: tuple[tuple[str, str], ...]
    verdicts: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it for the API."""
        decision = None
        if self.decision is not None:
            keys = ("kind", "grade", "reason", "decided_by")
            decision = {key: self.decision[key] for key in keys}
        return {
            "essay_id": self.essay_id,
            "is_anchor": self.is_anchor,
            "gain": round(self.gain, 3),
            "reasons": [reason.text for reason in self.reasons],
            "grade": self.grade,
            "confidence": self.confidence,
            "given_grade": self.given_grade,
            "decision": decision,
            "neighbours": [{"essay_id": e, "grade": grade} for e, grade in self.neighbours],
            "verdicts": list(self.verdicts),
        }


def moderation_queue(history: BatchHistory) -> list[QueueEntry]:
    """Return the essays a person should look at, what was not decided yet and gains most first.

    An essay is decided once a person accepted, changed or excluded it at the last grading.
    """
    if not history.last_scores:
        return []
    found: dict[str, list[Reason]] = defaultdict(list)
    for essay_id, reason in _all_reasons(history):
        found[essay_id].append(reason)
    verdicts = _decided_verdicts(history)
    entries = [
        _entry(history, essay_id, reasons, verdicts[essay_id])
        for essay_id, reasons in found.items()
    ]
    return sorted(entries, key=lambda e: (e.decision is not None, -e.gain, e.essay_id))


def to_read(queue: list[QueueEntry]) -> dict[str, QueueEntry]:
    """Return what nobody has decided yet, under the essay's id and in order."""
    return {entry.essay_id: entry for entry in queue if entry.decision is None}


def _entry(
    history: BatchHistory, essay_id: str, reasons: list[Reason], verdicts: list[Row]
) -> QueueEntry:
    projection = history.projection_by_id.get(essay_id)
    is_anchor = bool(history.essay_by_id[essay_id]["is_anchor"])
    graded = None if is_anchor else projection
    return QueueEntry(
        essay_id=essay_id,
        is_anchor=is_anchor,
        gain=1 - math.prod(1 - reason.gain for reason in reasons),
        reasons=tuple(sorted(reasons, key=lambda reason: -reason.gain)),
        grade=graded["grade"] if graded else None,
        confidence=graded["confidence"] if graded else None,
        given_grade=None if is_anchor else history.given_grade(essay_id),
        decision=_decided_now(history, essay_id),
        neighbours=_neighbours(history, essay_id),
        verdicts=tuple(_telling_verdicts(history, essay_id, verdicts)),
    )


def _decided_now(history: BatchHistory, essay_id: str) -> Row | None:
    decision = history.decision_by_id.get(essay_id)
    revision = history.grading["revision"] if history.grading else None
    if decision is None or decision["revision"] != revision:
        return None
    return decision


def _all_reasons(history: BatchHistory) -> Iterator[tuple[str, Reason]]:
    yield from _about_grades(history)
    yield from _about_fit(history)
    yield from _about_requests(history)
    yield from _about_disagreement(history)
    yield from _about_texts(history)
    for row in history.skips:
        kind, _, comment = str(row["reason"]).partition(": ")
        if kind == "concern":
            text = tr("a person raised a concern")
            text += f": {excerpt(comment, 200)}" if comment else ""
            for essay_id in (row["essay_a"], row["essay_b"]):
                yield essay_id, Reason("concern", text, 0.98)
    for row in history.drifts:
        if row["is_drifted"] and row["essay_id"] in history.essay_by_id:
            text = tr(
                "this anchor has moved by {by} logits since the earlier batch",
                by=signed(row["drift"]),
            )
            yield row["essay_id"], Reason("drifted anchor", text, 0.6)


def _about_grades(history: BatchHistory) -> Iterator[tuple[str, Reason]]:
    for essay_id, row in history.projection_by_id.items():
        if row["is_anchor"]:
            yield from _about_anchor(history, essay_id, row)
            continue
        likely = sorted(row["probabilities"].items(), key=lambda item: -item[1])[:2]
        if row["confidence"] < TOSS_UP and len(likely) == 2:
            (one, p), (other, q) = likely
            text = tr(
                "toss-up: {one} ({p}) or {other} ({q})",
                one=one,
                p=percent(p),
                other=other,
                q=percent(q),
            )
            yield essay_id, Reason("toss-up", text, min(0.95, 1 - row["confidence"]))
        error = history.last_score_by_id[essay_id]["standard_error"]
        near = min(
            history.boundaries,
            key=lambda b: abs(row["placed_score"] - b["boundary"]),
            default=None,
        )
        if near is not None and abs(row["placed_score"] - near["boundary"]) < 0.5 * error:
            text = tr(
                "near the boundary between {below} and {above}",
                below=near["below"],
                above=near["above"],
            )
            yield essay_id, Reason("near a boundary", text, 0.3)
        if row["is_extrapolated"]:
            text = tr("lies outside all anchors")
            yield essay_id, Reason("outside the anchors", text, 0.2)


def _about_anchor(history: BatchHistory, essay_id: str, row: Row) -> Iterator[tuple[str, Reason]]:
    grade = history.anchor_grades.get(essay_id, "")
    known = row["probabilities"].get(grade, 1.0)
    if known < DOUBTED:
        text = tr(
            "this anchor is known as {known}, which the others make unlikely ({p}); by them it"
            " would be {grade}",
            known=grade,
            p=percent(known),
            grade=row["grade"],
        )
        yield essay_id, Reason("doubted anchor", text, 0.5)


def _about_fit(history: BatchHistory) -> Iterator[tuple[str, Reason]]:
    for essay_id, fit in history.essay_fits.items():
        if fit.infit_z > MISFIT_Z and fit.infit > 1:
            text = tr(
                "its verdicts contradict each other (infit {infit} over {n} verdicts)",
                infit=number(fit.infit, 1),
                n=fit.n,
            )
            yield essay_id, Reason("misfit", text, 0.4)
    for row in history.last_scores:
        if row["is_one_sided"]:
            text = (
                tr("it won every comparison, so how far it lies from the rest is a guess")
                if row["n_wins"]
                else tr("it lost every comparison, so how far it lies from the rest is a guess")
            )
            yield row["essay_id"], Reason("one-sided", text, 0.25)


def _about_requests(history: BatchHistory) -> Iterator[tuple[str, Reason]]:
    n_of: Counter[str] = Counter()
    refused: dict[tuple[str, str], int] = Counter()
    for row in history.attempts:
        pair = history.pair_by_id.get(row["comparison_id"])
        if pair is None:
            continue
        for essay_id in (pair["essay_a"], pair["essay_b"]):
            n_of[essay_id] += 1
            if row["outcome"] in {"refusal", "content_filter"}:
                refused[essay_id, row["outcome"]] += 1
    for (essay_id, outcome), n in refused.items():
        # A refusal names neither essay: the one with many is the cause.
        gain = 0.7 * n / n_of[essay_id] + 0.1
        text = (
            tr(
                "a judge refused to judge it, or its pair: {n} of {all} requests",
                n=n,
                all=n_of[essay_id],
            )
            if outcome == "refusal"
            else tr(
                "a provider's filter stopped it, or its pair: {n} of {all} requests",
                n=n,
                all=n_of[essay_id],
            )
        )
        yield essay_id, Reason(outcome, text, gain)


def _about_disagreement(history: BatchHistory) -> Iterator[tuple[str, Reason]]:
    winners: dict[frozenset[str], list[str]] = defaultdict(list)
    for row in history.succeeded:
        winners[frozenset((row["essay_a"], row["essay_b"]))].append(row["winner_id"] or "tie")
    n_pairs: Counter[str] = Counter()
    n_split: Counter[str] = Counter()
    for pair, named in winners.items():
        if len(named) > 1:
            for essay_id in pair:
                n_pairs[essay_id] += 1
                n_split[essay_id] += len(set(named)) > 1
    for essay_id, n in n_split.items():
        if n:
            text = tr(
                "judges disagree on {n} of its {all} pairs judged more than once",
                n=n,
                all=n_pairs[essay_id],
            )
            yield essay_id, Reason("judges disagree", text, 0.4 * n / n_pairs[essay_id])


def _about_texts(history: BatchHistory) -> Iterator[tuple[str, Reason]]:
    texts = {row["essay_id"]: row["text"] or "" for row in history.essays}
    lengths = {essay_id: len(text.split()) for essay_id, text in texts.items()}
    usual = sorted(lengths.values())[len(lengths) // 2] if lengths else 0
    likeness = _likeness(texts)
    usual_likeness = sorted(likeness.values())[len(likeness) // 2] if likeness else 0.0
    for essay_id, text in texts.items():
        if visible(text) != text:
            said = tr("its text holds hidden or direction-changing characters")
            yield essay_id, Reason("hidden text", said, 0.8)
        if _INSTRUCTION.search(text):
            said = tr("its text reads as if it told the judge what to do")
            yield essay_id, Reason("injected text", said, 0.9)
        if lengths[essay_id] < UNLIKE * usual:
            said = counted(
                lengths[essay_id],
                "very short: {n} word where {usual} are usual",
                "very short: {n} words where {usual} are usual",
                usual=usual,
            )
            yield essay_id, Reason("very short", said, 0.5)
        elif likeness.get(essay_id, 1.0) < UNLIKE * usual_likeness:
            said = tr("unlike the other texts: few of its words are in any of them")
            yield essay_id, Reason("unlike the others", said, 0.5)


def _likeness(texts: Mapping[str, str]) -> dict[str, float]:
    """Return the share of each text's words that at least one other text has."""
    words = {essay_id: set(re.findall(r"\w+", text.lower())) for essay_id, text in texts.items()}
    n_with = Counter(word for found in words.values() for word in found)
    return {
        essay_id: sum(n_with[word] > 1 for word in found) / len(found)
        for essay_id, found in words.items()
        if found
    }


def _neighbours(history: BatchHistory, essay_id: str) -> tuple[tuple[str, str], ...]:
    grades = history.anchor_grades
    return tuple((a, grades[a]) for a in history.anchors_around(essay_id) if a is not None)


def _decided_verdicts(history: BatchHistory) -> dict[str, list[Row]]:
    """Return the verdicts that name a winner, under each essay's id."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in history.succeeded:
        if row["winner"] != "tie":
            found[row["essay_a"]].append(row)
            found[row["essay_b"]].append(row)
    return found


def _telling_verdicts(history: BatchHistory, essay_id: str, verdicts: list[Row]) -> Iterator[str]:
    """Yield the least expected verdicts on an essay, in words."""
    scores = history.score_by_id
    found = []
    for row in verdicts:
        apart = scores[row["winner_id"]] - scores[row["loser_id"]]
        found.append((1 / (1 + math.exp(-apart)), row["sequence"], row))
    for p, _, row in sorted(found, key=lambda each: each[:2])[:MAX_VERDICTS]:
        won = row["winner_id"] == essay_id
        other = row["loser_id"] if won else row["winner_id"]
        judge = history.judge_by_id[row["judge_id"]]["name"]
        against = visible(history.label(other))
        yield f"{'won' if won else 'lost'} against {against} (expected: {p:.0%}), judge {judge}"
