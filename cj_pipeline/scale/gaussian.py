"""The scores' joint posterior as the normal distribution nearest to it, given how far they spread.

Verdicts tell of a score by a logistic curve, and a normal distribution of scores is carried through
it by averaging, not by expanding about its peak (Opper and Archambeau 2009,
doi:10.1162/neco.2008.08-07-592). Mean and covariance come out together, and so does a bound on the
evidence by which spreads are compared. Here the matrices are written out; what is done for large
batches is `large_posterior`, and what the reader is told `score_posterior`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cj_pipeline.arrays import Floats
from cj_pipeline.errors import UnscalableBatchError
from cj_pipeline.scale.likelihood import Model, Point, closeness, tie_probability
from cj_pipeline.scale.tallies import Indices, Tally, sums_by

POSITION_SD = 2.0
"""Of the prior of a judge's position effect, in logits; wide against any that was measured."""
_NODES, _NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(9)
_NODE_WEIGHTS = _NODE_WEIGHTS / _NODE_WEIGHTS.sum()
_VALUES_AT_ONCE = 1 << 16
_LONGEST_STEP = 2.0
_QUICK_ROUNDS = 20
"""After which most have come to rest; the others are climbed with care."""
_MAX_ROUNDS = 200
_DEPTH = 6
_HALVINGS = 12
_LEAST_WEIGHT = 1e-12


@dataclass(frozen=True, eq=False)
class NormalPrior:
    """What is held of scores (and position effects) before the verdicts.

    Attributes:
        precision: Shape (n_unknowns, n_unknowns).
        log_determinant: Of the precision.
    """

    precision: Floats
    log_determinant: float


@dataclass(frozen=True, eq=False)
class NormalPosterior:
    """The normal distribution nearest to the posterior.

    Attributes:
        mean: Scores, then position effects, in logits; shape (n_unknowns,).
        covariance: Shape (n_unknowns, n_unknowns).
        log_evidence: A lower bound of the verdicts' log probability given the prior.
    """

    mean: Floats
    covariance: Floats
    log_evidence: float


@dataclass(frozen=True, eq=False)
class Moments:
    """What cells tell at a normal distribution of their differences; each of shape (n_cells,).

    Attributes:
        residual: Wins less those expected, on average.
        weight: The curvature, on average.
    """

    residual: Floats
    weight: Floats


class Unknowns:
    """Which cell tells of which unknowns: its two essays, and its judge's position effect.

    Args:
        model: Cells, and which judges have a position effect.
        point: Judges' discriminations and the tie strength, which stay as they were fitted.
    """

    def __init__(self, model: Model, point: Point) -> None:
        cells = model.cells
        n_cells = len(cells.first)
        n = cells.n_essays
        self.size = n + len(model.positions)
        a = np.exp(point.log_a)[cells.judge] if model.has_discrimination else np.ones(n_cells)
        parts: list[tuple[Indices, Floats]] = [(cells.first, a), (cells.second, -a)]
        if len(model.positions):
            column = np.full(cells.n_judges, -1, dtype=np.int64)
            column[model.positions] = n + np.arange(len(model.positions))
            at = column[cells.judge]
            parts.append((np.maximum(at, 0), np.where(at >= 0, 1.0, 0.0)))
        self._at = np.array([at for at, _ in parts])
        self._shares = np.array([share for _, share in parts])
        # Each cell's entries of a matrix of unknowns, one row per pair of its parts.
        self._entries = (self._at[:, None] * self.size + self._at).reshape(-1, n_cells)
        self._products = (self._shares[:, None] * self._shares).reshape(-1, n_cells)

    def expected(self, mean: Floats) -> Floats:
        """Return each cell's expected difference; shape (n_cells,)."""
        total: Floats = (self._shares * mean[self._at]).sum(axis=0)
        return total

    def variance(self, covariance: Floats) -> Floats:
        """Return the variance of each cell's difference; shape (n_cells,)."""
        total: Floats = (self._products * covariance.ravel()[self._entries]).sum(axis=0)
        return np.maximum(total, 0.0)

    def pull(self, residual: Floats) -> Floats:
        """Return what the cells' residuals add up to for each unknown; shape (size,)."""
        return sums_by(self._at.ravel(), (self._shares * residual).ravel(), self.size)

    def information(self, weight: Floats) -> Floats:
        """Return what the cells tell of the unknowns; shape (size, size)."""
        size = self.size
        each = (self._products * weight).ravel()
        return sums_by(self._entries.ravel(), each, size * size).reshape(size, size)


