"""Agreement with its interval, and the joint scale of a model and people."""

from __future__ import annotations

import numpy as np
import pytest

from cj_pipeline.diagnostics.human_agreement import (
    JointScale,
    SideVerdicts,
    agreement,
    joint_scale,
    pooled_validity,
    wilson,
)


def _side(rng: np.random.Generator, theta: np.ndarray, n: int) -> SideVerdicts:
    pairs = np.array([rng.choice(len(theta), 2, replace=False) for _ in range(n)])
    apart = theta[pairs[:, 0]] - theta[pairs[:, 1]]
    first = rng.random(n) < 1 / (1 + np.exp(-apart))
    return SideVerdicts(
        np.where(first, pairs[:, 0], pairs[:, 1]),
        np.where(first, pairs[:, 1], pairs[:, 0]),
        np.ones(n),
    )


def test_thirty_verdicts_leave_an_agreement_wide_open() -> None:
    """Which is why batches are pooled, and the interval is printed."""
    lower, upper = wilson(25, 30)

    assert (lower, upper) == pytest.approx((0.664, 0.927), abs=2e-3)
    assert wilson(0, 0) == (0.0, 1.0)


def test_kappa_is_what_agreement_is_beyond_habit() -> None:
    """Two sides that always choose the first agree wholly, and know nothing."""
    assert agreement([True] * 10, [True] * 10).kappa is None
    found = agreement([True] * 8 + [False] * 2, [True] * 6 + [False] * 4)
    assert found.share == 0.8
    assert found.kappa == pytest.approx((0.8 - 0.56) / 0.44)


def _class(seed: int, own_error: float) -> tuple[JointScale, np.ndarray, float]:
    """60 essays, 360 verdicts of a model at twice people's slope, 36 of people."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(0, 1.0, 40)
    human = shared + rng.normal(0, own_error, 40)
    model = _side(rng, 2 * shared, 360)
    people = _side(rng, human, 60)
    return joint_scale(40, model, people, 2.0), human - human.mean(), 1 / (1 + own_error**2)


def test_the_joint_scale_holds_people_s_scores_and_the_model_s_validity() -> None:
    """Where an independent judge made the verdicts; over several classes together."""
    held, valid = [], []
    for seed in range(4):
        found, human, validity = _class(seed, 0.7)
        z = np.abs(found.scores - human) / found.standard_errors
        held.append(np.mean(z < 1.96))
        valid.append(found.validity_lower <= validity <= found.validity_upper)

    assert 0.88 <= np.mean(held) <= 1.0
    assert all(valid)


def test_a_model_that_sees_something_else_has_little_validity() -> None:
    """And one that sees what people see has much."""
    rng = np.random.default_rng(11)
    human = rng.normal(0, 1.3, 40)
    other = rng.normal(0, 2.0, 40)
    people = _side(rng, human, 400)

    blind = joint_scale(40, _side(rng, other, 400), people, 2.0)
    seeing = joint_scale(40, _side(rng, 1.5 * human, 400), people, 2.0)

    assert blind.validity < 0.3
    assert seeing.validity > 0.7
    assert blind.validity_upper < seeing.validity_lower


def test_what_a_model_is_off_about_together_is_taken_out() -> None:
    """A third that a model rates a logit too high comes down, where it is known which third."""
    known, unknown = [], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        human = rng.normal(0, 1.0, 45)
        is_over = np.arange(45) < 15
        sides = _side(rng, 2 * (human + is_over), 300), _side(rng, human, 90)
        for found, marked in ((known, is_over.astype(float)), (unknown, None)):
            off = joint_scale(45, *sides, 2.0, marked=marked).scores - human
            found.append(off[is_over].mean() - off[~is_over].mean())

    assert np.mean(unknown) > 0.4
    assert abs(np.mean(known)) < 0.3


def test_classes_pooled_tell_more_of_a_judge_than_each() -> None:
    """In a narrower interval, which holds the truth."""
    scales, truth = [], 0.0
    for seed in range(4):
        found, _, truth = _class(seed, 0.7)
        scales.append(found)

    pooled = pooled_validity(scales)

    widths = [scale.validity_upper - scale.validity_lower for scale in scales]
    assert pooled.upper - pooled.lower < 0.8 * np.mean(widths)
    assert pooled.lower < truth < pooled.upper
    assert pooled.n_people == 240
    (one,) = (pooled_validity(scales[:1]),)
    assert one.value == pytest.approx(scales[0].validity)
