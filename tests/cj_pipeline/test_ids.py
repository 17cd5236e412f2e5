"""Ids made from the names people give."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cj_pipeline.ids import ID, id_for, nearest, unknown


@given(name=st.text(max_size=300))
def test_every_name_gives_a_valid_id(name: str) -> None:
    """Whatever a file is called, its id can travel to every provider."""
    assert ID.fullmatch(id_for(name, prefix="essay"))


@given(name=st.from_regex(ID, fullmatch=True))
def test_a_valid_id_stays_as_it_is(name: str) -> None:
    """People find the names they gave."""
    assert id_for(name, prefix="essay") == name


def test_long_names_that_begin_alike_stay_apart() -> None:
    """The checksum tells apart what is cut off."""
    first, second = id_for("a" * 100 + "1", prefix="essay"), id_for("a" * 100 + "2", prefix="essay")

    assert first != second


def test_names_without_latin_letters_stay_apart() -> None:
    """A class in Kyiv has ids too."""
    assert id_for("Оля", prefix="essay") != id_for("Ігор", prefix="essay")


def test_an_unknown_name_is_told_with_the_nearest_known_one() -> None:
    """Most unknown names are misspelt, and the person wants to read how it is spelt."""
    assert unknown("key", "sede", ["title", "seed"]) == "unknown key 'sede'; did you mean 'seed'?"
    assert unknown("key", "sede", []) == "unknown key 'sede'"


def test_a_name_like_no_other_gets_no_hint() -> None:
    """Where anything may stand, a far-fetched hint would only mislead."""
    assert nearest("holiday.txt", ["rubric.md"], at_least=0.8) == ""
    assert nearest("rubrik.md", ["rubric.md"], at_least=0.8) == "; did you mean 'rubric.md'?"
