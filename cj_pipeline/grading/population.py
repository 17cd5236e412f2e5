"""Students' scores as draws from one population, so that errors do not pass for differences.

Of two students with the same score, the one judged less often is more likely to be nearer to
the others. Probabilities that are to come true must say so (Kelley 1947; in testing, "expected a
posteriori" scores). The population's mean and spread are estimated from the batch itself; no
knowledge of other students enters, and anchors, chosen by grade, are no part of it. Reported
scores stay as they are: this is for `projection` alone.

The verdicts' likelihood is rebuilt from the fit: the inverse of the covariance shows how often
each pair was judged, and the score being the maximum shows who won. So an essay far out, about
which verdicts say little, is shifted as its verdicts allow, and errors are those of the place where
the essay is likely to be. With errors taken at the score itself, anchors that came out too
far by chance count too little, and grades come out up to a fifth too narrow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cj_pipeline.arrays import Bools, Floats
from cj_pipeline.scale.bradley_terry import PRIOR_COMPARISONS

LOG_SPREAD_MEAN, LOG_SPREAD_SD = float(np.log(1.5)), 1.0
"""Students differ by a standard deviation of 0.2 to 10 logits (95 %); with a handful of students
the batch alone does not show."""

_SEARCHED_UP_TO = 600
"""Students up to which the likeliest spread justifies some dozen fits; beyond, moments are sure."""


@dataclass(frozen=True, eq=False)
class Placed:
    """Scores and covariance with the population taken in, in the order given.

    `spread` is the students' standard deviation in logits.
    """

    scores: Floats
    covariance: Floats
    spread: float

    @property
    def pool_spread(self) -> float:
        """The standard deviation of essays at large, which anchors were chosen from.

        A class may be more alike than essays at large are; it is hardly less so.
        """
        return max(self.spread, float(np.exp(LOG_SPREAD_MEAN)))


def place_in_population(scores: Floats, covariance: Floats, is_student: Bools) -> Placed:
    """Return where essays are given all verdicts and that students are of one population.

    Args:
        scores: In logits; shape (n_essays,). Their mean stays as it is.
        covariance: Of scores whose mean is held; shape (n_essays, n_essays).
        is_student: Shape (n_essays,).
    """
    usual = float(np.exp(LOG_SPREAD_MEAN))
    if is_student.sum() < 2:
        return Placed(scores, covariance, usual)
    level = float(scores.mean())
    verdicts = _Verdicts.of(scores - level, covariance, is_student)
    spread = _spread(verdicts, covariance, is_student)
    students = _population(is_student, spread)
    # Anchors are expanded about where they would be in a population of their own, which is
    # then left out again: their scores stay free, their errors are those of likely places.
    anchors = _population(~is_student, max(spread, usual))
    likely, _ = verdicts.maximum(verdicts.scores, students + anchors)
    slope, curvature = verdicts.expanded(likely, students)
    among = _centred(np.linalg.inv(curvature))
    placed = verdicts.mean(likely, likely - among @ slope, among)
    return Placed(placed - placed.mean() + level, among, spread)


def _spread(verdicts: _Verdicts, covariance: Floats, is_student: Bools) -> float:
    """Return the students' standard deviation, in logits: the likeliest given all verdicts."""
    n_students = int(is_student.sum())
    if n_students > _SEARCHED_UP_TO:
        among = covariance[np.ix_(is_student, is_student)]
        errors = float(np.trace(_centred(among))) / (n_students - 1)
        differences = float(np.var(verdicts.scores[is_student], ddof=1) - errors)
        return float(np.sqrt(max(differences, 0.04)))
    from scipy.optimize import minimize_scalar

    start = verdicts.scores

    def loss(log_spread: float) -> float:
        nonlocal start
        population = _population(is_student, float(np.exp(log_spread)))
        start, curvature = verdicts.maximum(start, population)
        fit = verdicts.log_density(start) - 0.5 * float(start @ population @ start)
        half_log_det = 0.5 * float(np.linalg.slogdet(curvature)[1])
        beforehand = 0.5 * ((log_spread - LOG_SPREAD_MEAN) / LOG_SPREAD_SD) ** 2
        return half_log_det + (n_students - 1) * log_spread - fit + beforehand

    found = minimize_scalar(loss, bounds=(-2.5, 2.5), method="bounded", options={"xatol": 0.05})
    return float(np.exp(found.x))


