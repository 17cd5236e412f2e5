"""Which pairs people get: the random part is as likely as it says, the rest tells most."""

from __future__ import annotations

import numpy as np
import pytest

from cj_pipeline.pairing.people_pairs import (
    JudgedByModels,
    drawn,
    most_telling,
    n_due,
    telling,
)


@pytest.mark.parametrize("rate", [0.05, 0.1, 1 / 3, 1.0])
def test_each_pair_is_drawn_as_often_as_its_probability_says(rate: float) -> None:
    """Over all starts, which is what makes estimates from the random part unbiased."""
    starts = (np.arange(2000) + 0.5) / 2000
    times = np.zeros(23)
    for start in starts:
        times[drawn(rate, 23, float(start))] += 1

    assert times / len(starts) == pytest.approx(rate, abs=2e-3)


def test_a_longer_list_draws_the_same_of_its_first_pairs() -> None:
    """So that a draw can be continued wave by wave."""
    first, all_of_them = drawn(0.1, 40, 0.37), drawn(0.1, 90, 0.37)

    assert [i for i in all_of_them if i < 40] == first
    assert len(all_of_them) == 9


def test_half_a_verdict_is_due_as_one() -> None:
    """Ten per cent of 45 pairs are five."""
    assert [n_due(0.1, n) for n in (0, 4, 5, 45, 100)] == [0, 0, 1, 5, 10]


def test_disagreement_surprise_and_boundaries_are_each_found_and_named() -> None:
    """A person is told why a pair was given."""
    split = JudgedByModels(("a", "b"), ("a", "b"), 0.5)
    unlikely = JudgedByModels(("a", "b"), ("b",), 0.95)
    near = JudgedByModels(("a", "b"), ("a",), 0.8, p_above=(0.5,))
    dull = JudgedByModels(("a", "b"), ("a",), 0.95, p_above=(0.999,))

    assert [telling(p).why for p in (split, unlikely, near)] == [
        "judges disagree",
        "unexpected verdict",
        "near a boundary",
    ]
    assert telling(dull).gain < 0.01 < min(telling(p).gain for p in (split, unlikely, near))


def test_the_most_telling_pairs_are_spread_over_essays() -> None:
    """Ten verdicts on one odd essay say little of a class."""
    pairs = [JudgedByModels(("odd", name), ("odd", name), 0.5) for name in "abc"]
    pairs.append(JudgedByModels(("x", "y"), ("y",), 0.7))

    chosen = most_telling(pairs, 2)

    assert [each.pair for each in chosen] == [("odd", "a"), ("x", "y")]
    assert len(most_telling(pairs, 9)) == 4
