"""Published coefficients and reliabilities of public data, reproduced.

The data are small published tables, typed in here with their sources.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.optimize import root

from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.diagnostics.epsilon_adjusted import fit_epsilon_adjusted
from cj_pipeline.scale.bradley_terry import Scale, fit_bradley_terry

# Home wins and losses, American League East 1987: Agresti (2002), Categorical Data Analysis,
# 2nd ed., table 10.10; the data set `baseball` of the R package BradleyTerry2.
TEAMS = ["Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore"]
AT_HOME = [
    [None, (4, 3), (4, 2), (4, 3), (6, 1), (4, 2), (6, 0)],
    [(3, 3), None, (4, 2), (4, 3), (6, 0), (6, 1), (4, 3)],
    [(2, 5), (4, 3), None, (2, 4), (4, 3), (4, 2), (6, 0)],
    [(3, 3), (5, 1), (2, 5), None, (4, 3), (4, 2), (6, 1)],
    [(5, 1), (2, 5), (3, 3), (4, 2), None, (5, 2), (6, 0)],
    [(2, 5), (3, 3), (3, 4), (4, 3), (4, 2), None, (2, 4)],
    [(2, 5), (1, 5), (1, 6), (2, 4), (1, 6), (3, 4), None],
]

# Citations between statistics journals 1987-89, row cited by column: Stigler (1994),
# doi:10.1214/ss/1177010655; the data set `citations` of BradleyTerry2.
JOURNALS = ["Biometrika", "Comm Statist", "JASA", "JRSS-B"]
CITED = [[714, 730, 498, 221], [33, 425, 68, 17], [320, 813, 1072, 142], [284, 276, 325, 188]]


def _verdicts(first: str, second: str, wins: int, losses: int) -> list[JudgedPair]:
    return [JudgedPair(first, second, "A")] * wins + [JudgedPair(first, second, "B")] * losses


def _baseball(*, home_advantage: bool) -> Scale:
    return fit_bradley_terry(
        TEAMS, _games()[1], prior_comparisons=0, position_effect=home_advantage
    )


def test_agrestis_baseball_coefficients() -> None:
    """Table 10.11, column 3: 1.58, 1.44, 1.29, 1.25, 1.11, 0.68 and Baltimore 0."""
    scale = _baseball(home_advantage=False)

    coefficients = np.round(scale.scores - scale.scores[-1], 2)

    assert coefficients.tolist() == [1.58, 1.44, 1.29, 1.25, 1.11, 0.68, 0.0]


def test_agrestis_standard_errors_against_baltimore() -> None:
    """About 0.3 each, as the text says; ours come from the joint covariance."""
    covariance = _baseball(home_advantage=False).covariance

    variances = np.diag(covariance) + covariance[-1, -1] - 2 * covariance[-1]

    assert np.round(np.sqrt(variances[:-1]), 1).tolist() == [0.3] * 6


def test_agrestis_home_advantage() -> None:
    """Table 10.11, column 5, and the home advantage 0.302: our position effect."""
    scale = _baseball(home_advantage=True)

    strengths = np.exp(scale.scores) / np.exp(scale.scores).sum()

    assert np.sort(np.round(strengths, 3)).tolist() == [
        0.044, 0.088, 0.137, 0.157, 0.164, 0.190, 0.220,
    ]  # fmt: skip
    assert scale.position_effects[""].value == pytest.approx(0.302, abs=5e-4)


def test_stiglers_citation_coefficients() -> None:
    """Turner and Firth (2012), doi:10.18637/jss.v048.i09: -2.9491, -0.4796, 0.2690."""
    verdicts = [
        verdict
        for i in range(4)
        for j in range(i)
        for verdict in _verdicts(JOURNALS[i], JOURNALS[j], CITED[i][j], CITED[j][i])
    ]
    scale = fit_bradley_terry(JOURNALS, verdicts, prior_comparisons=0)

    coefficients = scale.scores - scale.scores[0]

    assert coefficients[1:] == pytest.approx([-2.9491, -0.4796, 0.2690], abs=5e-5)


@pytest.mark.parametrize("data", ["baseball", "citations", "session"])
def test_the_literatures_reliability_is_that_of_its_published_equations(data: str) -> None:
    """`sirt::btm`'s figures, from the equations it documents, solved here by another method.

    With w_i wins of n_i, a_i = eps + (n_i - 2 eps) w_i / n_i (Bertoli-Barsotti, Lando and Punzo
    2014) takes the place of w_i, and each round moves every score by (a_i - expected wins) /
    information and then centres them. It rests where all moves are alike, which together with a
    sum of zero gives as many equations as unknowns. Errors are 1 / sqrt(information), `mle.rel` is
    1 - mean(se^2) / var(theta).
    """
    ids, decided = {"baseball": _games, "citations": _citations, "session": _session}[data]()

    theta, errors = _by_the_published_equations(ids, decided, epsilon=0.3)
    scale = fit_epsilon_adjusted(ids, decided)

    reliability = 1 - np.mean(errors**2) / np.var(theta, ddof=1)
    assert scale.reliability == pytest.approx(reliability, abs=2e-4)
    assert scale.scores == pytest.approx(theta, abs=2e-3)
    assert scale.standard_errors == pytest.approx(errors, rel=2e-3)


def _games() -> tuple[list[str], list[JudgedPair]]:
    return TEAMS, [
        verdict
        for home, row in zip(TEAMS, AT_HOME, strict=True)
        for away, cell in zip(TEAMS, row, strict=True)
        if cell is not None
        for verdict in _verdicts(home, away, *cell)
    ]


def _citations() -> tuple[list[str], list[JudgedPair]]:
    return JOURNALS, [
        verdict
        for i, j in combinations(range(len(JOURNALS)), 2)
        for verdict in _verdicts(JOURNALS[i], JOURNALS[j], CITED[i][j], CITED[j][i])
    ]


def _session() -> tuple[list[str], list[JudgedPair]]:
    """Return 240 made-up decisions on 22 texts, met unequally often, one of which always lost."""
    rng = np.random.default_rng(22)
    ids = [f"text-{i:02d}" for i in range(22)]
    quality = np.append(rng.normal(0, 1.2, 21), -9.0)
    ring = list(zip(range(22), [*range(1, 22), 0], strict=True))
    drawn = [tuple(rng.choice(22, 2, replace=False).tolist()) for _ in range(240 - len(ring))]
    chances = [1 / (1 + np.exp(quality[j] - quality[i])) for i, j in ring + drawn]
    return ids, [
        JudgedPair(ids[i], ids[j], "A" if rng.random() < p else "B")
        for (i, j), p in zip(ring + drawn, chances, strict=True)
    ]


def _by_the_published_equations(
    ids: list[str], decided: list[JudgedPair], *, epsilon: float
) -> tuple[np.ndarray, np.ndarray]:
    n = len(ids)
    won = np.zeros((n, n))
    for verdict in decided:
        i, j = ids.index(verdict.essay_a), ids.index(verdict.essay_b)
        won[(i, j) if verdict.winner == "A" else (j, i)] += 1
    met = won + won.T
    adjusted = epsilon + (met.sum(axis=1) - 2 * epsilon) * won.sum(axis=1) / met.sum(axis=1)

    def chance(theta: np.ndarray) -> np.ndarray:
        return np.asarray(1 / (1 + np.exp(theta[None, :] - theta[:, None])))

    def information(theta: np.ndarray) -> np.ndarray:
        return np.asarray((met * chance(theta) * (1 - chance(theta))).sum(axis=1))

    def left_over(unknown: np.ndarray) -> np.ndarray:
        theta, common = unknown[:-1], unknown[-1]
        rest = adjusted - (met * chance(theta)).sum(axis=1) - common * information(theta)
        return np.append(rest, theta.sum())

    found = root(left_over, np.zeros(n + 1), tol=1e-12)
    assert found.success, found.message
    theta = found.x[:-1]
    return theta, 1 / np.sqrt(information(theta))
