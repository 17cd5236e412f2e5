"""Are grade probabilities honest, and grades right more often than by simpler rules?

Simulates cohorts: essays of a true quality, judged on random pairs as the Bradley-Terry model
says, graded by people who disagree with the judge by some steps. The anchors' grades are given,
the students' are kept for the reckoning. Every rule sees the same scores in the same run.

    python benchmarks/grades.py [--replications 200]
    python benchmarks/grades.py --moderated --own-errors 0.35 [--replications 200]

With `--moderated`: judges with an error of their own about each essay, students held to another
level than exemplars were, and grades by exemplars alone beside those with ten students graded by
hand, in the same batches; and how often the ten alone show the level to be off. About two minutes
of processor time for 200 batches of one own error and four shifts.

What is simulated, and why (see docs/grades.md): nine grades whose steps are about 0.7 logits
wide and differ by a quarter; students spread by 1.5 logits (human votes on short arguments: 1.1 to
1.4); anchors chosen by grade; graders who differ from the judge by half a step; twenty comparisons
per essay.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit, ndtr

from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.grading.anchors import AnchorRules
from cj_pipeline.grading.boundaries import fit_boundaries, grade_probabilities
from cj_pipeline.grading.grade_scales import GradeScale
from cj_pipeline.grading.moderation import ModeratedGrades, moderate
from cj_pipeline.grading.population import place_in_population
from cj_pipeline.grading.projection import project_grades
from cj_pipeline.scale.bradley_terry import fit_bradley_terry

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

N_GRADES = 9
SCALE = GradeScale("nine", "Nine grades", grades=tuple("123456789"))
ALWAYS_GRADE = AnchorRules(
    min_separation_z=-np.inf, max_disagreement=np.inf, max_extrapolated_share=1.0
)


@dataclass(frozen=True)
class Setting:
    """One condition: anchors by grade index, comparisons per essay, graders' disagreement.

    `own_error` is the judge's about each essay, in logits; `shift` by how many steps students'
    teachers are stricter than the exemplars' graders were.
    """

    name: str
    anchor_steps: tuple[int, ...]
    per_essay: int = 20
    disagreement: float = 0.5
    n_students: int = 60
    spread: float = 1.5
    width: float = 0.7
    own_error: float = 0.0
    shift: float = 0.0


TWELVE = (0, 1, 1, 2, 3, 4, 4, 5, 6, 7, 7, 8)
SETTINGS = (
    Setting("12 anchors", TWELVE),
    Setting("9 anchors", tuple(range(9))),
    Setting("6 anchors", (0, 2, 3, 5, 6, 8)),
    Setting("3 anchors", (0, 4, 8)),
    Setting("12 anchors clumped on three grades", (3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5)),
    Setting("12 anchors, 10 comparisons per essay", TWELVE, per_essay=10),
    Setting("12 anchors, 40 comparisons per essay", TWELVE, per_essay=40),
    Setting("12 anchors, graders agree with the judge", TWELVE, disagreement=0.0),
    Setting("12 anchors, graders a whole step off", TWELVE, disagreement=1.0),
)


@dataclass(frozen=True, eq=False)
class Cohort:
    """What every rule sees (`scores`, `covariance`, `anchor_steps`) and what is kept back."""

    ids: tuple[str, ...]  # anchors first
    anchor_steps: Ints
    scores: Floats
    covariance: Floats
    true_boundaries: Floats
    true_steps: Ints  # of the students

    @property
    def n_anchors(self) -> int:
        return len(self.anchor_steps)

    @property
    def anchor_scores(self) -> Floats:
        return self.scores[: self.n_anchors]

    @property
    def student_scores(self) -> Floats:
        return self.scores[self.n_anchors :]

    @property
    def student_errors(self) -> Floats:
        return np.sqrt(np.diag(self.covariance)[self.n_anchors :])


Rule = Callable[[Cohort], Floats]


def simulate(setting: Setting, rng: np.random.Generator) -> Cohort:
    """Return a cohort whose essays were judged and scaled."""
    widths = setting.width * np.exp(rng.normal(0, 0.25, N_GRADES - 2))
    boundaries = np.concatenate([[0.0], np.cumsum(widths)])
    boundaries += rng.normal(0, 0.3) - boundaries.mean()
    noise = setting.disagreement * setting.width

    def graded(quality: Floats) -> Ints:
        seen = quality + noise * rng.standard_normal(len(quality))
        return np.searchsorted(boundaries, seen).astype(np.int64)

    students = rng.normal(0, setting.spread, setting.n_students)
    true_steps = graded(students - setting.shift * setting.width)
    anchors = []
    for step in setting.anchor_steps:
        found = np.zeros(0)
        while not len(found):
            pool = rng.normal(0, 1.3 * setting.spread, 200)
            found = pool[graded(pool) == step]
        anchors.append(found[0])
    quality = np.concatenate([anchors, students])
    ids = tuple(f"e{i:03d}" for i in range(len(quality)))
    seen = quality
    if setting.own_error:
        seen = quality + setting.own_error * rng.standard_normal(len(quality))
    scale = fit_bradley_terry(ids, judge(ids, seen, setting.per_essay, rng))
    return Cohort(
        ids=ids,
        anchor_steps=np.array(setting.anchor_steps, dtype=np.int64),
        scores=scale.scores,
        covariance=scale.covariance,
        true_boundaries=boundaries - quality.mean(),
        true_steps=true_steps,
    )


def judge(
    ids: tuple[str, ...], quality: Floats, per_essay: int, rng: np.random.Generator
) -> list[JudgedPair]:
    """Return verdicts on random pairs in which every essay takes part equally often."""
    judged = []
    for _ in range(per_essay):
        order = rng.permutation(len(ids)).tolist()
        for a, b in zip(order[::2], order[1::2], strict=False):
            is_first = rng.random() < expit(quality[a] - quality[b])
            judged.append(JudgedPair(ids[a], ids[b], "A" if is_first else "B"))
    return judged


def centres(cohort: Cohort) -> Floats:
    """Return a rising position for every grade: anchors' means, lines between and beyond."""
    present = np.unique(cohort.anchor_steps)
    means = np.array([cohort.anchor_scores[cohort.anchor_steps == k].mean() for k in present])
    counts = np.array([np.sum(cohort.anchor_steps == k) for k in present])
    rising = np.asarray(isotonic_regression(means, weights=counts).x)
    step = max((rising[-1] - rising[0]) / (present[-1] - present[0]), 0.1)
    places = np.interp(np.arange(N_GRADES), present, rising)
    places[: present[0]] = rising[0] - step * np.arange(present[0], 0, -1)
    places[present[-1] + 1 :] = rising[-1] + step * np.arange(1, N_GRADES - present[-1])
    return places


