"""What earlier gradings tell of how judge and graders disagree, by a simulation of its own.

Scores are drawn as such, with known errors: no verdict is simulated and no scale fitted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

from cj_pipeline.arrays import Floats, Ints
from cj_pipeline.grading.anchors import TOO_SURE
from cj_pipeline.grading.boundaries import fit_boundaries, grade_probabilities
from cj_pipeline.grading.disagreement import (
    BATCHES_DIFFER,
    FARTHEST,
    Disagreement,
    EarlierGrading,
    ExpectedDisagreement,
    Told,
    judged_by,
    learn,
    told_by,
    usual_disagreement,
)
from cj_pipeline.grading.grade_scales import GradeScale
from cj_pipeline.grading.moderation import SampledStudents, moderate, reweigh
from cj_pipeline.grading.projection import project_grades

N_GRADES, STEP, ERROR = 7, 0.8, 0.4
SCALE = GradeScale("seven", "Seven grades", grades=tuple("1234567"))
USUAL = usual_disagreement(N_GRADES)
EDGES = STEP * (np.arange(1, N_GRADES) - N_GRADES / 2)


@dataclass(frozen=True, eq=False)
class Batch:
    """Fourteen anchors, two a grade, and fifty students, whose graders differ from the judge."""

    anchor_steps: Ints
    student_steps: Ints
    scores: Floats  # anchors first

    @property
    def anchors(self) -> Floats:
        return self.scores[:14]

    @property
    def students(self) -> Floats:
        return self.scores[14:]


def simulate(disagreement: float, seed: int) -> Batch:
    rng = np.random.default_rng([20261130, seed])

    def graded(quality: Floats) -> Ints:
        seen = quality + disagreement * STEP * rng.standard_normal(len(quality))
        return np.searchsorted(EDGES, seen).astype(np.int64)

    anchors = []
    for step in np.repeat(np.arange(N_GRADES), 2):
        pool = rng.normal(0, 2.0, 3000)
        anchors.append(pool[graded(pool) == step][0])
    students = rng.normal(0, 1.4, 50)
    quality = np.concatenate([anchors, students])
    scores = quality + ERROR * rng.standard_normal(len(quality))
    return Batch(np.repeat(np.arange(N_GRADES), 2), graded(students), scores)


def probabilities(batch: Batch, expected: Disagreement | None) -> Floats:
    """Return the students' grades by the anchors, with errors independent as they are here."""
    among = ERROR**2 * np.eye(14)
    posterior = fit_boundaries(
        N_GRADES, batch.anchor_steps, batch.anchors, among, spread=2.0, expected=expected
    )
    variances = np.full(50, ERROR**2)
    shrunk = batch.students * (1.4**2 / (1.4**2 + ERROR**2))
    return grade_probabilities(posterior, shrunk, np.zeros((50, 14)), 0.9 * variances, among)


def told(batch: Batch) -> Told:
    among = ERROR**2 * np.eye(14)
    posterior = fit_boundaries(N_GRADES, batch.anchor_steps, batch.anchors, among, spread=2.0)
    return posterior.found(N_GRADES).exemplars


@cache
def learnt(disagreement: float, n: int = 10) -> Disagreement:
    """Return what ten earlier batches with anchors of their own make of the usual."""
    earlier = [
        EarlierGrading(f"b{k}", 1, 1.0, told(simulate(disagreement, 1000 + k))) for k in range(n)
    ]
    return learn(USUAL, earlier)


def gap_and_error(disagreement: float, expected: Disagreement | None) -> tuple[float, float]:
    """Return confidence less hits, and the calibration error in ten bins, over twenty batches."""
    sure, right = [], []
    for seed in range(20):
        batch = simulate(disagreement, seed)
        found = probabilities(batch, expected)
        sure.append(found.max(axis=1))
        right.append(found.argmax(axis=1) == batch.student_steps)
    confidence, hits = np.concatenate(sure), np.concatenate(right)
    bins = np.minimum((10 * confidence).astype(int), 9)
    error = sum(
        np.mean(bins == k) * abs(confidence[bins == k].mean() - hits[bins == k].mean())
        for k in np.unique(bins)
    )
    return float(confidence.mean() - hits.mean()), float(error)


@pytest.mark.parametrize("true", [0.25, 1.2])
def test_a_history_finds_what_one_batch_cannot(true: float) -> None:
    """Of ten batches' anchors most of the way from the usual to the truth is learnt."""
    found = learnt(true)

    distance = np.log(true / USUAL.median)
    assert 0.4 < (found.log_mean - USUAL.log_mean) / distance < 1.2
    assert BATCHES_DIFFER <= found.log_sd < 0.8 * USUAL.log_sd


