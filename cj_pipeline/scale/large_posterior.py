"""The posterior of `score_posterior` for batches too large to write their covariance out.

The graph of pairs is solved as the fit solves it, the verdicts tell the spread sharply enough for
its likeliest value to do, and judges' position effects stay as they were fitted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from cj_pipeline.arrays import Floats
from cj_pipeline.errors import UnscalableBatchError
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
from cj_pipeline.scale.gaussian import Moments, mean_log_likelihood, mixed, moments_of
from cj_pipeline.scale.information import (
    Information,
    covariance_of,
    score_variances,
    standard_errors,
)
from cj_pipeline.scale.laplacian import (
    Inverse,
    NetMatrix,
    dense,
    difference_variances,
    inverted,
    log_determinant,
    net_matrix,
    solve,
    sums_at_ends,
    surroundings_variances,
)
from cj_pipeline.scale.tallies import Indices, sums_by

_MAX_ROUNDS = 200
_MAX_SPREADS = 60
_QUICK_ROUNDS = 8
_DEPTH = 6
_LEAST_SHARE = 2.0**-12
_SLACK = 0.05
"""Of a standard error, that a round may still move where essays are parted so cleanly that nine
nodes of quadrature no longer tell a weight and the bound's slope alike."""
_BRACKETED = 1e-4
"""Of the spread's logarithm: between two spreads that close nothing is left to look for."""
_FIRST_STEP = 2.0
"""What the first step of the spread is multiplied by; expectation-maximisation falls short."""
_NEAR = 1e-3
_LOOSE = 0.1
"""While the spread is that far off, a tenth of its step is near enough for the scores."""
_SINGLE_FROM = 1e-4
"""Logits: while a rest need not be nearer than that, variances in single precision will do."""
_TAME = 1e4
"""Largest information about a score against the prior's at which single precision will do."""
_AT_REST = 1e-6
_ERRORS_REST = 1e-4
"""Of the logarithm of a variance."""
_WIDEST_LOG = 30.0
_DENSE_UP_TO = 1_500
_LEAST_SPREAD = 0.02
_WIDEST_SPREAD = 4.5
"""Logits, as where the spread is integrated: verdicts that part all essays cleanly bear any."""
_LONGEST_STEP = 2.0
_AT_ONCE = 50
_DRAWN_TO = 1e-3
"""Relative residual of a draw."""
_MOST_DRAWS = 400
"""Each draw is a linear system; a rank's probability then errs by less than .025."""


@dataclass(frozen=True, eq=False)
class _State:
    """Where the rounds stand: mean of the scores, spread, the information and variances at both."""

    mean: Floats
    log_spread: float
    essays: NetMatrix
    own: Floats
    student_variance: float
    n_students: int


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
        standard_errors=np.hypot(_errors(state, information), math.sqrt(between)),
        between_judges=between,
        spread=math.exp(state.log_spread),
        log_spread_error=error,
        is_student=is_student,
        reliability=_reliability(state, n_students, error),
        joint=OnTheGraph(information),
    )


def _errors(state: _State, information: Information) -> Floats:
    """Return the scores' standard errors; where the rounds had them closely only, checked."""
    if _is_written_out(state.essays) or state.essays.layout.method == "banded":
        return np.sqrt(state.own)
    return standard_errors(information).values


