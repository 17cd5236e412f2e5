"""What a moderated sample says of the grades: students graded by teachers, beside the exemplars.

Exemplars tell where boundaries lie; whether students are held to them as exemplars were, no verdict
shows. A few students graded by hand do. Students may be off against exemplars by one offset, and
their graders may disagree with the judge by more:

    what a student's graders saw    y_i = theta_i - offset + e_i,    e_i ~ N(0, (f disagreement)^2)
    beforehand                      offset ~ N(0, (one step)^2),     log f ~ N(0, 0.3^2)

The projector's draws, each with an offset and a factor of its own, are weighed by how well they
explain the sampled grades, and drawn again by those weights: no new fit. How students are sampled
and asked for belongs to whoever calls.

References:
    Gordon, Salmond and Smith (1993), doi:10.1049/ip-f-2.1993.0015, for weighing and drawing again;
    Kish (1965), Survey Sampling, for the effective number of draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cj_pipeline.arrays import Floats, Ints
from cj_pipeline.errors import SettingsError
from cj_pipeline.grading.boundaries import BoundaryPosterior, fit_boundaries, grade_probabilities
from cj_pipeline.grading.disagreement import Disagreement, DisagreementFound
from cj_pipeline.grading.grade_scales import GradeScale
from cj_pipeline.grading.population import place_in_population

OFFSET_STEPS = 1.0
"""Standard deviation of the students' offset beforehand, in steps."""
LOG_FACTOR_SD = 0.3
"""Of how much more than exemplars' graders those of the students may disagree with the judge."""
ENOUGH_DRAWS = 100
"""Effective draws below which the weights rest on too few: the grades should be fitted anew."""
_KEPT = 1024
_COPIES, _COPIES_OF_MANY = 6, 16
_MANY = 15
"""Sampled students from which on more copies are needed for the weights to rest on enough draws."""
_FAR = 40.0
"""Standard deviations beyond which nothing lies; the open ends' edges are put there."""
_SEED = 20260101


@dataclass(frozen=True, eq=False)
class SampledStudents:
    """Students whose grades teachers gave, and what the scale knows of them.

    Attributes:
        steps: Their grades as indices from the lowest; shape (n_sampled,).
        scores: Their placed scores in logits; shape (n_sampled,).
        covariance_with_anchors: Of those; shape (n_sampled, n_anchors).
        variances: Of those; shape (n_sampled,).
    """

    steps: Ints
    scores: Floats
    covariance_with_anchors: Floats
    variances: Floats


@dataclass(frozen=True, eq=False)
class Reweighed:
    """The projector's draws once the sampled grades are known.

    Attributes:
        posterior: Of the boundaries as they hold for students, the offset in them; what
            `grade_probabilities` grades the other students by. Its slopes are the sampled grades'
            alone.
        offset_steps: Draws of the offset in steps; positive where students were graded too well
            by the exemplars; shape (n_draws,).
        n_effective: How many draws the weights amount to.
    """

    posterior: BoundaryPosterior
    offset_steps: Floats
    n_effective: float

    @property
    def is_thin(self) -> bool:
        """Whether the sample contradicts the draws so far that few of them are left."""
        return self.n_effective < ENOUGH_DRAWS


@dataclass(frozen=True)
class LevelCheck:
    """Whether the sample alone shows that the exemplars' level is off.

    Attributes:
        mean_difference: Expected grade by the exemplars less the teachers', in steps.
        standard_error: Of it, the exemplars' own uncertainty included.
        p: The chance of a difference as large without a cause (Student's t).
        could_be_seen: The difference from which on p would be below .05, in steps.
    """

    mean_difference: float
    standard_error: float
    p: float
    could_be_seen: float


@dataclass(frozen=True, eq=False)
class ModeratedGrades:
    """Every essay's grade once a sample of students is graded by teachers.

    Attributes:
        essay_ids: In the order given.
        grades: The columns of `probabilities`, lowest first.
        probabilities: A sampled student's are its known grade; shape (n_essays, n_grades).
        expected_grade: In steps, 0 for the lowest.
        most_probable: The grade with the highest probability.
        confidence: Its probability.
        offset_steps: Mean of the students' offset; positive where exemplars graded them too well.
        offset_lower, offset_upper: Between which it lies with 95 % probability.
        level: What the sample alone shows of it; None for fewer than two students.
        n_sampled: How many students.
        n_effective: Draws the weights amount to.
        disagreement: Of the students' graders and the judge, and what told it.
        statement: In plain words, what was taken out and what to beware of.
    """

    essay_ids: tuple[str, ...]
    grades: tuple[str, ...]
    probabilities: Floats
    expected_grade: Floats
    most_probable: tuple[str, ...]
    confidence: Floats
    offset_steps: float
    offset_lower: float
    offset_upper: float
    level: LevelCheck | None
    n_sampled: int
    n_effective: float
    disagreement: DisagreementFound
    statement: str