def test_a_history_makes_confidence_come_true() -> None:
    """A judge that differs by more than is usual makes grades too sure; its history says so."""
    gap, error = gap_and_error(1.3, None)
    gap_learnt, error_learnt = gap_and_error(1.3, learnt(1.3))

    assert gap > 0.04
    assert abs(gap_learnt) < 0.65 * gap
    assert error_learnt < 0.75 * error


def test_where_the_usual_holds_a_history_changes_little() -> None:
    """Learning what was taken anyway must cost nothing."""
    _, error = gap_and_error(0.4, None)
    _, error_learnt = gap_and_error(0.4, learnt(0.4))

    assert error_learnt < error + 0.015


@pytest.mark.parametrize(("before", "now"), [(0.1, 1.2), (1.4, 0.3)])
def test_a_misleading_history_does_bounded_harm(before: float, now: float) -> None:
    """A judge that has changed: its anchors here speak against it, and it is never sure."""
    gap, _ = gap_and_error(now, None)
    gap_misled, _ = gap_and_error(now, learnt(before))

    assert abs(gap_misled - gap) < 0.12


def test_no_history_moves_beyond_its_bounds() -> None:
    """A thousand batches that all say the same unlikely thing included."""
    absurd = [EarlierGrading(f"b{k}", 1, 1.0, Told(4.0, 400.0)) for k in range(1000)]

    found = learn(USUAL, absurd)

    assert found.log_mean == pytest.approx(USUAL.log_mean + FARTHEST * USUAL.log_sd)
    assert BATCHES_DIFFER <= found.log_sd <= USUAL.log_sd


def test_batches_that_contradict_each_other_teach_little() -> None:
    """What differs so much from batch to batch says little of the next one."""
    agreeing = [EarlierGrading(f"b{k}", 1, 1.0, Told(20.0, 0.0)) for k in range(8)]
    contradicting = [
        EarlierGrading(f"b{k}", 1, 1.0, Told(20.0, 20.0 * (-1) ** k)) for k in range(8)
    ]

    assert learn(USUAL, agreeing).log_sd < 0.36
    assert learn(USUAL, contradicting).log_sd > 0.55


def test_anchors_counted_elsewhere_tell_nothing_again() -> None:
    """The same exemplars in every batch are one sight of them, however often they are judged."""
    again = [EarlierGrading(f"b{k}", 1, 0.0, Told(5.0, 5.0)) for k in range(20)]

    assert learn(USUAL, again) == USUAL
    assert learn(USUAL, []) == USUAL


def test_what_anchors_told_is_their_likelihood_and_not_the_prior() -> None:
    """A line through slopes gives a normal likelihood back, whatever was believed before."""
    rng = np.random.default_rng(1)
    for mean, sd in ((USUAL.log_mean, 0.5), (1.0, 0.2)):
        logs = rng.normal(mean, sd, 4000)
        slopes = 3.0 * (0.4 - logs) + 0.1 * rng.standard_normal(4000)

        found = told_by(logs, slopes, USUAL)

        assert found.precision == pytest.approx(3.0, rel=0.05)
        assert found.pull == pytest.approx(3.0 * (0.4 - USUAL.log_mean), rel=0.05)


def test_a_likelihood_that_bends_the_wrong_way_tells_nothing() -> None:
    """There is no normal curve of it to pass on."""
    logs = np.linspace(-2, 0, 50)

    assert told_by(logs, 2.0 * logs, USUAL) == Told(0.0, 0.0)
    assert told_by(np.zeros(5), np.ones(5), USUAL) == Told(0.0, 0.0)


