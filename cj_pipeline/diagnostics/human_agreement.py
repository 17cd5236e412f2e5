"""How far models and people agree: raw, beyond chance, and how much of people's scale a model has.

Raw agreement and kappa are of verdicts on the same pairs. Validity is of scales, corrected for the
errors of both: people's scale is h = beta l + gamma g + d, where l is the model's scale with spread
s, g marks essays that the model may be off about together, as students against anchors,
gamma ~ N(0, 1), and d is what people see and the model does not, d ~ N(0, delta^2); it is the share
of h's variance that l explains. Few human verdicts say little of it, so it is nothing without its
interval.
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

_POINTS = np.array(
    [
        (share, delta)
        for share in np.linspace(0.02, 2.2, _N_BETA)
        for delta in np.exp(
            math.log(USUAL_DELTA) + LOG_DELTAS_DIFFER * np.linspace(-2, 2, _N_DELTA)
        )
    ]
)
"""Each beta s / 1.3 and delta tried; shape (48, 2)."""


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
        log_evidence: Of each beta and delta tried, without what is taken of them beforehand; shape
            (n_points,), the same points for every batch.
        validities: That each of them comes to; likewise.
    """

    scores: Floats
    standard_errors: Floats
    validity: float
    validity_lower: float
    validity_upper: float
    n_people: int
    log_evidence: Floats
    validities: Floats


@dataclass(frozen=True)
class Validity:
    """The share of people's scale that a model's explains, and between which it lies with 95 %."""

    value: float
    lower: float
    upper: float
    n_people: int


def joint_scale(
    n_essays: int,
    model: SideVerdicts,
    people: SideVerdicts,
    spread: float,
    *,
    marked: Floats | None = None,
) -> JointScale:
    """Return people's scale and the model's validity, from both sides' verdicts.

    Each point of a grid of beta and delta is weighed by its evidence (Laplace).

    Args:
        n_essays: At most `MAX_ESSAYS`.
        model: The model's verdicts.
        people: Theirs.
        spread: Of the model's scale, in its logits.
        marked: 1 for essays that the model may place off all alike, else 0; shape (n_essays,).
    """
    group = np.zeros(n_essays) if marked is None else marked - marked.mean()
    points = []
    for share, delta in _POINTS:
        beta = share * USUAL_SPREAD / spread
        loading = np.hstack(
            [beta * spread * np.eye(n_essays), delta * np.eye(n_essays), group[:, None]]
        )
        mean, variance, evidence, gamma = _fit(model, people, spread, loading)
        unseen = delta**2 + gamma**2 * float(np.var(group))
        validity = (beta * spread) ** 2 / ((beta * spread) ** 2 + unseen)
        points.append((evidence, mean, variance, float(validity)))
    log_evidence = np.array([point[0] for point in points])
    validities = np.array([point[3] for point in points])
    weights = _weights(log_evidence)
    means = np.array([point[1] for point in points])
    mean = weights @ means
    variance = weights @ np.array([p[2] for p in points]) + weights @ (means - mean) ** 2
    n_people = round(float(people.weight.sum()))
    found = _validity(weights, validities, n_people)
    return JointScale(
        scores=mean,
        standard_errors=np.sqrt(variance),
        validity=found.value,
        validity_lower=found.lower,
        validity_upper=found.upper,
        n_people=n_people,
        log_evidence=log_evidence,
        validities=validities,
    )


def pooled_validity(scales: Sequence[JointScale]) -> Validity:
    """Return the validity that several batches of one judge tell together.

    Beta, in units of both scales' spreads, and delta are taken to be the same in all of them; what
    the model is off about a group is each batch's own.

    Args:
        scales: Of each batch; at least one.
    """
    weights = _weights(np.sum([scale.log_evidence for scale in scales], axis=0))
    validities = np.mean([scale.validities for scale in scales], axis=0)
    return _validity(weights, validities, sum(scale.n_people for scale in scales))


def _weights(log_evidence: Floats) -> Floats:
    """Return the weight of each of `_POINTS`, what is taken of it beforehand included."""
    share, delta = _POINTS.T
    log_weights = log_evidence - 0.5 * ((share - USUAL_SHARE) / SHARES_DIFFER) ** 2
    log_weights -= 0.5 * (np.log(delta / USUAL_DELTA) / LOG_DELTAS_DIFFER) ** 2
    weights: Floats = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    return weights


def _validity(weights: Floats, validities: Floats, n_people: int) -> Validity:
    order = np.argsort(validities)
    reached = np.cumsum(weights[order]) - weights[order] / 2
    lower, upper = np.interp([0.025, 0.975], reached, validities[order])
    return Validity(float(weights @ validities), float(lower), float(upper), n_people)


def expected_share(joint: JointScale, pairs: Ints, sign: Floats) -> float:
    """Return in which share of pairs people are expected to name an essay.

    Args:
        joint: Their scale.
        pairs: The numbers of the two essays; shape (n_pairs, 2).
        sign: 1 where the first one's share is asked for, else -1; shape (n_pairs,).

    References:
        MacKay (1992), doi:10.1162/neco.1992.4.5.720, for the mean of a logistic over its errors.
    """
    apart = sign * (joint.scores[pairs[:, 0]] - joint.scores[pairs[:, 1]])
    variance = joint.standard_errors[pairs] ** 2
    apart /= np.sqrt(1 + math.pi * variance.sum(axis=1) / 8)
    return float(np.mean(1 / (1 + np.exp(-apart))))


def _fit(
    model: SideVerdicts, people: SideVerdicts, spread: float, loading: Floats
) -> tuple[Floats, Floats, float, float]:
    """Return people's scores, their variances, the log evidence and gamma for one beta and delta.

    What is solved for is x = (l / s, d / delta, gamma): a standard normal prior for all of it.
    People's scale is `loading` times it; shape (n, 2n + 1).
    """
    by_model = np.zeros_like(loading)
    np.fill_diagonal(by_model, spread)
    rows = np.vstack(
        [
            by_model[model.winner] - by_model[model.loser],
            loading[people.winner] - loading[people.loser],
        ]
    )
    weight = np.concatenate([model.weight, people.weight])
    n_unknown = loading.shape[1]
    x = np.zeros(n_unknown)
    for _ in range(_MAX_STEPS):
        p = 1 / (1 + np.exp(-(rows @ x)))
        gradient = rows.T @ (weight * (1 - p)) - x
        hessian = rows.T @ ((weight * p * (1 - p))[:, None] * rows) + np.eye(n_unknown)
        step = np.linalg.solve(hessian, gradient)
        x += step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
        if float(np.abs(step).max()) < _AT_REST:
            break
    covariance = np.linalg.inv(hessian)
    log_likelihood = -float(weight @ np.logaddexp(0, -(rows @ x)))
    _, log_det = np.linalg.slogdet(hessian)
    evidence = log_likelihood - 0.5 * float(x @ x) - 0.5 * float(log_det)
    to_people = loading - loading.mean(axis=0)
    variances = np.einsum("ij,jk,ik->i", to_people, covariance, to_people)
    return to_people @ x, variances, evidence, float(x[-1])
