"""Two terms in one model: the later judge's unit and how far anchors drift.

Each term's verdicts enter as the normal distribution they amount to, in that term's own logits. The
later term's unit and the anchors' usual drift are integrated over a grid by their evidence; one
anchor's drift follows a t-distribution, so one that moved far is weighed down and not thrown out.
Putting both batches' scores on one scale by what is found here is `linking`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cj_pipeline.arrays import Floats

Indices = npt.NDArray[np.int64]

UNIT_SD = 0.5
"""Of the logarithm of the later judge's unit, before anything is known of it."""
DRIFT_SD = 0.3
"""Scale of the half-normal prior of the anchors' usual drift, in logits."""
SPREADS_ALIKE = 0.3
"""Standard deviation of the ratio of two terms' spreads, as a logarithm: one school's classes."""
FREE_DRIFT_SD = 3.0
"""Of the one anchor whose move is looked at, in logits: next to nothing is held of it."""
OTHERS_DRIFT_SD = 0.2
"""At least, of the anchors it is looked at against."""
_DEGREES = 3
_ANCHOR_SD = 3.0
_MEAN_SD = 5.0
_LOG_UNITS = np.linspace(-1.2, 1.2, 13)
_DRIFTS = np.array([0.05, 0.15, 0.3, 0.5, 0.8])
_T_ROUNDS = 3


@dataclass(frozen=True, eq=False)
class Term:
    """One side of a link: essays, what its verdicts tell of them, and who its students are.

    Attributes:
        information: Of differences between its essays, in its own logits; shape (n, n).
        pull: Information times where they lie; shape (n,).
        groups: Students by batch, as places; each has a mean and a spread of its own.
        log_spreads: Of each group's spread in this term's logits, the logarithm and its error.
    """

    information: Floats
    pull: Floats
    groups: tuple[Indices, ...]
    log_spreads: tuple[tuple[float, float], ...]


@dataclass(frozen=True, eq=False)
class JointLink:
    """What two terms tell of each other.

    Attributes:
        log_unit: How much further apart the later judge's logits lie, as a logarithm.
        log_unit_error: Its standard deviation.
        drift_variances: Of each shared anchor's move, in squared logits; shape (n_shared,).
        moves: Each anchor's move were it free, against all others; shape (n_shared,).
        move_errors: Of those; shape (n_shared,).
    """

    log_unit: float
    log_unit_error: float
    drift_variances: Floats
    moves: Floats
    move_errors: Floats


@dataclass(frozen=True, eq=False)
class _Side:
    """A term with its students integrated out: what is left tells of its anchors.

    Attributes:
        information, pull: Of the anchors, in the term's own logits.
    """

    information: Floats
    pull: Floats


@dataclass(frozen=True, eq=False)
class _Fitted:
    mean: Floats
    covariance: Floats
    log_evidence: float


def _side(term: Term) -> _Side:
    n = len(term.pull)
    is_student = np.zeros(n, dtype=bool)
    whole = term.information.copy()
    for group, (log_spread, _) in zip(term.groups, term.log_spreads, strict=True):
        is_student[group] = True
        _add_population(whole, group, math.exp(log_spread))
    anchors, students = np.flatnonzero(~is_student), np.flatnonzero(is_student)
    if not len(students):
        return _Side(term.information, term.pull)
    own = np.linalg.inv(whole[np.ix_(students, students)])
    cross = whole[np.ix_(students, anchors)]
    return _Side(
        information=whole[np.ix_(anchors, anchors)] - cross.T @ own @ cross,
        pull=term.pull[anchors] - cross.T @ own @ term.pull[students],
    )


def _add_population(precision: Floats, members: Indices, sd: float) -> float:
    """Add a normal population with a mean next to unknown; return its log determinant."""
    n = len(members)
    if not n:
        return 0.0
    whole = sd**2 + n * _MEAN_SD**2
    precision[np.ix_(members, members)] -= _MEAN_SD**2 / (sd**2 * whole)
    precision[members, members] += sd**-2
    return -2 * (n - 1) * math.log(sd) - math.log(whole)


