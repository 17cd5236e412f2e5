"""The posterior of `score_posterior` for batches too large to write their covariance out.

The graph of pairs is solved as the fit solves it, the verdicts tell the spread sharply enough for
its likeliest value to do, and judges' position effects stay as they were fitted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from cj_pipeline.arrays import Floats
from cj_pipeline.scale.bradley_terry import Scale
from cj_pipeline.scale.certainty import (
    ALIKE_BELOW,
    ANCHOR_SPREAD,
    NORMAL_95,
    SPREADS_DIFFER,
    USUAL_SPREAD,
    Mask,
    ScorePosterior,
    StudentReliability,
)
from cj_pipeline.scale.gaussian import moments_of
from cj_pipeline.scale.information import (
    Information,
    covariance_of,
    score_variances,
    standard_errors,
)
from cj_pipeline.scale.laplacian import (
    NetMatrix,
    dense,
    difference_variances,
    net_matrix,
    solve,
    sums_at_ends,
    surroundings_variances,
)
from cj_pipeline.scale.tallies import Indices, sums_by

_MAX_ROUNDS = 40
_AT_REST = 1e-6
_ERRORS_REST = 1e-4
"""Logits: steps so short change the errors by next to nothing."""
_DENSE_UP_TO = 1_500
_LEAST_SPREAD = 0.02
_LONGEST_STEP = 2.0
_AT_ONCE = 50
_MOST_DRAWS = 400
"""Each draw is a linear system; a rank's probability then errs by less than .025."""


@dataclass(frozen=True, eq=False)
class _State:
    """Where the rounds stand: mean of the scores, spread, and the information at both."""

    mean: Floats
    log_spread: float
    essays: NetMatrix
    student_variance: float


def large_posterior(scale: Scale, is_student: Mask) -> ScorePosterior:
    """Return the posterior of a large batch's scores.

    Args:
        scale: As fitted.
        is_student: Whose scores are the students'; shape (n_essays,).
    """
    between = scale.between_judges
    state = _settled(scale, is_student)
    state = replace(
        state, student_variance=state.student_variance + between * (int(is_student.sum()) - 1)
    )
    none = np.empty((len(is_student), 0))
    information = Information(state.essays, none, np.empty((0, 0)))
    n_students = int(is_student.sum())
    error = _spread_error(state, n_students)
    return ScorePosterior(
        essay_ids=scale.essay_ids,
        scores=state.mean - state.mean.mean(),
        standard_errors=np.hypot(standard_errors(information).values, math.sqrt(between)),
        between_judges=between,
        spread=math.exp(state.log_spread),
        log_spread_error=error,
        is_student=is_student,
        reliability=_reliability(state, n_students, error),
        joint=OnTheGraph(information),
    )


