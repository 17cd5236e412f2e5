"""How precise a batch is by now, in every figure `precise` may set a target for.

What the next wave would gain is worked out by `outlook`; how many comparisons a target takes, by
`forecast`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cj_pipeline.batch.options import PrecisionTargets
from cj_pipeline.scale.bradley_terry import Scale
from cj_pipeline.scale.score_posterior import score_posterior

if TYPE_CHECKING:
    from cj_pipeline.grading.projection import GradeProjections
    from cj_pipeline.stopping.expected_gain import ExpectedGain


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
        gain_per_usd: What a dollar on the best next wave is expected to take off the typical error
            of a rank or grade (see `ExpectedGain`); None where no price is known, or it was not
            requested.
    """

    reliability: float
    mean_standard_error: float
    max_standard_error: float
    misgrading: float | None = None
    gain_per_usd: float | None = None


def precision_of(
    scale: Scale,
    student_ids: Collection[str],
    *,
    projections: GradeProjections | None = None,
    outlook: ExpectedGain | None = None,
    usd_per_comparison: float | None = None,
    standard_errors: Mapping[str, float] | None = None,
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
    """
    students = dict.fromkeys(student_ids)
    own = dict(zip(scale.essay_ids, scale.standard_errors.tolist(), strict=True))
    errors = np.array([(standard_errors or own)[essay_id] for essay_id in students])
    misgrading = None
    if projections is not None and projections.is_graded:
        is_student = [essay_id in students for essay_id in projections.essay_ids]
        misgrading = float(np.mean(1 - projections.confidence[is_student]))
    anchors = [essay_id for essay_id in scale.essay_ids if essay_id not in students]
    reliability = score_posterior(scale, anchors).reliability
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
    )


def meets(precision: Precision, rule: PrecisionTargets) -> bool:
    """Return whether every target that is given is met; an unknown figure meets none."""
    at_least = [(precision.reliability, rule.reliability)]
    at_most = [
        (precision.mean_standard_error, rule.mean_standard_error),
        (precision.max_standard_error, rule.max_standard_error),
        (precision.misgrading, rule.misgrading),
        (precision.gain_per_usd, rule.gain_per_usd),
    ]
    reached = [value >= target for value, target in at_least if target is not None]
    reached += [
        value is not None and value <= target for value, target in at_most if target is not None
    ]
    return all(reached)