def nearest_boundary(cohort: Cohort) -> Floats:
    """The grade whose boundaries, midway between centres, hold the score; sure of it."""
    places = centres(cohort)
    midway = (places[1:] + places[:-1]) / 2
    return np.eye(N_GRADES)[np.searchsorted(midway, cohort.student_scores)]


def isotonic_normal(cohort: Cohort) -> Floats:
    """Each grade a normal curve at its centre, as wide as anchors scatter and the score errs."""
    places = centres(cohort)
    scatter = np.mean((cohort.anchor_scores - places[cohort.anchor_steps]) ** 2)
    variance = max(float(scatter), 0.1) + cohort.student_errors**2
    density = np.exp(-0.5 * (cohort.student_scores[:, None] - places) ** 2 / variance[:, None])
    return density / density.sum(axis=1, keepdims=True)


def linear(cohort: Cohort) -> Floats:
    """A straight line from score to grade, rounded, with normal errors."""
    slope, level = np.polyfit(cohort.anchor_scores, cohort.anchor_steps, 1)
    rest = cohort.anchor_steps - level - slope * cohort.anchor_scores
    variance = np.sum(rest**2) / max(len(rest) - 2, 1) + (slope * cohort.student_errors) ** 2
    expected = level + slope * cohort.student_scores
    limits = (np.arange(N_GRADES - 1) + 0.5 - expected[:, None]) / np.sqrt(variance)[:, None]
    return np.diff(np.pad(ndtr(limits), ((0, 0), (1, 1)), constant_values=(0, 1)), axis=1)


