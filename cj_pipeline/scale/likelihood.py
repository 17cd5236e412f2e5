"""The Bradley-Terry likelihood at a point: its gradient and its information.

P(A beats B | judge j) = logistic(a_j (theta_A - theta_B) + gamma_j), with a weak prior. Ties count
half to each, or have a strength of their own (Davidson). Where its maximum lies is
`bradley_terry`; solving with the information is `laplacian`.

The prior, kappa = `prior_comparisons`: each essay has also met an average essay kappa times, each
judge an even pair, and won half. In theta that is a logistic-shaped density, close to a normal one
with variance 4 / kappa in the middle and with wider tails. Discriminations have their own:
log a_j ~ Normal(0, 0.5^2), with the mean of log a_j held at zero.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cj_pipeline.arrays import Floats
from cj_pipeline.scale.information import Information
from cj_pipeline.scale.laplacian import NetLayout, lay_out, net_matrix, sums_at_ends
from cj_pipeline.scale.tallies import Indices, Tally, sums_by

LOG_DISCRIMINATION_SD = 0.5
HOLD = 1e6
"""Stiffness that holds the mean of log a_j at zero; far beyond any data's information."""


@dataclass(frozen=True, eq=False)
class Model:
    """What is to be estimated, from which cells.

    Attributes:
        cells: Verdicts added up; kept apart by order and judge where a parameter needs it.
        layout: The graph of distinct pairs.
        pair_of_cell: Index into the graph's pairs; None where cells and pairs are the same.
        prior_comparisons: kappa; 0 for plain maximum likelihood.
        positions: Judges (indices) that have a position effect.
        has_discrimination: Whether judges differ in how strongly they tell essays apart.
        has_tie_strength: Whether ties are Davidson's rather than half-half.
        prior_precision: Of a normal prior on the scores, which empirical Bayes has in place of
            the weak one; 0 for the weak one.
    """

    cells: Tally
    layout: NetLayout
    pair_of_cell: Indices | None
    prior_comparisons: float
    positions: Indices
    has_discrimination: bool
    has_tie_strength: bool
    prior_precision: float = 0.0

    @property
    def n_others(self) -> int:
        """How many parameters there are other than the scores."""
        n_judges = self.cells.n_judges if self.has_discrimination else 0
        return len(self.positions) + n_judges + self.has_tie_strength


@dataclass(frozen=True, eq=False)
class Point:
    """Where in the parameters' space we are.

    Attributes:
        theta: Scores before centring; shape (n_essays,).
        gamma: Position effect per judge, zero where it has none; shape (n_judges,).
        log_a: Log discrimination per judge; shape (n_judges,).
        log_tie: Davidson's log nu.
    """

    theta: Floats
    gamma: Floats
    log_a: Floats
    log_tie: float


@dataclass(frozen=True, eq=False)
class Gradient:
    """The log-posterior's gradient at a point, and its information there.

    Attributes:
        theta: By score; shape (n_essays,).
        others: By position effects, log discriminations, log tie strength, in that order.
        information: The observed one, unless it is for taking steps.
    """

    theta: Floats
    others: Floats
    information: Information


def describe(
    cells: Tally,
    *,
    prior_comparisons: float,
    positions: Indices,
    has_discrimination: bool = False,
    has_tie_strength: bool = False,
) -> Model:
    """Return the model of these cells."""
    low, high = np.minimum(cells.first, cells.second), np.maximum(cells.first, cells.second)
    key = low * cells.n_essays + high
    pair_of_cell = None
    # Cells that begin with the later essay are turned over where they are added up by pair.
    if not (np.all(np.diff(key) > 0) and np.all(cells.first < cells.second)):
        key, pair_of_cell = np.unique(key, return_inverse=True)
        low, high = np.divmod(key, cells.n_essays)
    return Model(
        cells,
        lay_out(cells.n_essays, low, high),
        pair_of_cell,
        prior_comparisons,
        positions,
        has_discrimination,
        has_tie_strength,
    )


def zero_point(model: Model) -> Point:
    """Return the point where all essays and judges are alike and ties are as likely as wins."""
    n_judges = model.cells.n_judges
    zeros = np.zeros(n_judges)
    return Point(np.zeros(model.cells.n_essays), zeros, zeros, 0.0)


def initial_point(model: Model) -> Point:
    """Return a point that is near the maximum where essays met others at random.

    The log odds of an essay's wins fall short of its score as much as its opponents differ:
    by sqrt(1 + variance / 1.7^2), the logistic curve taken for a normal one.
    """
    cells = model.cells
    n = cells.n_essays
    met = sums_by(cells.first, cells.counts, n) + sums_by(cells.second, cells.counts, n)
    won = sums_by(cells.first, cells.wins, n)
    won += sums_by(cells.second, cells.counts - cells.wins, n)
    log_odds = np.log((won + 0.5) / (met - won + 0.5))
    log_odds -= log_odds.mean()
    shortfall = min(float(np.var(log_odds)) / 1.7**2, 0.8)
    return replace(zero_point(model), theta=log_odds / np.sqrt(1 - shortfall))


