"""What a scale has reached, against what a batch may require of it."""

from __future__ import annotations

import numpy as np
import pytest

from cj_pipeline.batch.options import Goal, PrecisionTargets
from cj_pipeline.scale.bradley_terry import Scale, fit_verdicts
from cj_pipeline.scale.score_posterior import score_posterior
from cj_pipeline.scale.tallies import Verdicts
from cj_pipeline.stopping.precision import Precision, meets, misplaced, precision_of

STANDS = Precision(
    reliability=0.85,
    mean_standard_error=0.3,
    max_standard_error=0.5,
    misgrading=0.25,
    gain_per_usd=2.0,
    misplaced=0.2,
)


@pytest.mark.parametrize(
    ("target", "met", "missed"),
    [
        ("reliability", 0.8, 0.9),
        ("mean_standard_error", 0.3, 0.29),
        ("max_standard_error", 0.6, 0.4),
        ("misgrading", 0.3, 0.2),
        ("gain_per_usd", 2.5, 1.5),
        ("misplaced", 0.25, 0.1),
    ],
)
def test_each_target_is_met_on_its_own_side(target: str, met: float, missed: float) -> None:
    """A reliability has to be at least the target, an error or a gain at most."""
    assert meets(STANDS, PrecisionTargets(**{target: met}))
    assert not meets(STANDS, PrecisionTargets(**{target: missed}))


def test_every_target_given_has_to_be_met() -> None:
    """With two targets, both must be met."""
    assert meets(STANDS, PrecisionTargets(reliability=0.8, misgrading=0.3))
    assert not meets(STANDS, PrecisionTargets(reliability=0.9, misgrading=0.3))


@pytest.mark.parametrize("target", ["misgrading", "gain_per_usd", "misplaced"])
def test_a_figure_nobody_knows_meets_no_target(target: str) -> None:
    """A batch whose anchors carry no grades must not end as precise for that."""
    unknown = Precision(reliability=0.85, mean_standard_error=0.3, max_standard_error=0.5)

    assert not meets(unknown, PrecisionTargets(**{target: 0.99}))


def judged(n: int, per_essay: int, seed: int) -> tuple[np.ndarray, Scale]:
    """Return true scores and the scale of a logistic judge asked pairs at random."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, 1.5, n)
    orders = [rng.permutation(n) for _ in range(per_essay)]
    first = np.concatenate([order[: n // 2] for order in orders])
    second = np.concatenate([order[n // 2 :] for order in orders])
    won = 2 * (rng.random(len(first)) < 1 / (1 + np.exp(truth[second] - truth[first])))
    ids = tuple(f"e{i:03d}" for i in range(n))
    return truth, fit_verdicts(Verdicts(ids, ("j",), first, second, won, np.zeros_like(first)))


@pytest.mark.parametrize(
    "goal", [Goal("top", share=0.2), Goal("top", count=10), Goal("cut", share=0.5)]
)
def test_as_many_are_misplaced_as_is_expected(goal: Goal) -> None:
    """A batch that stops at a tenth misplaced must have a tenth misplaced, over many batches."""
    expected, true = [], []
    for seed in range(24):
        truth, scale = judged(50, 8, seed)
        posterior = score_posterior(scale)
        n_above = goal.n_above(50) or 0
        best = set(np.argsort(-truth)[:n_above].tolist())
        named = np.argsort(-posterior.scores)[:n_above].tolist()
        wrong = sum(i not in best for i in named)
        expected.append(misplaced(posterior, goal) or 0.0)
        true.append(wrong / n_above if goal.kind == "top" else 2 * wrong / 50)

    assert np.mean(expected) == pytest.approx(np.mean(true), abs=0.06)


def test_anchors_are_nobody_to_be_named() -> None:
    """The ten best are ten students, whatever anchors lie above them."""
    truth, scale = judged(50, 8, seed=1)
    anchors = np.argsort(-truth)[:5].tolist()
    students = [essay_id for i, essay_id in enumerate(scale.essay_ids) if i not in anchors]

    found = precision_of(scale, students, goal=Goal("top", count=44))

    assert found.misplaced is not None
    assert 0 < found.misplaced < 0.1


def test_where_ranks_are_the_goal_nobody_is_misplaced() -> None:
    """The figure has no meaning without a cut."""
    _, scale = judged(50, 8, seed=1)

    assert precision_of(scale, scale.essay_ids, goal=Goal("ranking")).misplaced is None
