"""Each way of solving, against NumPy on the matrix written out."""

from __future__ import annotations

import numpy as np
import pytest

from cj_pipeline.errors import UnscalableBatchError
from cj_pipeline.scale.laplacian import (
    NetMatrix,
    band_variances,
    dense,
    difference_variances,
    inverted,
    lay_out,
    log_determinant,
    net_matrix,
    solve,
    sums_at_ends,
    surroundings_variances,
)


def random_net(n: int, design: str, *, prior: float = 0.1, seed: int = 0) -> NetMatrix:
    """Return the matrix of a graph with random weights; essays' numbers are shuffled."""
    rng = np.random.default_rng(seed)
    if design == "banded":
        pairs = [(i, i + k) for i in range(n) for k in (1, 2, 3) if i + k < n]
    else:
        pairs = [(i, i + 1) for i in range(n - 1)]
        pairs += [tuple(rng.choice(n, 2, replace=False)) for _ in range(6 * n)]
    name = rng.permutation(n)
    keys = sorted({(min(name[a], name[b]), max(name[a], name[b])) for a, b in pairs})
    first, second = np.array(keys, dtype=np.int64).T
    layout = lay_out(n, np.ascontiguousarray(first), np.ascontiguousarray(second))
    return net_matrix(layout, rng.uniform(0.5, 2, len(first)), np.full(n, prior))


CASES = [(50, "random", "dense"), (400, "banded", "banded"), (400, "random", "iterative")]


@pytest.mark.parametrize(("n", "design", "method"), CASES)
def test_nets_are_solved_in_the_way_that_suits_them(n: int, design: str, method: str) -> None:
    """Small ones densely, narrow ones as bands, the rest by conjugate gradients."""
    assert random_net(n, design).layout.method == method


@pytest.mark.parametrize(("n", "design", "method"), CASES)
@pytest.mark.parametrize("n_columns", [0, 3])
def test_solutions_are_those_of_the_whole_matrix(
    n: int, design: str, method: str, n_columns: int
) -> None:
    """One right side or several."""
    matrix = random_net(n, design)
    right = np.random.default_rng(1).normal(size=(n, n_columns) if n_columns else n)

    assert solve(matrix, right) == pytest.approx(np.linalg.solve(dense(matrix), right), abs=1e-8)


def _comb() -> NetMatrix:
    """Return the matrix of 170 chains of eight essays, compared unevenly, that hang on one essay.

    It is too wide for a band, and conducts too badly for conjugate gradients.
    """
    teeth = [(8 * k + i, 8 * k + i + 1) for k in range(170) for i in range(7)]
    spine = [(0, 8 * k) for k in range(1, 170)]
    first, second = np.array(sorted(teeth + spine), dtype=np.int64).T
    layout = lay_out(1360, np.ascontiguousarray(first), np.ascontiguousarray(second))
    weights = np.random.default_rng(1).uniform(0.1, 10, len(first))
    return net_matrix(layout, weights, np.full(1360, 1e-7))


def test_a_long_thin_net_that_defeats_conjugate_gradients_is_solved_all_the_same() -> None:
    """Up to some thousand essays the whole matrix is written out then."""
    matrix = _comb()
    assert matrix.layout.method == "iterative"
    right = np.random.default_rng(1).normal(size=1360)
    right -= right.mean()

    left_over = dense(matrix) @ solve(matrix, right) - right

    assert np.abs(left_over).max() < 1e-6


@pytest.mark.parametrize("n_columns", [0, 3])
def test_conjugate_gradients_arrive_by_themselves(
    monkeypatch: pytest.MonkeyPatch, n_columns: int
) -> None:
    """Large graphs never get the whole matrix written out when the iteration fails."""
    monkeypatch.setattr("cj_pipeline.scale.laplacian._DIRECT_UP_TO", 0)
    matrix = random_net(400, "random")
    right = np.random.default_rng(1).normal(size=(400, n_columns) if n_columns else 400)

    assert solve(matrix, right) == pytest.approx(np.linalg.solve(dense(matrix), right), abs=1e-8)


