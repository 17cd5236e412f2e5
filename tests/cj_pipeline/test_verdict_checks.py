"""Verdicts against each other and against the scores."""

from __future__ import annotations

from typing import Any

import pytest

from cj_pipeline.verdict_checks import essay_fits, judges_agreement, self_agreement, surprises


def verdict(a: str, b: str, winner: str, judge: str = "j", sequence: int = 1) -> dict[str, Any]:
    """Return a comparison as stored."""
    ids = {"A": (a, b), "B": (b, a), "tie": (None, None)}[winner]
    return {
        "essay_a": a,
        "essay_b": b,
        "winner": winner,
        "winner_id": ids[0],
        "loser_id": ids[1],
        "judge_id": judge,
        "sequence": sequence,
    }


def test_a_judge_that_follows_the_position_contradicts_itself_in_reversed_order() -> None:
    """Always Essay A is consistent in the same order and never in the other."""
    verdicts = [verdict("x", "y", "A"), verdict("y", "x", "A"), verdict("x", "y", "A")]

    reversed_order = self_agreement(verdicts, reversed_order=True)["j"]
    same_order = self_agreement(verdicts, reversed_order=False)["j"]

    assert (reversed_order.n, reversed_order.share) == (2, 0.0)
    assert (same_order.n, same_order.share) == (1, 1.0)


def test_two_judges_agree_on_the_essay_whatever_the_order_shown() -> None:
    """The pair is the same; only the labels differ."""
    verdicts = [verdict("x", "y", "A", "one"), verdict("y", "x", "B", "two")]

    agreement = judges_agreement(verdicts)["one", "two"]

    assert (agreement.n, agreement.share) == (1, 1.0)


def test_nothing_compared_is_no_share() -> None:
    """Zero of zero is neither full agreement nor none."""
    assert self_agreement([verdict("x", "y", "A")], reversed_order=True) == {}


def test_a_weak_essays_win_over_a_strong_one_is_a_surprise() -> None:
    """Two logits apart, it happens in 12 of 100 comparisons."""
    verdicts = [verdict("weak", "strong", "A"), verdict("weak", "strong", "B")]

    (found,) = surprises(verdicts, {"weak": -1.0, "strong": 1.0}, below=0.2)

    assert found.comparison["winner_id"] == "weak"
    assert found.probability == pytest.approx(0.1192, abs=1e-4)


def test_verdicts_between_equals_fit_exactly() -> None:
    """A coin's residual is as large as its variance, so the mean square is 1."""
    fit = essay_fits([verdict("x", "y", "A")], {"x": 0.0, "y": 0.0})["x"]

    assert (fit.n, fit.infit, fit.outfit) == (1, 1.0, 1.0)


def test_infit_weighs_by_information_and_outfit_does_not() -> None:
    """By hand: p = .5 and .8808 (two logits), both lost by the first."""
    scores = {"x": 2.0, "same": 2.0, "low": 0.0}
    verdicts = [verdict("x", "same", "B"), verdict("x", "low", "B")]

    fit = essay_fits(verdicts, scores)["x"]

    p = 0.880797
    assert fit.infit == pytest.approx((0.25 + p**2) / (0.25 + p * (1 - p)), abs=1e-4)
    assert fit.outfit == pytest.approx((1 + p / (1 - p)) / 2, abs=1e-4)
