"""A student's own page: the grade, how sure it is, what it rests on, and what to do about it.

It tells of no other student: opponents are described by where they stand, and judges' words are
those that `told_words` lets through. What a teacher wrote in their place comes instead of them.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from cj_pipeline.errors import SettingsError, UnknownEssayError, UnscalableBatchError
from cj_pipeline.ids import nearest
from cj_pipeline.outputs.html import render_page
from cj_pipeline.outputs.language import (
    counted,
    moment,
    number,
    percent,
    speaking,
    students_language,
    tr,
    whole,
)
from cj_pipeline.outputs.students.told_words import ToldSentence, told_sentences
from cj_pipeline.queries.history import BatchHistory, Row
from cj_pipeline.text import visible

N_VERDICTS = 5
_LEVEL = 0.35
"""Logits within which another text is said to stand about level."""
_MAX_SENTENCES = 6
_WORTH_NAMING = 0.05
_Z_95 = 1.96
TEACHER = "teacher"
"""What stands in brackets after a line that rests on no verdict but on a teacher."""


@dataclass(frozen=True)
class Example:
    """An anchor that the text stands next to.

    Attributes:
        name: By which the page calls it; never its own id, which may be somebody's name.
        grade: Its known grade.
        text: As it was handed in.
        is_above: Whether it stands above the student's text.
    """

    name: str
    grade: str
    text: str
    is_above: bool


@dataclass(frozen=True)
class TellingVerdict:
    """A verdict on the student's text, as the student is told of it.

    Attributes:
        number: Of the comparison, by which a teacher finds it.
        outcome: Against whom, and how it ended, in words.
        words: The judge's, as far as they may be told.
    """

    number: int
    outcome: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class StudentPage:
    """What a student is told; every field is in the language of the essays.

    Attributes:
        title: Of the assignment.
        name: The student's.
        grade: Given; None without one.
        grade_line: The same in a sentence, with who set it.
        scaled_line: The score on the scale that the batch sets; empty without one.
        progress_line: How it compares with the student's text of a batch before; empty without.
        likely: Probabilities in words, one sentence each.
        between: The examples the text stands between.
        verdicts: The most telling ones.
        strengths: What the judges praised, each with the number of its comparison.
        to_work_on: What they missed, likewise.
        edited: A teacher's own feedback, which then stands instead of both.
        changes: What would change the grade.
        appeal: How to appeal.
        status: Who released the grades, and when; empty where nobody has to.
        text: The student's own.
        language: Of the page.
    """

    title: str
    name: str
    grade: str | None
    grade_line: str
    scaled_line: str
    progress_line: str
    likely: tuple[str, ...]
    between: tuple[Example, ...]
    verdicts: tuple[TellingVerdict, ...]
    strengths: tuple[ToldSentence, ...]
    to_work_on: tuple[ToldSentence, ...]
    edited: str
    changes: tuple[str, ...]
    appeal: str
    status: str
    text: str
    language: str


def student_page(history: BatchHistory, essay_id: str) -> StudentPage:
    """Return what a student is told of an essay.

    Raises:
        UnknownEssayError: If the batch has no such essay, or it is an anchor.
        UnscalableBatchError: If the batch has no scores.
        SettingsError: If its grades have to be released first.
    """
    person = _person(history, essay_id)
    judged_id = person.get("judged_id") or essay_id
    if judged_id not in history.score_by_id:
        msg = f"Batch '{history.batch_id}' has no scores yet, so there is no page for anybody."
        raise UnscalableBatchError(msg)
    if history.release.is_provisional:
        msg = (
            f"A student's page of batch '{history.batch_id}' is refused:"
            f" {history.release.statement} Release the grades first, with"
            f" `cj release {history.batch_id} --by NAME`."
        )
        raise SettingsError(msg)
    with speaking(students_language(history.settings)):
        return _page(history, judged_id, person)


def student_ids(history: BatchHistory) -> list[str]:
    """Return whoever gets a page: students whose text was judged, or shares one that was."""
    own = [
        row["essay_id"]
        for row in history.essays
        if not row["is_anchor"] and row["essay_id"] in history.score_by_id
    ]
    return own + [row["essay_id"] for row in history.shared]


def render_student_page(page: StudentPage) -> str:
    """Return the page as HTML that needs nothing else."""
    with speaking(page.language):
        return render_page("student.html", page=page, placed=placed)


def feedback_draft(history: BatchHistory, essay_id: str) -> str:
    """Return the feedback on an essay as text that a teacher may edit, line by line.

    Each line ends with the number of the comparison it comes from.
    """
    person = _person(history, essay_id)
    judged_id = person.get("judged_id") or essay_id
    with speaking(students_language(history.settings)):
        strengths, to_work_on = _feedback(history, judged_id)
        parts = ((tr("What the judges liked"), strengths), (tr("What to work on"), to_work_on))
        return "\n".join(
            line
            for heading, told in parts
            for line in (f"# {heading}", *(f"- {each.text} [{each.number}]" for each in told), "")
        )


def class_feedback_draft(history: BatchHistory) -> str:
    """Return what judges said of the class as a whole: what they named most, and how often.

    Words are counted over texts, never quoted with whose text they were about.
    """
    with speaking(students_language(history.settings)):
        lines: list[str] = []
        for heading, is_praise in (
            (tr("What the judges liked"), True),
            (tr("What to work on"), False),
        ):
            lines.append(f"# {heading}")
            lines += _themes(history, is_praise=is_praise)
            lines.append("")
        return "\n".join(lines)


def check_feedback(history: BatchHistory, essay_id: str | None, text: str) -> list[str]:
    """Return what is wrong with edited feedback: lines that rest on nothing, and names.

    Args:
        history: The batch.
        essay_id: Whose feedback it is; None for the class's.
        text: As edited.
    """
    judged = {
        row["sequence"]
        for row in history.succeeded
        if essay_id is None or essay_id in {row["essay_a"], row["essay_b"]}
    }
    names = [
        str(row["name"])
        for row in (*history.essays, *history.shared)
        if row.get("name") and row["essay_id"] != essay_id and not row.get("is_anchor")
    ]
    problems = []
    for at, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        found = re.search(r"\[([^\]]+)\]\s*$", line)
        numbers = re.split(r"[,\s]+", found[1].strip()) if found else []
        if numbers != [TEACHER] and not (
            numbers and all(n.isdecimal() and int(n) in judged for n in numbers)
        ):
            problems.append(
                f"line {at} does not end with the number of a comparison it comes from, as [12],"
                f" nor with [{TEACHER}] for your own words"
            )
        problems += [
            f"line {at} names another student: {name}"
            for name in names
            if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", line, re.IGNORECASE)
        ]
    return problems


def _person(history: BatchHistory, essay_id: str) -> Row:
    shared = {row["essay_id"]: row for row in history.shared}
    person = history.essay_by_id.get(essay_id) or shared.get(essay_id)
    if person is None or person.get("is_anchor"):
        students = student_ids(history)
        hint = nearest(essay_id, [*students, *map(history.label, students)]) or "."
        msg = f"Batch '{history.batch_id}' has no student's essay '{essay_id}'{hint}"
        raise UnknownEssayError(msg)
    return person


def _page(history: BatchHistory, essay_id: str, person: Row) -> StudentPage:
    strengths, to_work_on = _feedback(history, essay_id)
    release = history.release
    decision = history.decision_by_id.get(essay_id)
    is_machines = decision is None or decision["kind"] == "accept"
    # Where a person set the grade, the verdicts' probabilities are not about it.
    projection = history.projection_by_id.get(essay_id) if is_machines else None
    return StudentPage(
        title=visible(history.batch["title"]),
        name=visible(person.get("name") or person.get("given_id") or person["essay_id"]),
        grade=history.given_grade(essay_id),
        grade_line=_grade_line(history, essay_id),
        scaled_line=_scaled_line(history, essay_id) if is_machines else "",
        progress_line=_progress_line(history, person["essay_id"]) if is_machines else "",
        likely=tuple(_likely(projection)),
        between=tuple(_examples(history, essay_id)),
        verdicts=tuple(_telling(history, essay_id)),
        strengths=strengths,
        to_work_on=to_work_on,
        edited=history.edited_feedback(person["essay_id"]),
        changes=tuple(_changes(projection)),
        appeal=visible(history.settings.get("how_to_appeal") or "")
        or tr(
            "Talk to your teacher first. You may ask that people who had no part in this grade"
            " judge your text again; say why. The numbers in brackets help them find each"
            " comparison."
        ),
        status=(
            tr(
                "Released by {by} on {at}.",
                by=release.released_by or "",
                at=moment(release.released_at),
            )
            if release.status == "released"
            else ""
        ),
        text=visible(history.essay_by_id[essay_id]["text"] or ""),
        language=students_language(history.settings),
    )


def _grade_line(history: BatchHistory, essay_id: str) -> str:
    decision = history.decision_by_id.get(essay_id)
    if decision is not None and decision["kind"] == "override":
        return tr("{by} set this grade after reading your text.", by=decision["decided_by"])
    if decision is not None and decision["kind"] == "exclude":
        return tr("No grade was given; your teacher knows why.")
    if essay_id not in history.projection_by_id:
        return tr("This assignment has no grades.")
    models = counted(
        len([row for row in history.succeeded if essay_id in {row["essay_a"], row["essay_b"]}]),
        "Your text was compared with another once.",
        "Your text was compared with others {n} times.",
    )
    return models + " " + tr("The grade follows from how often it was preferred, and over which.")


def _scaled_line(history: BatchHistory, essay_id: str) -> str:
    scaled, scale = history.scaled_score(essay_id), history.settings.get("scaled_scores") or {}
    if scaled is None:
        return ""
    said = {"score": number(scaled[0], 1), "error": number(1.96 * scaled[1], 1)}
    if scale.get("low") is not None:
        said |= {"low": number(scale["low"], 0), "high": number(scale["high"], 0)}
        return tr(
            "On a scale from {low} to {high} your text stands at {score}; 19 times in 20 the true"
            " place is within {error} of it.",
            **said,
        )
    said["mean"] = number(scale["mean"], 0)
    return tr(
        "On a scale on which the students' mean is {mean} your text stands at {score}; 19 times in"
        " 20 the true place is within {error} of it.",
        **said,
    )


def _progress_line(history: BatchHistory, essay_id: str) -> str:
    rows = [row for row in history.student_progress if row["essay_id"] == essay_id]
    if not rows:
        return ""
    (row,) = rows
    said = tr(
        "Compared with your text of {batch}, this one would be preferred about {n} times in 100.",
        batch=visible(row["batch_before"]),
        n=whole(round(100 / (1 + math.exp(-row["change"])))),
    )
    if abs(row["change"]) > _Z_95 * row["change_standard_error"]:
        return said + " " + tr("That is more than chance explains.")
    return said + " " + tr("That may be chance alone.")


def _likely(projection: Row | None) -> list[str]:
    if projection is None:
        return []
    ranked = sorted(projection["probabilities"].items(), key=lambda item: -item[1])
    named = [(grade, p) for grade, p in ranked if p >= _WORTH_NAMING]
    return [_in_words(at, grade, p) for at, (grade, p) in enumerate(named)]


def _in_words(at: int, grade: str, p: float) -> str:
    said = {"grade": grade, "n": whole(round(100 * p))}
    if at > 0:
        return tr("It may be {grade}: {n} of 100 are.", **said)
    if p >= 0.9:
        return tr("Almost certainly {grade}: so it is for {n} of 100 such texts.", **said)
    if p >= 0.5:
        return tr("Probably {grade}: so it is for {n} of 100 such texts.", **said)
    return tr("Most likely {grade}, but only {n} of 100 such texts are.", **said)


def _examples(history: BatchHistory, essay_id: str) -> list[Example]:
    """Return the anchors around a text and the next nearest, highest first."""
    scores, grades = history.score_by_id, history.anchor_grades
    around = [a for a in history.anchors_around(essay_id) if a is not None]
    mine = scores[essay_id]
    rest = sorted(
        (a for a in grades if a in scores and a not in around), key=lambda a: abs(scores[a] - mine)
    )
    chosen = sorted([*around, *rest][:3], key=lambda a: -scores[a])
    return [
        Example(
            name=tr("Example {n}", n=at),
            grade=grades[anchor],
            text=visible(history.essay_by_id[anchor]["text"] or ""),
            is_above=scores[anchor] > mine,
        )
        for at, anchor in enumerate(chosen, start=1)
    ]


def _telling(history: BatchHistory, essay_id: str) -> list[TellingVerdict]:
    """Return the verdicts that tell most: with words, between near texts, won and lost alike."""
    scores = history.score_by_id
    rows = []
    for row in history.succeeded:
        if essay_id in {row["essay_a"], row["essay_b"]}:
            other = row["essay_b"] if row["essay_a"] == essay_id else row["essay_a"]
            words = tuple(each.text for each in told_sentences(history, essay_id, row))
            rows.append((not words, abs(scores[other] - scores[essay_id]), row, other, words))
    rows.sort(key=lambda each: (each[0], each[1], each[2]["sequence"]))
    won = [each for each in rows if each[2]["winner_id"] == essay_id]
    lost = [each for each in rows if each[2]["winner_id"] not in {essay_id, None}]
    first = [*won[: N_VERDICTS // 2], *lost[: N_VERDICTS // 2]]
    chosen = [*first, *(each for each in rows if each not in first)][:N_VERDICTS]
    return [
        TellingVerdict(row["sequence"], _outcome(history, essay_id, row, other), words)
        for _, _, row, other, words in sorted(chosen, key=lambda each: each[2]["sequence"])
    ]


def _outcome(history: BatchHistory, essay_id: str, row: Row, other: str) -> str:
    against = _against(history, essay_id, other)
    if row["winner"] == "tie":
        return tr("judged equal to {other}", other=against)
    if row["winner_id"] == essay_id:
        return tr("preferred to {other}", other=against)
    return tr("{other} was preferred to yours", other=against)


def _against(history: BatchHistory, essay_id: str, other: str) -> str:
    if other in history.anchor_grades:
        return tr("an example known as {grade}", grade=history.anchor_grades[other])
    apart = history.score_by_id[other] - history.score_by_id[essay_id]
    if abs(apart) <= _LEVEL:
        return tr("a text that stands about level")
    return tr("a text that stands higher") if apart > 0 else tr("a text that stands lower")


def _feedback(
    history: BatchHistory, essay_id: str
) -> tuple[tuple[ToldSentence, ...], tuple[ToldSentence, ...]]:
    told = [
        each
        for row in history.succeeded
        if essay_id in {row["essay_a"], row["essay_b"]}
        for each in told_sentences(history, essay_id, row)
    ]
    praise = {each.text: each for each in reversed(told) if each.is_praise}
    rest = {each.text: each for each in reversed(told) if not each.is_praise}
    return (
        tuple(sorted(praise.values(), key=lambda each: each.number)[:_MAX_SENTENCES]),
        tuple(sorted(rest.values(), key=lambda each: each.number)[:_MAX_SENTENCES]),
    )


def placed(example: Example) -> str:
    """Return in a sentence where an example stands."""
    values = {"example": example.name, "grade": example.grade}
    if example.is_above:
        return tr("{example}, known as {grade}, stands above your text.", **values)
    return tr("{example}, known as {grade}, stands below your text.", **values)


def _changes(projection: Row | None) -> list[str]:
    if projection is None:
        return []
    grades = list(projection["probabilities"])
    at = grades.index(projection["grade"])
    said = []
    if at + 1 < len(grades):
        p = projection["probabilities"][grades[at + 1]]
        said.append(
            tr(
                "One step higher, {grade}, has a probability of {p}: it would take being preferred"
                " more often to texts such as the examples known as {grade}.",
                grade=grades[at + 1],
                p=percent(p),
            )
        )
    if at > 0:
        p = projection["probabilities"][grades[at - 1]]
        said.append(
            tr(
                "One step lower, {grade}, has a probability of {p}.",
                grade=grades[at - 1],
                p=percent(p),
            )
        )
    said.append(
        tr(
            "More comparisons would make the probabilities surer and may move the grade; a"
            " teacher's own reading counts more than they do."
        )
    )
    return said


def _themes(history: BatchHistory, *, is_praise: bool) -> list[str]:
    texts_of: dict[str, set[str]] = defaultdict(set)
    numbers: dict[str, set[int]] = defaultdict(set)
    for row in history.succeeded:
        for essay_id in (row["essay_a"], row["essay_b"]):
            if history.essay_by_id[essay_id]["is_anchor"]:
                continue
            for each in told_sentences(history, essay_id, row):
                if each.is_praise != is_praise:
                    continue
                for word in set(re.findall(r"[^\W\d_]{5,}", each.text.casefold())):
                    texts_of[word].add(essay_id)
                    numbers[word].add(each.number)
    named = sorted(
        (word for word, found in texts_of.items() if len(found) > 1),
        key=lambda word: (-len(texts_of[word]), word),
    )
    return [
        "- "
        + tr("“{word}”, of {n} texts", word=word, n=len(texts_of[word]))
        + f" [{_listed(sorted(numbers[word]))}]"
        for word in named[:8]
    ]


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:12]))