class OnTheGraph:
    """Covariances and draws as solutions of the graph's linear systems."""

    def __init__(self, information: Information) -> None:
        self._information = information

    def covariance_among(self, chosen: Indices) -> Floats:
        return covariance_of(self._information, chosen)

    def difference_variances(self, first: Indices, second: Indices) -> Floats:
        essays = self._information.essays
        layout = essays.layout
        known = layout.first * layout.n_essays + layout.second
        asked = np.minimum(first, second) * layout.n_essays + np.maximum(first, second)
        of_pairs = np.maximum(difference_variances(essays), 0.0)
        return np.asarray(of_pairs[np.searchsorted(known, asked)])

    def draws(self, n_draws: int, rng: np.random.Generator) -> Floats:
        from scipy.sparse import csr_array

        # B' W^(1/2) z + P^(1/2) z' has the information as its covariance, so solved for, the
        # inverse.
        essays = self._information.essays
        layout = essays.layout
        n, n_pairs = layout.n_essays, len(layout.first)
        ends = (np.concatenate([layout.first, layout.second]), np.tile(np.arange(n_pairs), 2))
        root = np.sqrt(essays.weights)
        incidence = csr_array((np.concatenate([root, -root]), ends), (n, n_pairs))
        own = np.sqrt(np.maximum(essays.diagonal - sum(sums_at_ends(layout, essays.weights)), 0.0))
        parts = []
        for _ in range(-(-min(n_draws, _MOST_DRAWS) // _AT_ONCE)):
            noise = incidence @ rng.standard_normal((n_pairs, _AT_ONCE))
            noise += own[:, None] * rng.standard_normal((n, _AT_ONCE))
            off = solve(essays, noise, rtol=1e-4)
            parts.append((off - off.mean(axis=0)).T)
        return np.concatenate(parts)


def _settled(scale: Scale, is_student: Mask) -> _State:
    """Return where mean, errors and spread agree; the spread by expectation-maximisation.

    An essay's step is Newton's with the curvature averaged over its errors; the spread's is the
    expected one, made longer by what such steps are known to fall short.
    """
    model, cells, point = scale.model, scale.model.cells, scale.point
    a = np.exp(point.log_a)[cells.judge] if model.has_discrimination else np.ones(len(cells.first))
    shown_first = point.gamma[cells.judge] if len(model.positions) else 0.0
    log_tie = point.log_tie if model.has_tie_strength else None
    pair = np.arange(len(cells.first)) if model.pair_of_cell is None else model.pair_of_cell
    turned = np.where(cells.first < cells.second, a, -a)
    layout = model.layout
    n_pairs = len(layout.first)
    mean = scale.scores - scale.scores[is_student].mean()
    log_spread = math.log(max(float(np.std(mean[is_student])) * 0.9, _LEAST_SPREAD))
    variance: Floats = np.zeros(n_pairs)
    student_variance, of_spread = 0.0, math.inf
    for _ in range(_MAX_ROUNDS):
        prior = np.where(is_student, math.exp(-2 * log_spread), ANCHOR_SPREAD**-2)
        expected = a * (mean[cells.first] - mean[cells.second]) + shown_first
        told = moments_of(cells, expected, a * np.sqrt(variance[pair]), log_tie)
        essays = net_matrix(layout, sums_by(pair, a * a * told.weight, n_pairs), prior)
        at_first, at_second = sums_at_ends(layout, sums_by(pair, turned * told.residual, n_pairs))
        centre = np.where(is_student, 0.0, mean[~is_student].mean() if not is_student.all() else 0)
        step = solve(essays, at_first - at_second - prior * (mean - centre), rtol=1e-8)
        moved = float(np.abs(step).max())
        mean = mean + min(1.0, _LONGEST_STEP / max(moved, 1e-12)) * step
        if moved > _ERRORS_REST or abs(of_spread) > _ERRORS_REST:
            variance, own = _variances(essays)
            student_variance = float(own[is_student].sum())
        of_spread = _spread_step(mean[is_student], student_variance, log_spread)
        log_spread += of_spread
        if max(moved, abs(of_spread)) < _AT_REST:
            break
    return _State(mean, log_spread, essays, student_variance)


def _variances(essays: NetMatrix) -> tuple[Floats, Floats]:
    """Return the variances of each pair's difference and of each mean-centred score."""
    layout = essays.layout
    if layout.method != "banded" and layout.n_essays > _DENSE_UP_TO:
        own = surroundings_variances(essays)
        first, second = own[layout.first], own[layout.second]
        return np.maximum(first + second - 2 * essays.weights * first * second, 0.0), own
    if layout.method == "banded":
        none = np.empty((layout.n_essays, 0))
        own, _ = score_variances(Information(essays, none, np.empty((0, 0))))
        return np.maximum(difference_variances(essays), 0.0), own
    from scipy.linalg import lapack

    factor, _ = lapack.dpotrf(dense(essays), lower=1, overwrite_a=1)
    lower, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
    own = np.diag(lower).copy()
    among = own[layout.first] + own[layout.second] - 2 * lower[layout.second, layout.first]
    along = np.tril(lower).sum(axis=1) + np.tril(lower, -1).sum(axis=0)
    return among, own - 2 * along / len(own) + along.sum() / len(own) ** 2


def _spread_step(mean: Floats, variance: float, log_spread: float) -> float:
    """Return by how much the spread's logarithm moves toward where its posterior is greatest."""
    n = len(mean)
    off = mean - mean.mean()
    share = (float(off @ off) + variance) * math.exp(-2 * log_spread)
    unusual = (log_spread - math.log(USUAL_SPREAD)) / SPREADS_DIFFER**2
    gradient = share - n - unusual
    caught = min(max(1 - variance * math.exp(-2 * log_spread) / n, 0.05), 1.0)
    curvature = 2 * n * caught + SPREADS_DIFFER**-2
    step = min(max(gradient / curvature, -0.5), 0.5)
    return max(step, math.log(_LEAST_SPREAD) - log_spread)


def _value(state: _State, n: int) -> float:
    if n < 2:
        return 0.0
    share = state.student_variance / ((n - 1) * math.exp(2 * state.log_spread))
    return min(max(1 - share, 0.0), 1.0)


def _spread_error(state: _State, n: int) -> float:
    """Return the standard deviation of the spread's logarithm."""
    return 1 / math.sqrt(2 * n * _value(state, n) ** 2 + SPREADS_DIFFER**-2)


def _reliability(state: _State, n: int, error: float) -> StudentReliability:
    """Return the students' reliability; its interval by how sharply the spread is told."""
    value = _value(state, n)
    sampling = 2 * math.sqrt(value) * (1 - value) / math.sqrt(n)

    def end(sign: float) -> float:
        along = 2 * (1 - value) * value * error
        return min(max(value + sign * math.hypot(along, sampling), 0.0), 1.0)

    z = (math.log(ALIKE_BELOW) - state.log_spread) / error
    p_alike = 0.5 * math.erfc(-z / math.sqrt(2))
    if n < 2:
        return StudentReliability(None, None, None, None, p_alike, n)
    return StudentReliability(value, end(-NORMAL_95), end(NORMAL_95), end(-0.674), p_alike, n)
