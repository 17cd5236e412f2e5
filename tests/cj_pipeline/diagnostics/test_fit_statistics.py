"""Infit and outfit, by hand and on judges known to guess."""

from __future__ import annotations

import numpy as np
import pytest

from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.diagnostics.fit_statistics import fit_of_essays, fit_of_judges
from cj_pipeline.scale.bradley_terry import fit_bradley_terry

TRUTH = np.linspace(-2, 2, 20)
IDS = [f"e{i:02d}" for i in range(20)]


def _judge(n: int, seed: int, judge_id: str, *, stretch: float = 1.0) -> list[JudgedPair]:
    rng = np.random.default_rng(seed)
    verdicts = []
    for _ in range(n):
        a, b = rng.choice(20, 2, replace=False)
        wins = rng.random() < 1 / (1 + np.exp(-stretch * (TRUTH[a] - TRUTH[b])))
        verdicts.append(JudgedPair(IDS[a], IDS[b], "A" if wins else "B", judge_id))
    return verdicts


def test_equal_essays_fit_exactly_by_hand() -> None:
    """As many wins as losses between equals: each squared residual is its variance, 1/4."""
    judged = [JudgedPair("x", "y", w) for w in ("A", "B")]  # type: ignore[arg-type]
    scale = fit_bradley_terry(["x", "y"], judged)

    fit = fit_of_essays(scale, judged)["x"]

    assert (fit.n, fit.infit, fit.outfit) == (2, pytest.approx(1.0), pytest.approx(1.0))


def test_a_judge_who_guesses_does_not_fit() -> None:
    """Beside judges who see the differences, coin tossing varies too much."""
    judged = [
        *_judge(1500, 1, "seeing"),
        *_judge(1500, 2, "seeing too"),
        *_judge(500, 3, "guessing", stretch=0.0),
    ]

    fits = fit_of_judges(fit_bradley_terry(IDS, judged), judged)

    assert fits["guessing"].infit > 1.2
    assert fits["guessing"].infit_z > 2
    assert fits["seeing"].infit < 1.0


def test_verdicts_that_follow_the_model_fit() -> None:
    """Mean squares are near one when the scale is right; z is then a standard normal deviate."""
    judged = _judge(6000, 4, "one")

    fits = fit_of_essays(fit_bradley_terry(IDS, judged), judged)

    assert np.mean([f.infit for f in fits.values()]) == pytest.approx(1.0, abs=0.02)
    assert np.max(np.abs([f.infit_z for f in fits.values()])) < 3.5


def test_position_effects_and_discriminations_are_part_of_what_is_expected() -> None:
    """A judge whose position effect is modelled is not a misfit for it."""
    rng = np.random.default_rng(5)
    judged = _judge(800, 6, "upright")
    for _ in range(800):
        a, b = rng.choice(20, 2, replace=False)
        wins = rng.random() < 1 / (1 + np.exp(-(TRUTH[a] - TRUTH[b] + 2.0)))
        judged.append(JudgedPair(IDS[a], IDS[b], "A" if wins else "B", "leaning"))

    plain = fit_of_judges(fit_bradley_terry(IDS, judged), judged)
    modelled = fit_of_judges(
        fit_bradley_terry(IDS, judged, position_effect=True, discrimination=True), judged
    )

    assert plain["leaning"].infit > 1.2
    assert modelled["leaning"].infit == pytest.approx(1.0, abs=0.1)
