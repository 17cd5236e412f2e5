"""How far models and people agree: raw, beyond chance, and how much of people's scale a model has.

Raw agreement and kappa are of verdicts on the same pairs. Validity is of scales, corrected for the
errors of both: people's scale is h = beta l + d, where l is the model's scale with spread s and d
what people see and the model does not, d ~ N(0, delta^2); it is the share of h's variance that l
explains. Few human verdicts say little of it, so it is nothing without its interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cj_pipeline.arrays import Floats, Ints

_N_BETA, _N_DELTA = 8, 6
USUAL_SHARE, SHARES_DIFFER, USUAL_SPREAD = 0.7, 0.5, 1.3
"""Beforehand beta s / 1.3 ~ N(.7, .5^2): people's scale has a spread of some 1.3 logits."""
USUAL_DELTA, LOG_DELTAS_DIFFER = 0.6, 0.8
MAX_ESSAYS = 300
"""Beyond, the joint fit of twice as many scores would take minutes."""
_MAX_STEPS, _AT_REST = 30, 1e-6


@dataclass(frozen=True)
class Agreement:
    """How often two sides named the same winner.

    Attributes:
        n: Pairs that both decided; ties on either side are left out.
        n_agree: Of these, with the same winner.
        lower, upper: Between which the share lies with 95 % probability (Wilson).
        kappa: Agreement beyond what each side's habit of choosing the text shown first would give;
            None where that leaves nothing.
    """

    n: int
    n_agree: int
    lower: float
    upper: float
    kappa: float | None

    @property
    def share(self) -> float:
        """The share of pairs with the same winner, from 0 to 1."""
        return self.n_agree / self.n if self.n else math.nan


def agreement(one: Sequence[bool], other: Sequence[bool]) -> Agreement:
    """Return how two sides agree.

    Args:
        one: Whether the first essay of each pair won, by one side; pairs in one order for both.
        other: The same by the other.

    References:
        Wilson (1927), doi:10.1080/01621459.1927.10502953;
        Cohen (1960), doi:10.1177/001316446002000104.
    """
    n = len(one)
    n_agree = sum(a == b for a, b in zip(one, other, strict=True))
    lower, upper = wilson(n_agree, n)
    if not n:
        return Agreement(0, 0, lower, upper, None)
    p, q = sum(one) / n, sum(other) / n
    by_chance = p * q + (1 - p) * (1 - q)
    kappa = (n_agree / n - by_chance) / (1 - by_chance) if by_chance < 1 else None
    return Agreement(n, n_agree, lower, upper, kappa)


def wilson(n_of: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Return the 95 % interval of a share by Wilson's score; 0 to 1 without any trial."""
    if not n:
        return 0.0, 1.0
    p = n_of / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True, eq=False)
class SideVerdicts:
    """Verdicts of one side, by the numbers of their essays.

    Attributes:
        winner: Who won; shape (n_verdicts,).
        loser: Who lost; likewise. A tie is two verdicts of half weight, one each way.
        weight: Of each.
    """

    winner: Ints
    loser: Ints
    weight: Floats


@dataclass(frozen=True, eq=False)
class JointScale:
    """People's scale as their verdicts and a model's together tell it.

    Attributes:
        scores: The essays' expected places on people's scale, in logits; shape (n_essays,).
        standard_errors: Of those.
        validity: Expected share of people's scale that the model's explains, from 0 to 1.
        validity_lower, validity_upper: Between which it lies with 95 % probability.
        n_people: Verdicts of people it rests on.
    """

    scores: Floats
    standard_errors: Floats
    validity: float
    validity_lower: float
    validity_upper: float
    n_people: int


def joint_scale(
    n_essays: int, model: SideVerdicts, people: SideVerdicts, spread: float
) -> JointScale:
    """Return people's scale and the model's validity, from both sides' verdicts.

    Each point of a grid of beta and delta is weighed by its evidence (Laplace).

    Args:
        n_essays: At most `MAX_ESSAYS`.
        model: The model's verdicts.
        people: Theirs.
        spread: Of the model's scale, in its logits.
    """
    betas = np.linspace(0.02, 2.2, _N_BETA) * USUAL_SPREAD / spread
    deltas = np.exp(math.log(USUAL_DELTA) + LOG_DELTAS_DIFFER * np.linspace(-2, 2, _N_DELTA))
    points = []
    for beta in betas:
        share = beta * spread / USUAL_SPREAD
        for delta in deltas:
            log_prior = -0.5 * ((share - USUAL_SHARE) / SHARES_DIFFER) ** 2
            log_prior -= 0.5 * (math.log(delta / USUAL_DELTA) / LOG_DELTAS_DIFFER) ** 2
            mean, variance, evidence = _fit(
                n_essays, model, people, spread, float(beta), float(delta)
            )
            validity = (beta * spread) ** 2 / ((beta * spread) ** 2 + delta**2)
            points.append((log_prior + evidence, mean, variance, float(validity)))
    log_weights = np.array([point[0] for point in points])
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    means = np.array([point[1] for point in points])
    mean = weights @ means
    variance = weights @ np.array([p[2] for p in points]) + weights @ (means - mean) ** 2
    validities = np.array([point[3] for point in points])
    order = np.argsort(validities)
    reached = np.cumsum(weights[order]) - weights[order] / 2
    lower, upper = np.interp([0.025, 0.975], reached, validities[order])
    return JointScale(
        scores=mean,
        standard_errors=np.sqrt(variance),
        validity=float(weights @ validities),
        validity_lower=float(lower),
        validity_upper=float(upper),
        n_people=round(float(people.weight.sum())),
    )


def _fit(  # noqa: PLR0917 -- two sides and three figures
    n: int, model: SideVerdicts, people: SideVerdicts, spread: float, beta: float, delta: float
) -> tuple[Floats, Floats, float]:
    """Return people's scores, their variances and the log evidence for one beta and delta.

    What is solved for is (l / s, d / delta): a standard normal prior for all of it.
    """
    rows = np.zeros((len(model.winner) + len(people.winner), 2 * n))
    at = np.arange(len(model.winner))
    rows[at, model.winner] += spread
    rows[at, model.loser] -= spread
    at = len(model.winner) + np.arange(len(people.winner))
    rows[at, people.winner] += beta * spread
    rows[at, people.loser] -= beta * spread
    rows[at, n + people.winner] += delta
    rows[at, n + people.loser] -= delta
    weight = np.concatenate([model.weight, people.weight])
    x = np.zeros(2 * n)
    for _ in range(_MAX_STEPS):
        p = 1 / (1 + np.exp(-(rows @ x)))
        gradient = rows.T @ (weight * (1 - p)) - x
        hessian = rows.T @ ((weight * p * (1 - p))[:, None] * rows) + np.eye(2 * n)
        step = np.linalg.solve(hessian, gradient)
        x += step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
        if float(np.abs(step).max()) < _AT_REST:
            break
    covariance = np.linalg.inv(hessian)
    log_likelihood = -float(weight @ np.logaddexp(0, -(rows @ x)))
    _, log_det = np.linalg.slogdet(hessian)
    evidence = log_likelihood - 0.5 * float(x @ x) - 0.5 * float(log_det)
    to_people = np.hstack([beta * spread * np.eye(n), delta * np.eye(n)])
    to_people -= to_people.mean(axis=0)
    variances = np.einsum("ij,jk,ik->i", to_people, covariance, to_people)
    return to_people @ x, variances, evidence
