"""Ids made from the names people give."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cj_pipeline.ids import ID, id_for


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
