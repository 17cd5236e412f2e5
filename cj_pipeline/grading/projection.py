"""From scores to grades, by the anchors, with honest probabilities; or why there are no grades.

Where boundaries lie is `boundaries`; whether anchors can be trusted is `anchors`; what grades
there are is `scales`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cj_pipeline.arrays import Bools, Floats, Ints
from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.errors import SettingsError
from cj_pipeline.grading.anchors import AnchorCheck, AnchorRules, check_anchors
from cj_pipeline.grading.boundaries import BoundaryPosterior, fit_boundaries, grade_probabilities
from cj_pipeline.grading.disagreement import Disagreement, DisagreementFound
from cj_pipeline.grading.grade_scales import GradeScale
from cj_pipeline.grading.population import place_in_population
from cj_pipeline.scale.connectivity import net_parts

BEYOND_CHANCE = 1.64
"""Standard errors by which an essay has to score outside the anchors to be called so."""
LEFT_OUT_DRAWS, MAX_LEFT_OUT_FITS = 256, 24
"""Enough for the self-check, and still well under a second with a hundred anchors."""


@dataclass(frozen=True)
class Boundary:
    """Where one grade ends and the next begins, in logits.

    `lower` and `upper` hold it with a probability of 95 %.
    """

    below: str
    above: str
    position: float
    standard_error: float
    lower: float
    upper: float


@dataclass(frozen=True, eq=False)
class GradeProjections:
    """Every essay's grade as probabilities; without rows when the batch was not graded.

    Attributes:
        scale: The published scale.
        essay_ids: Students and anchors, in the order given; empty when `is_graded` is false.
        grades: The columns of `probabilities`, lowest first.
        probabilities: Rows add up to one; an anchor's are those without its own grade;
            shape (n_essays, n_grades).
        expected_grade: The mean of the probabilities in steps, 0 for the lowest of `grades`.
        most_probable: The grade with the highest probability.
        fine_grades: The same, with minus or plus where the scale has them.
        confidence: The probability of `most_probable`: over many essays this share is right.
        placed_scores: Where each essay is once errors are taken into account, in logits: a
            student's score drawn towards the other students' as far as it is uncertain. Grades
            are read from these, so a score just above a boundary may be the lower grade.
        extrapolated: Whether the score lies outside the anchors' by more than its error explains.
        primary_anchor_ids: The anchor with the nearest score, an anchor's own self left out.
        boundaries: Between neighbouring grades, lowest first.
        is_graded: Whether grades may leave at all.
        statement: In plain words, why there are no grades or what to beware of.
        anchor_check: The anchors against themselves.
        disagreement: Of judge and graders, and what told it; None where nothing was fitted.
    """

    scale: GradeScale
    essay_ids: tuple[str, ...]
    grades: tuple[str, ...]
    probabilities: Floats
    expected_grade: Floats
    most_probable: tuple[str, ...]
    fine_grades: tuple[str, ...]
    confidence: Floats
    placed_scores: Floats
    extrapolated: Bools
    primary_anchor_ids: tuple[str, ...]
    boundaries: tuple[Boundary, ...]
    is_graded: bool
    statement: str
    anchor_check: AnchorCheck
    disagreement: DisagreementFound | None = None


def project_grades(
    scale: GradeScale,
    essay_ids: Sequence[str],
    scores: Floats,
    covariance: Floats,
    anchor_grades: Mapping[str, str],
    *,
    judged: Sequence[JudgedPair] = (),
    rules: AnchorRules | None = None,
    use_priors: bool = False,
    expected: Disagreement | None = None,
) -> GradeProjections:
    """Return grades for every essay, or scores' good reason to stay scores.

    Args:
        scale: The published scale to grade on.
        essay_ids: Students and anchors together.
        scores: In logits; shape (n_essays,).
        covariance: Of the scores, on their gauge; shape (n_essays, n_essays).
        anchor_grades: Each anchor's known grade.
        judged: The finished comparisons, for the anchors' self-check and for whether anchors and
            students were compared at all; left out, both are taken on trust.
        use_priors: Whether the scale's published shares weigh in; a student's grade then depends
            on what students elsewhere were given, so it is off unless switched on.
        expected: What is taken of the disagreement between judge and graders beforehand; by
            default the usual.

    Raises:
        SettingsError: If anchors carry grades that the scale does not have, anchors are not among
            the essays, or priors are switched on and the scale has none.
    """
    rules = rules or AnchorRules()
    _check_arguments(scale, essay_ids, anchor_grades, use_priors=use_priors)
    batch = _Scored.of(scale, essay_ids, scores, covariance, anchor_grades)
    if batch.n_anchor_grades < rules.min_grades:
        check = _check(scale, batch, judged, rules)
        return _ungraded(scale, [_too_few_grades(check, rules)], check)
    is_student = np.ones(len(essay_ids), dtype=bool)
    is_student[batch.anchors] = False
    population = place_in_population(scores, covariance, is_student)
    placed = replace(batch, scores=population.scores, covariance=population.covariance)
    spread = population.pool_spread
    posterior = _fitted(len(scale.steps), placed, spread, expected)
    left_out = _left_out(len(scale.steps), placed, spread, expected)
    check = _check(scale, batch, judged, rules, posterior=posterior, left_out=left_out)
    reasons = [
        *_not_linked(batch, judged),
        *_not_rising(check, rules),
        *_at_odds(check, rules),
        *_mostly_outside(batch, rules),
    ]
    disagreement = posterior.found(len(scale.steps))
    if expected is not None:
        # What these anchors told must not hang on what earlier ones told, or errors would persist.
        alone = _fitted(len(scale.steps), placed, spread, None).found(len(scale.steps))
        disagreement = replace(disagreement, exemplars=alone.exemplars)
    if reasons:
        return replace(_ungraded(scale, reasons, check), disagreement=disagreement)
    probabilities = grade_probabilities(
        posterior,
        placed.scores,
        placed.covariance[:, batch.anchors],
        np.diag(placed.covariance),
        placed.among_anchors,
    )
    probabilities[batch.anchors] = left_out
    if use_priors and scale.priors is not None:
        probabilities = _weigh_in(np.array(scale.priors), probabilities, posterior)
    best = probabilities.argmax(axis=1)
    return GradeProjections(
        scale=scale,
        essay_ids=tuple(essay_ids),
        grades=scale.steps,
        probabilities=probabilities,
        expected_grade=probabilities @ np.arange(len(scale.steps)),
        most_probable=tuple(scale.steps[k] for k in best),
        fine_grades=_fine_grades(scale, best, placed.scores, posterior),
        confidence=probabilities.max(axis=1),
        placed_scores=placed.scores,
        extrapolated=batch.outside_beyond_chance,
        primary_anchor_ids=_nearest_anchors(batch),
        boundaries=_boundaries(scale, posterior),
        is_graded=True,
        statement=_caution(scale, check, batch),
        anchor_check=check,
        disagreement=disagreement,
    )


@dataclass(frozen=True, eq=False)
class _Scored:
    """A batch's essays with their scores, and which of them are anchors."""

    essay_ids: tuple[str, ...]
    scores: Floats
    covariance: Floats
    anchors: Ints  # where in `essay_ids` they are
    steps: Ints  # the anchors' known grades, in steps from the lowest

    @classmethod
    def of(
        cls,
        scale: GradeScale,
        essay_ids: Sequence[str],
        scores: Floats,
        covariance: Floats,
        anchor_grades: Mapping[str, str],
    ) -> _Scored:
        anchors = [i for i, essay in enumerate(essay_ids) if essay in anchor_grades]
        steps = [scale.steps.index(anchor_grades[essay_ids[i]]) for i in anchors]
        return cls(
            essay_ids=tuple(essay_ids),
            scores=scores,
            covariance=covariance,
            anchors=np.array(anchors, dtype=np.int64),
            steps=np.array(steps, dtype=np.int64),
        )

    @property
    def anchor_ids(self) -> list[str]:
        return [self.essay_ids[i] for i in self.anchors.tolist()]

    @property
    def n_anchor_grades(self) -> int:
        return len(set(self.steps.tolist()))

    @property
    def among_anchors(self) -> Floats:
        return np.asarray(self.covariance[np.ix_(self.anchors, self.anchors)])

    @property
    def outside(self) -> Bools:
        """Whether each essay's score lies outside the anchors'."""
        known = self.scores[self.anchors]
        return np.asarray((self.scores < known.min()) | (self.scores > known.max()))

    @property
    def outside_beyond_chance(self) -> Bools:
        """The same, by more than the error of the difference to the outermost anchor explains."""
        variances = np.diag(self.covariance)
        is_beyond = np.zeros(len(self.scores), dtype=bool)
        for sign in (1.0, -1.0):
            edge = self.anchors[np.argmax(sign * self.scores[self.anchors])]
            apart = sign * (self.scores - self.scores[edge])
            error = variances + variances[edge] - 2 * self.covariance[:, edge]
            is_beyond |= apart > BEYOND_CHANCE * np.sqrt(np.maximum(error, 0.0))
        return is_beyond

    @property
    def students_outside(self) -> int:
        return int(self.outside.sum())  # no anchor is outside the anchors


