"""The log-posterior at many points together, a column each: how high it is, and how it falls.

The model is `likelihood`'s, which works at one point and has its whole information. What many
points are needed for is `verdict_intervals`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cj_pipeline.arrays import Floats
from cj_pipeline.scale.likelihood import (
    HOLD,
    LOG_DISCRIMINATION_SD,
    Model,
    Point,
    closeness,
    tie_probability,
)


@dataclass(frozen=True, eq=False)
class LogDensity:
    """The log-posterior at several points.

    Attributes:
        values: Up to a constant; shape (n_points,).
        gradients: A column per point, rows as in `Posterior`.
        curvatures: Minus the second derivative along each point's direction; shape (n_points,), and
            empty where no directions were given. What discriminations' residuals add is left out.
    """

    values: Floats
    gradients: Floats
    curvatures: Floats


class Posterior:
    """What is maximised: the log-likelihood and the log prior.

    A point is a column: the scores, then position effects, log discriminations and log tie
    strength where the model has them, in the order of `Gradient.others`.
    """

    def __init__(self, model: Model) -> None:
        from scipy.sparse import csr_array

        cells = model.cells
        n_cells = len(cells.first)
        rows = np.arange(n_cells)
        ones = np.ones(n_cells)
        shape = (n_cells, cells.n_essays)
        self._model = model
        self._to_essays = (
            csr_array((ones, (rows, cells.first)), shape)
            - csr_array((ones, (rows, cells.second)), shape)
        ).T.tocsr()
        self._to_judges = csr_array((ones, (cells.judge, rows)), (cells.n_judges, n_cells))

        n, n_rows = cells.n_essays, cells.n_essays + model.n_others
        self._positions = slice(n, n + len(model.positions))
        n_log_a = cells.n_judges if model.has_discrimination else 0
        self._log_a = slice(self._positions.stop, self._positions.stop + n_log_a)
        self._met = np.full((n_rows, 1), model.prior_comparisons)
        self._met[self._log_a] = 0.0
        self._precisions = np.zeros((n_rows, 1))
        self._precisions[self._log_a] = 1 / LOG_DISCRIMINATION_SD**2
        if model.prior_precision:
            self._met[:n], self._precisions[:n] = 0.0, model.prior_precision

    def column(self, point: Point) -> Floats:
        """Return a point as the one column; shape (n_essays + n_others, 1)."""
        model = self._model
        parts = [point.theta, point.gamma[model.positions]]
        if model.has_discrimination:
            parts.append(point.log_a)
        if model.has_tie_strength:
            parts.append(np.array([point.log_tie]))
        return np.concatenate(parts)[:, None]

    def point(self, column: Floats) -> Point:
        """Return one column as the point it is."""
        theta, gamma, log_a, log_tie = self._parts(column)
        n_judges = self._model.cells.n_judges
        return Point(
            theta[:, 0],
            gamma[:, 0],
            log_a[:, 0] if self._model.has_discrimination else np.zeros(n_judges),
            float(log_tie[0]) if self._model.has_tie_strength else 0.0,
        )

    def at(self, points: Floats, directions: Floats | None = None) -> LogDensity:
        """Return values and gradients, and the posterior's curvatures along the directions.

        Args:
            points: A column each.
            directions: One per point, in the same rows.
        """
        model, cells = self._model, self._model.cells
        counts, wins = cells.counts[:, None], cells.wins[:, None]
        theta, gamma, log_a, log_tie = self._parts(points)
        distance = theta[cells.first] - theta[cells.second]
        a = np.exp(log_a)[cells.judge] if model.has_discrimination else None
        eta = distance if a is None else a * distance
        if len(model.positions):
            eta = eta + gamma[cells.judge]

        t, spread = np.tanh(0.5 * eta), None
        log_sum = np.logaddexp(0.0, eta)
        values = np.einsum("ij,ij->j", np.broadcast_to(wins, eta.shape), eta)
        values -= cells.counts @ log_sum
        if model.has_tie_strength:
            tied = tie_probability(eta, log_tie)
            clear, ties = 1 - tied, cells.ties
            values += (cells.counts - ties) @ np.log(clear) + ties @ np.log(tied)
            values -= ties @ (0.5 * eta - log_sum)
            residual = wins - counts * (0.5 + 0.5 * t * clear)
            weight = 0.25 * counts * clear * (4 * closeness(eta) ** 2 + tied * t * t)
            spread = counts * tied * clear
        else:
            residual = wins - 0.5 * counts * (1 + t)
            weight = 0.25 * counts * (1 - t * t)

        pull = residual if a is None else a * residual
        gradients = [self._to_essays @ pull]
        if len(model.positions):
            gradients.append((self._to_judges @ residual)[model.positions])
        if a is not None:
            gradients.append(self._to_judges @ (pull * distance))
        if model.has_tie_strength:
            gradients.append((cells.ties[:, None] - counts * tied).sum(axis=0)[None, :])
        gradient = np.concatenate(gradients)
        # The prior.
        values += (self._met * (0.5 * points - np.logaddexp(0.0, points))).sum(axis=0)
        values -= 0.5 * (self._precisions * points**2).sum(axis=0)
        gradient -= 0.5 * self._met * np.tanh(0.5 * points) + self._precisions * points
        if model.has_discrimination:
            held = HOLD * log_a.sum(axis=0)
            values -= 0.5 * held * log_a.sum(axis=0)
            gradient[self._log_a] -= held
        if directions is None:
            return LogDensity(values, gradient, np.empty(0))

        cellwise = _Cellwise(distance, a, weight, t, spread)
        return LogDensity(values, gradient, self._curvatures(points, directions, cellwise))

    def _curvatures(self, points: Floats, directions: Floats, at: _Cellwise) -> Floats:
        model, cells = self._model, self._model.cells
        along, along_gamma, along_log_a, along_tie = self._parts(directions)
        moves = along[cells.first] - along[cells.second]
        if at.a is not None:
            moves = at.a * (moves + at.distance * along_log_a[cells.judge])
        if len(model.positions):
            moves = moves + along_gamma[cells.judge]
        curvatures = np.einsum("ij,ij,ij->j", at.weight, moves, moves)
        if at.spread is not None:
            curvatures += (at.spread * along_tie * (along_tie - at.t * moves)).sum(axis=0)
        half = np.tanh(0.5 * points)
        own = 0.25 * self._met * (1 - half * half) + self._precisions
        curvatures += np.einsum("ij,ij,ij->j", own, directions, directions)
        if model.has_discrimination:
            curvatures += HOLD * along_log_a.sum(axis=0) ** 2
        return np.asarray(curvatures)

    def _parts(self, points: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Return scores, position effects of all judges, log discriminations, log tie strength."""
        model = self._model
        gamma = np.zeros((model.cells.n_judges, points.shape[1]))
        gamma[model.positions] = points[self._positions]
        return points[: model.cells.n_essays], gamma, points[self._log_a], points[-1]


@dataclass(frozen=True, eq=False)
class _Cellwise:
    """What the curvatures are made of, a row per cell and a column per point."""

    distance: Floats
    a: Floats | None
    weight: Floats
    t: Floats
    spread: Floats | None
