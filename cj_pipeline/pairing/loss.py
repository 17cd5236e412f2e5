"""The loss of a batch: how errors of the scores become errors of what is reported.

Reported are ranks, or grades. Either moves with the scores, to first order, by a matrix J, and the
loss is the summed variance trace(J S J') for scores with covariance S. `posterior` uses it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from cj_pipeline.arrays import Bools, Floats

_ANCHOR_REACH = 0.7
"""Logits over which anchors bear on a boundary."""
_ROWS_AT_ONCE = 512
_GROUPS = 1_000
"""Of essays close in score; with so many, what grouping changes is far below a sketch's error."""

Sides = tuple[Floats, Floats]
"""How each essay's side of a boundary moves with its own score, and the share of each essay in the
boundary's own move; each of shape (n_essays,)."""


def rank_loss_jacobian(scores: Floats, covariance: Floats) -> Floats:
    """Return how expected ranks move with scores; shape (n_essays, n_essays).

    An essay's expected rank is the sum over others of P(it lies above them), which moves by the
    density of their difference at zero. Summed squared rank errors are what Spearman's
    correlation counts.
    """
    variances = np.diag(covariance)
    spread = np.maximum(variances[:, None] + variances[None, :] - 2 * covariance, 1e-9)
    apart = scores[:, None] - scores[None, :]
    density = np.exp(-0.5 * apart**2 / spread) / np.sqrt(2 * np.pi * spread)
    np.fill_diagonal(density, 0.0)
    jacobian: Floats = -density
    np.fill_diagonal(jacobian, density.sum(axis=1))
    return jacobian


def rank_loss_jacobian_times(scores: Floats, variances: Floats, columns: Floats) -> Floats:
    """Return J' columns for ranks without writing J out; essays' errors taken as independent.

    Beyond `_GROUPS` essays, neighbours in score count as one: their mean score and variance, and
    the sum of their columns.
    """
    n = len(scores)
    order = np.argsort(scores, kind="stable")
    starts = np.unique(np.arange(min(n, _GROUPS)) * n // min(n, _GROUPS))
    sizes = np.diff(np.append(starts, n))
    at = np.add.reduceat(scores[order], starts) / sizes
    uncertain = np.add.reduceat(variances[order], starts) / sizes
    summed = np.add.reduceat(columns[order], starts, axis=0)
    # A group's density counts once for each of its essays; what an essay has of its own cancels.
    product = np.empty_like(columns)
    for start in range(0, n, _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        spread = variances[rows, None] + uncertain[None, :]
        apart = scores[rows, None] - at[None, :]
        density = np.exp(-0.5 * apart**2 / spread) / np.sqrt(2 * np.pi * spread)
        product[rows] = (density @ sizes)[:, None] * columns[rows] - density @ summed
    return product


def grade_loss_jacobian(
    scores: Floats,
    variances: Floats,
    boundaries: Sequence[float],
    is_anchor: npt.NDArray[np.bool_],
) -> Floats:
    """Return how students' expected grades move with scores; shape (n_essays, n_essays).

    A grade moves where a score is near a boundary. Boundaries themselves move with the anchors
    about them, which is why comparing anchors helps too.
    """
    jacobian = np.zeros((len(scores), len(scores)))
    for moves, bearing in _at_boundaries(scores, variances, boundaries, is_anchor):
        jacobian[np.diag_indices_from(jacobian)] += moves
        jacobian -= np.outer(moves, bearing)
    return jacobian


def grade_loss_jacobian_times(
    scores: Floats,
    variances: Floats,
    boundaries: Sequence[float],
    is_anchor: npt.NDArray[np.bool_],
    columns: Floats,
    *,
    transposed: bool,
) -> Floats:
    """Return J columns for grades, or J' columns, without writing J out; otherwise as above."""
    product = np.zeros_like(columns)
    for moves, bearing in _at_boundaries(scores, variances, boundaries, is_anchor):
        product += moves[:, None] * columns
        left, right = (bearing, moves) if transposed else (moves, bearing)
        product -= np.outer(left, right @ columns)
    return product


def at_cut(scores: Floats, variances: Floats, n_above: int, is_student: Bools) -> Sides:
    """Return how students' sides of the one cut move with scores, and what the cut moves with.

    The cut lies midway between the last student above it and the first below, and moves with the
    students near it: whoever goes up takes somebody's place.
    """
    students = np.sort(scores[is_student])
    n_above = min(max(n_above, 1), len(students) - 1)
    cut = 0.5 * (students[-n_above] + students[-n_above - 1])
    exponent = -0.5 * (scores - cut) ** 2 / variances
    nearest = float(exponent[is_student].max())
    # Only pairs are compared with each other, so essays all far from the cut may be told alike.
    moves = np.where(is_student, np.exp(exponent - nearest) / np.sqrt(2 * np.pi * variances), 0.0)
    return moves * np.exp(max(nearest, -50.0)), moves / moves.sum()


def cut_loss_jacobian(scores: Floats, variances: Floats, n_above: int, is_student: Bools) -> Floats:
    """Return how students' sides of one cut move with scores; shape (n_essays, n_essays)."""
    moves, bearing = at_cut(scores, variances, n_above, is_student)
    return np.asarray(np.diag(moves) - np.outer(moves, bearing))


def cut_loss_jacobian_times(
    scores: Floats,
    variances: Floats,
    n_above: int,
    is_student: Bools,
    columns: Floats,
    *,
    transposed: bool,
) -> Floats:
    """Return J columns for one cut, or J' columns, without writing J out."""
    moves, bearing = at_cut(scores, variances, n_above, is_student)
    left, right = (bearing, moves) if transposed else (moves, bearing)
    return np.asarray(moves[:, None] * columns - np.outer(left, right @ columns))


def _at_boundaries(
    scores: Floats,
    variances: Floats,
    boundaries: Sequence[float],
    is_anchor: npt.NDArray[np.bool_],
) -> Iterator[tuple[Floats, Floats]]:
    """Yield for each boundary how students' grades move by it, and what anchors bear on it."""
    for boundary in boundaries:
        nearness = np.exp(-0.5 * (scores - boundary) ** 2 / variances)
        nearness /= np.sqrt(2 * np.pi * variances)
        bearing = np.where(is_anchor, np.exp(-0.5 * ((scores - boundary) / _ANCHOR_REACH) ** 2), 0)
        if bearing.sum() > 1e-9:
            bearing = bearing / bearing.sum()
        yield np.where(is_anchor, 0.0, nearness), bearing