def moments_of(cells: Tally, expected: Floats, sd: Floats, log_tie: float | None) -> Moments:
    """Return what cells tell, averaged over normal differences by Gauss-Hermite quadrature.

    Args:
        cells: Verdicts added up, ties as halves.
        expected: Mean difference of each cell, in logits; shape (n_cells,).
        sd: Its standard deviation; shape (n_cells,).
        log_tie: Davidson's log nu; None where ties count half to each.
    """
    win: Floats = np.zeros(len(expected))
    slope: Floats = np.zeros(len(expected))
    for nodes, shares in _nodes_at_once(len(expected)):
        eta = expected + nodes[:, None] * sd
        t = np.tanh(0.5 * eta)
        if log_tie is None:
            win += 0.5 * (shares @ t)
            slope += 0.25 * (shares @ (1 - t * t))
            continue
        tied = tie_probability(eta, log_tie)
        clear = 1 - tied
        win += 0.5 * (shares @ (t * clear))
        slope += 0.25 * (shares @ (clear * (4 * closeness(eta) ** 2 + tied * t * t)))
    return Moments(cells.wins - cells.counts * (0.5 + win), cells.counts * slope)


def mean_log_likelihood(cells: Tally, expected: Floats, sd: Floats, log_tie: float | None) -> float:
    """Return the verdicts' log-likelihood, averaged as `moments_of` averages."""
    total = 0.0
    for nodes, shares in _nodes_at_once(len(expected)):
        eta = expected + nodes[:, None] * sd
        log_sum = np.logaddexp(0.0, eta)
        if log_tie is None:
            total += float(shares @ (eta @ cells.wins - log_sum @ cells.counts))
            continue
        tied = tie_probability(eta, log_tie)
        decided = cells.counts - cells.ties
        each = eta @ (cells.wins - 0.5 * cells.ties) - (log_sum - np.log1p(-tied)) @ decided
        total += float(shares @ (each + np.log(tied) @ cells.ties))
    return total


