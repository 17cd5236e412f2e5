"""How precise a batch is by now, in every figure `precise` may set a target for.

What the next wave would gain is worked out by `outlook`; how many comparisons a target takes, by
`forecast`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cj_pipeline.batch.options import Goal, PrecisionTargets
from cj_pipeline.scale.bradley_terry import Scale
from cj_pipeline.scale.score_posterior import score_posterior

if TYPE_CHECKING:
    from cj_pipeline.grading.projection import GradeProjections
    from cj_pipeline.scale.certainty import ScorePosterior
    from cj_pipeline.stopping.expected_gain import ExpectedGain


_DRAWS = 2_000
"""A share's Monte-Carlo error is then below .01."""


@dataclass(frozen=True)
class Precision:
    """What a scale has reached.

    Attributes:
        reliability: Of the students' scores among students; 0 for fewer than two. It does not take
            noise for differences, nor anchors for students.
        mean_standard_error: In logits, over students.
        max_standard_error: In logits, over students.
        misgrading: The share of students expected to have another grade than their most probable
            one; None where there are no grades, or none were requested.
        misplaced: Where one cut is the goal, the share expected on its wrong side; see `misplaced`.
        gain_per_usd: What a dollar on the best next wave is expected to take off the typical error
            of a rank or grade (see `ExpectedGain`); None where no price is known, or it was not
            requested.
    """

    reliability: float
    mean_standard_error: float
    max_standard_error: float
    misgrading: float | None = None
    gain_per_usd: float | None = None
    misplaced: float | None = None


def precision_of(
    scale: Scale,
    student_ids: Collection[str],
    *,
    projections: GradeProjections | None = None,
    outlook: ExpectedGain | None = None,
    usd_per_comparison: float | None = None,
    standard_errors: Mapping[str, float] | None = None,
    goal: Goal | None = None,
) -> Precision:
    """Return what a scale has reached.

    Args:
        scale: Of the whole batch.
        student_ids: The essays to be placed; anchors' errors do not count.
        projections: The grades so far, for the probability of misgrading.
        outlook: What the next wave would gain, for the gain per dollar.
        usd_per_comparison: What a comparison has cost so far.
        standard_errors: Of the students' scores, where earlier batches make them surer than the
            scale alone.
        goal: Of the batch, for the share that is misplaced.
    """
    students = dict.fromkeys(student_ids)
    own = dict(zip(scale.essay_ids, scale.standard_errors.tolist(), strict=True))
    errors = np.array([(standard_errors or own)[essay_id] for essay_id in students])
    misgrading = None
    if projections is not None and projections.is_graded:
        is_student = [essay_id in students for essay_id in projections.essay_ids]
        misgrading = float(np.mean(1 - projections.confidence[is_student]))
    anchors = [essay_id for essay_id in scale.essay_ids if essay_id not in students]
    posterior = score_posterior(scale, anchors)
    reliability = posterior.reliability
    return Precision(
        reliability=reliability.value or 0.0,
        mean_standard_error=float(errors.mean()),
        max_standard_error=float(errors.max()),
        misgrading=misgrading,
        gain_per_usd=(
            outlook.gain_per_comparison / usd_per_comparison
            if outlook is not None and usd_per_comparison
            else None
        ),
        misplaced=None if goal is None else misplaced(posterior, goal, projections),
    )


def misplaced(
    posterior: ScorePosterior, goal: Goal, projections: GradeProjections | None = None
) -> float | None:
    """Return the share expected on the wrong side of the one cut that is the goal.

    Of `top`, the share of those named who are not among the best; of `cut`, of all students. None
    where the goal is no cut, or one between grades that there are not.
    """
    if goal.grade is not None:
        if projections is None or not projections.is_graded:
            return None
        students = set(np.array(posterior.essay_ids)[posterior.is_student].tolist())
        chosen = [essay_id in students for essay_id in projections.essay_ids]
        above = projections.probabilities[chosen, projections.grades.index(goal.grade) :]
        share = above.sum(axis=1)
        return float(np.mean(np.minimum(share, 1 - share)))
    students_at = np.flatnonzero(posterior.is_student)
    n_above = goal.n_above(len(students_at))
    if n_above is None or not 0 < n_above < len(students_at):
        return None
    drawn = posterior.drawn(_DRAWS, seed=0)[:, students_at]
    best = np.argpartition(-drawn, n_above - 1, axis=1)[:, :n_above]
    share_above = np.bincount(best.ravel(), minlength=len(students_at)) / len(drawn)
    named = np.argsort(-posterior.scores[students_at], kind="stable")[:n_above]
    wrong = float(np.sum(1 - share_above[named]))
    # Whoever is wrongly above keeps somebody wrongly below.
    return wrong / n_above if goal.kind == "top" else 2 * wrong / len(students_at)


def meets(precision: Precision, rule: PrecisionTargets) -> bool:
    """Return whether every target that is given is met; an unknown figure meets none."""
    at_least = [(precision.reliability, rule.reliability)]
    at_most = [
        (precision.mean_standard_error, rule.mean_standard_error),
        (precision.max_standard_error, rule.max_standard_error),
        (precision.misgrading, rule.misgrading),
        (precision.misplaced, rule.misplaced),
        (precision.gain_per_usd, rule.gain_per_usd),
    ]
    reached = [value >= target for value, target in at_least if target is not None]
    reached += [
        value is not None and value <= target for value, target in at_most if target is not None
    ]
    return all(reached)
