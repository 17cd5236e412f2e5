"""The words of a batch's goal."""

from __future__ import annotations

import pytest

from cj_pipeline.batch.options import Goal, goal_of


@pytest.mark.parametrize(
    ("text", "goal"),
    [
        ("ranking", Goal("ranking")),
        ("grades", Goal("grades")),
        ("top(10)", Goal("top", count=10)),
        ("top( 10 % )".replace(" % ", "% "), Goal("top", share=0.1)),
        ("cut(40%)", Goal("cut", share=0.4)),
        ("cut(C+)", Goal("cut", grade="C+")),
    ],
)
def test_a_goal_says_what_is_to_be_made_sure(text: str, goal: Goal) -> None:
    """How many, which share or which grade stands in brackets."""
    assert goal_of(text) == goal


@pytest.mark.parametrize(
    "text", ["top", "top()", "top(0)", "top(a)", "top(100%)", "cut(0%)", "best"]
)
def test_what_is_no_goal_is_refused_in_words(text: str) -> None:
    """A batch must not be judged for another purpose than somebody meant."""
    with pytest.raises(ValueError, match=r"no goal|share lies|top takes"):
        goal_of(text)


def test_a_share_leaves_somebody_on_either_side() -> None:
    """A tenth of four students is one student, and nine tenths are three."""
    assert Goal("top", share=0.1).n_above(4) == 1
    assert Goal("cut", share=0.9).n_above(4) == 3
