"""What is not yet known about the scores, and how much one more comparison would lessen it.

An approximate posterior answers two questions about a pair: how its outcome would change every
essay's score, and how much that would lessen the loss. It is exact where the covariance fits, and a
random sketch of it (Johnson and Lindenstrauss 1984) for large batches, so that memory grows with
the number of essays and not with its square. What the loss is belongs to `loss`; which
pairs are then judged, to `adaptive`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from cj_pipeline.arrays import Floats, Ints
from cj_pipeline.pairing.comparison_graph import ComparisonGraph
from cj_pipeline.pairing.loss import (
    cut_loss_jacobian,
    cut_loss_jacobian_times,
    grade_loss_jacobian,
    grade_loss_jacobian_times,
    rank_loss_jacobian,
    rank_loss_jacobian_times,
)
from cj_pipeline.scale.information import Information

_EXACT_UP_TO = 1_500
"""Essays whose covariance is written out; from there on it is sketched."""
N_SKETCHES = 96
"""Random directions kept in a sketch; differences' variances then err by about 15 %."""
SOLVED_TO = 1e-3
"""Relative residual of the sketch's systems, well below its own error."""


@dataclass(frozen=True, eq=False)
class Effect:
    """What a pair's outcome would change, in some essays.

    Attributes:
        scores: Covariance of each essay's score with the pair's difference; shape (n_rows,).
        loss_effects: The same, carried through the loss: S M S d.
        variance: Of the pair's difference.
        loss: What of the loss depends on the difference: d' S M S d.
    """

    scores: Floats
    loss_effects: Floats
    variance: float
    loss: float


class PosteriorApproximation(Protocol):
    """The scores' uncertainty while a wave is being chosen.

    Attributes:
        is_local: Whether a comparison's effect is followed only among the pairs adjacent to it.
    """

    is_local: bool

    def variances(self, first: Ints, second: Ints) -> Floats:
        """Return the variance of each pair's difference."""
        ...

    def losses(self, first: Ints, second: Ints) -> Floats:
        """Return d' S M S d for each pair."""
        ...

    def effect(self, first: int, second: int, rows: Ints) -> Effect:
        """Return what the outcome of this pair would change in these essays."""
        ...

    def update(self, first: int, second: int, gain: float) -> None:
        """Take a comparison as made: S loses `gain` (S d)(S d)'."""
        ...


class ExactPosterior:
    """The whole covariance; updates are kept apart from it, so that each costs little.

    Args:
        covariance: S, of the scores; shape (n_essays, n_essays).
        jacobian: J, with the loss trace(J S J'); shape (n_stakes, n_essays).
    """

    is_local = False

    def __init__(self, covariance: Floats, jacobian: Floats) -> None:
        self._covariance = covariance
        reach = covariance @ jacobian.T
        self._loss_covariance = reach @ reach.T
        self._n_updates = 0
        n = len(covariance)
        self._all = np.arange(n)
        self._score_effects = np.empty((0, n))
        self._loss_effects = np.empty((0, n))
        self._gains = np.empty(0)
        self._losses = np.empty(0)

    def variances(self, first: Ints, second: Ints) -> Floats:
        return _differences(self._covariance, first, second)

    def losses(self, first: Ints, second: Ints) -> Floats:
        return _differences(self._loss_covariance, first, second)

    def effect(self, first: int, second: int, rows: Ints) -> Effect:
        u = self._covariance[first] - self._covariance[second]
        m = self._loss_covariance[first] - self._loss_covariance[second]
        k = self._n_updates
        if k:
            past_u, past_m = self._score_effects[:k], self._loss_effects[:k]
            gains, losses = self._gains[:k], self._losses[:k]
            along_u = past_u[:, first] - past_u[:, second]
            along_m = past_m[:, first] - past_m[:, second]
            u = u - (gains * along_u) @ past_u
            m = m - (gains * along_m - gains**2 * losses * along_u) @ past_u
            m = m - (gains * along_u) @ past_m
        return Effect(u[rows], m[rows], float(u[first] - u[second]), float(m[first] - m[second]))

    def update(self, first: int, second: int, gain: float) -> None:
        effect = self.effect(first, second, self._all)
        k = self._n_updates
        if k == len(self._gains):
            room = max(16, k)
            n = len(self._all)
            self._score_effects = np.vstack([self._score_effects, np.empty((room, n))])
            self._loss_effects = np.vstack([self._loss_effects, np.empty((room, n))])
            self._gains = np.append(self._gains, np.empty(room))
            self._losses = np.append(self._losses, np.empty(room))
        self._score_effects[k], self._loss_effects[k] = effect.scores, effect.loss_effects
        self._gains[k], self._losses[k] = gain, effect.loss
        self._n_updates += 1


