"""Positions: how even they were, and whether judges preferred one."""

from __future__ import annotations

import pytest

from cj_pipeline.diagnostics.position_balance import first_shown_share, positional_skews


def test_skew_is_zero_for_even_and_one_for_always_the_same_place() -> None:
    """`b` is shown in both places, `a` only first."""
    comparisons = [{"essay_a": "a", "essay_b": "b"}, {"essay_a": "b", "essay_b": "c"}]

    assert positional_skews(comparisons) == {"a": 1.0, "b": 0.0, "c": 1.0}


def test_a_tie_counts_half_for_the_first_shown() -> None:
    """It says nothing of either place."""
    share = first_shown_share([{"winner": "tie"}, {"winner": "tie"}])

    assert share.share == 0.5


def test_the_interval_is_wilsons() -> None:
    """Worked by hand for 8 of 10: 0.490 to 0.943."""
    share = first_shown_share([{"winner": "A"}] * 8 + [{"winner": "B"}] * 2)

    assert (share.lower, share.upper) == pytest.approx((0.490, 0.943), abs=0.001)
    assert share.is_even


def test_a_clear_preference_is_not_even() -> None:
    """Eighty of a hundred is no accident."""
    share = first_shown_share([{"winner": "A"}] * 80 + [{"winner": "B"}] * 20)

    assert not share.is_even


def test_without_verdicts_nothing_is_known() -> None:
    """The widest interval there is."""
    share = first_shown_share([])

    assert (share.lower, share.upper) == (0.0, 1.0)
