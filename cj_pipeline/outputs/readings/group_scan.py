"""The scan of fairness: groups of students and properties of texts against scores, in words.

Groups come from the optional column `group`, which judges never see; a cell may name several,
parted by semicolons.
"""

from __future__ import annotations

from dataclasses import dataclass

from cj_pipeline.diagnostics.group_differences import (
    GroupDifference,
    TextEffect,
    group_differences,
    text_effects,
)
from cj_pipeline.outputs.language import number, signed, tr
from cj_pipeline.queries.history import BatchHistory


@dataclass(frozen=True)
class GroupScan:
    """What was found.

    Attributes:
        differences: By group, largest first.
        effects: Of properties of texts.
    """

    differences: tuple[GroupDifference, ...]
    effects: tuple[TextEffect, ...]


def group_scan(history: BatchHistory) -> GroupScan | None:
    """Return the scan of a batch's students; None where there is nothing to scan."""
    students = {
        row["essay_id"]: row["score"]
        for row in history.last_scores
        if not history.essay_by_id[row["essay_id"]]["is_anchor"]
    }
    groups = {
        essay_id: tuple(
            part.strip()
            for part in str(history.essay_by_id[essay_id].get("group") or "").split(";")
            if part.strip()
        )
        for essay_id in students
    }
    texts = {essay_id: history.essay_by_id[essay_id]["text"] or "" for essay_id in students}
    found = GroupScan(
        tuple(group_differences(students, groups, _against_people(history))),
        tuple(text_effects(students, texts)),
    )
    return found if found.differences or found.effects else None


def _against_people(history: BatchHistory) -> dict[str, float]:
    """Return the judges' expected grade less a teacher's, in steps, for sampled students."""
    sampled = (history.grading or {}).get("sampled_grades") or {}
    apart = {}
    for essay_id, grade in sampled.items():
        projection = history.projection_by_id.get(essay_id)
        if projection is not None and grade in projection["probabilities"]:
            steps = list(projection["probabilities"])
            apart[essay_id] = projection["expected_grade"] - steps.index(grade)
    return apart


def scan_in_words(scan: GroupScan) -> list[str]:
    """Return what the scan found in sentences."""
    said = []
    for effect in scan.effects:
        values = {
            "r": number(effect.correlation),
            "lower": number(effect.lower),
            "upper": number(effect.upper),
        }
        said.append(
            tr(
                "Length goes with scores by a correlation of {r} (95 % interval {lower} to"
                " {upper}): longer texts may be better, or judges may like length.",
                **values,
            )
            if effect.what == "length"
            else tr(
                "Variety of words goes with scores by a correlation of {r} (95 % interval {lower}"
                " to {upper}), which is language and not length.",
                **values,
            )
        )
    if not scan.differences:
        said.append(
            tr(
                "No groups were compared: the column `group` names none of five or more students"
                " with as many others."
            )
        )
    elif not any(each.is_beyond_chance for each in scan.differences):
        said.append(tr("No group differs from the others beyond chance."))
    return said


def beside_people(each: GroupDifference) -> str:
    """Return how the judges' grades of a group lie against people's, in words."""
    if each.against_people is None or each.against_people_error is None:
        return tr("not known")
    return f"{signed(each.against_people)} ± {number(each.against_people_error)}"