def _check_arguments(
    scale: GradeScale,
    essay_ids: Sequence[str],
    anchor_grades: Mapping[str, str],
    *,
    use_priors: bool,
) -> None:
    problems = [
        f"anchor '{anchor}' carries the grade '{grade}', which scale '{scale.name}' does not have"
        for anchor, grade in anchor_grades.items()
        if grade not in scale.steps
    ]
    absent = sorted(set(anchor_grades) - set(essay_ids))
    problems += [f"anchor '{anchor}' is not among the essays with a score" for anchor in absent]
    if use_priors and scale.priors is None:
        problems.append(f"scale '{scale.name}' has no priors to weigh in")
    if problems:
        msg = "Grades cannot be projected: " + "; ".join(problems) + "."
        raise SettingsError(msg)


def _check(
    scale: GradeScale,
    batch: _Scored,
    judged: Sequence[JudgedPair],
    rules: AnchorRules,
    *,
    posterior: BoundaryPosterior | None = None,
    left_out: Floats | None = None,
) -> AnchorCheck:
    return check_anchors(
        scale.steps,
        batch.anchor_ids,
        batch.steps,
        batch.scores[batch.anchors],
        batch.among_anchors,
        left_out=left_out,
        disagreement=None if posterior is None else _disagreement(posterior),
        judged=judged,
        all_scores=dict(zip(batch.essay_ids, batch.scores.tolist(), strict=True)),
        rules=rules,
    )