def reweigh(
    posterior: BoundaryPosterior,
    sample: SampledStudents,
    anchor_covariance: Floats,
    *,
    seed: int = _SEED,
) -> Reweighed:
    """Return the projector's draws weighed by a sample of graded students.

    Args:
        posterior: From `fit_boundaries` on the exemplars.
        sample: The graded students.
        anchor_covariance: Of the exemplars' scores; shape (n_anchors, n_anchors).
        seed: The same one gives the same draws.
    """
    from scipy.special import ndtr

    rng = np.random.default_rng(seed)
    copies = _COPIES_OF_MANY if len(sample.steps) > _MANY else _COPIES
    n = len(posterior.width)
    at = np.tile(np.arange(n), copies)
    steps_off = OFFSET_STEPS * rng.standard_normal(len(at))
    factor = np.exp(LOG_FACTOR_SD * rng.standard_normal(len(at)))
    offset = steps_off * posterior.width[at]
    disagreement = factor * posterior.disagreement[at]
    ridge = 1e-9 * np.trace(anchor_covariance) * np.eye(len(anchor_covariance))
    regression = np.linalg.solve(anchor_covariance + ridge, sample.covariance_with_anchors.T).T
    left = sample.variances - np.einsum("ij,ij->i", regression, sample.covariance_with_anchors)
    means = sample.scores + (posterior.anchor_errors @ regression.T)[at] - offset[:, None]
    spread = np.sqrt(np.clip(left, 0, None) + disagreement[:, None] ** 2)
    ends = np.full((n, 1), np.inf)
    edges = np.hstack([-ends, posterior.boundaries, ends])
    low = np.clip((edges[at][:, sample.steps] - means) / spread, -_FAR, _FAR)
    high = np.clip((edges[at][:, sample.steps + 1] - means) / spread, -_FAR, _FAR)
    chance = np.maximum(ndtr(high) - ndtr(low), 1e-12)
    log_weight = np.log(chance).sum(axis=1)
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    kept = np.searchsorted(np.cumsum(weight), (np.arange(_KEPT) + 0.5) / _KEPT)
    kept = np.minimum(kept, len(at) - 1)
    source = at[kept]
    by_spread = (_density(low[kept]) * low[kept] - _density(high[kept]) * high[kept]) / chance[kept]
    own_share = (disagreement[kept, None] / spread[kept]) ** 2
    return Reweighed(
        posterior=BoundaryPosterior(
            boundaries=posterior.boundaries[source] + offset[kept, None],
            disagreement=disagreement[kept],
            width=posterior.width[source],
            anchor_errors=posterior.anchor_errors[source],
            slopes=np.sum(by_spread * own_share, axis=1),
        ),
        offset_steps=steps_off[kept],
        n_effective=float(1 / np.sum(weight**2)),
    )


def _density(z: Floats) -> Floats:
    return np.asarray(np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi))


def level_check(
    expected: Floats, teachers: Floats, *, variance_of_level: float
) -> LevelCheck | None:
    """Return whether sampled grades show that the exemplars' level is off; None for under two.

    Args:
        expected: Expected grades by the exemplars, in steps; shape (n_sampled,).
        teachers: The teachers' grades, in steps; shape (n_sampled,).
        variance_of_level: Of the sample's mean expected grade over the projector's draws, in
            squared steps: all students share the exemplars' errors, and without that part one
            alarm in eight is false.
    """
    from scipy.stats import t as student

    n = len(expected)
    if n < 2:
        return None
    off = expected - teachers
    error = math.sqrt(float(np.var(off, ddof=1)) / n + variance_of_level)
    error = max(error, 1e-9)
    mean = float(off.mean())
    p = float(2 * student.sf(abs(mean) / error, n - 1))
    return LevelCheck(mean, error, p, float(student.ppf(0.975, n - 1)) * error)