class _Pair:
    """Both terms' anchors in one vector, the earlier ones first."""

    def __init__(self, earlier: Term, later: Term, shared: Sequence[tuple[int, int]]) -> None:
        self._spreads = earlier.log_spreads[-1], later.log_spreads[-1]
        self.earlier, self.later = _side(earlier), _side(later)
        self.n = len(self.earlier.pull)
        size = self.n + len(self.later.pull)
        place = [_places(term) for term in (earlier, later)]
        self.before = np.array([place[0][one] for one, _ in shared], dtype=np.int64)
        self.after = np.array([place[1][other] for _, other in shared], dtype=np.int64) + self.n
        alone = np.ones(size, dtype=bool)
        alone[self.after] = False
        self._population = np.zeros((size, size))
        self._n_alone = int(alone.sum())
        self._log_det = _add_population(self._population, np.flatnonzero(alone), _ANCHOR_SD)

    def fit(self, log_unit: float, drift_variances: Floats) -> _Fitted:
        """Return the posterior at a unit and at these variances of the shared anchors' moves.

        Variances and the anchors' population are in logits midway between both units. So neither
        term is the measure of the other, and a term linked to itself has the unit one.
        """
        n, unit = self.n, math.exp(log_unit)
        precision = unit / drift_variances
        information = unit * self._population
        information[self.before, self.before] += precision
        information[self.after, self.after] += precision
        information[self.before, self.after] -= precision
        information[self.after, self.before] -= precision
        information[:n, :n] += self.earlier.information
        information[n:, n:] += unit**2 * self.later.information
        pull = np.concatenate([self.earlier.pull, unit * self.later.pull])
        covariance = np.asarray(np.linalg.inv(information), dtype=np.float64)
        mean = covariance @ pull
        _, log_det = np.linalg.slogdet(information)
        prior = self._log_det + self._n_alone * log_unit + float(np.log(precision).sum())
        evidence = 0.5 * float(pull @ mean) + 0.5 * (prior - float(log_det))
        return _Fitted(mean, covariance, evidence + self._of_spreads(log_unit))

    def _of_spreads(self, log_unit: float) -> float:
        """Return how well a unit makes the terms' spreads alike, as a log density."""
        (before, its_error), (after, error) = self._spreads
        variance = SPREADS_ALIKE**2 + its_error**2 + error**2
        return -0.5 * (after - log_unit - before) ** 2 / variance

    def moves(self, fitted: _Fitted) -> tuple[Floats, Floats]:
        """Return each shared anchor's move and the variance of it."""
        own = np.diag(fitted.covariance)
        apart = own[self.before] + own[self.after]
        apart = apart - 2 * fitted.covariance[self.before, self.after]
        return fitted.mean[self.after] - fitted.mean[self.before], np.maximum(apart, 0.0)


def _places(term: Term) -> dict[int, int]:
    """Return each anchor's place among the term's anchors."""
    students = {int(i) for group in term.groups for i in group}
    anchors = [i for i in range(len(term.pull)) if i not in students]
    return {anchor: place for place, anchor in enumerate(anchors)}


def joint_link(earlier: Term, later: Term, shared: Sequence[tuple[int, int]]) -> JointLink:
    """Return what ties two terms.

    Args:
        earlier: Whose scale and unit are kept.
        later: The term to place on it.
        shared: Place of each shared anchor in the earlier and in the later term.

    References:
        Lange, Little and Taylor (1989), doi:10.1080/01621459.1989.10478852, for t errors by
        reweighting.
    """
    pair = _Pair(earlier, later, shared)
    density = np.empty((len(_LOG_UNITS), len(_DRIFTS)))
    variances = np.empty((*density.shape, len(shared)))
    for i, log_unit in enumerate(_LOG_UNITS.tolist()):
        for k, scale in enumerate(_DRIFTS.tolist()):
            fitted, variances[i, k] = _reweighted(pair, log_unit, scale)
            prior = -0.5 * (log_unit / UNIT_SD) ** 2 - 0.5 * (scale / DRIFT_SD) ** 2
            density[i, k] = fitted.log_evidence + prior + math.log(_width(k))
    weight = np.exp(density - density.max())
    weight /= weight.sum()
    of_unit = weight.sum(axis=1)
    log_unit = float(of_unit @ _LOG_UNITS)
    error = math.sqrt(max(float(of_unit @ (_LOG_UNITS - log_unit) ** 2), 1e-6))
    usual = np.einsum("ik,ikj->j", weight, variances)
    moves, errors = _free_moves(pair, log_unit, usual)
    return JointLink(
        log_unit=log_unit,
        log_unit_error=error,
        drift_variances=usual / math.exp(log_unit),
        moves=moves,
        move_errors=errors,
    )


def _width(k: int) -> float:
    """Return how much of the drift's range a place of the grid stands for."""
    edges = np.concatenate([[0.0], 0.5 * (_DRIFTS[1:] + _DRIFTS[:-1]), [1.0]])
    return float(edges[k + 1] - edges[k])


def _reweighted(pair: _Pair, log_unit: float, scale: float) -> tuple[_Fitted, Floats]:
    """Return the fit with each anchor's move weighed as a t-distribution weighs it."""
    variances: Floats = np.full(len(pair.before), scale**2)
    fitted = pair.fit(log_unit, variances)
    for _ in range(_T_ROUNDS):
        moves, errors = pair.moves(fitted)
        apart = math.exp(log_unit) * (moves**2 + errors)
        weight = (_DEGREES + 1) / (_DEGREES + apart / scale**2)
        variances = scale**2 / weight
        fitted = pair.fit(log_unit, variances)
    return fitted, variances


def _free_moves(pair: _Pair, log_unit: float, usual: Floats) -> tuple[Floats, Floats]:
    """Return how far each anchor moved against the others, were it free to move, and the errors.

    A move held to be small is drawn in, and would never be told.
    """
    n = len(pair.before)
    moves, errors = np.empty(n), np.empty(n)
    # Others that moved far themselves are no measure of a move.
    held = np.maximum(usual, OTHERS_DRIFT_SD**2)
    for i in range(n):
        variances = held.copy()
        variances[i] = FREE_DRIFT_SD**2
        found, variance = pair.moves(pair.fit(log_unit, variances))
        # Freed of what little the prior says: a likelihood's estimate and error.
        share = max(1 - variance[i] * math.exp(log_unit) / FREE_DRIFT_SD**2, 0.05)
        moves[i], errors[i] = found[i] / share, math.sqrt(variance[i] / share)
    return moves, errors
