"""Solving with the information matrix of a graph of pairs, in the way that suits the graph.

The matrix is a weighted Laplacian plus a diagonal: off the diagonal minus the pair's weight, on it
the sum of the essay's weights plus what the prior adds. Small graphs are solved densely, graphs
that are narrow once reordered (each essay judged against its neighbours) as banded matrices, and
the rest by conjugate gradients, which a graph of random pairs makes quick. What the solutions mean
is `information`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cj_pipeline.arrays import Floats
from cj_pipeline.errors import UnscalableBatchError
from cj_pipeline.scale.tallies import Indices, sums_by

_DENSE_UP_TO = 120
"""Below this many essays a dense solve takes less time than ten sparse products."""
_WIDEST_BAND = 160
_FEW_PAIRS = 20_000
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
        columns: The same, narrow, as sparse matrices keep it.
        starts: Where each essay's pairs begin among those sorted; shape (n_essays + 1,).
        method: How systems are solved.
        order: Of the essays along the band; empty unless banded.
        bandwidth: Largest distance within a pair along that order; 0 unless banded.
    """

    n_essays: int
    first: Indices
    second: Indices
    columns: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int32]
    method: Literal["dense", "banded", "iterative"]
    order: Indices
    bandwidth: int


@dataclass(frozen=True, eq=False)
class NetMatrix:
    """The matrix itself.

    Attributes:
        layout: Of the graph.
        weights: One per pair.
        diagonal: One per essay.
        spring: What of the first diagonal entry only holds the scale in place; zeros after it.
    """

    layout: NetLayout
    weights: Floats
    diagonal: Floats
    spring: Floats