class SketchedPosterior:
    """Two thin factors, S = Y Y' and S M S = X X', of which a comparison changes its own two rows.

    A comparison's effect on essays that are neither in it nor candidates adjacent to it is left
    out: in large graphs it is some per cent of that on the two.
    """

    is_local = True

    def __init__(self, scores_factor: Floats, loss_factor: Floats) -> None:
        self._y = scores_factor.copy()
        self._x = loss_factor.copy()

    def variances(self, first: Ints, second: Ints) -> Floats:
        return _squared_distances(self._y, first, second)

    def losses(self, first: Ints, second: Ints) -> Floats:
        return _squared_distances(self._x, first, second)

    def effect(self, first: int, second: int, rows: Ints) -> Effect:
        w = self._y[first] - self._y[second]
        z = self._x[first] - self._x[second]
        return Effect(self._y[rows] @ w, self._x[rows] @ z, float(w @ w), float(z @ z))

    def update(self, first: int, second: int, gain: float) -> None:
        pair = np.array([first, second])
        w = self._y[first] - self._y[second]
        z = self._x[first] - self._x[second]
        u = self._y[pair] @ w
        # Y (I - gain w w')^(1/2), written out.
        share = (1 - np.sqrt(max(0.0, 1 - gain * (w @ w)))) / (w @ w)
        self._y[pair] -= share * np.outer(u, w)
        self._x[pair] -= gain * np.outer(u, z)


def own_information(information: Information) -> Floats:
    """Return what the prior says of each score, as information; shape (n_essays,)."""
    matrix = information.essays
    first, second, weights = matrix.layout.first, matrix.layout.second, matrix.weights
    n = matrix.layout.n_essays
    own: Floats = matrix.diagonal - np.bincount(first, weights, n) - np.bincount(second, weights, n)
    return own


def approximate_posterior(
    graph: ComparisonGraph, rng: np.random.Generator
) -> PosteriorApproximation:
    """Return what a graph's scores leave unknown, exactly or as a sketch.

    Args:
        graph: With scores, and with either their covariance or their information.
        rng: Draws a sketch's directions.
    """
    covariance = _affordable_covariance(graph)
    if covariance is None:
        assert graph.information is not None  # noqa: S101

        def jacobian_times(spread: Floats, columns: Floats) -> Floats:
            return _loss_jacobian_times(graph, spread, columns, transposed=True)

        return sketch(graph.information, jacobian_times, rng)
    return ExactPosterior(covariance, _loss_jacobian(graph, covariance))


def expected_loss(graph: ComparisonGraph, rng: np.random.Generator) -> float:
    """Return trace(J S J'), the summed variance of ranks or grades, exactly or from a sketch.

    Args:
        graph: With scores, and with either their covariance or their information.
        rng: Draws a sketch's directions.
    """
    covariance = _affordable_covariance(graph)
    if covariance is not None:
        jacobian = _loss_jacobian(graph, covariance)
        return float(np.sum((jacobian @ covariance) * jacobian))
    assert graph.information is not None  # noqa: S101
    y = _scores_factor(graph.information, rng)
    spread = np.einsum("ij,ij->i", y, y)
    return float(np.sum(_loss_jacobian_times(graph, spread, y, transposed=False) ** 2))


