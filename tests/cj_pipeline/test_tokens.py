"""What a token is, and what is understood of those an installation lists."""

from __future__ import annotations

import secrets
from datetime import date, datetime

import pytest

from cj_pipeline.tokens import covers, hash_of, new_token, read_tokens, weakness

HASH = "ab" * 32
GOOD = {"sha256": HASH, "scopes": ["read"], "expires": date(2027, 1, 1)}


@pytest.mark.parametrize(
    "token",
    [
        "short",
        "",
        "changemechangeme",
        "password12345678",
        "cj-serve-token-2024",
        "please-change-this-token",
        "aaaaaaaaaaaaaaaaaaaa",
        "abcabcabcabcabcabcabc",
        "abcdefghijklmnopqrst",
        "1234567890123456",
        "0123456789abcdef",
        "ababbabaabbaabab",
    ],
)
def test_what_could_be_guessed_is_called_weak(token: str) -> None:
    """Examples are copied from pages, and people type what is quick."""
    assert weakness(token) is not None


def test_what_was_drawn_is_not_called_weak() -> None:
    """Whoever did as the page says is let go on."""
    drawn = [
        secrets.token_urlsafe(32),
        secrets.token_hex(32),
        "correct-horse-battery-staple",
        "3f9d1c7a50be48e2a6d7",
    ]

    assert [weakness(token) for token in drawn] == [None] * len(drawn)


def test_a_made_token_has_a_hash_and_a_chosen_word_has_none() -> None:
    """So a chosen word cannot be a scoped token, whatever is written into the file."""
    token = new_token()

    assert hash_of(token) not in {None, token}
    assert hash_of("password") is None
    assert weakness(token) is None


@pytest.mark.parametrize(
    ("group", "name", "expected"),
    [
        (("spring-*",), "spring-9", True),
        (("spring-*",), "autumn-9", False),
        (("spring-?",), "spring-10", False),
        (("a", "b"), "b", True),
        (("*",), "anything", True),
        ((), "anything", False),
    ],
)
def test_a_group_is_a_list_of_names_with_stars(
    group: tuple[str, ...], name: str, expected: bool
) -> None:
    """As file names are grouped."""
    assert covers(group, name) is expected


def test_a_good_entry_becomes_a_token_for_all_batches() -> None:
    """Unless it names some."""
    (token,), problems = read_tokens({"office": GOOD})

    assert problems == []
    assert (token.name, token.batches, token.scopes) == ("office", ("*",), frozenset({"read"}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sha256": "abc"}, "64 hexadecimal"),
        ({"sha256": None}, "64 hexadecimal"),
        ({"scopes": ["reed"]}, "scopes"),
        ({"scopes": "read"}, "scopes"),
        ({"scopes": []}, "scopes"),
        ({"batches": []}, "batches"),
        ({"batches": "spring-*"}, "batches"),
        ({"batches": ["../x"]}, "batches"),
        ({"expires": "soon"}, "expires"),
        ({"expires": None}, "expires"),
        ({"expires": datetime(2027, 1, 1)}, "expires"),  # noqa: DTZ001 - as YAML reads it
        ({"admin": True}, "admin"),
    ],
)
def test_an_entry_with_a_problem_lets_nobody_in(changes: dict[str, object], words: str) -> None:
    """Half understood it might let in too many."""
    tokens, problems = read_tokens({"office": GOOD | changes})

    assert tokens == ()
    assert words in " ".join(problems)


@pytest.mark.parametrize("said", [["office"], "office", {"office": "x"}, {1: GOOD}, {"A B": GOOD}])
def test_whatever_else_stands_there_is_a_problem(said: object) -> None:
    """And no crash."""
    tokens, problems = read_tokens(said)

    assert tokens == ()
    assert problems
