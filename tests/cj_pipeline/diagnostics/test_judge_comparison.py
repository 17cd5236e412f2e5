"""Agreement between judges, against published examples and the laws of the coefficients."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cj_pipeline.diagnostics.judge_comparison import (
    by_judge,
    cohen_kappa,
    compare_verdicts,
    fleiss_kappa,
    share_with_error,
)


def test_cohens_kappa_of_a_textbook_table() -> None:
    """Fifty grant proposals: 20 both yes, 15 both no, 5 and 10 apart; 0.4."""
    said = [("A", "A")] * 20 + [("A", "B")] * 5 + [("B", "A")] * 10 + [("B", "B")] * 15

    assert cohen_kappa(said) == pytest.approx(0.4)


def test_fleiss_kappa_of_a_textbook_table() -> None:
    """Ten items, fourteen judges, five categories; 0.210."""
    counts = [
        (0, 0, 0, 0, 14), (0, 2, 6, 4, 2), (0, 0, 3, 5, 6), (0, 3, 9, 2, 0), (2, 2, 8, 1, 1),
        (7, 7, 0, 0, 0), (3, 2, 6, 3, 0), (2, 5, 3, 2, 2), (6, 5, 2, 1, 0), (0, 2, 2, 3, 7),
    ]  # fmt: skip
    table = [dict(zip("ABCDE", row, strict=True)) for row in counts]

    assert fleiss_kappa(table) == pytest.approx(0.210, abs=0.0005)


def test_judges_who_always_say_the_same_one_thing_have_no_kappa() -> None:
    """Chance alone would agree on everything, so nothing can be said beyond it."""
    assert cohen_kappa([("A", "A")] * 9) is None
    assert fleiss_kappa([{"A": 3}] * 9) is None


_SAID = st.lists(st.tuples(st.sampled_from("ABt"), st.sampled_from("ABt")), min_size=1, max_size=40)


@given(said=_SAID)
def test_cohens_kappa_does_not_depend_on_who_is_named_first(said: list[tuple[str, str]]) -> None:
    """And never leaves its range."""
    kappa = cohen_kappa(said)

    assert kappa == pytest.approx(cohen_kappa([(b, a) for a, b in said])) if kappa else True
    assert kappa is None or -1 <= kappa <= 1


@given(said=_SAID)
def test_full_agreement_is_one(said: list[tuple[str, str]]) -> None:
    """However the verdicts are spread, as long as there are two."""
    alike = [(a, a) for a, _ in said]

    assert cohen_kappa(alike) == (None if len(set(alike)) == 1 else pytest.approx(1.0))


def row(judge: str, a: str, b: str, winner: str) -> dict[str, object]:
    """Return a decided comparison."""
    return {"judge_id": judge, "essay_a": a, "essay_b": b, "winner": winner}


def test_only_the_same_essays_in_the_same_order_are_one_item() -> None:
    """In the other order it is another question, and judged again it is another item."""
    rows = [
        row("one", "x", "y", "A"),
        row("two", "x", "y", "A"),
        row("one", "y", "x", "B"),
        row("one", "x", "y", "B"),
        row("two", "x", "y", "A"),
    ]

    (pair,), n_items, _ = compare_verdicts(by_judge(rows))

    assert (pair.n_items, pair.agreement, n_items) == (2, 0.5, 2)


def test_a_single_judge_agrees_with_nobody() -> None:
    """And that is no error."""
    assert compare_verdicts(by_judge([row("one", "x", "y", "A")])) == ((), 0, None)


def test_judges_without_common_items_have_no_agreement() -> None:
    """None is not zero."""
    rows = [row("one", "x", "y", "A"), row("two", "x", "z", "A")]

    (pair,), n_items, kappa = compare_verdicts(by_judge(rows))

    assert (pair.n_items, pair.agreement, pair.kappa, n_items, kappa) == (0, None, None, 0, None)


def test_a_share_of_nothing_but_firsts_still_has_an_error() -> None:
    """Three of three is no proof of a bias."""
    share, error = share_with_error(3, 3)

    assert share == 1
    assert error is not None
    assert error > 0.1
    assert share_with_error(0, 0) == (None, None)