def cumulative_link(cohort: Cohort) -> Floats:
    """Ordered logit of grades on scores, by maximum likelihood, as if scores had no errors.

    Perfectly ordered anchors make its slope infinite; a wide prior (sd 5) keeps it finite.
    """
    present = np.unique(cohort.anchor_steps)
    classes = np.searchsorted(present, cohort.anchor_steps)

    def shares(parameters: Floats, scores: Floats) -> Floats:
        cuts = np.cumsum(np.concatenate([parameters[1:2], np.exp(parameters[2:])]))
        below = expit(cuts - parameters[0] * scores[:, None])
        return np.diff(np.pad(below, ((0, 0), (1, 1)), constant_values=(0, 1)), axis=1)

    def loss(parameters: Floats) -> float:
        own = shares(parameters, cohort.anchor_scores)[np.arange(len(classes)), classes]
        return float(-np.log(np.maximum(own, 1e-12)).sum() + 0.5 * np.sum((parameters / 5) ** 2))

    start = np.concatenate([[1.0, cohort.anchor_scores.min()], np.zeros(len(present) - 2)])
    found = minimize(loss, start, method="BFGS").x
    probabilities = np.zeros((len(cohort.student_scores), N_GRADES))
    probabilities[:, present] = shares(found, cohort.student_scores)
    return probabilities


def in_use_today(cohort: Cohort) -> Floats:
    """The projector that such systems run today, here for comparison only.

    Grades with fewer than three anchors are pulled towards a 0-1 position on a logit scale, and
    probabilities are cut off at a grade's own boundaries, which makes them one-hot.
    """
    pooled = float(np.var(cohort.anchor_scores))
    means, variances = np.empty(N_GRADES), np.empty(N_GRADES)
    for k in range(N_GRADES):
        own = cohort.anchor_scores[cohort.anchor_steps == k]
        made_up, weight = (k + 0.5) / N_GRADES, min(len(own) / 3, 1.0)
        means[k] = weight * own.mean() + (1 - weight) * made_up if len(own) else made_up
        if len(own) >= 3:
            variances[k] = np.var(own)
        else:
            variances[k] = pooled * (3 / len(own) if len(own) else 2)
    variances = np.maximum(variances, 0.01)
    places = np.asarray(isotonic_regression(means).x)
    edges = np.concatenate([[-np.inf], (places[1:] + places[:-1]) / 2, [np.inf]])
    scores = cohort.student_scores[:, None]
    variance = variances + cohort.student_errors[:, None] ** 2
    density = np.exp(-0.5 * (scores - places) ** 2 / variance) / np.sqrt(variance)
    density *= (scores >= edges[:-1]) & (scores < edges[1:])
    return density / density.sum(axis=1, keepdims=True)


RULES: dict[str, Rule] = {
    "nearest boundary": nearest_boundary,
    "isotonic centres, normal errors": isotonic_normal,
    "linear": linear,
    "cumulative link, no errors in scores": cumulative_link,
    "in use today": in_use_today,
}


@dataclass(frozen=True, eq=False)
class Reckoning:
    """What one rule predicted for all students of all replications."""

    probabilities: Floats  # (n_replications, n_students, n_grades)
    true_steps: Ints  # (n_replications, n_students)

    def row(self) -> list[str]:
        hit = self.probabilities.argmax(axis=2) - self.true_steps
        truth = np.eye(N_GRADES)[self.true_steps]
        own = np.take_along_axis(self.probabilities, self.true_steps[..., None], axis=2)[..., 0]
        brier = np.sum((self.probabilities - truth) ** 2, axis=2)
        confidence = self.probabilities.max(axis=2)
        # A grade is in the set when those likelier than it hold less than nine tenths together.
        likelier = np.sum(self.probabilities * (self.probabilities > own[..., None]), axis=2)
        return [
            _with_error(hit == 0),
            _with_error(np.abs(hit) <= 1),
            _with_error(np.abs(hit)),
            _with_error(brier),
            f"{calibration_error(confidence, hit == 0):.3f}",
            f"{classwise_error(self.probabilities, truth):.3f}",
            f"{np.mean(likelier < 0.9):.3f}",
        ]


def calibration_error(confidence: Floats, is_right: NDArray[np.bool_]) -> float:
    """Return the expected calibration error in ten bins of equal width (Naeini et al. 2015)."""
    bins = np.minimum((confidence * 10).astype(int), 9)
    return float(
        sum(
            np.mean(bins == k) * abs(confidence[bins == k].mean() - is_right[bins == k].mean())
            for k in np.unique(bins)
        )
    )


