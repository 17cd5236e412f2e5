"""The normal distribution nearest to a posterior, against the posterior itself."""

from __future__ import annotations

import numpy as np
import pytest

from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.scale.bradley_terry import Scale, fit_bradley_terry
from cj_pipeline.scale.gaussian import NormalPosterior, NormalPrior, nearest_normal


def independent(n: int, sd: float) -> NormalPrior:
    return NormalPrior(np.eye(n) / sd**2, -2 * n * np.log(sd))


def nearest(scale: Scale, sd: float) -> NormalPosterior:
    return nearest_normal(scale.model, scale.point, independent(len(scale.essay_ids), sd))


def integrated(judged: list[JudgedPair], sd: float) -> tuple[float, float, float]:
    """Return mean, variance and log evidence of x - y, by summing over a fine grid."""
    at = np.linspace(-15, 15, 20_001)
    prior = np.exp(-0.25 * at**2 / sd**2) / np.sqrt(4 * np.pi * sd**2)
    likelihood = np.ones_like(at)
    for verdict in judged:
        p = 1 / (1 + np.exp(-at))
        likelihood *= {"A": p, "B": 1 - p, "tie": np.sqrt(p * (1 - p))}[verdict.winner]
    joint = prior * likelihood
    total = joint.sum() * (at[1] - at[0])
    density = joint / joint.sum()
    mean = float(density @ at)
    return mean, float(density @ at**2) - mean**2, float(np.log(total))


@pytest.mark.parametrize("won", ["AAAB", "AAAAAA", "AABtie", "AB" * 20])
def test_mean_variance_and_evidence_are_those_of_the_posterior(won: str) -> None:
    """Even where an essay won everything, which an expansion about the peak gets wrong."""
    letters = [*won.replace("tie", ""), *["tie"] * won.count("tie")]
    judged = [JudgedPair("x", "y", w) for w in letters]  # type: ignore[arg-type]
    found = nearest(fit_bradley_terry(["x", "y"], judged), 1.3)

    mean, variance, log_evidence = integrated(judged, 1.3)

    among = found.covariance
    assert found.mean[0] - found.mean[1] == pytest.approx(mean, abs=0.02)
    assert among[0, 0] + among[1, 1] - 2 * among[0, 1] == pytest.approx(variance, rel=0.1)
    # A bound, and a close one.
    assert log_evidence - 0.05 < found.log_evidence <= log_evidence + 1e-6


def test_the_wider_the_prior_the_further_out_and_the_less_sure() -> None:
    """Down to where the prior says everything."""
    judged = [JudgedPair("x", "y", w) for w in "AAAB"]  # type: ignore[arg-type]
    scale = fit_bradley_terry(["x", "y"], judged)

    apart = [float(nearest(scale, sd).mean[0]) for sd in (0.01, 0.5, 1.0, 3.0)]

    assert apart == sorted(apart)
    assert apart[0] == pytest.approx(0, abs=1e-3)


def test_a_position_effect_is_found_with_the_scores() -> None:
    """It is unknown like them, and neither takes the other's part."""
    rng = np.random.default_rng(4)
    ids = [f"e{i}" for i in range(12)]
    truth = rng.normal(0, 1, 12)
    judged = []
    for a in range(12):
        for b in range(12):
            if a != b:
                p = 1 / (1 + np.exp(-(truth[a] - truth[b] + 0.9)))
                judged.append(JudgedPair(ids[a], ids[b], "A" if rng.random() < p else "B", "j"))
    scale = fit_bradley_terry(ids, judged, position_effect=True)
    prior = independent(13, 1.0)

    found = nearest_normal(scale.model, scale.point, prior)

    assert found.mean[12] == pytest.approx(0.9, abs=3 * np.sqrt(found.covariance[12, 12]))
    assert np.corrcoef(found.mean[:12], truth)[0, 1] > 0.8


def test_ties_with_a_strength_of_their_own_are_carried_through() -> None:
    """Davidson's ties draw essays together as half-half ties do, at a unit of their own."""
    judged = [JudgedPair("x", "y", w) for w in ["A", "A", "B", "tie", "tie"]]  # type: ignore[arg-type]
    scale = fit_bradley_terry(["x", "y"], judged, ties="davidson")

    found = nearest(scale, 1.0)

    assert 0 < found.mean[0] < scale.scores[0] + 0.2


def test_where_it_ends_does_not_rest_on_where_it_begins() -> None:
    """Grids are walked from spread to spread: the way must not be seen in the figures."""
    rng = np.random.default_rng(2)
    ids = [f"e{i}" for i in range(15)]
    judged = []
    for k in range(90):
        a, b = k % 15, int((k % 15 + rng.integers(1, 15)) % 15)
        judged.append(JudgedPair(ids[a], ids[b], "A" if rng.random() < 0.5 else "B"))
    scale = fit_bradley_terry(ids, judged)

    afresh = nearest(scale, 4.0)
    from_near = nearest_normal(scale.model, scale.point, independent(15, 4.0), nearest(scale, 0.1))

    np.testing.assert_allclose(afresh.mean, from_near.mean, atol=1e-6)
    np.testing.assert_allclose(afresh.covariance, from_near.covariance, atol=1e-4)


@pytest.mark.parametrize("sd", [0.3, 1.3, 4.6])
def test_it_comes_to_rest_where_verdicts_part_essays_cleanly(sd: float) -> None:
    """A judge that never errs, every pair in both orders: mean and variance pull each other."""
    ids = [f"e{i:02d}" for i in range(24)]
    judged = [
        JudgedPair(first, second, "A" if first < second else "B", judge)
        for first in ids
        for second in ids
        if first != second
        for judge in ("one",)
    ]
    scale = fit_bradley_terry(ids, judged, position_effect="shared")

    n = len(ids) + len(scale.model.positions)
    found = nearest_normal(scale.model, scale.point, independent(n, sd))

    assert np.all(np.diff(found.mean[:24]) < 0)
