"""Anchors checked against themselves: each figure by hand on a case small enough to see."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.grading.anchors import (
    AnchorCheck,
    AnchorRules,
    check_anchors,
    kendall_tau,
    misfits,
    separation,
)

Floats = NDArray[np.float64]

GRADES = ("E", "D", "C", "B", "A")


def checked(
    steps: list[int],
    scores: list[float],
    *,
    judged: tuple[JudgedPair, ...] = (),
    left_out: Floats | None = None,
    standard_error: float = 0.3,
) -> AnchorCheck:
    """Return the check of anchors a0, a1, ... with independent errors."""
    ids = [f"a{i}" for i in range(len(steps))]
    return check_anchors(
        GRADES,
        ids,
        np.array(steps),
        np.array(scores),
        standard_error**2 * np.eye(len(steps)),
        left_out=left_out,
        disagreement=None,
        judged=judged,
        all_scores=dict(zip(ids, scores, strict=True)) | {"s0": 0.0},
        rules=AnchorRules(),
    )


def test_leave_one_out_figures_count_steps_from_the_known_grade() -> None:
    """Right, one step off, two steps off: a third exact, two thirds within one, MAE 1."""
    left_out = np.eye(5)[[0, 2, 4]]

    check = checked([0, 1, 2], [-1.0, 0.0, 1.0], left_out=left_out)

    assert check.exact == pytest.approx(1 / 3)
    assert check.within_one == pytest.approx(2 / 3)
    assert check.mean_absolute_error == pytest.approx(1.0)
    assert check.bias == pytest.approx(1.0)


def test_each_anchor_is_shown_with_the_grade_it_would_have_been_given() -> None:
    """In order of score, so that a wrong order strikes the eye."""
    left_out = np.array([[0.1, 0.7, 0.2, 0, 0], [0.6, 0.4, 0, 0, 0]])

    check = checked([0, 1], [1.0, -1.0], left_out=left_out)

    assert [fit.essay_id for fit in check.anchors] == ["a1", "a0"]
    assert check.anchors[1].graded == "D"
    assert check.anchors[1].probability == pytest.approx(0.1)
    assert check.anchors[1].expected_step == pytest.approx(1.1)


def test_wrongly_ordered_anchors_are_listed_worst_first() -> None:
    """An A below a B by a hair is error; an A below a C by three logits is not."""
    check = checked([2, 3, 4], [3.0, 0.1, 0.0])

    assert [(each.lower, each.higher) for each in check.inversions] == [
        ("a0", "a2"),
        ("a0", "a1"),
        ("a1", "a2"),
    ]
    assert [each.is_beyond_error for each in check.inversions] == [True, True, False]
    assert check.inversions[0].excess == pytest.approx(3.0)
    assert check.inversions[0].standard_error == pytest.approx(0.3 * np.sqrt(2))


def test_an_inversion_counts_the_errors_both_anchors_share() -> None:
    """What moves both anchors alike does not move their difference."""
    covariance = np.array([[0.5, 0.49], [0.49, 0.5]])

    check = check_anchors(
        GRADES,
        ["a0", "a1"],
        np.array([0, 1]),
        np.array([1.0, 0.0]),
        covariance,
        left_out=None,
        disagreement=None,
        all_scores={},
        rules=AnchorRules(),
    )

    assert check.inversions[0].standard_error == pytest.approx(np.sqrt(0.02))


def test_direct_inversions_are_comparisons_the_lower_grade_won() -> None:
    """Ties and anchors of one grade are none."""
    judged = (
        JudgedPair("a0", "a1", "A"),
        JudgedPair("a0", "a1", "B"),
        JudgedPair("a1", "a0", "tie"),
        JudgedPair("a1", "a2", "A"),
        JudgedPair("a0", "s0", "A"),
    )

    check = checked([0, 1, 1], [-1.0, 0.5, 0.6], judged=judged)

    assert (check.n_direct, check.n_direct_inversions) == (3, 1)


def test_a_zero_win_anchor_is_one_that_should_have_won_something() -> None:
    """The lowest-graded may lose every time; an anchor that was never judged has not lost."""
    judged = (JudgedPair("a0", "s0", "B"), JudgedPair("a1", "s0", "B"))

    check = checked([0, 1, 2], [-1.0, 0.0, 1.0], judged=judged)

    assert check.zero_win_anchors == ("a1",)


def test_kendall_tau_counts_pairs_in_order_and_not() -> None:
    """Of ten pairs nine in order and one not: (9 - 1) / 10."""
    tau, lower, upper = kendall_tau(np.arange(5), np.array([0.0, 1.0, 2.0, 4.0, 3.0]))

    assert tau == pytest.approx(0.8)
    assert lower is not None
    assert upper is not None
    assert lower < 0.8 < upper < 1


def test_kendall_tau_of_few_anchors_has_no_interval() -> None:
    """Three anchors in order happen by chance once in six."""
    tau, lower, upper = kendall_tau(np.arange(3), np.array([0.0, 1.0, 2.0]))

    assert tau == pytest.approx(1.0)
    assert lower is upper is None


def test_separation_is_the_slope_over_its_error() -> None:
    """Two anchors a step and a logit apart, each known to 0.3: 1 / (0.3 sqrt 2)."""
    z = separation(np.array([0, 1]), np.array([0.0, 1.0]), 0.09 * np.eye(2))

    assert z == pytest.approx(1 / (0.3 * np.sqrt(2)), rel=1e-6)


def test_separation_ignores_the_gauge() -> None:
    """Scores centred on their mean have a singular covariance, and the same differences."""
    steps, scores = np.array([0, 1, 2, 4]), np.array([0.0, 1.1, 1.9, 4.2])

    free = separation(steps, scores, 0.09 * np.eye(4))
    centred = separation(steps, scores - scores.mean(), 0.09 * (np.eye(4) - 0.25))

    assert free == pytest.approx(centred, rel=1e-6)


def test_misfit_is_large_for_an_essay_whose_comparisons_surprise() -> None:
    """Losing to a much weaker essay: residual 0.95 against a variance of 0.05 x 0.95."""
    surprise = (JudgedPair("a0", "s0", "B"),)

    infit, outfit = misfits(["a0"], surprise, {"a0": float(np.log(19)), "s0": 0.0})["a0"]

    assert infit == pytest.approx(19.0)
    assert outfit == pytest.approx(19.0)


def test_misfit_averages_one_when_verdicts_follow_the_scores() -> None:
    """Simulated with the very scores it is judged by; 2,000 comparisons, so within 0.1."""
    rng = np.random.default_rng(5)
    scores = {"a0": 0.3} | {f"s{i}": float(x) for i, x in enumerate(rng.normal(0, 1, 2000))}
    judged = [
        JudgedPair(
            "a0", other, "A" if rng.random() < 1 / (1 + np.exp(scores[other] - 0.3)) else "B"
        )
        for other in scores
        if other != "a0"
    ]

    infit, outfit = misfits(["a0"], judged, scores)["a0"]

    assert infit == pytest.approx(1.0, abs=0.1)
    assert outfit == pytest.approx(1.0, abs=0.1)


def test_an_essay_without_comparisons_has_no_misfit() -> None:
    """No number is invented for it."""
    assert misfits(["a0"], (), {"a0": 0.0}) == {}
