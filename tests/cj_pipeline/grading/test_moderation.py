"""A moderated sample: what ten graded students take out of a level that is off."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

from cj_pipeline.arrays import Floats
from cj_pipeline.errors import SettingsError
from cj_pipeline.grading.grade_scales import GradeScale
from cj_pipeline.grading.moderation import ModeratedGrades, level_check, moderate
from cj_pipeline.grading.projection import project_grades

SCALE = GradeScale("six", "Six grades", grades=("F", "E", "D", "C", "B", "A"))
STEP = 0.9
ERROR = 0.35


@dataclass(frozen=True, eq=False)
class Batch:
    """Twelve exemplars and forty students; teachers hold students to another level by `shift`."""

    ids: tuple[str, ...]
    scores: Floats
    covariance: Floats
    exemplars: dict[str, str]
    true: dict[str, str]


def graded(quality: Floats) -> list[str]:
    steps = np.clip(np.floor(quality / STEP + 3), 0, 5).astype(int)
    return [SCALE.steps[k] for k in steps]


@cache
def batch(seed: int, shift: float) -> Batch:
    rng = np.random.default_rng(seed)
    exemplars = np.linspace(-2.4, 2.4, 12)
    students = rng.normal(0, 1.2, 40)
    seen = np.concatenate([exemplars, students])
    n = len(seen)
    covariance = ERROR**2 * (np.eye(n) - 1 / n)
    off = rng.normal(0, ERROR, n)
    scores = seen - seen.mean() + off - off.mean()
    names = [f"x{i}" for i in range(12)]
    pupils = [f"s{i}" for i in range(40)]
    return Batch(
        (*names, *pupils),
        scores,
        covariance,
        dict(zip(names, graded(exemplars), strict=True)),
        dict(zip(pupils, graded(students - shift * STEP), strict=True)),
    )


def moderated(seed: int, shift: float, n_sampled: int = 10) -> tuple[Batch, ModeratedGrades]:
    found = batch(seed, shift)
    picked = list(found.true)[:n_sampled]
    sample = {essay: found.true[essay] for essay in picked}
    return found, moderate(
        SCALE,
        found.ids,
        found.scores,
        found.covariance,
        found.exemplars,
        sampled_grades=sample,
    )


def bias(found: Batch, most_probable: tuple[str, ...], skipped: int) -> float:
    """Return how many steps too high the students that were not sampled come out."""
    given = dict(zip(found.ids, most_probable, strict=True))
    rest = list(found.true)[skipped:]
    return float(
        np.mean([SCALE.steps.index(given[e]) - SCALE.steps.index(found.true[e]) for e in rest])
    )


@pytest.mark.parametrize("shift", [-1.0, 1.0, 2.0])
def test_ten_graded_students_take_out_a_level_that_is_off(shift: float) -> None:
    """By exemplars alone every student is off by it; with the sample a third of it is left."""
    before, after = [], []
    for seed in range(3):
        found, grades = moderated(seed, shift)
        plain = project_grades(SCALE, found.ids, found.scores, found.covariance, found.exemplars)
        before.append(bias(found, plain.most_probable, 10))
        after.append(bias(found, grades.most_probable, 10))

    assert abs(np.mean(after)) < 0.35 * abs(np.mean(before))
    assert np.sign(np.mean(before)) == np.sign(shift)


def test_where_the_level_holds_the_sample_changes_little() -> None:
    """And says that it shows nothing."""
    offs, alarms = [], []
    for seed in range(8):
        found, grades = moderated(seed, 0.0)
        offs.append(bias(found, grades.most_probable, 10))
        assert grades.level is not None
        alarms.append(grades.level.p < 0.05)

    assert abs(np.mean(offs)) < 0.15
    assert sum(alarms) <= 1


def test_confidence_comes_true_at_a_shifted_level() -> None:
    """What the exemplars alone said of one step off was wrong half of the time."""
    gaps = []
    for seed in range(8):
        found, grades = moderated(seed, 1.0)
        given = dict(zip(grades.essay_ids, grades.most_probable, strict=True))
        sure = dict(zip(grades.essay_ids, grades.confidence.tolist(), strict=True))
        rest = list(found.true)[10:]
        gaps += [sure[e] - (given[e] == found.true[e]) for e in rest]

    assert abs(np.mean(gaps)) < 0.08


def test_the_offset_is_told_with_its_limits() -> None:
    """In steps, positive where exemplars graded students too well."""
    _, grades = moderated(3, 2.0)

    assert grades.offset_lower < grades.offset_steps < grades.offset_upper
    assert grades.offset_steps == pytest.approx(2.0, abs=0.6)
    assert "steps too high" in grades.statement
    assert grades.n_sampled == 10
    assert grades.n_effective > 100


def test_a_sampled_student_has_the_grade_its_teachers_gave() -> None:
    """Whatever the judge saw."""
    found, grades = moderated(1, 1.0)

    given = dict(zip(grades.essay_ids, grades.most_probable, strict=True))
    assert all(given[e] == found.true[e] for e in list(found.true)[:10])


def test_the_same_sample_gives_the_same_grades() -> None:
    """A report printed twice must not differ."""
    one, other = moderated(2, 1.0)[1], moderated(2, 1.0)[1]

    assert np.array_equal(one.probabilities, other.probabilities)


def test_ten_students_alone_do_not_show_a_small_difference() -> None:
    """What they could have shown is said instead; all share the exemplars' error."""
    rng = np.random.default_rng(0)
    off = rng.normal(0.3, 1.0, 10)

    found = level_check(off, np.zeros(10), variance_of_level=0.09)

    assert found is not None
    assert found.p > 0.05
    assert found.could_be_seen > 0.5
    assert level_check(off[:1], np.zeros(1), variance_of_level=0.0) is None


def test_a_sample_that_cannot_be_used_is_told_with_all_its_problems() -> None:
    """Each by name, before anything is worked out."""
    found = batch(0, 0.0)

    with pytest.raises(SettingsError, match=r"'x1' is an anchor.*") as refused:
        moderate(
            SCALE,
            found.ids,
            found.scores,
            found.covariance,
            found.exemplars,
            sampled_grades={"nobody": "A", "x1": "B", "s1": "Z"},
        )
    assert "'nobody' is no essay" in str(refused.value)
    assert "the grade 'Z'" in str(refused.value)
