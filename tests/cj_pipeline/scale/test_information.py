"""Standard errors and covariances, exact or with their error stated."""

from __future__ import annotations

import numpy as np
import pytest

from cj_pipeline.scale.bradley_terry import Scale, fit_verdicts
from cj_pipeline.scale.information import (
    covariance,
    covariance_of,
    other_covariance,
    standard_errors,
)
from cj_pipeline.scale.tallies import Verdicts


def _fit(n: int, n_verdicts: int, *, position_effect: bool = False) -> Scale:
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 1, n)
    ring = np.arange(n)
    first = np.concatenate([ring, rng.integers(0, n, n_verdicts)])
    second = (first + np.concatenate([np.ones(n), rng.integers(1, n, n_verdicts)]).astype(int)) % n
    wins = rng.random(len(first)) < 1 / (1 + np.exp(truth[second] - truth[first] - 0.3))
    essays = tuple(f"e{i}" for i in range(n))
    judge = np.arange(len(first)) % 2
    return fit_verdicts(
        Verdicts(essays, ("j", "k"), first, second, 2 * wins.astype(np.int64), judge),
        position_effect=position_effect,
    )


def test_large_random_nets_state_how_far_off_their_errors_may_be() -> None:
    """Measured on essays solved exactly, the least sure among them."""
    scale = _fit(1600, 12_000)
    exact = np.sqrt(np.diag(scale.covariance))

    found = standard_errors(scale.information)

    assert found.method == "surroundings"
    assert 0 < found.relative_error < 0.01
    assert np.abs(found.values / exact - 1).max() < 2 * found.relative_error + 1e-3


def test_position_effects_widen_errors_alike_in_every_way_of_having_them() -> None:
    """What judges add is taken into account whether the inverse is whole or not."""
    scale = _fit(1600, 12_000, position_effect=True)

    errors = np.sqrt(np.diag(covariance(scale.information)))

    assert standard_errors(scale.information).values == pytest.approx(errors, rel=0.01)


def test_parts_of_the_covariance_are_had_without_the_whole() -> None:
    """Three systems solved rather than sixteen hundred."""
    scale = _fit(1600, 12_000, position_effect=True)
    chosen = np.array([7, 900, 33])

    part = covariance_of(scale.information, chosen)

    assert part == pytest.approx(covariance(scale.information)[np.ix_(chosen, chosen)], abs=1e-8)


def test_judges_parameters_have_the_covariance_of_the_joint_inverse() -> None:
    """Written out whole: the lower right corner of the inverse."""
    from cj_pipeline.scale.laplacian import dense

    information = _fit(40, 600, position_effect=True).information
    joint = np.block(
        [
            [dense(information.essays), information.border],
            [information.border.T, information.corner],
        ]
    )

    assert other_covariance(information) == pytest.approx(np.linalg.inv(joint)[40:, 40:])
