"""What verdicts say about judges, on cases counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.diagnostics.consistency import (
    agreement_between_judges,
    judge_consistency,
    share_of,
    transitivity,
)
from cj_pipeline.scale.scoring import swap_consistent, swap_weights

IDS = ["a", "b", "c"]


def _j(a: str, b: str, winner: str, judge: str = "j") -> JudgedPair:
    return JudgedPair(a, b, winner, judge)  # type: ignore[arg-type]


def test_wilsons_interval_of_half_of_ten() -> None:
    """The textbook case: 5 of 10 lies between .237 and .763."""
    share = share_of(5, 10)

    assert (share.lower, share.upper) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_no_cases_leave_the_share_open() -> None:
    """Nothing seen is neither agreement nor disagreement."""
    share = share_of(0, 0)

    assert np.isnan(share.share)
    assert (share.lower, share.upper) == (0, 1)


def test_a_judge_who_always_takes_the_first_never_agrees_after_swapping() -> None:
    """Position bias at its purest: a wins as A, b wins as A."""
    found = judge_consistency(IDS, [_j("a", "b", "A"), _j("b", "a", "A")])["j"]

    assert found.first_wins.share == 1
    assert (found.swap_agreement.n, found.swap_agreement.share) == (1, 0)


def test_a_judge_who_keeps_to_the_essay_agrees_after_swapping() -> None:
    """a wins in either place."""
    found = judge_consistency(IDS, [_j("a", "b", "A"), _j("b", "a", "B")])["j"]

    assert (found.swap_agreement.n, found.swap_agreement.share) == (1, 1)


def test_ties_in_both_orders_agree() -> None:
    """Twice undecided is consistent."""
    found = judge_consistency(IDS, [_j("a", "b", "tie"), _j("b", "a", "tie")])["j"]

    assert found.swap_agreement.share == 1
    assert found.first_wins.n == 0


def test_repeats_in_the_same_order_are_counted_apart() -> None:
    """They separate chance from position."""
    judged = [_j("a", "b", "A"), _j("a", "b", "A"), _j("b", "c", "A"), _j("b", "c", "B")]

    found = judge_consistency(IDS, judged)["j"]

    assert (found.repeat_agreement.n, found.repeat_agreement.share) == (2, 0.5)
    assert found.swap_agreement.n == 0


def test_two_judges_agree_on_the_pairs_both_saw() -> None:
    """One pair alike, one not, one seen by one judge only."""
    judged = [
        _j("a", "b", "A", "x"),
        _j("b", "a", "B", "y"),
        _j("b", "c", "A", "x"),
        _j("b", "c", "B", "y"),
        _j("a", "c", "A", "x"),
    ]

    share = agreement_between_judges(IDS, judged)["x", "y"]

    assert (share.n, share.share) == (2, 0.5)


def test_a_ring_of_three_is_circular() -> None:
    """a beat b, b beat c, c beat a."""
    found = transitivity(IDS, [_j("a", "b", "A"), _j("b", "c", "A"), _j("a", "c", "B")])

    assert (found.n_triples, found.n_circular, found.share) == (1, 1, 1.0)


def test_a_row_of_three_is_not() -> None:
    """a beat b, b beat c, a beat c."""
    found = transitivity(IDS, [_j("a", "b", "A"), _j("b", "c", "A"), _j("a", "c", "A")])

    assert (found.n_triples, found.n_circular, found.share) == (1, 0, 0.0)


def test_tossed_winners_make_a_quarter_of_triples_circular() -> None:
    """Of eight ways to turn three arrows two are rings."""
    rng = np.random.default_rng(0)
    ids = [f"e{i:02d}" for i in range(40)]
    judged = [_j(x, y, "AB"[rng.integers(2)]) for x in ids for y in ids if x < y]

    assert transitivity(ids, judged).share == pytest.approx(0.25, abs=0.02)


def test_only_pairs_that_stood_the_swap_are_kept() -> None:
    """One that turned with its place and one never swapped are left out."""
    stood = [_j("a", "b", "A"), _j("b", "a", "B")]
    turned = [_j("b", "c", "A"), _j("c", "b", "A")]
    unswapped = [_j("a", "c", "A"), _j("a", "c", "A")]

    assert swap_consistent([*stood, *turned, *unswapped]) == tuple(stood)


def test_the_softer_form_weighs_the_others_down() -> None:
    """The same verdicts, kept at a quarter."""
    judged = [_j("a", "b", "A"), _j("b", "a", "B"), _j("b", "c", "A")]

    assert swap_weights(judged, weight_of_inconsistent=0.25).tolist() == [1, 1, 0.25]