def stepped(model: Model, point: Point, theta: Floats, others: Floats, share: float) -> Point:
    """Return the point a share of a step further on."""
    if not model.n_others:
        return Point(point.theta + share * theta, point.gamma, point.log_a, point.log_tie)
    n_positions = len(model.positions)
    gamma, log_a, log_tie = point.gamma, point.log_a, point.log_tie
    if n_positions:
        gamma = gamma.copy()
        gamma[model.positions] += share * others[:n_positions]
    if model.has_discrimination:
        log_a = log_a + share * others[n_positions : n_positions + len(log_a)]
    if model.has_tie_strength:
        log_tie = float(log_tie + share * others[-1])
    return Point(point.theta + share * theta, gamma, log_a, log_tie)


def gradient_at(
    model: Model, point: Point, *, for_steps: bool, scores_alone: bool = False
) -> Gradient:
    """Return gradient and information at a point.

    Args:
        model: What is estimated.
        point: Where.
        for_steps: Leave out what could make the information indefinite (the residuals' second
            derivatives, which discriminations bring in); right for steps, not for errors.
        scores_alone: Leave out all other parameters than the scores, for a caller that keeps them
            fixed.
    """
    cells = model.cells
    n = cells.n_essays
    kappa = model.prior_comparisons
    distance = point.theta[cells.first] - point.theta[cells.second]
    eta = distance
    if model.has_discrimination:
        a = np.exp(point.log_a)[cells.judge]
        eta = a * distance
    if len(model.positions):
        eta = eta + point.gamma[cells.judge]

    # tanh neither overflows nor needs a branch, and NumPy vectorises it.
    t = np.tanh(0.5 * eta)
    tied = tie_probability(eta, point.log_tie) if model.has_tie_strength else None
    if tied is None:
        residual, weight = _residual_and_weight(cells, t)
    else:
        clear = 1 - tied
        residual = cells.wins - cells.counts * (0.5 + 0.5 * t * clear)
        weight = 0.25 * cells.counts * clear * (4 * closeness(eta) ** 2 + tied * t * t)
    pull, stiffness = residual, weight
    if model.has_discrimination:
        pull, stiffness = a * residual, a * a * weight
    if model.pair_of_cell is not None:
        n_pairs = len(model.layout.first)
        toward_first = np.where(cells.first < cells.second, pull, -pull)
        pull = sums_by(model.pair_of_cell, toward_first, n_pairs)
        stiffness = sums_by(model.pair_of_cell, stiffness, n_pairs)
    at_first, at_second = sums_at_ends(model.layout, pull)
    gradient = at_first - at_second
    prior = np.zeros(n)
    if model.prior_precision:
        gradient -= model.prior_precision * point.theta
        prior += model.prior_precision
    elif kappa:
        half = np.tanh(0.5 * point.theta)
        gradient -= 0.5 * kappa * half
        prior += 0.25 * kappa * (1 - half * half)
    essays = net_matrix(model.layout, stiffness, prior)
    if scores_alone or not model.n_others:
        alone = Information(essays, np.empty((n, 0)), np.empty((0, 0)))
        return Gradient(gradient, np.zeros(model.n_others), alone)
    scale = a if model.has_discrimination else np.ones_like(eta)
    ties = None
    if tied is not None:
        spread = cells.counts * tied * (1 - tied)
        ties = _Ties(cells.ties - cells.counts * tied, spread, -0.5 * t * spread)
    others, border, corner = _beside_scores(
        model, point, _Cellwise(distance, scale, residual, weight, ties), for_steps=for_steps
    )
    return Gradient(gradient, others, Information(essays, border, corner))


def _residual_and_weight(cells: Tally, t: Floats) -> tuple[Floats, Floats]:
    """Return wins less expected wins, and the variance of the wins, cell by cell.

    Args:
        cells: Verdicts added up, ties as halves.
        t: tanh(eta / 2); overwritten, since a million cells are mostly waiting for memory.
    """
    halves = 0.5 * cells.counts
    residual = cells.wins - halves
    residual -= halves * t
    weight = t
    weight *= t
    np.subtract(1.0, weight, out=weight)
    weight *= 0.5
    weight *= halves
    return residual, weight