def moderate(
    scale: GradeScale,
    essay_ids: Sequence[str],
    scores: Floats,
    covariance: Floats,
    anchor_grades: Mapping[str, str],
    *,
    sampled_grades: Mapping[str, str],
    expected: Disagreement | None = None,
    seed: int = _SEED,
) -> ModeratedGrades:
    """Return grades by the exemplars and a sample of students that teachers graded.

    Args:
        scale: The published scale.
        essay_ids: Students and anchors together.
        scores: Verdict-only, in logits; shape (n_essays,).
        covariance: Of those; shape (n_essays, n_essays).
        anchor_grades: The exemplars' grades.
        sampled_grades: The sampled students' grades, drawn without regard to their scores or with
            it: only that the sampled are graded as the others would be matters.
        expected: What is taken of the disagreement beforehand; by default the usual.
        seed: The same one gives the same grades.

    Raises:
        SettingsError: If a sampled essay is no student of the batch, or a grade is not on the
            scale; all problems at once.
    """
    _check(scale, essay_ids, anchor_grades, sampled_grades)
    place = {essay: i for i, essay in enumerate(essay_ids)}
    anchors = np.array([place[a] for a in anchor_grades], dtype=np.int64)
    is_student = np.ones(len(place), dtype=bool)
    is_student[anchors] = False
    population = place_in_population(scores, covariance, is_student)
    among = population.covariance[np.ix_(anchors, anchors)]
    with_anchors = population.covariance[:, anchors]
    variances = np.diag(population.covariance)

    def fitted(beforehand: Disagreement | None) -> BoundaryPosterior:
        return fit_boundaries(
            len(scale.steps),
            np.array([scale.steps.index(grade) for grade in anchor_grades.values()]),
            population.scores[anchors],
            among,
            spread=population.pool_spread,
            expected=beforehand,
        )

    posterior = fitted(expected)
    at = np.array([place[essay] for essay in sampled_grades], dtype=np.int64)
    steps = np.array([scale.steps.index(g) for g in sampled_grades.values()], dtype=np.int64)
    sample = SampledStudents(steps, population.scores[at], with_anchors[at], variances[at])
    found = reweigh(posterior, sample, among, seed=seed)
    # What the grades told must not hang on what earlier ones told, or errors would persist.
    by_usual = posterior if expected is None else fitted(None)
    alone = found if expected is None else reweigh(by_usual, sample, among, seed=seed)
    n_steps = len(scale.steps)
    by_exemplars = grade_probabilities(
        posterior, sample.scores, sample.covariance_with_anchors, sample.variances, among
    )
    columns = np.arange(len(scale.steps))
    level = level_check(
        by_exemplars @ columns,
        steps.astype(np.float64),
        variance_of_level=_level_variance(posterior, sample, among),
    )
    probabilities = grade_probabilities(
        found.posterior, population.scores, with_anchors, variances, among
    )
    probabilities[at] = np.eye(len(columns))[steps]
    best = probabilities.argmax(axis=1)
    lower, upper = np.quantile(found.offset_steps, [0.025, 0.975]).tolist()
    return ModeratedGrades(
        essay_ids=tuple(essay_ids),
        grades=scale.steps,
        probabilities=probabilities,
        expected_grade=probabilities @ columns,
        most_probable=tuple(scale.steps[k] for k in best),
        confidence=probabilities.max(axis=1),
        offset_steps=float(found.offset_steps.mean()),
        offset_lower=lower,
        offset_upper=upper,
        level=level,
        n_sampled=len(at),
        n_effective=found.n_effective,
        disagreement=replace(
            found.posterior.found(n_steps),
            exemplars=by_usual.found(n_steps).exemplars,
            sample=alone.posterior.found(n_steps).exemplars,
        ),
        statement=_statement(found, level, len(at)),
    )


def _level_variance(
    posterior: BoundaryPosterior, sample: SampledStudents, anchor_covariance: Floats
) -> float:
    """Return how much the sample's mean expected grade varies over the draws, squared steps."""
    from scipy.special import ndtr

    ridge = 1e-9 * np.trace(anchor_covariance) * np.eye(len(anchor_covariance))
    regression = np.linalg.solve(anchor_covariance + ridge, sample.covariance_with_anchors.T).T
    left = sample.variances - np.einsum("ij,ij->i", regression, sample.covariance_with_anchors)
    means = sample.scores + posterior.anchor_errors @ regression.T
    spread = np.sqrt(np.clip(left, 0, None) + posterior.disagreement[:, None] ** 2)
    expected: Floats = np.zeros(len(means))
    for boundary in posterior.boundaries.T:
        expected += ndtr((means - boundary[:, None]) / spread).mean(axis=1)
    return float(np.var(expected))


def _check(
    scale: GradeScale,
    essay_ids: Sequence[str],
    anchor_grades: Mapping[str, str],
    sampled_grades: Mapping[str, str],
) -> None:
    known = set(essay_ids)
    problems = [
        f"'{essay}' carries the grade '{grade}', which scale '{scale.name}' does not have"
        for essay, grade in (*anchor_grades.items(), *sampled_grades.items())
        if grade not in scale.steps
    ]
    problems += [f"'{e}' is no essay of the batch" for e in sampled_grades if e not in known]
    problems += [f"'{e}' is an anchor, no student" for e in sampled_grades if e in anchor_grades]
    problems += [f"anchor '{e}' has no score" for e in anchor_grades if e not in known]
    if not sampled_grades:
        problems.append("no student's grade is given")
    if problems:
        msg = "The sample cannot be used: " + "; ".join(problems) + "."
        raise SettingsError(msg)


def _statement(found: Reweighed, level: LevelCheck | None, n_sampled: int) -> str:
    mean = float(found.offset_steps.mean())
    direction = "too high" if mean > 0 else "too low"
    parts = [
        f"Moderated by {n_sampled} students' grades: by the exemplars alone students came out"
        f" {abs(mean):.1f} steps {direction}, and that is taken out."
    ]
    if level is not None:
        parts.append(
            "The sample alone shows a difference."
            if level.p < 0.05
            else "The sample alone does not prove one: it would show a difference from"
            f" {level.could_be_seen:.1f} steps on."
        )
    if found.is_thin:
        parts.append(
            "The sample contradicts the exemplars so far that the grades rest on few draws: check"
            " the exemplars, or make the sampled students anchors and grade again."
        )
    return " ".join(parts)
