"""Split-half reliability, by comparisons and by judges."""

from __future__ import annotations

import numpy as np
import pytest

from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.diagnostics.split_half import split_half
from cj_pipeline.errors import UnscalableBatchError

IDS = [f"e{i:02d}" for i in range(15)]


def _judged(n: int, truths: list[np.ndarray], seed: int = 0) -> list[JudgedPair]:
    """Return verdicts of judges each of whom sees the essays by a truth of their own."""
    rng = np.random.default_rng(seed)
    judged = []
    for number, truth in enumerate(truths):
        for _ in range(n):
            a, b = rng.choice(15, 2, replace=False)
            wins = rng.random() < 1 / (1 + np.exp(truth[b] - truth[a]))
            judged.append(JudgedPair(IDS[a], IDS[b], "A" if wins else "B", f"j{number}"))
    return judged


def test_clear_differences_give_halves_that_agree() -> None:
    """Many verdicts on essays far apart."""
    found = split_half(IDS, _judged(1500, [np.linspace(-2, 2, 15)]), by="comparisons", n_splits=20)

    assert found.median > 0.95
    assert found.lower <= found.median <= found.upper


def test_stepping_up_is_spearman_and_browns() -> None:
    """Twice the length of the halves: 2 r / (1 + r)."""
    found = split_half(IDS, _judged(300, [np.linspace(-1, 1, 15)]), by="comparisons", n_splits=20)

    assert found.stepped_up == pytest.approx(2 * found.median / (1 + found.median))


def test_judges_who_see_different_things_disagree_by_judges_only() -> None:
    """Splitting comparisons mixes the judges in both halves and hides it."""
    rng = np.random.default_rng(1)
    truths = [rng.normal(0, 1.5, 15) for _ in range(4)]
    judged = _judged(600, truths)

    by_judges = split_half(IDS, judged, by="judges", n_splits=20)
    by_comparisons = split_half(IDS, judged, by="comparisons", n_splits=20)

    assert by_judges.median < by_comparisons.median - 0.2


def test_one_judge_cannot_be_split() -> None:
    """Half a judge has no scale."""
    with pytest.raises(UnscalableBatchError, match="One judge"):
        split_half(IDS, _judged(200, [np.zeros(15)]), by="judges")


def test_halves_that_fall_apart_are_said_to() -> None:
    """A chain of single verdicts never leaves two connected halves."""
    chain = [JudgedPair(IDS[i], IDS[i + 1], "A") for i in range(14)]

    with pytest.raises(UnscalableBatchError, match="None of 10 random splits"):
        split_half(IDS, chain, by="comparisons", n_splits=10)


def test_two_essays_that_halves_disagree_on_have_no_reliability() -> None:
    """Their correlation is -1, from which no longer test can be foretold."""
    judged = [JudgedPair("e1", "e2", winner) for winner in "AB"]

    with pytest.raises(UnscalableBatchError, match="other way round"):
        split_half(["e1", "e2"], judged, by="comparisons", n_splits=10)