def _fitted(
    n_steps: int, batch: _Scored, spread: float, expected: Disagreement | None
) -> BoundaryPosterior:
    return fit_boundaries(
        n_steps,
        batch.steps,
        batch.scores[batch.anchors],
        batch.among_anchors,
        spread=spread,
        expected=expected,
    )


def _left_out(n_steps: int, batch: _Scored, spread: float, expected: Disagreement | None) -> Floats:
    """Return each anchor's probabilities when its own grade is not known.

    Beyond `MAX_LEFT_OUT_FITS` anchors, some that differ in grade are left out together.
    """
    probabilities = np.zeros((len(batch.anchors), n_steps))
    by_grade = np.lexsort((batch.scores[batch.anchors], batch.steps))
    for group in range(min(MAX_LEFT_OUT_FITS, len(by_grade))):
        out = by_grade[group::MAX_LEFT_OUT_FITS]
        is_rest = np.ones(len(by_grade), dtype=bool)
        is_rest[out] = False
        rest, essays = batch.anchors[is_rest], batch.anchors[out]
        among = batch.covariance[np.ix_(rest, rest)]
        posterior = fit_boundaries(
            n_steps,
            batch.steps[is_rest],
            batch.scores[rest],
            among,
            spread=spread,
            expected=expected,
            n_draws=LEFT_OUT_DRAWS,
        )
        probabilities[out] = grade_probabilities(
            posterior,
            batch.scores[essays],
            batch.covariance[np.ix_(essays, rest)],
            np.diag(batch.covariance)[essays],
            among,
        )
    return probabilities


def _weigh_in(priors: Floats, probabilities: Floats, posterior: BoundaryPosterior) -> Floats:
    """Return probabilities with a population's shares weighed in.

    Without them every score is as likely beforehand as every other, so a grade's weight is its
    width; the open ends count as one common width.
    """
    width = [float(posterior.width.mean())]
    widths = np.concatenate([width, np.diff(posterior.boundaries.mean(axis=0)), width])
    weighed = probabilities * priors / widths
    return np.asarray(weighed / weighed.sum(axis=1, keepdims=True))


def _disagreement(posterior: BoundaryPosterior) -> float:
    return float(np.median(posterior.in_steps))


def _boundaries(scale: GradeScale, posterior: BoundaryPosterior) -> tuple[Boundary, ...]:
    return tuple(
        Boundary(
            below=scale.steps[k],
            above=scale.steps[k + 1],
            position=float(draws.mean()),
            standard_error=float(draws.std()),
            lower=float(np.quantile(draws, 0.025)),
            upper=float(np.quantile(draws, 0.975)),
        )
        for k, draws in enumerate(posterior.boundaries.T)
    )


def _fine_grades(
    scale: GradeScale, best: Ints, scores: Floats, posterior: BoundaryPosterior
) -> tuple[str, ...]:
    inner = posterior.boundaries.mean(axis=0)
    width = float(posterior.width.mean())
    # The open ends are as wide as a step commonly is.
    edges = np.concatenate([[inner[0] - width], inner, [inner[-1] + width]])
    positions = (scores - edges[best]) / (edges[best + 1] - edges[best])
    return tuple(
        scale.modified(scale.steps[k], float(position))
        for k, position in zip(best, positions, strict=True)
    )