def log_likelihood(model: Model, point: Point) -> float:
    """Return the verdicts' log-likelihood at a point, without the prior."""
    cells = model.cells
    eta = expected_difference(model, point)
    # log(1 + exp(eta)) without overflow.
    log_sum = np.logaddexp(0.0, eta)
    total = cells.wins @ eta - cells.counts @ log_sum
    if model.has_tie_strength:
        tied = tie_probability(eta, point.log_tie)
        # The halves that ties gave to wins and losses are taken back, and ties counted as such.
        total -= cells.ties @ (0.5 * eta - log_sum)
        total += (cells.counts - cells.ties) @ np.log1p(-tied) + cells.ties @ np.log(tied)
    return float(total)


def expected_difference(model: Model, point: Point) -> Floats:
    """Return a_j (theta_A - theta_B) + gamma_j for each cell."""
    cells = model.cells
    eta = point.theta[cells.first] - point.theta[cells.second]
    if model.has_discrimination:
        eta *= np.exp(point.log_a)[cells.judge]
    if len(model.positions):
        eta += point.gamma[cells.judge]
    return np.asarray(eta)


def tie_probability(eta: Floats, log_tie: float | Floats) -> Floats:
    """Return Davidson's probability of a tie at these differences (Davidson 1970)."""
    odds = np.exp(log_tie) * closeness(eta)
    return np.asarray(odds / (1 + odds))


def closeness(eta: Floats) -> Floats:
    """Return 1 / (2 cosh(eta / 2)), to full precision however far apart two essays are."""
    u = np.exp(-0.5 * np.abs(eta))
    return np.asarray(u / (1 + u * u))


@dataclass(frozen=True, eq=False)
class _Ties:
    """What the tie strength adds, cell by cell: residual, variance, covariance with the wins."""

    residual: Floats
    spread: Floats
    cross: Floats


@dataclass(frozen=True, eq=False)
class _Cellwise:
    """What the other parameters' gradients are made of, cell by cell."""

    distance: Floats
    scale: Floats
    residual: Floats
    weight: Floats
    ties: _Ties | None


def _beside_scores(
    model: Model, point: Point, at: _Cellwise, *, for_steps: bool
) -> tuple[Floats, Floats, Floats]:
    """Return gradient, border and corner of the parameters other than the scores."""
    cells = model.cells
    n_judges = cells.n_judges

    def by_judge(values: Floats) -> Floats:
        return sums_by(cells.judge, values, n_judges)

    def by_essay_and_judge(values: Floats) -> Floats:
        """Sums over the cells an essay is first in, less those it is second in, judge by judge."""
        size = cells.n_essays * n_judges
        first = sums_by(cells.first * n_judges + cells.judge, values, size)
        second = sums_by(cells.second * n_judges + cells.judge, values, size)
        return (first - second).reshape(-1, n_judges)

    # A cell moves with its own judge's parameters alone, so all that there is are sums by judge.
    # `stretch` is how eta moves with log a_j; with gamma_j it moves by 1.
    has_position = model.positions
    stretch = at.scale * at.distance
    half = np.tanh(0.5 * point.gamma[has_position])
    gradient = by_judge(at.residual)[has_position] - 0.5 * model.prior_comparisons * half
    border = by_essay_and_judge(at.scale * at.weight)[:, has_position]
    stiffness = 0.25 * model.prior_comparisons * (1 - half * half)
    corner = np.diag(by_judge(at.weight)[has_position] + stiffness)
    if model.has_discrimination:
        tightness = 1 / LOG_DISCRIMINATION_SD**2
        pull = by_judge(stretch * at.residual)
        gradient = np.append(gradient, pull - tightness * point.log_a - HOLD * point.log_a.sum())
        curvature, own = stretch * at.weight, by_judge(stretch * stretch * at.weight) + tightness
        cross = np.diag(by_judge(curvature))[has_position]
        if not for_steps:
            curvature, own = curvature - at.residual, own - pull
        border = np.hstack([border, by_essay_and_judge(at.scale * curvature)])
        corner = np.block([[corner, cross], [cross.T, np.diag(own) + HOLD]])
    if at.ties is None:
        return gradient, border, corner

    half = np.tanh(0.5 * point.log_tie)
    kappa = model.prior_comparisons
    own = at.ties.spread.sum() + 0.25 * kappa * (1 - half * half)
    cross = by_judge(at.ties.cross)[has_position]
    if model.has_discrimination:
        cross = np.append(cross, by_judge(stretch * at.ties.cross))
    return (
        np.append(gradient, at.ties.residual.sum() - 0.5 * kappa * half),
        np.column_stack([border, by_essay_and_judge(at.scale * at.ties.cross).sum(axis=1)]),
        np.block([[corner, cross[:, None]], [cross[None, :], np.array([[own]])]]),
    )
