"""How a batch's scale becomes grades: on which scale, by which thresholds, and then `projection`.

All who grade (a wave that looks for boundaries, the end of a batch, grading again, the check of
an artefact) start here, so that all of them grade alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from cj_pipeline.grading.grade_scales import GradeScale

if TYPE_CHECKING:
    from cj_pipeline.batch.comparisons import JudgedPair
    from cj_pipeline.grading.anchors import AnchorRules
    from cj_pipeline.grading.disagreement import Disagreement
    from cj_pipeline.grading.linking import Scored
    from cj_pipeline.grading.moderation import ModeratedGrades
    from cj_pipeline.grading.projection import GradeProjections
    from cj_pipeline.scale.bradley_terry import Scale


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
    sampled_grades: Mapping[str, str] | None = None,
    *,
    expected: Disagreement | None = None,
) -> GradeProjections:
    """Return grades on these terms; see `projection.project_grades`.

    Args:
        terms: The scale and the thresholds.
        scored: The batch's essays with their scores.
        anchor_grades: Each anchor's known grade.
        judged: The finished comparisons.
        sampled_grades: Grades that teachers gave to sampled students: grades are then moderated
            by them, see `moderation.moderate`. What the scale's published shares say is left out.
        expected: What is taken of the disagreement between judge and graders beforehand; by
            default the usual.
    """
    from cj_pipeline.grading.projection import project_grades

    projections = project_grades(
        terms.scale,
        scored.essay_ids,
        scored.scores,
        scored.covariance,
        anchor_grades,
        judged=judged,
        rules=terms.rules,
        use_priors=terms.use_priors,
        expected=expected,
    )
    if not sampled_grades or not projections.is_graded:
        return projections
    from cj_pipeline.grading.moderation import moderate

    moderated = moderate(
        terms.scale,
        scored.essay_ids,
        scored.scores,
        scored.covariance,
        anchor_grades,
        sampled_grades=sampled_grades,
        expected=expected,
    )
    return moderated_projections(projections, moderated, anchor_grades)


def grades_or_why_not(
    terms: GradingTerms | str | None,
    scale: Scale | None,
    anchor_grades: Mapping[str, str],
    judged: Sequence[JudgedPair],
    sampled_grades: Mapping[str, str] | None = None,
    *,
    expected: Disagreement | None = None,
) -> tuple[str, GradeProjections | None]:
    """Return grades of a batch on its own scale with what is to be said of them, or why not.

    Args:
        terms: The batch's terms; None where it names no scale; the reason of its end, as a word,
            where it did not succeed.
        scale: None while the verdicts give none.
        anchor_grades: Each anchor's known grade.
        judged: The finished comparisons.
        sampled_grades, expected: As `grade_by` takes them.
    """
    if isinstance(terms, str):
        return f"No grades: the batch ended as {terms}.", None
    if scale is None:
        return "No grades: the verdicts do not join all essays into one net.", None
    if terms is None:
        return "Scores and ranks only: the batch names no grade scale.", None
    if not anchor_grades:
        return f"Scores and ranks only: no anchors carry grades on {terms.scale.name}.", None
    projections = grade_by(terms, scale, anchor_grades, judged, sampled_grades, expected=expected)
    return projections.statement, projections


def students_alike(scale: Scale | None, anchor_grades: Mapping[str, str]) -> str:
    """Return in words that students cannot be told apart; empty where they can."""
    if scale is None:
        return ""
    from cj_pipeline.scale.score_posterior import score_posterior

    found = score_posterior(scale, anchor_grades).reliability
    if not found.cannot_be_told_apart:
        return ""
    return (
        "These verdicts cannot tell the students apart: with 95 % probability between"
        f" {found.lower or 0:.0%} and {found.upper or 0:.0%} of the differences between their"
        " scores are real. Do not rank or grade by such differences before more is judged. "
    )


def waived_statement(waived: Sequence[str]) -> str:
    """Return in words what a person let go, of what a batch's grades need; empty for nothing."""
    return f"A person waived what need not hold any more: {'; '.join(waived)}." if waived else ""


def moderated_projections(
    projections: GradeProjections, moderated: ModeratedGrades, anchor_grades: Mapping[str, str]
) -> GradeProjections:
    """Return grades with the students' probabilities as a sample moderated them.

    Anchors keep what the other anchors say of them, and boundaries stay the exemplars'. Minus and
    plus are left out where the grade has changed: they belong to the exemplars' boundaries.
    """
    import numpy as np

    is_student = np.array([e not in anchor_grades for e in projections.essay_ids])
    probabilities = np.where(
        is_student[:, None], moderated.probabilities, projections.probabilities
    )
    best = [projections.grades[k] for k in probabilities.argmax(axis=1)]
    unchanged = zip(best, projections.most_probable, projections.fine_grades, strict=True)
    return replace(
        projections,
        probabilities=probabilities,
        expected_grade=probabilities @ np.arange(len(projections.grades)),
        most_probable=tuple(best),
        fine_grades=tuple(fine if now == was else now for now, was, fine in unchanged),
        confidence=probabilities.max(axis=1),
        disagreement=moderated.disagreement,
        statement=" ".join(filter(None, (projections.statement, moderated.statement))),
    )
