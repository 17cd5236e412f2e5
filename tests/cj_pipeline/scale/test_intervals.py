"""Intervals of scores: by hand, by another optimiser, by laws, and by what they hold."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq, minimize

from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.scale.bradley_terry import Scale, fit_bradley_terry
from cj_pipeline.scale.intervals import verdict_intervals
from cj_pipeline.scale.log_posterior import Posterior
from tests.cj_pipeline.scale.test_log_posterior import every_part

ALLOWED = 0.5 * 1.959963984540054**2


def judged_at_random(
    n: int, per_essay: int, rng: np.random.Generator
) -> tuple[np.ndarray, list[JudgedPair]]:
    """Return true scores, and verdicts on a ring of essays and on random pairs."""
    truth = rng.normal(0, 1.5, n)
    ring = rng.permutation(n)
    pairs = list(zip(ring, np.roll(ring, 1), strict=True))
    for _ in range(per_essay - 2):
        order = rng.permutation(n)
        pairs += list(zip(order[: n // 2], order[n // 2 :], strict=True))
    return truth, [
        JudgedPair(
            str(a), str(b), "A" if rng.random() < 1 / (1 + np.exp(truth[b] - truth[a])) else "B"
        )
        for a, b in pairs
    ]


def some_scale(n: int = 20, per_essay: int = 8, seed: int = 4) -> Scale:
    """Return a scale on which something always won."""
    _, judged = judged_at_random(n, per_essay, np.random.default_rng(seed))
    return fit_bradley_terry([str(i) for i in range(n)], judged)


def test_two_essays_have_the_interval_found_by_hand() -> None:
    """Their scores are plus and minus half their distance, so one number has to be sought."""
    judged = [JudgedPair("x", "y", w) for w in "AAAAAAAB"]  # type: ignore[arg-type]
    scale = fit_bradley_terry(["x", "y"], judged)

    def log_density(distance: float) -> float:
        wins = 7 * distance - 8 * np.logaddexp(0, distance)
        # Each has met an average essay half a time and won half of that.
        prior = -0.5 * sum(np.logaddexp(0, s * distance / 2) for s in (-1, 1))
        return float(wins + prior)

    best = scale.scores[0] - scale.scores[1]
    lower, upper = (
        brentq(lambda d: log_density(d) - log_density(best) + ALLOWED, best, best + far)
        for far in (-9, 9)
    )

    found = verdict_intervals(scale)

    assert (found.lower[0], found.upper[0]) == pytest.approx((lower / 2, upper / 2), abs=1e-6)
    assert (found.lower[1], found.upper[1]) == pytest.approx((-upper / 2, -lower / 2), abs=1e-6)


def test_no_scale_with_the_score_at_an_end_is_more_probable_than_allowed() -> None:
    """All else re-optimised by another program, with everything in the model that can be."""
    scale = every_part()
    posterior = Posterior(scale.model)
    n = len(scale.essay_ids)
    best = posterior.column(scale.point)
    contrast = np.full(len(best), 0.0)
    contrast[:n] = -1 / n
    contrast[2] += 1

    found = verdict_intervals(scale)

    for end in (found.lower[2], found.upper[2]):
        # Log discriminations stay among those with mean zero, where the stiff hold is no matter.
        there = minimize(
            lambda x: -posterior.at(x[:, None]).values[0],
            best[:, 0],
            jac=lambda x: -posterior.at(x[:, None]).gradients[:, 0],
            constraints=[
                {
                    "type": "eq",
                    "fun": lambda x, end=end: contrast @ x - end,
                    "jac": lambda x: contrast,
                },
                {"type": "eq", "fun": lambda x: x[-4:-1].sum(), "jac": _sum_of_logs},
            ],
            method="SLSQP",
            options={"ftol": 1e-12, "maxiter": 500},
        )
        assert there.success
        assert posterior.at(best).values[0] + there.fun == pytest.approx(ALLOWED, abs=1e-4)
    assert not found.is_normal.any()


def _sum_of_logs(x: np.ndarray) -> np.ndarray:
    gradient = np.zeros(len(x))
    gradient[-4:-1] = 1
    return gradient


def test_an_essay_that_won_everything_has_the_further_of_both_ends() -> None:
    """Outward, where verdicts set no limit, the prior's; inward the normal one, for it had luck."""
    scale = some_scale()
    place = scale.essay_ids.index(max(scale.one_sided, key=lambda e: scale.scores[int(e)]))

    found = verdict_intervals(scale)

    normal = 1.96 * scale.standard_errors[place]
    outward = found.upper[place] - scale.scores[place]
    inward = scale.scores[place] - found.lower[place]
    assert normal * 1.05 < outward < np.inf
    assert inward == pytest.approx(normal, rel=1e-4)


def test_turning_every_verdict_around_turns_the_intervals_around() -> None:
    """Best and worst are names only."""
    _, judged = judged_at_random(12, 6, np.random.default_rng(2))
    ids = [str(i) for i in range(12)]
    turned = [JudgedPair(v.essay_b, v.essay_a, v.winner, v.judge_id) for v in judged]

    one = verdict_intervals(fit_bradley_terry(ids, judged))
    other = verdict_intervals(fit_bradley_terry(ids, turned))

    assert other.lower == pytest.approx(-one.upper, abs=1e-6)
    assert other.upper == pytest.approx(-one.lower, abs=1e-6)


def test_ends_sought_one_by_one_are_those_sought_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not come to rest with the others must not end elsewhere."""
    scale = some_scale()
    together = verdict_intervals(scale)

    monkeypatch.setattr("cj_pipeline.scale.intervals._STEPS_TOGETHER", 0)
    alone = verdict_intervals(scale)

    assert alone.lower == pytest.approx(together.lower, abs=1e-6)
    assert alone.upper == pytest.approx(together.upper, abs=1e-6)


def test_large_batches_have_normal_intervals_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the stated limit the search would take minutes."""
    scale = some_scale()
    monkeypatch.setattr("cj_pipeline.scale.intervals.MAX_ESSAYS", 19)

    found = verdict_intervals(scale)

    assert found.is_normal.all()
    assert found.upper - scale.scores == pytest.approx(1.96 * scale.standard_errors, rel=1e-4)


def test_with_few_comparisons_they_hold_the_truth_as_often_as_they_say() -> None:
    """Normal intervals, of the same 60 batches, more often than they say."""
    rng = np.random.default_rng(11)
    held, held_by_normal = [], []
    for _ in range(60):
        truth, judged = judged_at_random(20, 10, rng)
        scale = fit_bradley_terry([str(i) for i in range(20)], judged)
        found = verdict_intervals(scale)
        centred = truth - truth.mean()
        held.append(np.mean((found.lower <= centred) & (centred <= found.upper)))
        off = np.abs(centred - scale.scores)
        held_by_normal.append(np.mean(off <= 1.96 * scale.standard_errors))

    assert 0.93 <= np.mean(held) <= 0.97
    assert np.mean(held_by_normal) > np.mean(held) + 0.004
