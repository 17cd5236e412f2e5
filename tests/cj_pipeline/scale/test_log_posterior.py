"""The posterior at many points: the same as at one, and with the gradients of its values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.scale.bradley_terry import Scale, fit_bradley_terry
from cj_pipeline.scale.likelihood import gradient_at
from cj_pipeline.scale.log_posterior import Posterior

IDS = [f"e{i}" for i in range(6)]


def panel_verdicts(seed: int = 1) -> list[JudgedPair]:
    """Return what three judges say of all pairs, in both orders, with ties."""
    rng = np.random.default_rng(seed)
    truth = np.linspace(-1.5, 1.5, len(IDS))
    judged = []
    for judge in ("x", "y", "z"):
        for a in range(len(IDS)):
            for b in range(len(IDS)):
                if a != b:
                    p = 1 / (1 + np.exp(truth[b] - truth[a] - 0.4))
                    winner = "tie" if rng.random() < 0.15 else "A" if rng.random() < p else "B"
                    judged.append(JudgedPair(IDS[a], IDS[b], winner, judge))  # type: ignore[arg-type]
    return judged


def every_part() -> Scale:
    """Return a scale whose model has all it can have."""
    return fit_bradley_terry(
        IDS, panel_verdicts(), position_effect=True, discrimination=True, ties="davidson"
    )


MODELS = {
    "plain": lambda: fit_bradley_terry(IDS, panel_verdicts()),
    "positions": lambda: fit_bradley_terry(IDS, panel_verdicts(), position_effect=True),
    "ties": lambda: fit_bradley_terry(IDS, panel_verdicts(), ties="davidson"),
    "everything": every_part,
}


def nearby(scale: Scale, posterior: Posterior, n_points: int = 3) -> np.ndarray:
    """Return points off the maximum, a column each."""
    best = posterior.column(scale.point)
    return best + 0.5 * np.random.default_rng(7).normal(size=(len(best), n_points))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("precision", [0.0, 0.6])
def test_the_gradient_is_the_one_found_a_point_at_a_time(name: str, precision: float) -> None:
    """Two ways to the same figures, whatever the model is made of."""
    scale = MODELS[name]()
    model = replace(scale.model, prior_precision=precision)
    posterior = Posterior(model)
    points = nearby(scale, posterior)

    found = posterior.at(points).gradients

    for column in range(points.shape[1]):
        gradient = gradient_at(model, posterior.point(points[:, [column]]), for_steps=False)
        alone = np.concatenate([gradient.theta, gradient.others])
        assert found[:, column] == pytest.approx(alone, rel=1e-9, abs=1e-7)


@pytest.mark.parametrize("name", MODELS)
def test_heights_rise_as_the_gradient_says(name: str) -> None:
    """The mean slope over a short way is that in its middle."""
    scale = MODELS[name]()
    posterior = Posterior(scale.model)
    points = nearby(scale, posterior, 1)
    way = 1e-4 * np.random.default_rng(3).normal(size=points.shape)
    if scale.discriminations:
        way[-4:-1] -= way[-4:-1].mean()

    risen = posterior.at(points + way).values - posterior.at(points - way).values

    assert risen[0] == pytest.approx(2 * float((way.T @ posterior.at(points).gradients)[0, 0]))


@pytest.mark.parametrize("name", ["plain", "positions", "ties"])
def test_the_bend_is_the_informations(name: str) -> None:
    """Along each direction, minus the second derivative."""
    scale = MODELS[name]()
    posterior = Posterior(scale.model)
    points = nearby(scale, posterior)
    ways = np.random.default_rng(5).normal(size=points.shape)

    here = posterior.at(points, ways)

    ahead, behind = posterior.at(points + 1e-5 * ways), posterior.at(points - 1e-5 * ways)
    fallen = (ahead.gradients - behind.gradients) / 2e-5
    assert here.curvatures == pytest.approx(-np.einsum("ij,ij->j", ways, fallen), rel=1e-5)