@dataclass(frozen=True, eq=False)
class _Verdicts:
    """The likelihood of a Bradley-Terry fit, from its scores and covariance alone.

    Off the diagonal the information is -n p (1 - p) for n verdicts on a pair, which gives n; at
    the maximum the wins are the n p, but for the weak prior's pull. The weak prior is taken out
    for students, who get the population instead. What else the information holds (anchors' weak
    prior, effects of judges) is kept as it is, a quadratic `rest`.
    """

    scores: Floats
    counts: Floats  # (n_essays, n_essays), symmetric
    won: Floats  # shares of the counts expected at the maximum
    pull: Floats  # of the prior at the maximum, which verdicts held against; (n_essays,)
    rest: Floats

    @classmethod
    def of(cls, scores: Floats, covariance: Floats, is_student: Bools) -> _Verdicts:
        n = len(scores)
        level = float(np.mean(np.diag(covariance)))
        information = np.linalg.inv(_centred(covariance) + level / n) - 1 / (level * n)
        half = np.tanh(scores / 2)
        prior = PRIOR_COMPARISONS * (1 - half**2) / 4
        # On the mean-centred gauge a prior on every essay acts like verdicts on every pair.
        information += np.outer(prior, prior) / prior.sum() - np.diag(prior * is_student)
        won = _shares(scores)
        certain = won * (1 - won)
        counts = np.clip(-information / certain, 0, None)
        np.fill_diagonal(counts, 0)
        rest = information - _laplacian(counts * certain)
        return cls(scores, counts, won, PRIOR_COMPARISONS * half / 2 * is_student, rest)

    def maximum(self, start: Floats, population: Floats) -> tuple[Floats, Floats]:
        """Return the most probable scores and the curvature there, the mean held where it was."""
        at = start
        for _ in range(30):
            slope, curvature = self.expanded(at, population)
            step = np.linalg.solve(curvature, slope)
            at = at - step / max(1.0, float(np.abs(step).max()))
            if np.abs(step).max() < 1e-4:
                break
        return at, curvature

    def expanded(self, at: Floats, population: Floats) -> tuple[Floats, Floats]:
        """Return slope and curvature of minus the log posterior."""
        shares = _shares(at)
        slope = np.sum(self.counts * (shares - self.won), axis=1) - self.pull
        slope += self.rest @ (at - self.scores) + population @ at
        curvature = _laplacian(self.counts * shares * (1 - shares)) + self.rest + population
        # The level is free; held where it is, it costs nothing and leaves no singularity.
        return slope, curvature + np.mean(np.diag(curvature)) / len(at)

    def mean(self, around: Floats, normal_mean: Floats, covariance: Floats) -> Floats:
        """Return the posterior's mean: a normal one's, shifted by the likelihood's skewness.

        The most probable scores lie too near to each other, for a likelihood flattens outwards;
        anchors judged against students so placed would be drawn in with them, by a tenth or two.
        The first term of Laplace's expansion (Tierney, Kass and Kadane 1989) puts that right.
        """
        shares = _shares(around)
        skewness = self.counts * shares * (1 - shares) * (1 - 2 * shares)
        variances = np.diag(covariance)
        apart = variances[:, None] + variances - 2 * covariance
        shift = normal_mean - around
        # An essay that won everything is shifted far; there the expansion would diverge.
        squares = apart + np.minimum((shift[:, None] - shift) ** 2, apart)
        return np.asarray(normal_mean - 0.5 * covariance @ np.sum(skewness * squares, axis=1))

    def log_density(self, at: Floats) -> float:
        leads = at[:, None] - at
        pairs = self.counts * (self.won * leads - np.logaddexp(0, leads))
        shift = at - self.scores
        linear_and_quadratic = self.pull @ at - 0.5 * shift @ self.rest @ shift
        return float(pairs.sum() / 2 + linear_and_quadratic)


def _population(is_member: Bools, spread: float) -> Floats:
    """Return the precision of normal draws around a mean that may be anywhere."""
    member = is_member.astype(np.float64)
    n = max(float(member.sum()), 1.0)
    return np.asarray((np.diag(member) - np.outer(member, member) / n) / spread**2)


def _shares(scores: Floats) -> Floats:
    return np.asarray(0.5 + 0.5 * np.tanh(np.clip(scores[:, None] - scores, -30, 30) / 2))


def _laplacian(weights: Floats) -> Floats:
    return np.asarray(np.diag(weights.sum(axis=1)) - weights)


def _centred(covariance: NDArray[np.floating[Any]]) -> Floats:
    """Return a covariance on the mean-centred gauge."""
    centred = covariance - covariance.mean(axis=0)
    centred = centred - centred.mean(axis=1)[:, None]
    return np.asarray((centred + centred.T) / 2)
