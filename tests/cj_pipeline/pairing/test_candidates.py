"""The information expected of a verdict, in nats."""

from __future__ import annotations

import numpy as np
import pytest

from cj_pipeline.pairing.candidates import information_gain


def test_a_pair_that_is_known_tells_nothing() -> None:
    """Without doubt about the difference a verdict is only the judge's luck."""
    gain = information_gain(np.array([0.0, 1.0]), np.array([1e-9, 1e-9]))

    assert gain == pytest.approx([0, 0], abs=1e-6)


def test_gain_grows_with_doubt_and_falls_with_distance() -> None:
    """Ask where the answer is open, about what is not known."""
    near, far = information_gain(np.array([0.0, 3.0]), np.array([1.0, 1.0]))
    doubtful = information_gain(np.array([0.0]), np.array([4.0]))[0]

    assert far < near < doubtful < np.log(2)


def test_gain_agrees_with_sampling() -> None:
    """The quadrature against two hundred thousand draws."""
    draws = np.random.default_rng(0).normal(0.7, 1.3, 200_000)
    chance = 1 / (1 + np.exp(-draws))

    def entropy(p: np.ndarray) -> np.ndarray:
        return -p * np.log(p) - (1 - p) * np.log1p(-p)

    sampled = entropy(chance.mean()) - entropy(chance).mean()

    assert information_gain(np.array([0.7]), np.array([1.69]))[0] == pytest.approx(
        sampled, abs=1e-3
    )
