"""How a batch's scale becomes grades: on which scale, by which thresholds, and then `projection`.

All who grade (a wave that looks for boundaries, the end of a batch, grading again, the check of
an artefact) start here, so that all of them grade alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cj_pipeline.grading.grade_scales import GradeScale

if TYPE_CHECKING:
    from cj_pipeline.batch.comparisons import JudgedPair
    from cj_pipeline.grading.anchors import AnchorRules
    from cj_pipeline.grading.linking import Scored
    from cj_pipeline.grading.projection import GradeProjections


@dataclass(frozen=True)
class GradingTerms:
    """What a batch is graded by.

    Attributes:
        scale: The published scale.
        rules: When there are no grades.
        use_priors: Whether the scale's published shares weigh in.
    """

    scale: GradeScale
    rules: AnchorRules
    use_priors: bool

    def as_record(self) -> dict[str, Any]:
        """Return the thresholds and the use of shares, as a grading keeps them."""
        return {**asdict(self.rules), "use_priors": self.use_priors}


def grade_by(
    terms: GradingTerms,
    scored: Scored,
    anchor_grades: Mapping[str, str],
    judged: Sequence[JudgedPair] = (),
) -> GradeProjections:
    """Return grades on these terms; see `projection.project_grades`."""
    from cj_pipeline.grading.projection import project_grades

    return project_grades(
        terms.scale,
        scored.essay_ids,
        scored.scores,
        scored.covariance,
        anchor_grades,
        judged=judged,
        rules=terms.rules,
        use_priors=terms.use_priors,
    )
