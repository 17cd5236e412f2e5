"""Which judge of a panel gets which pair."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cj_pipeline.intake.settings import resolve_settings
from cj_pipeline.pairing.judge_shares import (
    judges_of_pair,
    pairs_as_chosen,
    shares_problem,
    shares_with_common,
)


def _shared_out(shares: list[float], n_pairs: int) -> list[tuple[int, ...]]:
    n_asked = [0] * len(shares)
    judged = []
    for place in range(n_pairs):
        judges = judges_of_pair(place, shares, n_asked)
        for judge in judges:
            n_asked[judge] += 1
        judged.append(judges)
    return judged


def test_without_shares_every_judge_is_asked_about_every_pair() -> None:
    """The same pairs for all is what agreement is measured on."""
    assert _shared_out([1.0, 1.0, 1.0], 4) == [(0, 1, 2)] * 4


def test_shares_that_add_up_to_one_give_each_pair_to_one_judge() -> None:
    """Seven of ten pairs to the one, three to the other, spread evenly."""
    judged = _shared_out([0.7, 0.3], 10)

    assert all(len(judges) == 1 for judges in judged)
    assert [judge for (judge,) in judged].count(0) == 7
    assert [judge for (judge,) in judged][:4].count(1) == 1


def test_a_small_share_overlaps_with_a_judge_of_all_pairs() -> None:
    """Every fifth pair is judged by both, which is how a dear judge checks a cheap one."""
    judged = _shared_out([1.0, 0.2], 10)

    assert all(0 in judges for judges in judged)
    assert [place for place, judges in enumerate(judged) if 1 in judges] == [4, 9]


@given(st.lists(st.integers(1, 20), min_size=2, max_size=5), st.integers(1, 200))
def test_every_judge_has_its_share_of_the_pairs(weights: list[int], n_pairs: int) -> None:
    """Whatever the shares, nobody is ever further from its own than the panel is large."""
    shares = [weight / sum(weights) for weight in weights]

    judged = _shared_out(shares, n_pairs)

    assert all(judged)
    for judge, share in enumerate(shares):
        had = sum(judge in judges for judges in judged)
        assert math.isclose(had, share * n_pairs, abs_tol=len(shares))


def test_rows_are_put_together_as_the_pairs_they_were_chosen_as() -> None:
    """Asked again, or in the other order, a pair is another choice."""
    judged = [("a", "b", "x"), ("a", "b", "y"), ("b", "a", "x"), ("b", "a", "x"), ("c", "d", "y")]

    assert pairs_as_chosen(judged) == [[0, 1], [2], [3], [4]]


@pytest.mark.parametrize(
    ("shares", "problem"),
    [
        ({"quality": 0.5, "recorded": 0.2}, "add up to 0.7"),
        ({"quality": 1.0, "recorded": 0.5, "quallity": 0.5}, "quallity is not among `judges`"),
    ],
)
def test_shares_that_leave_something_open_are_refused(
    shares: dict[str, float], problem: str
) -> None:
    """A pair without a judge, or a share for an unknown judge, is a mistake."""
    assert problem in (shares_problem(shares, ["quality", "recorded"]) or "")

    resolved, problems = resolve_settings(
        {"judges": ["quality", "recorded"], "judge_shares": shares}
    )

    assert resolved is None
    assert problem in problems[0]


def test_a_panel_shares_every_fifth_pair_and_takes_turns_at_the_others() -> None:
    """Different pairs tell more; the common ones show how alike the judges are."""
    n_asked, common, alone = [0, 0, 0], 0, 0
    for place in range(100):
        judges = judges_of_pair(place, shares_with_common(3, 0.2), n_asked, common=0.2)
        common, alone = common + (len(judges) == 3), alone + (len(judges) == 1)
        for judge in judges:
            n_asked[judge] += 1

    assert (common, alone) == (20, 80)
    assert max(n_asked) - min(n_asked) <= 1
    assert sum(n_asked) == pytest.approx(100 * sum(shares_with_common(3, 0.2)))


def test_all_pairs_in_common_is_what_panels_were() -> None:
    """Batches begun before go on as they began."""
    assert judges_of_pair(7, shares_with_common(2, 1.0), [7, 7], common=1.0) == (0, 1)
