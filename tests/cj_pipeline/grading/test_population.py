"""Students of one population: errors are drawn in, differences stay."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.grading.population import place_in_population
from cj_pipeline.scale.bradley_terry import fit_bradley_terry

Floats = NDArray[np.float64]


def judged(quality: Floats, per_essay: int, seed: int) -> list[JudgedPair]:
    """Return verdicts on random pairs, as the model says they fall."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(per_essay):
        order = rng.permutation(len(quality)).tolist()
        for a, b in zip(order[::2], order[1::2], strict=True):
            p = 1 / (1 + np.exp(quality[b] - quality[a]))
            pairs.append(JudgedPair(f"e{a:02d}", f"e{b:02d}", "A" if rng.random() < p else "B"))
    return pairs


def test_placed_scores_come_nearer_to_the_truth_than_plain_ones() -> None:
    """Twenty batches of sixty students, ten comparisons each: the squared error falls by a fifth
    at least, and true scores rise with placed ones about one for one."""
    plain, placed, true = [], [], []
    for seed in range(20):
        quality = np.random.default_rng(seed).normal(0, 1.5, 60)
        ids = [f"e{i:02d}" for i in range(60)]
        scale = fit_bradley_terry(ids, judged(quality, 10, 100 + seed))
        population = place_in_population(scale.scores, scale.covariance, np.ones(60, dtype=bool))
        plain.append(scale.scores)
        placed.append(population.scores)
        true.append(quality - quality.mean())

    errors = [float(np.mean((np.array(each) - np.array(true)) ** 2)) for each in (plain, placed)]
    slope = np.polyfit(np.ravel(placed), np.ravel(true), 1)[0]

    assert errors[1] < 0.8 * errors[0]
    assert slope == pytest.approx(1.0, abs=0.1)


def test_anchors_keep_their_distance_from_students() -> None:
    """Students are drawn together, anchors are not drawn in with them: over forty batches true
    scores of anchors rise with placed ones one for one."""
    placed, true = [], []
    for seed in range(40):
        students = np.random.default_rng(seed).normal(0, 1.5, 48)
        quality = np.concatenate([np.linspace(-3, 3, 12), students])
        ids = [f"e{i:02d}" for i in range(60)]
        scale = fit_bradley_terry(ids, judged(quality, 16, 100 + seed))
        population = place_in_population(scale.scores, scale.covariance, np.arange(60) >= 12)
        placed.append(population.scores[:12])
        true.append((quality - quality.mean())[:12])

    assert np.polyfit(np.ravel(true), np.ravel(placed), 1)[0] == pytest.approx(1.0, abs=0.06)


def test_the_spread_of_the_students_is_recovered() -> None:
    """Without the errors that widen the scores themselves."""
    quality = np.random.default_rng(3).normal(0, 1.5, 80)
    ids = [f"e{i:02d}" for i in range(80)]
    scale = fit_bradley_terry(ids, judged(quality, 20, 3))

    population = place_in_population(scale.scores, scale.covariance, np.ones(80, dtype=bool))

    assert population.spread == pytest.approx(quality.std(), rel=0.12)
    assert population.spread < scale.scores.std()


def test_students_alike_are_drawn_together() -> None:
    """Where verdicts were coin tosses, what seems a difference is error."""
    ids = [f"e{i:02d}" for i in range(60)]
    scale = fit_bradley_terry(ids, judged(np.zeros(60), 10, 1))

    population = place_in_population(scale.scores, scale.covariance, np.ones(60, dtype=bool))

    assert population.scores.std() < 0.4 * scale.scores.std()


def test_well_known_scores_stay_where_they_are() -> None:
    """Two hundred comparisons each leave the population little to say."""
    quality = np.random.default_rng(2).normal(0, 1.2, 30)
    ids = [f"e{i:02d}" for i in range(30)]
    scale = fit_bradley_terry(ids, judged(quality, 200, 2))

    population = place_in_population(scale.scores, scale.covariance, np.ones(30, dtype=bool))

    assert population.scores == pytest.approx(scale.scores, abs=0.2)


@pytest.mark.parametrize("n_students", [0, 1])
def test_a_single_student_has_no_population(n_students: int) -> None:
    """Nothing to compare with, nothing to draw towards."""
    is_student = np.zeros(4, dtype=bool)
    is_student[:n_students] = True
    scores = np.array([1.0, -1.0, 0.5, -0.5])

    population = place_in_population(scores, 0.2 * (np.eye(4) - 0.25), is_student)

    assert population.scores == pytest.approx(scores)


def test_placing_ignores_where_the_scale_puts_its_zero() -> None:
    """Logits have no natural origin."""
    scores = np.random.default_rng(4).normal(0, 1.5, 20)
    covariance = 0.3 * (np.eye(20) - 0.05)
    is_student = np.arange(20) > 5

    here = place_in_population(scores, covariance, is_student)
    there = place_in_population(scores + 7, covariance + 0.4, is_student)

    assert here.scores + 7 == pytest.approx(there.scores)
    assert here.covariance == pytest.approx(there.covariance)
