"""The anchors of a batch folder and the grades known beforehand, wherever they stand."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from cj_pipeline.batch.essays import Essay
from cj_pipeline.grading.grade_scales import GradeScale
from cj_pipeline.ids import nearest, same_name
from cj_pipeline.intake.essay_files import Source, essay_of, sources_in
from cj_pipeline.intake.folder import Reading
from cj_pipeline.intake.layout import GRADES
from cj_pipeline.intake.tables import TABLE_ENDINGS, table_named, table_rows

GRADES_FILE = f"{GRADES}.csv"

NameRule = Callable[[str], tuple[str, str] | None]
"""Takes a file's name without its ending; returns the grade and the rest of the name."""


def anchors_in(reading: Reading, folder: str, scale: GradeScale | None) -> list[Essay]:
    """Return the anchors in a folder with their grades; one without a grade is a problem."""
    tables = [GRADES + ending for ending in TABLE_ENDINGS]
    sources = sources_in(reading, folder, aside=tables)
    place = table_named(reading, f"{folder}/{GRADES}") or table_named(reading, GRADES)
    listed = _listed_grades(reading, folder, place, sources) if place else None
    rule = _before_underscores if listed is not None else _rule(reading, sources, scale)
    anchors = []
    for source in sources:
        parted = rule(source.name)
        if listed is not None:
            grade = listed.get(source.file_name)
            if grade is None:
                reading.problems.append(f"{source.relative} has no grade in {place}")
        else:
            grade = parted[0] if parted else None
            if grade is None:
                reading.problems.append(
                    f"{source.relative} has no grade: list it in {folder}/{GRADES_FILE}"
                    f" (file,grade), or begin its name with the grade, as in B__{source.file_name}"
                )
        name = parted[1] if parted and parted[0] == grade else source.name
        anchor = essay_of(reading, source)
        if anchor is not None and grade is not None:
            anchors.append(replace(anchor, grade=grade, given_id=name))
    times = Counter(anchor.given_id for anchor in anchors)
    return [
        replace(a, given_id=PurePosixPath(a.file_name).stem) if times[a.given_id] > 1 else a
        for a in anchors
    ]


def checked_grade(
    reading: Reading, where: str, grade: str, scale: GradeScale, *, may_be_decimal: bool = True
) -> str:
    """Return a grade as the scale writes it; one it does not know is a problem with a hint."""
    if grade in scale.steps:
        return grade
    pointed = grade.replace(",", ".")
    if may_be_decimal and pointed in scale.steps:
        reading.notices.append(f"{where}: the grade {grade!r} is read as {pointed}")
        return pointed
    reading.problems.append(
        f"{where}: unknown grade {grade!r} on {scale.name}{grade_hint(grade, scale)};"
        f" known: {', '.join(scale.steps)}"
    )
    return grade


def grade_hint(grade: str, scale: GradeScale) -> str:
    """Return "; did you mean ...?" for a grade that a scale does not know; empty without any."""
    folded = "".join(grade.split()).replace(",", ".").casefold()
    for step in scale.steps:
        if step.casefold() == folded:
            return f"; did you mean {step!r}?"
    number = _number(folded)
    if number is None:
        return nearest(grade.upper(), scale.steps, at_least=0.8)
    for step in scale.steps:
        if _number(step) == number:
            return f"; did you mean {step!r}?"
    if any(_number(step) is not None for step in scale.steps) and number != int(number):
        return "; the scale has whole steps: give the step the graders agreed on"
    return ""


def order_of_grades(scale: GradeScale) -> str:
    """Return which of a scale's grades is taken as the lowest, and what to do if it is not.

    1 is the best grade in one country and the worst in the next: nobody but the reader can know.
    """
    first, last = scale.grades[0], scale.grades[-1]
    if hint := _listed_best_first(scale):
        return hint
    return f"{first} is taken as the lowest grade and {last} as the highest, as they are listed"


def _listed_best_first(scale: GradeScale) -> str:
    """Return a hint for a scale of letters that run from A on; empty for others."""
    letters = [grade for grade in scale.grades if re.fullmatch(r"[A-Z][+-]?", grade)]
    is_letters = len(letters) == len(scale.grades) > 1
    if not is_letters or [g[0] for g in letters] != sorted(g[0] for g in letters):
        return ""
    if letters[0][0] == letters[-1][0]:
        return ""
    first, last = scale.grades[0], scale.grades[-1]
    return (
        f"grades run from {first} to {last}, so {first} is taken as the lowest. If {first} is the"
        " best, list them the other way round"
    )


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\d{1,6}(\.\d{1,6})?", text) else None


def _listed_grades(
    reading: Reading, folder: str, place: str, sources: Sequence[Source]
) -> dict[str, str]:
    """Return the grade of each file that a table lists, by the file's name."""
    by_name = {source.file_name: source.file_name for source in sources}
    by_name |= {PurePosixPath(name).stem: name for name in by_name if name}
    by_name |= {source.name: source.file_name for source in sources}
    grades: dict[str, str] = {}
    for row in table_rows(reading, place, ("file", "grade")):
        file, grade = same_name(row.cells["file"]), row.cells["grade"].strip()
        known = by_name.get(file)
        if known is None:
            files = [source.file_name for source in sources]
            hint = nearest(file, files, at_least=0.6)
            reading.problems.append(f"{row.where}: {folder}/ has no file {file!r}{hint}")
        elif known in grades:
            reading.problems.append(f"{row.where}: {file!r} has a grade already")
        elif not grade:
            reading.problems.append(f"{row.where}: {file!r} has no grade")
        else:
            grades[known] = grade
    return grades


def _before_underscores(stem: str) -> tuple[str, str] | None:
    grade, separator, rest = stem.partition("__")
    return (grade, rest or stem) if separator and grade else None


def _rule(reading: Reading, sources: Sequence[Source], scale: GradeScale | None) -> NameRule:
    """Return how the files' names bear their grades: the one way that fits all of them.

    Two underscores always do. Of other ways only one is taken that gives a grade of the scale for
    every file, and it is told.
    """
    names = [source.name for source in sources]
    if scale is None or any("__" in name for name in names):
        return _before_underscores
    steps = set(scale.steps)
    rules: list[NameRule] = [
        lambda stem: _with_number(stem, steps),
        lambda stem: _token(stem, -1, steps),
        lambda stem: _token(stem, 0, steps),
    ]
    for rule in rules:
        found = [rule(name) for name in names]
        if names and all(found):
            grade = found[0][0] if found[0] else ""
            reading.notices.append(
                f"the anchors' grades are read from their files' names, as {grade} from"
                f" {sources[0].file_name}"
            )
            return rule
    return _before_underscores


def _with_number(stem: str, steps: set[str]) -> tuple[str, str] | None:
    """`F+1`, `E-2`: the grade and a running number."""
    match = re.fullmatch(r"(\D+?)[ _]?(\d{1,3})", stem)
    return (match[1], stem) if match and match[1] in steps else None


def _token(stem: str, at: int, steps: set[str]) -> tuple[str, str] | None:
    """`anchor_001_F+` or `F+ 001`: the grade as the last or the first part of the name."""
    parts = re.split(r"[_ ]", stem)
    return (parts[at], stem) if len(parts) > 1 and parts[at] in steps else None
