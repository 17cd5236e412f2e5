"""The mean over all pairs from few verdicts of people, on pairs whose truth is known."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from cj_pipeline.arrays import Floats
from cj_pipeline.diagnostics.prediction_powered import FEWEST, PoweredMean, powered_mean

N_PAIRS, N_DRAWS = 400, 300


@cache
def _found(*, likes: float, evenly: bool) -> tuple[list[PoweredMean], Floats, list[float]]:
    """Return what is found over many classes, the truths, and people's own unweighed means.

    Pairs that a model is unsure of are drawn up to five times as often, unless `evenly`. `likes`
    is how far people's chances follow the model's.
    """
    rng = np.random.default_rng(5)
    found, truths, plain = [], [], []
    for _ in range(N_DRAWS):
        model = rng.beta(1.2, 0.6, N_PAIRS)
        people = likes * model + (1 - likes) * 0.6
        probability = np.full(N_PAIRS, 0.15) if evenly else 0.05 + 0.2 * (1 - model)
        drawn = rng.random(N_PAIRS) < probability
        said = (rng.random(N_PAIRS) < people)[drawn].astype(np.float64)
        one = powered_mean(model, model[drawn], said, probability[drawn])
        assert one is not None
        found.append(one)
        truths.append(float(people.mean()))
        plain.append(float(said.mean()))
    return found, np.array(truths), plain


@pytest.mark.parametrize("likes", [0.0, 0.5, 1.0])
def test_the_truth_is_met_however_much_the_model_is_worth(likes: float) -> None:
    """Without bias, and by intervals that hold 95 in a hundred, with unequal chances of a draw."""
    found, truths, _ = _found(likes=likes, evenly=False)
    off = np.array([each.value for each in found]) - truths
    held = [each.lower <= true <= each.upper for each, true in zip(found, truths, strict=True)]

    assert abs(off.mean()) < 3 * off.std() / np.sqrt(N_DRAWS)
    assert 0.92 <= np.mean(held) <= 0.98


def test_chances_of_being_drawn_count() -> None:
    """Where pairs in doubt are drawn more often, people's plain mean is off by far."""
    found, truths, plain = _found(likes=1.0, evenly=False)

    assert np.mean(plain - truths) < -0.05
    assert abs(np.mean([each.value for each in found] - truths)) < 0.01


def test_a_model_that_people_follow_saves_verdicts_and_another_costs_none() -> None:
    """Its power is near one then, and near nothing where it says nothing of them."""
    (good, truths, plain), (bad, *_) = (_found(likes=likes, evenly=True) for likes in (1.0, 0.0))

    errors = np.array([each.value for each in good]) - truths
    assert errors.std() < 0.9 * (plain - truths).std()
    assert np.mean([each.power for each in good]) > 0.6
    assert np.mean([each.power for each in bad]) < 0.25


def test_few_verdicts_and_verdicts_of_one_opinion() -> None:
    """None at all, and an interval that is not a point."""
    even = np.full(50, 0.5)

    assert powered_mean(even, even[:4], np.ones(FEWEST - 1), even[:4]) is None
    found = powered_mean(even, even[:10], np.ones(10), even[:10])
    assert found is not None
    assert found.value == 1.0
    assert found.lower == pytest.approx(0.722, abs=2e-3)
