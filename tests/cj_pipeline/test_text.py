"""Texts from outside are shown as what they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cj_pipeline.text import UNSEEN_RANGES, excerpt, find_hidden, same_words, visible


@pytest.mark.parametrize("hidden", ["\u200b", "\u202e", "\u2066", "\ufeff", "\x00", "\U000e0041"])
def test_a_hidden_character_is_spelled_out(hidden: str) -> None:
    """What a judge read and a person cannot see must not stay hidden."""
    assert visible(f"a{hidden}b") == f"a[U+{ord(hidden):04X}]b"


@pytest.mark.parametrize("text", ["line\nnext\ttab", "نوشته‌ها", "שלום", "👩‍🏫", "naïve – “quote”"])
def test_ordinary_writing_stays_as_it_is(text: str) -> None:
    """Other scripts, joiners and emoji are no attack."""
    assert visible(text) == text


def test_an_excerpt_says_what_it_left_out() -> None:
    """A cut text must not pass for the whole one."""
    assert excerpt("x" * 1005, 5) == "xxxxx … (1,000 characters more)"


def test_a_short_text_is_its_own_excerpt() -> None:
    """Nothing was left out, so nothing is said."""
    assert excerpt("short", 5) == "short"


@pytest.mark.parametrize(
    "hidden",
    ["a\u200db", "\u200ca", "a \u200b", "a\ufe01\ufe02b", "👍\ufe01\ufe02\ufe03", "a\U000e0101b"],
)
def test_joiners_and_selectors_that_join_nothing_are_spelled_out(hidden: str) -> None:
    """They encode letters as well as any other character without width."""
    assert "[U+" in visible(hidden)
    assert find_hidden(hidden) is not None


@pytest.mark.parametrize(
    "text",
    ["❤️", "1️⃣", "©️", "👩‍❤️‍👩", "🏳️‍🌈", "می‌خواهم", "क्‍ष", "co\u00adoperate", "\ufeffa", "שלום"],
)
def test_what_writing_needs_is_not_called_hidden(text: str) -> None:
    """Emoji, Persian, Hindi and hyphenation are no attempt at anything."""
    assert find_hidden(text) is None


def test_hidden_text_is_counted_by_kind_and_located() -> None:
    """A person has to find it to judge it."""
    found = find_hidden("one\ntwo\u200b\U000e0041\U000e0042\u202e")

    assert found is not None
    assert found.describe() == (
        "holds 4 hidden characters (2 tag, 1 zero-width, 1 direction), the first on line 2"
    )


@given(
    words=st.lists(st.text(alphabet="abcé", min_size=1, max_size=5), min_size=1, max_size=5),
    hidden=st.sampled_from([chr(first) for first, _ in UNSEEN_RANGES]),
)
def test_no_hidden_character_makes_two_texts_of_one(words: list[str], hidden: str) -> None:
    """A copied essay with a zero-width space in every word is a copied essay."""
    marked = " ".join(hidden.join(word) for word in words)

    assert same_words(marked) == same_words(" ".join(words))