def classwise_error(probabilities: Floats, truth: Floats) -> float:
    """Return the mean over grades of the calibration error of that grade's probability."""
    errors = [calibration_error(probabilities[..., k], truth[..., k] > 0) for k in range(N_GRADES)]
    return float(np.mean(errors))


def _with_error(values: NDArray[np.generic]) -> str:
    by_replication = np.mean(values.astype(np.float64), axis=1)
    error = np.std(by_replication, ddof=1) / np.sqrt(len(by_replication))
    return f"{np.mean(by_replication):.3f} ± {error:.3f}"


def run(setting: Setting, n_replications: int) -> None:
    """Print one setting's table."""
    predicted: dict[str, list[Floats]] = {"ours": []} | {name: [] for name in RULES}
    covered, refused, disagreement, seconds, true_steps = [], [], [], [], []
    left_out_hits = []
    for replication in range(n_replications):
        cohort = simulate(setting, np.random.default_rng([20240601, replication]))
        known = {cohort.ids[i]: SCALE.grades[step] for i, step in enumerate(cohort.anchor_steps)}
        started = time.perf_counter()
        projections = project_grades(
            SCALE, cohort.ids, cohort.scores, cohort.covariance, known, rules=ALWAYS_GRADE
        )
        seconds.append(time.perf_counter() - started)
        predicted["ours"].append(projections.probabilities[cohort.n_anchors :])
        for name, rule in RULES.items():
            predicted[name].append(rule(cohort))
        true_steps.append(cohort.true_steps)
        covered += [
            boundary.lower < true < boundary.upper
            for boundary, true in zip(projections.boundaries, cohort.true_boundaries, strict=True)
        ]
        check, rules = projections.anchor_check, AnchorRules()
        outside = np.mean(projections.extrapolated[cohort.n_anchors :])
        refused.append(
            (check.separation_z or 0.0) < rules.min_separation_z
            or (check.disagreement or 0.0) > rules.max_disagreement
            or outside > rules.max_extrapolated_share
        )
        disagreement.append(check.disagreement or 0.0)
        left_out_hits.append(check.exact or 0.0)
    print(f"\n### {setting.name}\n")
    print(
        "| rule | exact | within one | MAE (steps) | Brier | ECE | classwise ECE | 90 % set |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    for name, probabilities in predicted.items():
        reckoning = Reckoning(np.array(probabilities), np.array(true_steps))
        print(f"| {name} | {' | '.join(reckoning.row())} |")
    print(
        f"\nBoundaries' 95 % intervals hold the true boundary in {np.mean(covered):.3f}; batches "
        f"refused by the default rules {np.mean(refused):.3f}; disagreement found "
        f"{np.mean(disagreement):.2f} steps ({setting.disagreement:g} simulated); anchors' "
        f"leave-one-out exact {np.mean(left_out_hits):.3f}; "
        f"{1000 * float(np.median(seconds)):.0f} ms per batch.",
        flush=True,
    )


N_SAMPLED = 10
MODERATED = Setting("moderated", TWELVE, disagreement=0.0, n_students=48, spread=1.4, width=0.75)
OWN_ERRORS, SHIFTS = (0.0, 0.35, 0.7), (0.0, 0.5, 1.0, 2.0)


@dataclass
class Gathered:
    """Confidence and hits of students that nobody graded by hand, batch by batch."""

    confidence: list[Floats] = field(default_factory=list)
    hits: list[NDArray[np.bool_]] = field(default_factory=list)
    biases: list[float] = field(default_factory=list)

    def add(self, probabilities: Floats, true_steps: Ints) -> None:
        """Take a batch's students in, but for those of the sample."""
        rest, true = probabilities[N_SAMPLED:], true_steps[N_SAMPLED:]
        self.confidence.append(rest.max(axis=1))
        self.hits.append(rest.argmax(axis=1) == true)
        self.biases.append(float(np.mean(rest.argmax(axis=1) - true)))

    def row(self) -> str:
        """Return ECE, confidence less hits, and the bias in steps, each with its error."""
        gaps = [float(c.mean() - h.mean()) for c, h in zip(self.confidence, self.hits, strict=True)]
        ece = calibration_error(np.concatenate(self.confidence), np.concatenate(self.hits))
        return (
            f"{ece:.3f} ± {self._error_of_ece():.3f} | {np.mean(gaps):+.3f} ± {_error(gaps):.3f} |"
            f" {np.mean(self.biases):+.2f} ± {_error(self.biases):.2f}"
        )

    def _error_of_ece(self) -> float:
        """Return its error, by drawing whole batches again: a batch's grades share their level."""
        rng = np.random.default_rng(1)
        confidence, hits = np.array(self.confidence), np.array(self.hits)
        drawn = rng.integers(0, len(hits), (200, len(hits)))
        return float(
            np.std([calibration_error(confidence[at].ravel(), hits[at].ravel()) for at in drawn])
        )


def _error(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1) / np.sqrt(len(values)))