def _nodes_at_once(n_cells: int) -> Iterator[tuple[Floats, Floats]]:
    """Yield nodes and their shares: a million cells need not be held nine times."""
    step = max(1, _VALUES_AT_ONCE // max(n_cells, 1))
    for start in range(0, len(_NODES), step):
        yield _NODES[start : start + step], _NODE_WEIGHTS[start : start + step]


def nearest_normal(
    model: Model,
    point: Point,
    prior: NormalPrior,
    start: NormalPosterior | None = None,
    *,
    tolerance: float = 1e-7,
) -> NormalPosterior:
    """Return the normal distribution nearest to the posterior of scores and position effects.

    Args:
        model: Cells, and what is estimated; its own prior plays no part.
        point: Judges' discriminations and the tie strength, which stay; scores to begin from.
        prior: Of scores and position effects, with mean zero.
        start: A posterior near by, such as that of the next smaller spread.
        tolerance: Logits by which the mean may still move at the end.

    Raises:
        UnscalableBatchError: If the rounds do not come to rest.
    """
    bound = _Bound(model, point, prior)
    unknowns = bound.unknowns
    if start is None:
        mean = np.concatenate([point.theta - point.theta.mean(), point.gamma[model.positions]])
        variance: Floats = np.zeros(len(model.cells.first))
    else:
        mean, variance = start.mean, unknowns.variance(start.covariance)
    moved, damping = np.inf, 0.0
    weight: Floats | None = None
    for _ in range(_QUICK_ROUNDS):
        told = moments_of(model.cells, unknowns.expected(mean), np.sqrt(variance), bound.log_tie)
        # Where a round overshoots, the curvature of the next is averaged with the last one's.
        weight = told.weight if weight is None else damping * weight + (1 - damping) * told.weight
        covariance, _ = _inverse(unknowns.information(weight) + prior.precision)
        step = covariance @ (unknowns.pull(told.residual) - prior.precision @ mean)
        moved_before, moved = moved, float(np.abs(step).max())
        damping = 0.5 if moved > 0.5 * moved_before else 0.0
        before, variance = variance, unknowns.variance(covariance)
        mean = mean + _shortened(step)
        if moved < tolerance and np.max(np.abs(variance - before)) < 1e3 * tolerance:
            return bound.at(mean, weight).as_posterior()
    if weight is None:
        msg = "no round was made"
        raise ValueError(msg)
    return _climbed(bound, bound.at(mean, weight), tolerance).as_posterior()


def _shortened(step: Floats) -> Floats:
    return min(1.0, _LONGEST_STEP / max(float(np.abs(step).max()), 1e-12)) * step


@dataclass(frozen=True, eq=False)
class _Place:
    """A normal distribution on the way: its mean, the cells' weights, and what follows."""

    mean: Floats
    weight: Floats
    covariance: Floats
    variance: Floats
    value: float

    def as_posterior(self) -> NormalPosterior:
        return NormalPosterior(self.mean, self.covariance, self.value)


class _Bound:
    """The bound on the evidence, as a function of the mean and of the cells' weights."""

    def __init__(self, model: Model, point: Point, prior: NormalPrior) -> None:
        self.unknowns = Unknowns(model, point)
        self.cells, self.prior = model.cells, prior
        self.log_tie = point.log_tie if model.has_tie_strength else None

    def at(self, mean: Floats, weight: Floats) -> _Place:
        """Return everything about one place."""
        unknowns, prior = self.unknowns, self.prior
        covariance, log_det = _inverse(unknowns.information(weight) + prior.precision)
        variance = unknowns.variance(covariance)
        told = mean_log_likelihood(
            self.cells, unknowns.expected(mean), np.sqrt(variance), self.log_tie
        )
        quadratic = mean @ prior.precision @ mean + np.sum(prior.precision * covariance)
        less = 0.5 * float(quadratic - prior.log_determinant + log_det - unknowns.size)
        return _Place(mean, weight, covariance, variance, told - less)

    def next(self, place: _Place) -> tuple[Floats, Floats, float]:
        """Return where a whole round leads from a place, and how far it moves the mean."""
        unknowns = self.unknowns
        told = moments_of(
            self.cells, unknowns.expected(place.mean), np.sqrt(place.variance), self.log_tie
        )
        step = place.covariance @ (unknowns.pull(told.residual) - self.prior.precision @ place.mean)
        weight = np.maximum(told.weight, _LEAST_WEIGHT)
        return place.mean + _shortened(step), weight, float(np.abs(step).max())


def _climbed(bound: _Bound, place: _Place, tolerance: float) -> _Place:
    """Return the top of the bound, for verdicts by which whole rounds creep, or swing for ever.

    Where verdicts part essays cleanly, a mean far out and a wide variance pull each other. Rounds
    are mixed (Anderson 1965, doi:10.1145/321296.321305) where that climbs, and else shortened until
    they do, which a step along the natural gradient does in the end.
    """
    came: list[Floats] = []
    led: list[Floats] = []
    n = len(place.mean)
    for _ in range(_MAX_ROUNDS):
        mean, weight, moved = bound.next(place)
        here = np.concatenate([place.mean, np.log(np.maximum(place.weight, _LEAST_WEIGHT))])
        there = np.concatenate([mean, np.log(weight)])
        if moved < tolerance and np.max(np.abs(there[n:] - here[n:])) < 1e3 * tolerance:
            return place
        came, led = [*came, here][-_DEPTH:], [*led, there][-_DEPTH:]
        tried = [mixed(came, led)] if len(came) > 1 else []
        tried += [here + 0.5**k * (there - here) for k in range(_HALVINGS)]
        for candidate in tried:
            found = bound.at(candidate[:n], np.exp(np.clip(candidate[n:], -60, 60)))
            if found.value > place.value:
                place = found
                break
        else:
            return place  # no step climbs by as much as a float can tell
    msg = f"The scores' posterior still moved by {moved:.2g} logits. Judge more pairs."
    raise UnscalableBatchError(msg)


def mixed(came: Sequence[Floats], led: Sequence[Floats]) -> Floats:
    """Return where rounds that came from some places and led to others probably come to rest."""
    to = np.array(led)
    residuals = to - np.array(came)
    share, *_ = np.linalg.lstsq(np.diff(residuals, axis=0).T, residuals[-1], rcond=1e-8)
    mixed: Floats = to[-1] - np.diff(to, axis=0).T @ share
    return mixed


def as_normal(model: Model, point: Point, found: NormalPosterior) -> tuple[Floats, Floats]:
    """Return what the verdicts alone amount to where a posterior lies: information and pull.

    The posterior is its prior times the normal density these give. Position effects are averaged
    over; only differences between essays are told of.

    Args:
        model: As the posterior was found with.
        point: Likewise.
        found: The posterior.

    Returns:
        Of shapes (n_essays, n_essays) and (n_essays,).
    """
    unknowns = Unknowns(model, point)
    n = model.cells.n_essays
    log_tie = point.log_tie if model.has_tie_strength else None
    variance = unknowns.variance(found.covariance)
    told = moments_of(model.cells, unknowns.expected(found.mean), np.sqrt(variance), log_tie)
    information = unknowns.information(told.weight)
    pull = information @ found.mean + unknowns.pull(told.residual)
    if unknowns.size == n:
        return information, pull
    others = information[n:, n:] + np.eye(unknowns.size - n) / POSITION_SD**2
    reach = np.linalg.solve(others, information[n:, :n]).T
    return information[:n, :n] - reach @ information[n:, :n], pull[:n] - reach @ pull[n:]


def _inverse(matrix: Floats) -> tuple[Floats, float]:
    """Return the inverse of a positive definite matrix and the matrix's log determinant."""
    from scipy.linalg import lapack

    factor, failed = lapack.dpotrf(matrix, lower=1)
    if failed:
        msg = "The verdicts do not determine the scores: judge more pairs."
        raise UnscalableBatchError(msg)
    log_det = 2 * float(np.log(np.diag(factor)).sum())
    lower, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
    # Above the diagonal are zeros, which `dpotrf` put there.
    whole = lower + lower.T
    np.fill_diagonal(whole, lower.diagonal())
    return whole, log_det