def _nearest_anchors(batch: _Scored) -> tuple[str, ...]:
    distances = np.abs(batch.scores[:, None] - batch.scores[batch.anchors])
    distances[batch.anchors, np.arange(len(batch.anchors))] = np.inf
    anchor_ids = batch.anchor_ids
    return tuple(anchor_ids[i] for i in distances.argmin(axis=1))


def _too_few_grades(check: AnchorCheck, rules: AnchorRules) -> str:
    if check.n_anchors == 0:
        return "There are no anchors: add essays whose grades are known."
    return (
        f"The anchors ({check.n_anchors}) carry too few different grades ({check.n_grades}): add "
        f"anchors of other grades, so that there are {rules.min_grades} at least."
    )


def _not_linked(batch: _Scored, judged: Sequence[JudgedPair]) -> list[str]:
    if not judged:
        return []
    anchors = set(batch.anchor_ids)
    parts = net_parts(batch.essay_ids, judged)
    apart = sorted(essay for part in parts if not anchors & set(part) for essay in part)
    if not apart:
        return []
    return [
        f"No chain of comparisons links {_named(apart)} to any anchor: judge pairs across, "
        "`bridging_pairs` lists them."
    ]


def _not_rising(check: AnchorCheck, rules: AnchorRules) -> list[str]:
    if check.separation_z is None or check.separation_z >= rules.min_separation_z:
        return []
    return [
        "The anchors' scores do not rise with their grades beyond chance "
        f"({check.separation_z:.1f} standard errors where {rules.min_separation_z} are asked "
        "for): check the anchors' grades and the judge, or judge more pairs."
    ]


def _at_odds(check: AnchorCheck, rules: AnchorRules) -> list[str]:
    if check.disagreement is None or check.disagreement <= rules.max_disagreement:
        return []
    return [
        f"The judge and the anchors' graders disagree by {check.disagreement:.1f} steps, more "
        f"than {rules.max_disagreement}. {_worst(check)}"
    ]


def _mostly_outside(batch: _Scored, rules: AnchorRules) -> list[str]:
    n_students = len(batch.essay_ids) - len(batch.anchors)
    if batch.students_outside <= rules.max_extrapolated_share * n_students:
        return []
    return [
        f"Of {n_students} students, {batch.students_outside} score outside all anchors: add "
        "anchors as weak or as strong as these students."
    ]


def _named(essay_ids: Sequence[str]) -> str:
    shown = ", ".join(f"'{essay}'" for essay in essay_ids[:5])
    return shown if len(essay_ids) <= 5 else f"{shown} and {len(essay_ids) - 5} more essays"


def _worst(check: AnchorCheck) -> str:
    beyond = [inversion for inversion in check.inversions if inversion.is_beyond_error]
    if not beyond:
        return ""
    reversals = [f"'{each.lower}' scores above '{each.higher}'" for each in beyond[:3]]
    return (
        "Against their grades, and beyond the errors of their scores, "
        f"{' and '.join(reversals)}: check these anchors."
    )


def _caution(scale: GradeScale, check: AnchorCheck, batch: _Scored) -> str:
    """Return what to beware of in a graded batch."""
    parts = [f"Graded by {check.n_anchors} anchors of {check.n_grades} grades."]
    present = set(batch.steps.tolist())
    missing = [grade for k, grade in enumerate(scale.steps) if k not in present]
    if missing:
        parts.append(f"No anchor for {', '.join(missing)}: borrowed from its neighbours.")
    if _worst(check):
        parts.append(_worst(check))
    if n_outside := int(batch.outside_beyond_chance.sum()):
        parts.append(f"Students who score outside all anchors: {n_outside}.")
    return " ".join(parts)


def _ungraded(scale: GradeScale, reasons: Sequence[str], check: AnchorCheck) -> GradeProjections:
    return GradeProjections(
        scale=scale,
        essay_ids=(),
        grades=scale.steps,
        probabilities=np.zeros((0, len(scale.steps))),
        expected_grade=np.zeros(0),
        most_probable=(),
        fine_grades=(),
        confidence=np.zeros(0),
        placed_scores=np.zeros(0),
        extrapolated=np.zeros(0, dtype=bool),
        primary_anchor_ids=(),
        boundaries=(),
        is_graded=False,
        statement=" ".join(["No grades, only scores and ranks.", *reasons]),
        anchor_check=check,
    )