def by_exemplars(cohort: Cohort) -> Floats:
    """Return the students' grade probabilities by the exemplars alone, as the projector's are."""
    anchors = np.arange(cohort.n_anchors)
    is_student = np.arange(len(cohort.ids)) >= cohort.n_anchors
    placed = place_in_population(cohort.scores, cohort.covariance, is_student)
    among = placed.covariance[np.ix_(anchors, anchors)]
    posterior = fit_boundaries(
        N_GRADES, cohort.anchor_steps, placed.scores[anchors], among, spread=placed.pool_spread
    )
    return grade_probabilities(
        posterior,
        placed.scores[is_student],
        placed.covariance[np.ix_(is_student, ~is_student)],
        np.diag(placed.covariance)[is_student],
        among,
    )


def run_moderated(own_errors: Sequence[float], n_replications: int) -> None:
    """Print how honest grades are with ten students graded by hand, and without."""
    print(
        "\n| own error, shift | exemplars alone: ECE | gap | bias | with ten: ECE | gap | bias |"
        " alarms |\n|---|---:|---:|---:|---:|---:|---:|---:|",
        flush=True,
    )
    for own_error in own_errors:
        alone, moderated = ([Gathered() for _ in SHIFTS] for _ in range(2))
        alarms: list[list[float]] = [[] for _ in SHIFTS]
        for replication, (at, shift) in itertools.product(range(n_replications), enumerate(SHIFTS)):
            setting = replace(MODERATED, own_error=own_error, shift=shift)
            cohort = simulate(setting, np.random.default_rng([20261130, replication]))
            if at == 0:  # what exemplars tell does not hang on what the students' teachers think
                by_them = by_exemplars(cohort)
            alone[at].add(by_them, cohort.true_steps)
            found = with_sample(cohort)
            moderated[at].add(found.probabilities[cohort.n_anchors :], cohort.true_steps)
            alarms[at].append(float(found.level is not None and found.level.p < 0.05))
        for shift, *gathered, alarm in zip(SHIFTS, alone, moderated, alarms, strict=True):
            cells = " | ".join(each.row() for each in gathered)
            print(
                f"| {own_error:g}, {shift:g} | {cells} |"
                f" {np.mean(alarm):.3f} ± {_error(alarm):.3f} |",
                flush=True,
            )


def with_sample(cohort: Cohort) -> ModeratedGrades:
    """Return the grades by exemplars and the first ten students, whom a teacher graded."""
    known = {cohort.ids[i]: SCALE.grades[k] for i, k in enumerate(cohort.anchor_steps)}
    sampled = {
        cohort.ids[cohort.n_anchors + i]: SCALE.grades[k]
        for i, k in enumerate(cohort.true_steps[:N_SAMPLED])
    }
    return moderate(
        SCALE, cohort.ids, cohort.scores, cohort.covariance, known, sampled_grades=sampled
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replications", type=int, default=200)
    parser.add_argument("--moderated", action="store_true")
    parser.add_argument("--own-errors", type=float, nargs="+", default=OWN_ERRORS)
    given = parser.parse_args()
    n_replications = given.replications
    print(
        f"{n_replications} replications per setting; Python {platform.python_version()}, NumPy "
        f"{np.__version__}, SciPy {scipy.__version__}, {platform.machine()} {platform.system()}; "
        "± is the Monte Carlo standard error over replications."
    )
    if given.moderated:
        run_moderated(given.own_errors, n_replications)
        return
    for setting in SETTINGS:
        run(setting, n_replications)


if __name__ == "__main__":
    main()
