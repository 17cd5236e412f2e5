"""Solving with the information matrix of a net of pairs, in the way that suits the net.

The matrix is a weighted Laplacian plus a diagonal: off the diagonal minus the pair's weight, on it
the sum of the essay's weights plus what the prior adds. Small nets are solved densely, nets that
are narrow once reordered (each essay judged against its neighbours) as banded matrices, and the
rest by conjugate gradients, which a net of random pairs makes quick. What the solutions mean is
`information`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cj_pipeline.errors import UnscalableBatchError
from cj_pipeline.tallies import Floats, Indices, sums_by

_DENSE_UP_TO = 120
"""Below this many essays a dense solve takes less time than ten sparse products."""
_WIDEST_BAND = 160
_MAX_CG_STEPS = 400
_DIRECT_UP_TO = 12_000
"""Essays whose dense matrix (1.2 GB) still fits where conjugate gradients have failed."""


@dataclass(frozen=True, eq=False)
class NetLayout:
    """Distinct pairs, sorted by first then second essay (first < second), and how to solve.

    Attributes:
        n_essays: Rows of the matrix.
        first: Lower index of each pair; shape (n_pairs,).
        second: Higher index.
        method: How systems are solved.
        order: Of the essays along the band; empty unless banded.
        bandwidth: Largest distance within a pair along that order; 0 unless banded.
    """

    n_essays: int
    first: Indices
    second: Indices
    method: Literal["dense", "banded", "iterative"]
    order: Indices
    bandwidth: int


@dataclass(frozen=True, eq=False)
class NetMatrix:
    """The matrix itself: a weight per pair, and the diagonal."""

    layout: NetLayout
    weights: Floats
    diagonal: Floats


def lay_out(n_essays: int, first: Indices, second: Indices) -> NetLayout:
    """Return how to solve on the net of these distinct, sorted pairs."""
    none = np.empty(0, dtype=np.int64)
    if n_essays <= _DENSE_UP_TO:
        return NetLayout(n_essays, first, second, "dense", none, 0)
    if len(first) <= n_essays * _WIDEST_BAND:
        order = _narrow_order(n_essays, first, second)
        place = np.empty(n_essays, dtype=np.int64)
        place[order] = np.arange(n_essays)
        bandwidth = int(np.max(np.abs(place[first] - place[second]), initial=0))
        if bandwidth <= min(_WIDEST_BAND, n_essays // 2):
            return NetLayout(n_essays, first, second, "banded", order, bandwidth)
    return NetLayout(n_essays, first, second, "iterative", none, 0)


def net_matrix(layout: NetLayout, weights: Floats, extra: Floats) -> NetMatrix:
    """Return the matrix with these weights per pair and `extra` added to the diagonal.

    Where nothing is added anywhere the matrix is singular (only differences are determined). Then
    the first essay is held in place by a spring, which changes no difference.
    """
    n = layout.n_essays
    diagonal = extra + sums_by(layout.first, weights, n)
    diagonal += sums_by(layout.second, weights, n)
    if not extra.any():
        diagonal[0] += diagonal.mean()
    return NetMatrix(layout, weights, diagonal)


def solve(matrix: NetMatrix, right: Floats, *, rtol: float = 1e-12) -> Floats:
    """Return x with `matrix` x = `right`, to a relative residual of `rtol` where iterated.

    Args:
        matrix: Positive definite.
        right: Shape (n_essays,) or (n_essays, n_columns).
        rtol: In the norm of the residual, each column by itself.

    Raises:
        UnscalableBatchError: If neither way of solving succeeds.
    """
    method = matrix.layout.method
    if method == "banded":
        return _solve_banded(matrix, right)
    if method == "iterative":
        solution = _conjugate_gradients(matrix, right, rtol)
        if solution is not None:
            return solution
        if matrix.layout.n_essays > _DIRECT_UP_TO:
            msg = (
                f"The net of {matrix.layout.n_essays} essays hangs together too loosely to be "
                f"solved in {_MAX_CG_STEPS} steps. Judge more pairs between distant essays."
            )
            raise UnscalableBatchError(msg)
    return _solve_dense(matrix, right)


def dense(matrix: NetMatrix) -> Floats:
    """Return the matrix written out; shape (n_essays, n_essays)."""
    layout = matrix.layout
    full = np.zeros((layout.n_essays, layout.n_essays))
    full[layout.first, layout.second] = -matrix.weights
    full[layout.second, layout.first] = -matrix.weights
    np.fill_diagonal(full, matrix.diagonal)
    return full


def band(matrix: NetMatrix) -> Floats:
    """Return the lower band in the layout's order, as LAPACK keeps it; shape (width + 1, n)."""
    layout = matrix.layout
    place = np.empty(layout.n_essays, dtype=np.int64)
    place[layout.order] = np.arange(layout.n_essays)
    one, other = place[layout.first], place[layout.second]
    lower = np.zeros((layout.bandwidth + 1, layout.n_essays))
    lower[np.abs(one - other), np.minimum(one, other)] = -matrix.weights
    lower[0] = matrix.diagonal[layout.order]
    return lower