def lay_out(n_essays: int, first: Indices, second: Indices) -> NetLayout:
    """Return how to solve on the graph of these distinct, sorted pairs."""
    columns = second.astype(np.int32)
    starts = np.searchsorted(first, np.arange(n_essays + 1)).astype(np.int32)
    none = np.empty(0, dtype=np.int64)
    if n_essays <= _DENSE_UP_TO:
        return NetLayout(n_essays, first, second, columns, starts, "dense", none, 0)
    if len(first) <= n_essays * _WIDEST_BAND:
        order = _narrow_order(n_essays, first, second)
        place = np.empty(n_essays, dtype=np.int64)
        place[order] = np.arange(n_essays)
        bandwidth = int(np.max(np.abs(place[first] - place[second]), initial=0))
        if bandwidth <= min(_WIDEST_BAND, n_essays // 2):
            return NetLayout(n_essays, first, second, columns, starts, "banded", order, bandwidth)
    return NetLayout(n_essays, first, second, columns, starts, "iterative", none, 0)


def sums_at_ends(layout: NetLayout, values: Floats) -> tuple[Floats, Floats]:
    """Return per essay the sums over the pairs it is first in, and over those it is second in."""
    n = layout.n_essays
    if len(values) < _FEW_PAIRS:
        return sums_by(layout.first, values, n), sums_by(layout.second, values, n)
    # Products with a vector of ones take a third of the time that counting takes.
    above = _sparse(layout, values)
    ones = np.ones(n)
    return above @ ones, above.T @ ones


def net_matrix(layout: NetLayout, weights: Floats, extra: Floats) -> NetMatrix:
    """Return the matrix with these weights per pair and `extra` added to the diagonal.

    Where nothing is added anywhere the matrix is singular (only differences are determined). Then
    the first essay is held in place by a spring, which changes no difference.
    """
    at_first, at_second = sums_at_ends(layout, weights)
    diagonal = extra + at_first + at_second
    spring = np.zeros(layout.n_essays)
    if not extra.any():
        spring[0] = diagonal[0]
        diagonal[0] *= 2
    return NetMatrix(layout, weights, diagonal, spring)


def solve(matrix: NetMatrix, right: Floats, *, rtol: float = 1e-12) -> Floats:
    """Return x with `matrix` x = `right`, to a relative residual of `rtol` where iterated.

    Args:
        matrix: Positive definite.
        right: Shape (n_essays,) or (n_essays, n_columns); several columns may be in single
            precision, in which they are then solved where that is iterated.
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
    # In the order of columns, which LAPACK takes without a copy.
    full = np.zeros((layout.n_essays, layout.n_essays), order="F")
    full[layout.first, layout.second] = -matrix.weights
    full[layout.second, layout.first] = -matrix.weights
    np.fill_diagonal(full, matrix.diagonal)
    return full


@dataclass(frozen=True, eq=False)
class Inverse:
    """The inverse of a matrix, written out.

    Attributes:
        below: It, on and below the diagonal alone; shape (n_essays, n_essays).
        row_sums: Shape (n_essays,).
        log_determinant: Of the matrix.
    """

    below: npt.NDArray[np.floating[Any]]
    row_sums: Floats
    log_determinant: float

    @property
    def diagonal(self) -> Floats:
        """The variances, not centred; shape (n_essays,)."""
        return np.diag(self.below).astype(np.float64)

    @property
    def centred_diagonal(self) -> Floats:
        """The variances of the mean-centred scores; shape (n_essays,)."""
        return _centred(self.diagonal, self.row_sums)

    def times(self, column: Floats) -> Floats:
        """Return its product with a column; shape (n_essays,)."""
        from scipy.linalg import get_blas_funcs

        symv = get_blas_funcs("symv", (self.below,))
        return np.asarray(symv(1.0, self.below, column, lower=1), dtype=np.float64)


def inverted(matrix: NetMatrix, dtype: type[np.float32] | type[np.float64] = np.float64) -> Inverse:
    """Return the inverse, for graphs that are few enough essays to write it out.

    Args:
        matrix: Positive definite.
        dtype: In which precision. Single errs by some 1e-7 times the matrix's condition.

    Raises:
        UnscalableBatchError: If the matrix is singular.
    """
    from scipy.linalg import get_lapack_funcs

    full = dense(matrix).astype(dtype, copy=False)
    potrf, potrs, potri = get_lapack_funcs(("potrf", "potrs", "potri"), (full,))
    factor, failed = potrf(full, lower=1, overwrite_a=1, clean=0)
    if failed:
        msg = (
            "The verdicts do not determine every score: the information matrix is singular. "
            "Use the prior, or judge more pairs."
        )
        raise UnscalableBatchError(msg)
    log_det = 2 * float(np.log(np.diag(factor), dtype=np.float64).sum())
    row_sums, _ = potrs(factor, np.ones(len(factor), dtype=dtype), lower=1)
    below, _ = potri(factor, lower=1, overwrite_c=1)
    return Inverse(below, np.asarray(row_sums, dtype=np.float64), log_det)


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
    return _sparse(matrix.layout, matrix.weights)


def _sparse(layout: NetLayout, values: Floats) -> Any:
    from scipy.sparse import csr_array

    n = layout.n_essays
    return csr_array((values, layout.columns, layout.starts), shape=(n, n))


def _solve_dense(matrix: NetMatrix, right: Floats) -> Floats:
    # LAPACK itself, since for a handful of essays a wrapper's checks take longer than the solving.
    from scipy.linalg import lapack

    _, solution, failed = lapack.dposv(dense(matrix), right, lower=1, overwrite_a=1)
    if failed:
        msg = (
            f"The net of {matrix.layout.n_essays} essays does not determine their scores: the "
            "information matrix is singular. Judge more pairs or use the prior."
        )
        raise UnscalableBatchError(msg)
    return np.asarray(solution, dtype=np.float64)


def _solve_banded(matrix: NetMatrix, right: Floats) -> Floats:
    from scipy.linalg import solveh_banded

    order = matrix.layout.order
    solution = np.empty_like(right)
    solution[order] = solveh_banded(
        band(matrix), right[order], lower=True, overwrite_ab=True, check_finite=False
    )
    return solution


def _conjugate_gradients(matrix: NetMatrix, right: Floats, rtol: float) -> Floats | None:
    """Return the solution; None if it is not reached.

    Preconditioned with the diagonal (Hestenes and Stiefel 1952).
    """
    above = upper_triangle(matrix)
    if right.ndim == 1:
        return _iterate(above, matrix.diagonal, right, rtol)
    above, diagonal = above.astype(right.dtype), matrix.diagonal.astype(right.dtype)
    return _iterate_together(above, diagonal[:, None], right, rtol)


def _iterate(above: Any, diagonal: Floats, right: Floats, rtol: float) -> Floats | None:
    below = above.T
    x = np.zeros_like(right)
    residual = right.copy()
    goal = rtol**2 * (right @ right)
    if goal == 0:
        return x
    scaled = residual / diagonal
    direction = scaled
    energy = residual @ scaled
    for _ in range(_MAX_CG_STEPS):
        product = diagonal * direction
        product -= above @ direction
        product -= below @ direction
        step = energy / (direction @ product)
        x += step * direction
        residual -= step * product
        if residual @ residual <= goal:
            return x
        scaled = residual / diagonal
        before, energy = energy, residual @ scaled
        direction = scaled + (energy / before) * direction
    return None


def _iterate_together(above: Any, diagonal: Floats, right: Floats, rtol: float) -> Floats | None:
    """Return the solutions for several columns, which share each pass over the pairs."""
    below = above.T
    x = np.zeros_like(right)
    residual = right.copy()
    goal = rtol**2 * np.einsum("ij,ij->j", right, right)
    scaled = residual / diagonal
    direction = scaled
    energy = np.einsum("ij,ij->j", residual, scaled)
    for _ in range(_MAX_CG_STEPS):
        is_open = np.einsum("ij,ij->j", residual, residual) > goal
        if not is_open.any():
            return x
        product = diagonal * direction
        product -= above @ direction
        product -= below @ direction
        curvature = np.einsum("ij,ij->j", direction, product)
        # A column that has converged no longer changes.
        step = np.divide(energy, curvature, out=np.zeros_like(energy), where=is_open)
        x += step * direction
        residual -= step * product
        scaled = residual / diagonal
        before, energy = energy, np.einsum("ij,ij->j", residual, scaled)
        ratio = np.divide(energy, before, out=np.zeros_like(energy), where=is_open)
        direction = scaled + ratio * direction
    return None


def _narrow_order(n: int, first: Indices, second: Indices) -> Indices:
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import reverse_cuthill_mckee

    ones: npt.NDArray[np.int8] = np.ones(2 * len(first), dtype=np.int8)
    ends = (np.concatenate([first, second]), np.concatenate([second, first]))
    order = reverse_cuthill_mckee(csr_array((ones, ends), shape=(n, n)), symmetric_mode=True)
    return np.asarray(order, dtype=np.int64)


_SMALLEST_BLOCK = 24
"""Narrower bands are cut into blocks this wide, so that LAPACK has something to do."""
_PATHS_WORTH_COUNTING = 20_000_000
"""Paths of two pairs beyond which counting them takes longer than it gains."""
_DENSE_INVERSE_UP_TO = 1_500
"""Essays whose whole inverse is had in a second; beyond that it is approximated."""


def band_variances(matrix: NetMatrix) -> Floats:
    """Return the exact variances where the matrix is banded; shape (n_essays,).

    The inverse is needed on the diagonal only. Forward elimination leaves each block's Schur
    complement, and going back gives each diagonal block of the inverse from the next (Takahashi,
    Fagan and Chin 1973; Erisman and Tinney 1975, doi:10.1145/360680.360704).
    """
    inverses, _ = _inverse_blocks(matrix)
    n = matrix.layout.n_essays
    raw = np.empty(n)
    raw[matrix.layout.order] = np.einsum("kii->ki", inverses).reshape(-1)[:n]
    return _centred(raw, solve(matrix, np.ones(n)))


def difference_variances(matrix: NetMatrix) -> Floats:
    """Return the variance of the difference between the two essays of each pair; shape (n_pairs,).

    Exact but for large graphs of random pairs, where two essays' errors are taken to have in common
    what their own verdicts on each other give them.
    """
    layout = matrix.layout
    first, second = layout.first, layout.second
    if layout.method == "banded":
        inverses, leads = _inverse_blocks(matrix)
        across = -leads @ inverses[1:]
        width = inverses.shape[1]
        place = np.empty(layout.n_essays, dtype=np.int64)
        place[layout.order] = np.arange(layout.n_essays)
        low = np.minimum(place[first], place[second])
        high = np.maximum(place[first], place[second])
        own = np.einsum("kii->ki", inverses).reshape(-1)
        block, row, column = low // width, low % width, high % width
        same = block == high // width
        shared = np.empty(len(first))
        shared[same] = inverses[block[same], row[same], column[same]]
        shared[~same] = across[block[~same], row[~same], column[~same]]
        return np.asarray(own[low] + own[high] - 2 * shared)
    if layout.n_essays <= _DENSE_INVERSE_UP_TO:
        inverse = np.linalg.inv(dense(matrix))
        own = np.diag(inverse)
        return np.asarray(own[first] + own[second] - 2 * inverse[first, second])
    own = surroundings_variances(matrix)
    return np.asarray(own[first] + own[second] - 2 * matrix.weights * own[first] * own[second])


def surroundings_variances(matrix: NetMatrix) -> Floats:
    """Return the variances of a large graph of random pairs, closely; shape (n_essays,).

    With D the diagonal and B = D^-1/2 W D^-1/2 the scaled weights, an essay's variance is
    x' (1 - B)^-1 x for a start x that centring keeps clear of B's one large eigenvalue. The
    moments x' B^k x, up to the fourth (the second where paths are too many), give a continued
    fraction; beyond them it is ended as if the graph went on alike, as the recursion method does
    for disordered solids (Haydock 1980, Solid State Physics 35). How far off that is, `information`
    measures on a sample.
    """
    moments = _moments(matrix)
    mean, spread = moments[1] / moments[0], _second(moments)
    if len(moments) < 5:
        ending = _endless(float(np.mean(spread)))
        return np.asarray(moments[0] / (1 - mean - spread / (1 - ending)))
    m1, m2, m3, m4 = (moment / moments[0] for moment in moments[1:])
    next_mean = (m3 - 2 * m1 * m2 + m1**3) / spread
    linear, constant = -(next_mean + m1), next_mean * m1 - spread
    square = m4 + 2 * linear * m3 + (linear**2 + 2 * constant) * m2
    next_spread = (square + 2 * linear * constant * m1 + constant**2) / spread
    ending = _endless(float(np.mean(next_spread)))
    inner = 1 - next_mean - next_spread / (1 - ending)
    return np.asarray(moments[0] / (1 - mean - spread / inner))


def log_determinant(matrix: NetMatrix) -> float:
    """Return the log determinant; closely for large graphs of random pairs, else exactly.

    Those large graphs have log det D + log det (1 - B), of which the second is the sum over B's
    eigenvalues: the one near 1 by its Rayleigh quotient, the others by the traces of B's powers.
    """
    from scipy.linalg import cholesky_banded, lapack

    layout = matrix.layout
    if layout.method == "banded":
        factor = cholesky_banded(band(matrix), lower=True, overwrite_ab=True, check_finite=False)
        return 2 * float(np.sum(np.log(factor[0])))
    if layout.method == "dense" or layout.n_essays <= _DENSE_INVERSE_UP_TO:
        factor, _ = lapack.dpotrf(dense(matrix), lower=1, overwrite_a=1)
        return 2 * float(np.sum(np.log(np.diag(factor))))
    above = upper_triangle(matrix)
    weights = (above + above.T).tocsr()
    diagonal = matrix.diagonal
    traces = [float(np.sum(moment * diagonal)) for moment in _returns(weights, diagonal)]
    row_excess = float(np.sum(diagonal) - 2 * np.sum(matrix.weights))
    gap = row_excess / float(np.sum(diagonal))
    others = sum((trace - (1 - gap) ** k) / k for k, trace in enumerate(traces) if k > 0)
    return float(np.sum(np.log(diagonal))) + float(np.log(gap)) - others


def _endless(spread: float) -> float:
    """Return the continued fraction spread / (1 - spread / (1 - ...))."""
    return 0.5 * (1 - float(np.sqrt(max(1 - 4 * spread, 0.0))))


def _second(moments: list[Floats]) -> Floats:
    return np.asarray(moments[2] / moments[0] - (moments[1] / moments[0]) ** 2)


def _moments(matrix: NetMatrix) -> list[Floats]:
    """Return x' B^k x per essay for k = 0, 1, ..., x being its centred, scaled start."""
    above = upper_triangle(matrix)
    weights = (above + above.T).tocsr()
    diagonal = matrix.diagonal - matrix.spring
    moments, along = [], 1 / diagonal
    for returning in _returns(weights, diagonal):
        moments.append(_centred(returning, along))
        along = (weights @ along) / diagonal
    return moments


def _returns(weights: Any, diagonal: Floats) -> list[Floats]:
    """Return the diagonals of D^-1/2 B^k D^-1/2 for k up to 4, or 2 where paths are too many."""
    squared = weights.copy()
    squared.data **= 2
    short = [
        1 / diagonal,
        np.zeros_like(diagonal),
        (squared @ (1 / diagonal)) / diagonal**2,
    ]
    degrees = np.diff(weights.indptr).astype(np.float64)
    if degrees @ degrees > _PATHS_WORTH_COUNTING:
        return short
    scale = 1 / np.sqrt(diagonal)
    steps = weights.copy()
    steps.data *= np.repeat(scale, np.diff(weights.indptr)) * scale[weights.indices]
    two_steps = (steps @ steps).tocsr()
    there_and_back = two_steps.copy()
    there_and_back.data **= 2
    longer = (steps.multiply(two_steps), there_and_back)
    return [*short, *(np.asarray(paths.sum(axis=1)) / diagonal for paths in longer)]


def _centred(diagonal: Floats, row_sums: Floats) -> Floats:
    """Return the diagonal of C M C, C centring, from the diagonal and row sums of M."""
    n = len(diagonal)
    return np.asarray(diagonal - 2 / n * row_sums + row_sums.sum() / n**2)


def _inverse_blocks(matrix: NetMatrix) -> tuple[Floats, Floats]:
    """Return the inverse's diagonal blocks, and what carries each to the next block."""
    diagonal, above = _blocks(matrix)
    inverses = np.empty_like(diagonal)
    inverses[0] = np.linalg.inv(diagonal[0])
    leads = np.empty_like(above)
    for k in range(1, len(diagonal)):
        leads[k - 1] = inverses[k - 1] @ above[k - 1]
        inverses[k] = np.linalg.inv(diagonal[k] - above[k - 1].T @ leads[k - 1])
    for k in range(len(diagonal) - 2, -1, -1):
        inverses[k] += leads[k] @ inverses[k + 1] @ leads[k].T
    return inverses, leads


def _blocks(matrix: NetMatrix) -> tuple[Floats, Floats]:
    """Return the blocks on and next above the diagonal, in the layout's order.

    The last block is filled up with the identity.
    """
    layout = matrix.layout
    n, width = layout.n_essays, max(layout.bandwidth, _SMALLEST_BLOCK)
    n_blocks = -(-n // width)
    place = np.empty(n, dtype=np.int64)
    place[layout.order] = np.arange(n)
    one, other = place[layout.first], place[layout.second]
    low, high = np.minimum(one, other), np.maximum(one, other)
    diagonal = np.zeros((n_blocks, width, width))
    above = np.zeros((n_blocks - 1, width, width))
    same = low // width == high // width
    block, row, column = low // width, low % width, high % width
    diagonal[block[same], row[same], column[same]] = -matrix.weights[same]
    diagonal[block[same], column[same], row[same]] = -matrix.weights[same]
    above[block[~same], row[~same], column[~same]] = -matrix.weights[~same]
    own = np.ones(n_blocks * width)
    own[:n] = matrix.diagonal[layout.order]
    np.einsum("kii->ki", diagonal)[:] = own.reshape(n_blocks, width)
    return diagonal, above
