"""What is not yet known about the scores, and how much of it one more comparison would take away.

A belief answers two questions about a pair: how its outcome would move every essay's score, and
how much that would lessen the loss at stake. It is exact where the covariance fits, and a random
sketch of it (Johnson and Lindenstrauss 1984) for large batches, so that memory grows with the
number of essays and not with its square. What the loss is belongs to `stakes`; which pairs are
then asked, to `pairing.adaptive`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from cj_pipeline.arrays import Floats, Ints
from cj_pipeline.pairing.comparison_graph import ComparisonGraph
from cj_pipeline.pairing.loss import grade_stake, grade_stake_times, rank_stake, rank_stake_times
from cj_pipeline.scale.information import Information

_EXACT_UP_TO = 1_500
"""Essays whose covariance is written out; from there on it is sketched."""
N_SKETCHES = 96
"""Random directions kept in a sketch; differences' variances then err by about 15 %."""
_SOLVED_TO = 1e-3
"""Relative residual of the sketch's systems, well below its own error."""
_SPREADS = (0.5, 4.0)
"""Logits between which essays' true spread is taken to lie when only the scores tell of it."""
DRAWN_IN_TO = 0.85
"""Of the likely spread: choosing by a little less saves more comparisons, `benchmarks/pairing.py`
says (at 100 essays 26 and 31 %, against 23 and 28 % by the likely spread itself)."""
_STEPS_IN = 2
"""Newton steps to where the scores are believed to lie; the next would move them by 0.01."""


@dataclass(frozen=True, eq=False)
class Effect:
    """What a pair's outcome would move, in some essays.

    Attributes:
        scores: Covariance of each essay's score with the pair's difference; shape (n_rows,).
        stakes: The same, carried through the loss at stake: S M S d.
        variance: Of the pair's difference.
        loss: What of the loss depends on the difference: d' S M S d.
    """

    scores: Floats
    stakes: Floats
    variance: float
    loss: float


class PosteriorApproximation(Protocol):
    """The scores' uncertainty while a wave is being chosen.

    Attributes:
        is_local: Whether a comparison's effect is followed only among the pairs beside it.
    """

    is_local: bool

    def variances(self, first: Ints, second: Ints) -> Floats:
        """Return the variance of each pair's difference."""
        ...

    def losses(self, first: Ints, second: Ints) -> Floats:
        """Return d' S M S d for each pair."""
        ...

    def response(self, first: int, second: int, rows: Ints) -> Effect:
        """Return what the outcome of this pair would move in these essays."""
        ...

    def learn(self, first: int, second: int, gain: float) -> None:
        """Take a comparison as made: S loses `gain` (S d)(S d)'."""
        ...


class ExactBelief:
    """The whole covariance; updates are kept beside it, so that each costs little.

    Args:
        covariance: S, of the scores; shape (n_essays, n_essays).
        stake: J, with the loss trace(J S J'); shape (n_stakes, n_essays).
    """

    is_local = False

    def __init__(self, covariance: Floats, stake: Floats) -> None:
        self._covariance = covariance
        reach = covariance @ stake.T
        self._at_stake = reach @ reach.T
        self._n_learnt = 0
        n = len(covariance)
        self._all = np.arange(n)
        self._scores_moved = np.empty((0, n))
        self._stakes_moved = np.empty((0, n))
        self._gains = np.empty(0)
        self._losses = np.empty(0)

    def variances(self, first: Ints, second: Ints) -> Floats:
        return _differences(self._covariance, first, second)

    def losses(self, first: Ints, second: Ints) -> Floats:
        return _differences(self._at_stake, first, second)

    def response(self, first: int, second: int, rows: Ints) -> Effect:
        u = self._covariance[first] - self._covariance[second]
        m = self._at_stake[first] - self._at_stake[second]
        k = self._n_learnt
        if k:
            past_u, past_m = self._scores_moved[:k], self._stakes_moved[:k]
            gains, losses = self._gains[:k], self._losses[:k]
            along_u = past_u[:, first] - past_u[:, second]
            along_m = past_m[:, first] - past_m[:, second]
            u = u - (gains * along_u) @ past_u
            m = m - (gains * along_m - gains**2 * losses * along_u) @ past_u
            m = m - (gains * along_u) @ past_m
        return Effect(u[rows], m[rows], float(u[first] - u[second]), float(m[first] - m[second]))

    def learn(self, first: int, second: int, gain: float) -> None:
        moved = self.response(first, second, self._all)
        k = self._n_learnt
        if k == len(self._gains):
            room = max(16, k)
            n = len(self._all)
            self._scores_moved = np.vstack([self._scores_moved, np.empty((room, n))])
            self._stakes_moved = np.vstack([self._stakes_moved, np.empty((room, n))])
            self._gains = np.append(self._gains, np.empty(room))
            self._losses = np.append(self._losses, np.empty(room))
        self._scores_moved[k], self._stakes_moved[k] = moved.scores, moved.stakes
        self._gains[k], self._losses[k] = gain, moved.loss
        self._n_learnt += 1