def _loss_jacobian(graph: ComparisonGraph, covariance: Floats) -> Floats:
    assert graph.scores is not None  # noqa: S101
    if graph.boundaries:
        return grade_loss_jacobian(
            graph.scores, np.diag(covariance), graph.boundaries, graph.is_anchor
        )
    if graph.n_above is not None:
        return cut_loss_jacobian(graph.scores, np.diag(covariance), graph.n_above, ~graph.is_anchor)
    return rank_loss_jacobian(graph.scores, covariance)


def _loss_jacobian_times(
    graph: ComparisonGraph, variances: Floats, columns: Floats, *, transposed: bool
) -> Floats:
    assert graph.scores is not None  # noqa: S101
    if graph.boundaries:
        return grade_loss_jacobian_times(
            graph.scores,
            variances,
            graph.boundaries,
            graph.is_anchor,
            columns,
            transposed=transposed,
        )
    if graph.n_above is not None:
        return cut_loss_jacobian_times(
            graph.scores,
            variances,
            graph.n_above,
            ~graph.is_anchor,
            columns,
            transposed=transposed,
        )
    # For ranks J is its own transpose.
    return rank_loss_jacobian_times(graph.scores, variances, columns)


def score_variances(graph: ComparisonGraph, rng: np.random.Generator) -> Floats:
    """Return the variance of each score, exactly or from a sketch; arguments as for a posterior."""
    covariance = _affordable_covariance(graph)
    if covariance is not None:
        return np.diag(covariance).copy()
    assert graph.information is not None  # noqa: S101
    y = _scores_factor(graph.information, rng)
    variances: Floats = np.einsum("ij,ij->i", y, y)
    return variances


def _affordable_covariance(graph: ComparisonGraph) -> Floats | None:
    """Return the whole covariance where it is given or may be written out."""
    if graph.covariance is not None or graph.information is None:
        return graph.covariance
    if graph.n_essays > _EXACT_UP_TO:
        return None
    from cj_pipeline.scale.information import covariance

    return covariance(graph.information)


def sketch(
    information: Information,
    jacobian_times: Callable[[Floats, Floats], Floats],
    rng: np.random.Generator,
) -> SketchedPosterior:
    """Return the posterior of a batch too large for its covariance to be written out.

    Args:
        information: Of the scores; what judges add to them is taken as known.
        jacobian_times: Given the scores' variances and random columns R, returns J' R.
        rng: Draws the random directions.
    """
    from cj_pipeline.scale.laplacian import solve

    y = _scores_factor(information, rng)
    directions: Any = rng.standard_normal(y.shape, dtype=np.float32)
    directions /= np.float32(np.sqrt(N_SKETCHES))
    loss_columns = jacobian_times(np.einsum("ij,ij->i", y, y), directions)
    x = solve(information.essays, loss_columns - loss_columns.mean(axis=0), rtol=SOLVED_TO)
    return SketchedPosterior(y, (x - x.mean(axis=0)).astype(np.float32))


def _scores_factor(information: Information, rng: np.random.Generator) -> Floats:
    """Return Y with Y Y' close to the scores' covariance; shape (n_essays, N_SKETCHES)."""
    from cj_pipeline.scale.laplacian import solve

    matrix = information.essays
    first, second, weights = matrix.layout.first, matrix.layout.second, matrix.weights
    n = matrix.layout.n_essays
    own = own_information(information)

    # B' W^(1/2) R + P^(1/2) R' has the covariance B' W B + P, which is the information itself.
    # In single precision, of which a sketch has plenty.
    single = np.float32
    noise: Any = rng.standard_normal((len(weights), N_SKETCHES), dtype=single)
    noise *= np.sqrt(weights).astype(single)[:, None]
    right: Any = rng.standard_normal((n, N_SKETCHES), dtype=single)
    right *= np.sqrt(np.maximum(own, 0)).astype(single)[:, None]
    np.add.at(right, first, noise)
    np.subtract.at(right, second, noise)
    y = solve(matrix, right / single(np.sqrt(N_SKETCHES)), rtol=SOLVED_TO).astype(single)
    return np.asarray(y - y.mean(axis=0))


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