def test_slopes_are_those_of_the_fitted_likelihood() -> None:
    """Against differences of the log density with nothing but the disagreement moved."""
    from cj_pipeline.grading.boundaries import _Model

    batch = simulate(0.8, 3)
    model = _Model.of(
        N_GRADES, batch.anchor_steps, batch.anchors, ERROR**2 * np.eye(14), 2.0, USUAL
    )
    points = np.random.default_rng(0).standard_normal((5, model.n_parameters)) * 0.3
    moved = np.zeros(model.n_parameters)
    moved[2] = 1e-5 / USUAL.log_sd

    def likelihood(at: Floats) -> Floats:
        return model.log_density(at) + 0.5 * np.sum(at**2, axis=1)

    by_difference = (likelihood(points + moved) - likelihood(points - moved)) / 2e-5

    found = model.slopes_by_disagreement(model.unpack(points))

    assert found == pytest.approx(by_difference, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("true", [0.15, 1.6])
def test_a_moderation_sample_tells_how_far_students_graders_differ(true: float) -> None:
    """Twenty students' grades over ten batches pull the right way."""
    pulls = []
    for seed in range(10):
        batch = simulate(true, 200 + seed)
        among = ERROR**2 * np.eye(14)
        posterior = fit_boundaries(N_GRADES, batch.anchor_steps, batch.anchors, among, spread=2.0)
        sample = SampledStudents(
            batch.student_steps[:20], batch.students[:20], np.zeros((20, 14)), np.full(20, 0.1)
        )
        found = reweigh(posterior, sample, among).posterior.found(N_GRADES).exemplars
        pulls.append(found.pull)

    assert np.sign(np.mean(pulls)) == np.sign(np.log(true / USUAL.median))


def _graded(expected: Disagreement | None, seed: int = 1):  # type: ignore[no-untyped-def]
    batch = simulate(1.2, seed)
    n = len(batch.scores)
    ids = [f"e{i:02d}" for i in range(n)]
    known = {ids[i]: SCALE.steps[k] for i, k in enumerate(batch.anchor_steps.tolist())}
    centred = batch.scores - batch.scores.mean()
    covariance = ERROR**2 * (np.eye(n) - 1 / n)
    sampled = {ids[14 + i]: SCALE.steps[k] for i, k in enumerate(batch.student_steps[:10].tolist())}
    plain = project_grades(SCALE, ids, centred, covariance, known, expected=expected)
    moderated = moderate(
        SCALE, ids, centred, covariance, known, sampled_grades=sampled, expected=expected
    )
    return plain, moderated


def test_what_a_grading_told_does_not_hang_on_what_earlier_ones_told() -> None:
    """Otherwise one wrong history would go on confirming itself."""
    plain, moderated = _graded(None)
    misled, misled_moderated = _graded(Disagreement(float(np.log(0.1)), 0.3))

    assert misled.disagreement.median < 0.5 * plain.disagreement.median
    assert misled.disagreement.exemplars == plain.disagreement.exemplars
    assert misled_moderated.disagreement.exemplars == moderated.disagreement.exemplars
    assert misled_moderated.disagreement.sample == moderated.disagreement.sample
    assert plain.disagreement.sample is None
    assert moderated.disagreement.exemplars == plain.disagreement.exemplars


def test_anchors_see_that_a_projection_is_too_sure() -> None:
    """Their log score is far below what probabilities so sharp lead to expect."""
    too_sure = Disagreement(float(np.log(0.05)), 0.05)
    misled = [_graded(too_sure, seed)[0].anchor_check.log_score for seed in range(5)]
    honest = [
        _graded(Disagreement(float(np.log(1.2)), 0.3), seed)[0].anchor_check.log_score
        for seed in range(5)
    ]

    assert sum(score.chance < TOO_SURE for score in misled) >= 4
    assert sum(score.chance < TOO_SURE for score in honest) <= 1
    assert np.mean([s.mean for s in misled]) < np.mean([s.mean for s in honest])


def test_one_history_is_one_judge_template_rubric_and_scale() -> None:
    """A judge's name is no part of it, its fingerprint is."""
    same = judged_by(["gpt-0123456789ab"], "rubric", SCALE.steps)

    assert judged_by(["mine-0123456789ab"], "rubric", SCALE.steps) == same
    others = {
        judged_by(["gpt-ffffffffffff"], "rubric", SCALE.steps),
        judged_by(["gpt-0123456789ab", "people"], "rubric", SCALE.steps),
        judged_by(["gpt-0123456789ab"], None, SCALE.steps),
        judged_by(["gpt-0123456789ab"], "rubric", SCALE.steps[1:]),
    }
    assert same not in others
    assert len(others) == 4


def test_what_was_expected_comes_back_from_its_record() -> None:
    """An artefact is verified by it."""
    expected = ExpectedDisagreement(
        Disagreement(-0.3, 0.4),
        "key",
        (EarlierGrading("spring", 2, 0.5, Told(2.0, 1.0), Told(1.0, -1.0)),),
    )

    assert ExpectedDisagreement.from_record(expected.as_record()) == expected
    assert expected.if_learnt == Disagreement(-0.3, 0.4)
    assert ExpectedDisagreement(USUAL, "key").if_learnt is None