class SketchedBelief:
    """Two thin factors, S = Y Y' and S M S = X X', of which a comparison changes the rows asked.

    A comparison's effect on essays that are neither in it nor candidates beside it is left out:
    in large nets it is some per cent of that on the two.
    """

    is_local = True

    def __init__(self, scores_factor: Floats, stakes_factor: Floats) -> None:
        self._y = scores_factor.copy()
        self._x = stakes_factor.copy()

    def variances(self, first: Ints, second: Ints) -> Floats:
        return _squared_distances(self._y, first, second)

    def losses(self, first: Ints, second: Ints) -> Floats:
        return _squared_distances(self._x, first, second)

    def response(self, first: int, second: int, rows: Ints) -> Effect:
        w = self._y[first] - self._y[second]
        z = self._x[first] - self._x[second]
        return Effect(self._y[rows] @ w, self._x[rows] @ z, float(w @ w), float(z @ z))

    def learn(self, first: int, second: int, gain: float) -> None:
        pair = np.array([first, second])
        w = self._y[first] - self._y[second]
        z = self._x[first] - self._x[second]
        u = self._y[pair] @ w
        # Y (I - gain w w')^(1/2), written out.
        share = (1 - np.sqrt(max(0.0, 1 - gain * (w @ w)))) / (w @ w)
        self._y[pair] -= share * np.outer(u, w)
        self._x[pair] -= gain * np.outer(u, z)


def shrunk(net: ComparisonGraph) -> ComparisonGraph:
    """Return the net with its scores drawn in to what essays of the likely spread can have.

    The scale's own prior is weak on purpose, so that reported scores rest on verdicts; early scores
    lie too far apart for it. Choosing by them would leave out pairs that are closer than they
    look. So for choosing, and only for that, the weak prior gives way to a normal one. A net
    without `information` stays as it is. What judges add (a liking for a place) is left as fitted.
    """
    if net.scores is None or net.information is None:
        return net
    from cj_pipeline.scale.laplacian import NetMatrix, solve

    matrix = net.information.essays
    layout, n = matrix.layout, net.n_essays
    first, second = layout.first, layout.second
    own = _own_information(net.information)
    spread = _seeming_spread(net.scores, matrix.diagonal)
    if net.spread is not None:
        spread = DRAWN_IN_TO * net.spread
    narrow = 1 / spread**2

    def at_ends(values: Floats, sign: int) -> Floats:
        """Add up values per pair at its first essay, and with this sign at its second."""
        return np.asarray(
            np.bincount(first, values, n) + sign * np.bincount(second, values, n), dtype=np.float64
        )

    reported = net.scores[first] - net.scores[second]
    counts = matrix.weights / _steepness(reported)
    # At the reported scores the verdicts pull out as hard as the weak prior pulls in; from its
    # information k p (1 - p) its pull k (p - 1/2) follows.
    pull, scores = own * np.sinh(np.clip(net.scores, -20, 20)), net.scores.copy()
    for _ in range(_STEPS_IN + 1):
        apart = scores[first] - scores[second]
        weights = counts * _steepness(apart)
        drawn_in = NetMatrix(layout, weights, at_ends(weights, 1) + narrow, np.zeros(n))
        less = 0.5 * counts * (np.tanh(0.5 * reported) - np.tanh(0.5 * apart))
        slope = pull + at_ends(less, -1) - narrow * scores
        scores = scores + solve(drawn_in, slope, rtol=_SOLVED_TO)
    scores = scores - scores.mean()
    # Boundaries lie among the reported scores and are drawn in with them.
    share = float(scores @ net.scores) / max(float(net.scores @ net.scores), 1e-12)
    return replace(
        net,
        scores=scores,
        information=replace(net.information, essays=drawn_in),
        boundaries=tuple(share * boundary for boundary in net.boundaries),
    )


def _seeming_spread(scores: Floats, information: Floats) -> float:
    """Return the spread that scores have beyond their errors, within what is likely at all."""
    errors = 1 / np.maximum(information, 1e-12)
    spread = float(np.sqrt(max(np.var(scores) - errors.mean(), 0.0)))
    return min(max(spread, _SPREADS[0]), _SPREADS[1])


def _steepness(apart: Floats) -> Floats:
    """Return the logistic curve's slope, p (1 - p)."""
    return np.asarray(0.25 / np.cosh(0.5 * np.clip(apart, -30, 30)) ** 2)


def _own_information(information: Information) -> Floats:
    """Return what the prior says of each score, as information; shape (n_essays,)."""
    matrix = information.essays
    first, second, weights = matrix.layout.first, matrix.layout.second, matrix.weights
    n = matrix.layout.n_essays
    own: Floats = matrix.diagonal - np.bincount(first, weights, n) - np.bincount(second, weights, n)
    return own


