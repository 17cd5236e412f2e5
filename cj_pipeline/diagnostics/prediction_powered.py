"""What people would say of all of a batch's pairs, from few verdicts of theirs and many of a model.

A model decides every pair and people a few, each drawn with a known probability. The mean over all
pairs is the model's prediction of it, corrected by what people said less what was predicted, on
the pairs that people decided. It assumes nothing of either scale, so it is the check of
`human_agreement.joint_scale`, which does:

    lambda mean_all(f) + sum(w (y - lambda f)) / sum(w),    w = 1 / probability

The power lambda weighs predictions by what they are worth: 0 leaves people's verdicts alone.

References:
    Angelopoulos, Duchi and Zrnic (2023), PPI++, arXiv:2311.01453, for lambda and the variance;
    Hajek (1971), in Foundations of Statistical Inference, for dividing by the sum of weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cj_pipeline.arrays import Floats
from cj_pipeline.diagnostics.human_agreement import wilson

FEWEST = 5
"""Pairs that people decided, below which there is no estimate."""


@dataclass(frozen=True)
class PoweredMean:
    """A mean over all pairs, of what people say or would say.

    Attributes:
        n: Pairs that people decided.
        n_all: Pairs it is about.
        value: The mean, from 0 to 1.
        lower, upper: Between which it lies with 95 % probability (Student's t).
        predicted: The same by the model alone.
        power: How much the predictions weigh, from 0 to 1.
    """

    n: int
    n_all: int
    value: float
    lower: float
    upper: float
    predicted: float
    power: float


def powered_mean(
    predicted: Floats, predicted_there: Floats, said: Floats, probability: Floats
) -> PoweredMean | None:
    """Return the mean over all pairs of what people say; None for under `FEWEST` of their pairs.

    Args:
        predicted: The model's prediction for every pair, from 0 to 1, made without people's
            verdicts; shape (n_all,).
        predicted_there: The same for the pairs that people decided; shape (n,).
        said: What people said there, from 0 to 1; shape (n,).
        probability: With which each of those was drawn, above 0; shape (n,).
    """
    from scipy.stats import t as student

    n, n_all = len(said), len(predicted)
    if n < FEWEST:
        return None
    weight = 1 / probability
    weight /= weight.sum()
    n_effective = float(1 / np.sum(weight**2))
    power = _power(predicted_there, said, weight, n_effective / n_all)
    rest = said - power * predicted_there
    correction = float(weight @ rest)
    # With few pairs, their own mean takes one of them away.
    of_people = float(weight**2 @ (rest - correction) ** 2) * n / (n - 1)
    of_model = power**2 * float(np.var(predicted)) / n_all
    value = power * float(predicted.mean()) + correction
    error = math.sqrt(of_people + of_model)
    half = float(student.ppf(0.975, max(n_effective - 1, 1))) * error
    lower, upper = value - half, value + half
    if not np.ptp(said):
        # All of one opinion have no spread; that is not to be sure.
        lower, upper = wilson(round(value * n_effective), round(n_effective))
    return PoweredMean(
        n=n,
        n_all=n_all,
        value=min(max(value, 0.0), 1.0),
        lower=max(0.0, lower),
        upper=min(1.0, upper),
        predicted=float(predicted.mean()),
        power=power,
    )


def _power(predicted: Floats, said: Floats, weight: Floats, ratio: float) -> float:
    """Return the lambda of least variance; `ratio` is of people's pairs to all."""
    off = predicted - float(weight @ predicted)
    variance = float(weight @ off**2)
    if variance <= 0:
        return 0.0
    covariance = float(weight @ (off * (said - float(weight @ said))))
    return min(max(covariance / ((1 + ratio) * variance), 0.0), 1.0)
