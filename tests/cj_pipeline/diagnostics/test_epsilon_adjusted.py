"""The literature's estimator, against its defining equations and limits."""

from __future__ import annotations

import numpy as np
import pytest

from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.diagnostics.epsilon_adjusted import fit_epsilon_adjusted
from cj_pipeline.errors import UnscalableBatchError
from cj_pipeline.scale.bradley_terry import fit_bradley_terry


def _round_robin(n: int, repeats: int, seed: int) -> tuple[list[str], list[JudgedPair]]:
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, 1.2, n)
    ids = [f"e{i:02d}" for i in range(n)]
    judged = []
    for i in range(n):
        for j in range(i):
            for _ in range(repeats):
                wins = rng.random() < 1 / (1 + np.exp(truth[j] - truth[i]))
                judged.append(JudgedPair(ids[i], ids[j], "A" if wins else "B"))
    return ids, judged


def test_two_essays_by_hand() -> None:
    """Three wins of four with epsilon .3: .3 + 3.4 x 3/4 = 2.85 of 4, log odds log(2.85/1.15)."""
    judged = [JudgedPair("x", "y", w) for w in ("A", "A", "A", "B")]  # type: ignore[arg-type]

    scale = fit_epsilon_adjusted(["x", "y"], judged)

    assert scale.scores[0] - scale.scores[1] == pytest.approx(np.log(2.85 / 1.15), abs=1e-3)
    # The diagonal alone: 4 p (1 - p), as if the other essay's score were known.
    p = 2.85 / 4
    assert scale.standard_errors == pytest.approx(np.full(2, 1 / np.sqrt(4 * p * (1 - p))), 1e-3)


def test_expected_wins_equal_the_adjusted_ones() -> None:
    """The estimating equations, on a balanced design where they can all hold."""
    ids, judged = _round_robin(8, 4, seed=1)

    scale = fit_epsilon_adjusted(ids, judged)

    chance = 1 / (1 + np.exp(scale.scores[None, :] - scale.scores[:, None]))
    expected = 4 * (chance.sum(axis=1) - 0.5)
    wins = np.array(
        [sum((v.essay_a if v.winner == "A" else v.essay_b) == e for v in judged) for e in ids]
    )
    assert expected == pytest.approx(0.3 + (28 - 0.6) * wins / 28, abs=2e-3)


def test_reliability_is_one_less_mean_square_error_over_variance() -> None:
    """`mle.rel`, and `sepG` from it: 1 / sqrt(1 - R)."""
    ids, judged = _round_robin(8, 4, seed=1)

    scale = fit_epsilon_adjusted(ids, judged)

    by_hand = 1 - np.mean(scale.standard_errors**2) / np.var(scale.scores, ddof=1)
    assert scale.reliability == pytest.approx(by_hand)
    assert scale.separation == pytest.approx(1 / np.sqrt(1 - by_hand))


def test_without_epsilon_it_is_maximum_likelihood() -> None:
    """On a design without one-sided essays; errors still differ, being the diagonal's."""
    ids, judged = _round_robin(8, 6, seed=3)

    scale = fit_epsilon_adjusted(ids, judged, epsilon=0.0)
    likeliest = fit_bradley_terry(ids, judged, prior_comparisons=0)

    assert scale.scores == pytest.approx(likeliest.scores, abs=1e-3)
    assert np.all(scale.standard_errors != likeliest.standard_errors)


def test_an_essay_that_won_everything_stays_finite() -> None:
    """What epsilon is for."""
    judged = [JudgedPair("x", y, "A") for y in ("y", "z") for _ in range(3)]
    judged += [JudgedPair("y", "z", w) for w in ("A", "B")]  # type: ignore[arg-type]

    assert np.all(np.isfinite(fit_epsilon_adjusted(["x", "y", "z"], judged).scores))


def test_an_essay_with_only_ties_is_named() -> None:
    """Ties are left out, so nothing is left of it."""
    judged = [JudgedPair("x", "y", "A"), JudgedPair("x", "y", "B"), JudgedPair("x", "z", "tie")]

    with pytest.raises(UnscalableBatchError, match="not a tie: z"):
        fit_epsilon_adjusted(["x", "y", "z"], judged)