def approximate_posterior(net: ComparisonGraph, rng: np.random.Generator) -> PosteriorApproximation:
    """Return what a net's scores leave unknown, exactly or as a sketch.

    Args:
        net: With scores, and with either their covariance or their information.
        rng: Draws a sketch's directions.
    """
    covariance = _affordable_covariance(net)
    if covariance is None:
        assert net.information is not None  # noqa: S101

        def stake_of(spread: Floats, columns: Floats) -> Floats:
            return _stake_times(net, spread, columns, transposed=True)

        return sketch(net.information, stake_of, rng)
    return ExactBelief(covariance, _stake(net, covariance))


def expected_loss(net: ComparisonGraph, rng: np.random.Generator) -> float:
    """Return trace(J S J'), the summed variance of ranks or grades, exactly or from a sketch.

    Args:
        net: With scores, and with either their covariance or their information.
        rng: Draws a sketch's directions.
    """
    covariance = _affordable_covariance(net)
    if covariance is not None:
        stake = _stake(net, covariance)
        return float(np.sum((stake @ covariance) * stake))
    assert net.information is not None  # noqa: S101
    y = _scores_factor(net.information, rng)
    spread = np.einsum("ij,ij->i", y, y)
    return float(np.sum(_stake_times(net, spread, y, transposed=False) ** 2))


def _stake(net: ComparisonGraph, covariance: Floats) -> Floats:
    assert net.scores is not None  # noqa: S101
    if net.boundaries:
        return grade_stake(net.scores, np.diag(covariance), net.boundaries, net.is_anchor)
    return rank_stake(net.scores, covariance)


def _stake_times(
    net: ComparisonGraph, variances: Floats, columns: Floats, *, transposed: bool
) -> Floats:
    assert net.scores is not None  # noqa: S101
    if net.boundaries:
        return grade_stake_times(
            net.scores, variances, net.boundaries, net.is_anchor, columns, transposed=transposed
        )
    # For ranks J is its own transpose.
    return rank_stake_times(net.scores, variances, columns)


def score_variances(net: ComparisonGraph, rng: np.random.Generator) -> Floats:
    """Return the variance of each score, exactly or from a sketch; arguments as for a belief."""
    covariance = _affordable_covariance(net)
    if covariance is not None:
        return np.diag(covariance).copy()
    assert net.information is not None  # noqa: S101
    y = _scores_factor(net.information, rng)
    variances: Floats = np.einsum("ij,ij->i", y, y)
    return variances


def _affordable_covariance(net: ComparisonGraph) -> Floats | None:
    """Return the whole covariance where it is given or may be written out."""
    if net.covariance is not None or net.information is None:
        return net.covariance
    if net.n_essays > _EXACT_UP_TO:
        return None
    from cj_pipeline.scale.information import covariance

    return covariance(net.information)


def sketch(
    information: Information,
    stake_of: Callable[[Floats, Floats], Floats],
    rng: np.random.Generator,
) -> SketchedBelief:
    """Return a belief for a batch too large for its covariance to be written out.

    Args:
        information: Of the scores; what judges add beside them is taken as known.
        stake_of: Given the scores' variances and random columns R, returns J' R.
        rng: Draws the random directions.
    """
    from cj_pipeline.scale.laplacian import solve

    y = _scores_factor(information, rng)
    directions = rng.standard_normal(y.shape) / np.sqrt(N_SKETCHES)
    staked = stake_of(np.einsum("ij,ij->i", y, y), directions)
    x = solve(information.essays, staked - staked.mean(axis=0), rtol=_SOLVED_TO)
    return SketchedBelief(y, x - x.mean(axis=0))


def _scores_factor(information: Information, rng: np.random.Generator) -> Floats:
    """Return Y with Y Y' close to the scores' covariance; shape (n_essays, N_SKETCHES)."""
    from cj_pipeline.scale.laplacian import solve

    matrix = information.essays
    first, second, weights = matrix.layout.first, matrix.layout.second, matrix.weights
    n = matrix.layout.n_essays
    own = _own_information(information)

    # B' W^(1/2) R + P^(1/2) R' has the covariance B' W B + P, which is the information itself.
    noise = np.sqrt(weights)[:, None] * rng.standard_normal((len(weights), N_SKETCHES))
    right = np.sqrt(np.maximum(own, 0))[:, None] * rng.standard_normal((n, N_SKETCHES))
    np.add.at(right, first, noise)
    np.subtract.at(right, second, noise)
    y = solve(matrix, right / np.sqrt(N_SKETCHES), rtol=_SOLVED_TO)
    centred: Floats = y - y.mean(axis=0)
    return centred


def _differences(matrix: Floats, first: Ints, second: Ints) -> Floats:
    diagonal = np.diag(matrix)
    along: Floats = diagonal[first] + diagonal[second] - 2 * matrix[first, second]
    return np.maximum(along, 1e-12)


def _squared_distances(factor: Floats, first: Ints, second: Ints) -> Floats:
    found = np.empty(len(first))
    for start in range(0, len(first), 20_000):
        part = slice(start, start + 20_000)
        apart = factor[first[part]] - factor[second[part]]
        found[part] = np.einsum("ij,ij->i", apart, apart)
    return np.maximum(found, 1e-12)