def _is_written_out(essays: NetMatrix) -> bool:
    return essays.layout.method != "banded" and essays.layout.n_essays <= _DENSE_UP_TO


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
        n_draws = -(-min(n_draws, _MOST_DRAWS) // _AT_ONCE) * _AT_ONCE
        if _is_written_out(self._information.essays):
            return _drawn_by_root(self._information.essays, n_draws, rng)
        return _drawn_on_graph(self._information.essays, n_draws, rng)


def _drawn_by_root(essays: NetMatrix, n_draws: int, rng: np.random.Generator) -> Floats:
    """Return draws by the root of the information, L L': L'^-1 z has its inverse as covariance."""
    from scipy.linalg import lapack

    factor, _ = lapack.dpotrf(dense(essays), lower=1, overwrite_a=1)
    noise = np.asfortranarray(rng.standard_normal((n_draws, len(factor))).T)
    off, _ = lapack.dtrtrs(factor, noise, lower=1, trans=1, overwrite_b=1)
    return np.asarray((off - off.mean(axis=0)).T)


def _drawn_on_graph(essays: NetMatrix, n_draws: int, rng: np.random.Generator) -> Floats:
    """Return draws as solutions of linear systems.

    B' W^(1/2) z + P^(1/2) z' has the information as its covariance, so solved for, the inverse.
    In single precision: a draw need be no surer than some thousandths of a standard error.
    """
    from scipy.sparse import csr_array

    layout = essays.layout
    n, n_pairs = layout.n_essays, len(layout.first)
    ends = (np.concatenate([layout.first, layout.second]), np.tile(np.arange(n_pairs), 2))
    root = np.sqrt(essays.weights).astype(np.float32)
    incidence = csr_array((np.concatenate([root, -root]), ends), (n, n_pairs))
    own = np.sqrt(np.maximum(essays.diagonal - sum(sums_at_ends(layout, essays.weights)), 0.0))
    own = own.astype(np.float32)[:, None]
    parts = []
    for _ in range(n_draws // _AT_ONCE):
        noise = incidence @ rng.standard_normal((n_pairs, _AT_ONCE), dtype=np.float32)
        noise += own * rng.standard_normal((n, _AT_ONCE), dtype=np.float32)
        off = solve(essays, noise, rtol=_DRAWN_TO)
        parts.append((off - off.mean(axis=0)).T)
    return np.concatenate(parts).astype(np.float64)


def _settled(scale: Scale, is_student: Mask) -> _State:
    """Return where mean, errors and spread agree.

    At a given spread scores come to rest in a few rounds; the spread itself would then creep by
    expectation-maximisation. So the spread at which that stands still is looked for by secants,
    between one where it still grows and one where it shrinks as soon as both are known.

    Raises:
        UnscalableBatchError: If it does not come to rest.
    """
    rounds = _Rounds(scale, is_student)
    place, log_spread = rounds.start
    low, high = math.log(_LEAST_SPREAD), math.log(_WIDEST_SPREAD)
    before: tuple[float, float, Floats] | None = None
    off = 1.0
    for _ in range(_MAX_SPREADS):
        here = rounds.rest(place, log_spread, _AT_REST if abs(off) < _NEAR else _LOOSE * abs(off))
        off = here.of_spread
        if max(here.moved, abs(off)) < _AT_REST and here.changed < _ERRORS_REST:
            return here.state
        low, high = (log_spread, high) if off > 0 else (low, log_spread)
        if high - low < _BRACKETED:
            return here.state
        step = _FIRST_STEP * off
        if before is not None and (log_spread - before[0]) * (before[1] - off) > 0:
            step = off * (log_spread - before[0]) / (before[1] - off)
        step = math.copysign(min(abs(step), 1.0), off)
        found = log_spread + step
        if not low <= found <= high:
            found = 0.5 * (low + high)
        place = here.led
        if before is not None and abs(log_spread - before[0]) > _AT_REST:
            along = min((found - log_spread) / abs(log_spread - before[0]), 1.0)
            sign = math.copysign(1.0, log_spread - before[0])
            place = here.led + max(along, -1.0) * sign * (here.led - before[2])
        before, log_spread = (log_spread, off, here.led), found
    msg = f"The students' spread still moved by {off:.2g}. Judge more pairs."
    raise UnscalableBatchError(msg)


@dataclass(frozen=True, eq=False)
class _Round:
    """A round at a given spread.

    Attributes:
        came: Where it began: means, then the logarithms of the pairs' weights.
        led: Where it leads.
        moved: How far it moves a mean, in logits.
        changed: How far it moves the logarithm of a weight.
        value: Of the bound on the evidence, less what no place changes; None in large graphs.
        of_spread: How far the spread's logarithm would move from here.
        state: What it found.
    """

    came: Floats
    led: Floats
    moved: float
    changed: float
    value: float | None
    of_spread: float
    state: _State

    @property
    def typical_error(self) -> float:
        """The mean students' standard error, in logits."""
        return math.sqrt(self.state.student_variance / max(self.state.n_students, 1))

    def is_at_rest(self, tolerance: float) -> bool:
        return self.moved < tolerance and self.changed < max(_ERRORS_REST, tolerance)

    def is_better_than(self, other: _Round) -> bool:
        if self.value is not None and other.value is not None:
            return self.value > other.value
        return max(self.moved, self.changed) < max(other.moved, other.changed)


class _Rounds:
    """Rounds by which means and variances come to agree, at one spread after another.

    A mean's step is Newton's with the curvature averaged over its errors; the spread's is the
    expected one, made longer by what such steps are known to fall short.
    """

    def __init__(self, scale: Scale, is_student: Mask) -> None:
        model, point = scale.model, scale.point
        cells = self._cells = model.cells
        judge, n_cells = cells.judge, len(cells.first)
        self._a = np.exp(point.log_a)[judge] if model.has_discrimination else np.ones(n_cells)
        self._shown_first = point.gamma[judge] if len(model.positions) else 0.0
        self._log_tie = point.log_tie if model.has_tie_strength else None
        self._pair = np.arange(n_cells) if model.pair_of_cell is None else model.pair_of_cell
        self._turned = np.where(cells.first < cells.second, self._a, -self._a)
        self._layout, self._is_student = model.layout, is_student
        self._n = len(is_student)
        errors = scale.standard_errors**2
        mean = scale.scores - scale.scores[is_student].mean()
        beyond = np.var(mean[is_student]) - errors[is_student].mean()
        spread = math.sqrt(max(float(beyond), 0.1 * float(np.var(mean[is_student])), 1e-2))
        spread = min(spread, _WIDEST_SPREAD)
        mean = np.where(is_student, mean * spread**2 / (spread**2 + errors), mean)
        own = errors / (1 + errors / spread**2)
        apart = own[self._layout.first] + own[self._layout.second]
        told = self._told(mean, apart)
        self.start = (np.concatenate([mean, _log(self._per_pair(told))]), math.log(spread))

    def rest(self, place: Floats, log_spread: float, tolerance: float) -> _Round:
        """Return the round that hardly moves any more at this spread.

        Where verdicts part essays cleanly rounds swing or creep. They are mixed (Anderson 1965,
        doi:10.1145/321296.321305), and where that leads astray shortened, from the best place so
        far, until they climb the bound on the evidence (in graphs too large for a bound, until they
        are less far off), which a step along the natural gradient does in the end.

        Raises:
            UnscalableBatchError: If there is none.
        """
        may_be_single = tolerance > _SINGLE_FROM
        here = best = self._at(place, log_spread, single=may_be_single)
        came, led, share = [best.came], [best.led], 1.0
        for k in range(_MAX_ROUNDS):
            if here.is_at_rest(tolerance):
                return here
            if k > _QUICK_ROUNDS and not here.is_better_than(best) and here is not best:
                came, led = [], []
                place = best.came + share * (best.led - best.came)
                share *= 0.5
                if share < _LEAST_SHARE:
                    break
            else:
                if here.is_better_than(best):
                    best, share = here, 1.0
                came, led = [*came, here.came][-_DEPTH:], [*led, here.led][-_DEPTH:]
                place = here.led if k < 1 or len(came) < 2 else mixed(came, led)
            here = self._at(place, log_spread, single=may_be_single and k < _QUICK_ROUNDS)
        if best.moved < _SLACK * best.typical_error:
            return best
        msg = f"The scores' posterior still moved by {best.moved:.2g} logits. Judge more pairs."
        raise UnscalableBatchError(msg)

    def _told(self, mean: Floats, variance: Floats) -> Moments:
        cells = self._cells
        sd = self._a * np.sqrt(variance[self._pair])
        return moments_of(cells, self._expected(mean), sd, self._log_tie)

    def _expected(self, mean: Floats) -> Floats:
        cells = self._cells
        apart: Floats = self._a * (mean[cells.first] - mean[cells.second]) + self._shown_first
        return apart

    def _per_pair(self, told: Moments) -> Floats:
        return sums_by(self._pair, self._a * self._a * told.weight, len(self._layout.first))

    def _at(self, place: Floats, log_spread: float, *, single: bool = False) -> _Round:
        layout, is_student = self._layout, self._is_student
        place = np.concatenate(
            [place[: self._n], np.clip(place[self._n :], -_WIDEST_LOG, _WIDEST_LOG)]
        )
        mean, weights = place[: self._n], np.exp(place[self._n :])
        prior = np.where(is_student, math.exp(-2 * log_spread), ANCHOR_SPREAD**-2)
        essays = net_matrix(layout, weights, prior)
        is_tame = float(essays.diagonal.max()) < _TAME * float(prior.min())
        found = _variances(essays, single=single and is_tame)
        told = self._told(mean, found.of_pairs)
        pulls = sums_by(self._pair, self._turned * told.residual, len(layout.first))
        at_first, at_second = sums_at_ends(layout, pulls)
        centre = np.where(is_student, 0.0, mean[~is_student].mean() if not is_student.all() else 0)
        gradient = at_first - at_second - prior * (mean - centre)
        if found.inverse is None:
            step = solve(essays, gradient, rtol=1e-8)
        else:
            step = found.inverse.times(gradient)
        moved = float(np.abs(step).max())
        after = mean + min(1.0, _LONGEST_STEP / max(moved, 1e-12)) * step
        weights_after = self._per_pair(self._told(after, found.of_pairs))
        led = np.concatenate([after, _log(weights_after)])
        value = None
        if found.log_determinant is not None:
            sd = self._a * np.sqrt(found.of_pairs[self._pair])
            less = float(prior @ (mean - centre) ** 2 - weights @ found.of_pairs)
            value = mean_log_likelihood(self._cells, self._expected(mean), sd, self._log_tie)
            value -= 0.5 * (less + found.log_determinant)
        student_variance = float(found.own[is_student].sum())
        return _Round(
            came=place,
            led=led,
            moved=moved,
            changed=float(np.abs(led[self._n :] - place[self._n :]).max(initial=0.0)),
            value=value,
            of_spread=_spread_step(after[is_student], student_variance, log_spread),
            state=_State(
                after, log_spread, essays, found.own, student_variance, int(is_student.sum())
            ),
        )


def _log(variance: Floats) -> Floats:
    return np.log(np.maximum(variance, math.exp(-_WIDEST_LOG)))


@dataclass(frozen=True, eq=False)
class _Variances:
    """Of each pair's difference and of each mean-centred score; and the matrix's log determinant,
    None where it is too large for an exact one. The inverse, where it was written out."""

    of_pairs: Floats
    own: Floats
    log_determinant: float | None
    inverse: Inverse | None = None


def _variances(essays: NetMatrix, *, single: bool = False) -> _Variances:
    """Return the variances; where they are written out, in single precision if that will do."""
    layout = essays.layout
    if layout.method != "banded" and not _is_written_out(essays):
        own = surroundings_variances(essays)
        first, second = own[layout.first], own[layout.second]
        of_pairs = np.maximum(first + second - 2 * essays.weights * first * second, 0.0)
        return _Variances(of_pairs, own, None)
    if layout.method == "banded":
        none = np.empty((layout.n_essays, 0))
        own, _ = score_variances(Information(essays, none, np.empty((0, 0))))
        of_pairs = np.maximum(difference_variances(essays), 0.0)
        return _Variances(of_pairs, own, log_determinant(essays))
    inverse = inverted(essays, np.float32 if single else np.float64)
    own = inverse.diagonal
    among = own[layout.first] + own[layout.second]
    among -= 2 * inverse.below[layout.second, layout.first]
    return _Variances(
        np.maximum(among, 0.0), inverse.centred_diagonal, inverse.log_determinant, inverse
    )


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
    step = min(step, math.log(_WIDEST_SPREAD) - log_spread)
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
