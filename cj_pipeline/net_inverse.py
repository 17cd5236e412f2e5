"""What is needed of a net matrix's inverse and determinant, without writing either out.

Variances of mean-centred scores: a banded matrix gives them exactly, block by block; a large net
of random pairs gives them closely, from the first moments of each essay's surroundings. Together
with what judges add they become standard errors in `information`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cj_pipeline.net_solvers import NetMatrix, band, dense, solve, upper_triangle
from cj_pipeline.tallies import Floats

_SMALLEST_BLOCK = 24
"""Narrower bands are cut into blocks this wide, so that LAPACK has something to do."""
_PATHS_WORTH_COUNTING = 20_000_000
"""Paths of two pairs beyond which counting them takes longer than it gains."""


_DENSE_UP_TO = 1_500


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

    Exact but for large nets of random pairs, where two essays' errors are taken to have in common
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
    if layout.n_essays <= _DENSE_UP_TO:
        inverse = np.linalg.inv(dense(matrix))
        own = np.diag(inverse)
        return np.asarray(own[first] + own[second] - 2 * inverse[first, second])
    own = surroundings_variances(matrix)
    return np.asarray(own[first] + own[second] - 2 * matrix.weights * own[first] * own[second])


def surroundings_variances(matrix: NetMatrix) -> Floats:
    """Return the variances of a large net of random pairs, closely; shape (n_essays,).

    With D the diagonal and B = D^-1/2 W D^-1/2 the scaled weights, an essay's variance is
    x' (1 - B)^-1 x for a start x that centring keeps clear of B's one large eigenvalue. The
    moments x' B^k x, up to the fourth (the second where paths are too many), give a continued
    fraction; beyond them it is ended as if the net went on alike, as the recursion method does for
    disordered solids (Haydock 1980, Solid State Physics 35). How far off that is, `information`
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
    """Return the log determinant; closely for large nets of random pairs, else exactly.

    Those large nets have log det D + log det (1 - B), of which the second is the sum over B's
    eigenvalues: the one near 1 by its Rayleigh quotient, the others by the traces of B's powers.
    """
    from scipy.linalg import cholesky_banded, lapack

    layout = matrix.layout
    if layout.method == "banded":
        factor = cholesky_banded(band(matrix), lower=True, overwrite_ab=True, check_finite=False)
        return 2 * float(np.sum(np.log(factor[0])))
    if layout.method == "dense" or layout.n_essays <= _DENSE_UP_TO:
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
    from scipy.sparse import diags_array

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
    scale = diags_array(1 / np.sqrt(diagonal))
    steps = (scale @ weights @ scale).tocsr()
    two_steps = (steps @ steps).tocsr()
    longer = (steps.multiply(two_steps), two_steps.multiply(two_steps))
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
