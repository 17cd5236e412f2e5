"""Variances and determinants without the whole inverse, against the whole inverse."""

from __future__ import annotations

import numpy as np
import pytest

from cj_pipeline.scale.laplacian import (
    NetMatrix,
    band_variances,
    dense,
    difference_variances,
    lay_out,
    log_determinant,
    net_matrix,
    surroundings_variances,
)


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
