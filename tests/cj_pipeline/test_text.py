"""Texts from outside are shown as what they are."""

from __future__ import annotations

import pytest

from cj_pipeline.text import excerpt, visible


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