def upper_triangle(matrix: NetMatrix) -> Any:
    """Return the weights as a sparse matrix with each pair once, above the diagonal."""
    from scipy.sparse import csr_array

    layout = matrix.layout
    n = layout.n_essays
    starts = np.zeros(n + 1, dtype=np.int32)
    np.cumsum(np.bincount(layout.first, minlength=n), out=starts[1:])
    return csr_array((matrix.weights, layout.second.astype(np.int32), starts), shape=(n, n))


def _solve_dense(matrix: NetMatrix, right: Floats) -> Floats:
    if matrix.layout.n_essays <= _DENSE_UP_TO:
        return np.asarray(np.linalg.solve(dense(matrix), right), dtype=np.float64)
    from scipy.linalg import cho_factor, cho_solve

    factor = cho_factor(dense(matrix), lower=True, overwrite_a=True, check_finite=False)
    solution: Floats = cho_solve(factor, right, check_finite=False)
    return solution


def _solve_banded(matrix: NetMatrix, right: Floats) -> Floats:
    from scipy.linalg import solveh_banded

    order = matrix.layout.order
    solution = np.empty_like(right)
    solution[order] = solveh_banded(
        band(matrix), right[order], lower=True, overwrite_ab=True, check_finite=False
    )
    return solution


def _conjugate_gradients(matrix: NetMatrix, right: Floats, rtol: float) -> Floats | None:
    """Return the solution, columns in step with one another; None if it is not reached.

    Preconditioned with the diagonal (Hestenes and Stiefel 1952).
    """
    above = upper_triangle(matrix)
    below = above.T
    columns = right.reshape(len(right), -1)
    diagonal = matrix.diagonal[:, None]
    x = np.zeros_like(columns)
    residual = columns.copy()
    goal = rtol**2 * np.einsum("ij,ij->j", columns, columns)
    scaled = residual / diagonal
    direction = scaled
    energy = np.einsum("ij,ij->j", residual, scaled)
    for _ in range(_MAX_CG_STEPS):
        # A column that has arrived stands still: its direction is zero.
        moved = diagonal * direction
        moved -= above @ direction
        moved -= below @ direction
        curvature = np.einsum("ij,ij->j", direction, moved)
        step = np.divide(energy, curvature, out=np.zeros_like(energy), where=curvature > 0)
        x += step * direction
        residual -= step * moved
        open_columns = np.einsum("ij,ij->j", residual, residual) > goal
        if not open_columns.any():
            return x.reshape(right.shape)
        scaled = residual / diagonal
        before, energy = energy, np.einsum("ij,ij->j", residual, scaled) * open_columns
        ratio = np.divide(energy, before, out=np.zeros_like(energy), where=before > 0)
        direction = (scaled + ratio * direction) * open_columns
    return None


def _narrow_order(n: int, first: Indices, second: Indices) -> Indices:
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import reverse_cuthill_mckee

    ones: npt.NDArray[np.int8] = np.ones(2 * len(first), dtype=np.int8)
    ends = (np.concatenate([first, second]), np.concatenate([second, first]))
    order = reverse_cuthill_mckee(csr_array((ones, ends), shape=(n, n)), symmetric_mode=True)
    return np.asarray(order, dtype=np.int64)
