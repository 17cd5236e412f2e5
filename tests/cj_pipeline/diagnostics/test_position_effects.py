"""Position effects without the scores' stretch: at the maximum they name, and near the truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.diagnostics.position_effects import marginal_maximum, marginal_position_effects
from cj_pipeline.diagnostics.reliability import empirical_bayes
from cj_pipeline.scale.bradley_terry import fit_bradley_terry, maximise
from cj_pipeline.scale.laplacian import dense
from cj_pipeline.scale.likelihood import gradient_at
from cj_pipeline.scale.log_posterior import Posterior
from tests.cj_pipeline.scale.test_log_posterior import IDS, MODELS, panel_verdicts


def judged_by_an_eager_one(
    rng: np.random.Generator, *, n: int = 30, per_essay: int = 12, spread: float = 1.5
) -> tuple[list[str], list[JudgedPair]]:
    """Return verdicts on random pairs of a judge to whom being first is worth 0.8 logits."""
    truth = rng.normal(0, spread, n)
    judged = []
    for _ in range(per_essay):
        order = rng.permutation(n)
        for a, b in zip(order[: n // 2], order[n // 2 :], strict=True):
            wins = rng.random() < 1 / (1 + np.exp(truth[b] - truth[a] - 0.8))
            judged.append(JudgedPair(str(a), str(b), "A" if wins else "B", "eager"))
    return [str(i) for i in range(n)], judged


@pytest.mark.parametrize("name", ["positions", "everything"])
def test_they_are_where_the_marginal_posterior_is_highest(name: str) -> None:
    """Laplace's integral, worked out on both sides, rises along no parameter."""
    scale = MODELS[name]()
    point = marginal_maximum(scale)
    model = replace(scale.model, prior_precision=empirical_bayes(scale).true_sd ** -2)
    posterior = Posterior(model)
    n, best = len(IDS), posterior.column(point)

    def log_density(row: int, shift: float) -> float:
        there = best.copy()
        there[row] += shift
        settled, _ = maximise(model, posterior.point(there), holds_judges=True)
        essays = gradient_at(model, settled, for_steps=True).information.essays
        tall = posterior.at(posterior.column(settled)).values[0]
        return float(tall - 0.5 * np.linalg.slogdet(dense(essays))[1])

    is_log_a = np.arange(len(best)) - n - len(model.positions)
    for row in range(n, len(best)):
        # Log discriminations move in opposite pairs, since their mean is held at zero.
        if scale.discriminations and 0 <= is_log_a[row] < 3:
            continue
        rise = (log_density(row, 1e-3) - log_density(row, -1e-3)) / 2e-3
        curvature = log_density(row, 0.05) + log_density(row, -0.05) - 2 * log_density(row, 0)
        assert curvature < 0
        assert rise == pytest.approx(0, abs=2e-3)


def test_what_is_simulated_comes_back_unstretched() -> None:
    """Beside the scores 0.8 comes back as .92 at 12 comparisons an essay; here nearly as itself."""
    rng = np.random.default_rng(8)
    plain, marginal, held = [], [], []
    for _ in range(60):
        ids, judged = judged_by_an_eager_one(rng)
        scale = fit_bradley_terry(ids, judged, position_effect=True)
        found = marginal_position_effects(scale)["eager"]
        plain.append(scale.position_effects["eager"].value)
        marginal.append(found.value)
        held.append(abs(found.value - 0.8) <= 1.96 * found.standard_error)

    error = np.std(marginal, ddof=1) / np.sqrt(len(marginal))
    assert abs(np.mean(marginal) - 0.8) < 2 * error
    assert np.mean(plain) > np.mean(marginal) + 0.03
    assert 0.88 <= np.mean(held) <= 1.0


def test_showing_everything_the_other_way_round_turns_the_sign() -> None:
    """First and second are names only."""
    turned = [
        JudgedPair(v.essay_b, v.essay_a, {"A": "B", "B": "A", "tie": "tie"}[v.winner], v.judge_id)  # type: ignore[arg-type]
        for v in panel_verdicts()
    ]

    one = marginal_position_effects(MODELS["positions"]())
    other = marginal_position_effects(fit_bradley_terry(IDS, turned, position_effect=True))

    for judge_id, found in one.items():
        assert other[judge_id].value == pytest.approx(-found.value, abs=1e-4)


def test_essays_that_do_not_differ_leave_the_share_of_first_wins() -> None:
    """With no spread to integrate over, the effect is the log odds of winning when first."""
    rng = np.random.default_rng(1)
    ids, judged = judged_by_an_eager_one(rng, n=10, per_essay=40, spread=0.0)
    share = np.mean([v.winner == "A" for v in judged])

    found = marginal_position_effects(fit_bradley_terry(ids, judged, position_effect=True))

    assert found["eager"].value == pytest.approx(np.log(share / (1 - share)), abs=0.03)


def test_where_they_are_off_there_are_none() -> None:
    """A figure that was not estimated is not reported."""
    assert marginal_position_effects(MODELS["plain"]()) == {}