def test_a_large_net_that_hangs_together_too_loosely_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rather than scores that are not a solution, or a matrix of gigabytes."""
    monkeypatch.setattr("cj_pipeline.scale.laplacian._DIRECT_UP_TO", 0)
    right = np.random.default_rng(1).normal(size=1360)
    right -= right.mean()

    with pytest.raises(UnscalableBatchError, match="Judge more pairs between distant essays"):
        solve(_comb(), right)


def test_without_a_prior_differences_are_determined_all_the_same() -> None:
    """The spring on the first essay holds the scale but changes no difference."""
    matrix = random_net(30, "random", prior=0.0)
    loose = dense(matrix) - np.diag(matrix.spring)
    right = np.random.default_rng(1).normal(size=30)
    right -= right.mean()

    found = solve(matrix, right)

    assert found - found.mean() == pytest.approx(np.linalg.pinv(loose) @ right, abs=1e-9)


def test_a_net_in_parts_without_a_prior_is_refused() -> None:
    """Two pairs of essays that never met: the matrix is singular."""
    layout = lay_out(4, np.array([0, 2]), np.array([1, 3]))

    with pytest.raises(UnscalableBatchError, match="singular"):
        solve(net_matrix(layout, np.ones(2), np.zeros(4)), np.array([1.0, -1.0, 1.0, -1.0]))


def test_sums_at_the_ends_count_each_pair_once_at_either_end() -> None:
    """By products for large graphs as by counting for small ones."""
    matrix = random_net(4000, "random")
    layout = matrix.layout

    at_first, at_second = sums_at_ends(layout, matrix.weights)

    assert len(layout.first) > 20_000
    assert at_first == pytest.approx(np.bincount(layout.first, matrix.weights, minlength=4000))
    assert at_second == pytest.approx(np.bincount(layout.second, matrix.weights, minlength=4000))


def _net(n: int, design: str, prior: float) -> NetMatrix:
    rng = np.random.default_rng(0)
    if design == "banded":
        pairs = {(i, i + k) for i in range(n) for k in (1, 2, 5) if i + k < n}
    else:
        ends = np.sort(rng.integers(0, n, size=(6 * n, 2)), axis=1)
        pairs = {(int(a), int(b)) for a, b in ends if a != b} | {(i, i + 1) for i in range(n - 1)}
    first, second = np.array(sorted(pairs), dtype=np.int64).T
    layout = lay_out(n, np.ascontiguousarray(first), np.ascontiguousarray(second))
    return net_matrix(layout, rng.uniform(0.2, 0.5, len(first)), np.full(n, prior))


def _exact(matrix: NetMatrix) -> np.ndarray:
    inverse = np.linalg.inv(dense(matrix))
    inverse -= inverse.mean(axis=0)
    inverse -= inverse.mean(axis=1)[:, None]
    return np.diag(inverse)


@pytest.mark.parametrize("prior", [0.0, 0.1])
@pytest.mark.parametrize("n", [130, 144, 400])
def test_band_variances_are_exact(n: int, prior: float) -> None:
    """Whether the essays fill their blocks or not, with a prior or a spring."""
    matrix = _net(n, "banded", prior)

    assert matrix.layout.method == "banded"
    assert band_variances(matrix) == pytest.approx(_exact(matrix), rel=1e-9)


@pytest.mark.parametrize("prior", [0.0, 0.1])
def test_surroundings_give_variances_of_random_nets_within_a_hundredth(prior: float) -> None:
    """Twelve verdicts an essay, the sparsest graph this is used for."""
    matrix = _net(1200, "random", prior)

    errors = np.sqrt(surroundings_variances(matrix) / _exact(matrix)) - 1

    assert np.abs(errors).max() < 0.01
    assert np.sqrt(np.mean(errors**2)) < 0.001


@pytest.mark.parametrize(("n", "design"), [(60, "random"), (300, "banded"), (300, "random")])
def test_log_determinants_are_exact_for_all_but_large_random_nets(n: int, design: str) -> None:
    """Whichever way the graph is solved."""
    matrix = _net(n, design, 0.1)

    assert log_determinant(matrix) == pytest.approx(np.linalg.slogdet(dense(matrix))[1])


def test_log_determinants_of_large_random_nets_move_as_the_exact_ones_do() -> None:
    """Only differences between priors matter for the evidence: within .25 of two hundred-odd."""
    found, exact = [], []
    for prior in (0.3, 1.0):
        matrix = _net(1600, "random", prior)
        found.append(log_determinant(matrix))
        exact.append(np.linalg.slogdet(dense(matrix))[1])

    assert exact[1] - exact[0] > 200
    assert found[1] - found[0] == pytest.approx(exact[1] - exact[0], abs=0.25)


@pytest.mark.parametrize(
    ("n", "design", "tolerance"),
    [(60, "random", 1e-9), (300, "banded", 1e-9), (300, "random", 1e-9), (1600, "random", 0.05)],
)
def test_variances_of_differences_are_those_of_the_whole_inverse(
    n: int, design: str, tolerance: float
) -> None:
    """Pair by pair, within and across the blocks of a band; closely for large random graphs."""
    matrix = _net(n, design, 0.1)
    inverse = np.linalg.inv(dense(matrix))
    one, other = matrix.layout.first, matrix.layout.second

    exact = inverse[one, one] + inverse[other, other] - 2 * inverse[one, other]

    assert difference_variances(matrix) == pytest.approx(exact, rel=tolerance)


@pytest.mark.parametrize(("dtype", "close"), [(np.float64, 1e-10), (np.float32, 1e-3)])
def test_an_inverse_is_numpys(dtype: type[np.float32] | type[np.float64], close: float) -> None:
    """One triangle, its row sums, its determinant and its product, in either precision."""
    matrix = random_net(150, "random")
    expected = np.linalg.inv(dense(matrix))
    column = np.random.default_rng(1).normal(size=150)

    found = inverted(matrix, dtype)

    assert found.below.dtype == dtype
    assert np.tril(found.below) == pytest.approx(np.tril(expected), rel=close, abs=close / 100)
    assert found.row_sums == pytest.approx(expected.sum(axis=1), rel=close)
    assert found.times(column) == pytest.approx(expected @ column, rel=close, abs=close)
    assert found.log_determinant == pytest.approx(np.linalg.slogdet(dense(matrix))[1], rel=close)


def test_a_singular_matrix_has_no_inverse() -> None:
    """Better no scores than any."""
    with pytest.raises(UnscalableBatchError, match="singular"):
        inverted(random_net(150, "random", prior=-1.0))
