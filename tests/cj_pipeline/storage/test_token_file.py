"""Tokens come into installation.yaml and go from it, and all else stays as it was typed."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from cj_pipeline.errors import SettingsError
from cj_pipeline.installation import INSTALLATION_FILE, read_installation
from cj_pipeline.storage.token_file import add_token, remove_token, tokens_of
from cj_pipeline.tokens import hash_of, new_token

UNTIL = date(2027, 6, 30)
BLOCK = """# Ours since 2024.
published: group   # analysts
tokens:
    # The office's, ask Kim.
    office:
        sha256: {hash}
        scopes: [read]
        batches:
          - spring-*
        expires: 2027-01-01
    # Of the nightly job.
    night: {{sha256: {hash}, scopes: [submit], expires: 2027-01-01}}
retention_days: 400
""".format(hash="ab" * 32)


def add(home: Path, name: str, **more: object) -> str:
    """Add a token, and return it."""
    token = new_token()
    given = {"scopes": ["read"], "batches": ["*"], "expires": UNTIL} | more
    add_token(home, name, token, **given)  # type: ignore[arg-type]
    return token


def names(home: Path) -> list[str]:
    return sorted(token.name for token in read_installation(home).tokens)


@pytest.mark.parametrize(
    "before", [None, "", "retention_days: 4", "tokens:\n", "tokens:\nretention_days: 4\n", BLOCK]
)
def test_a_token_is_added_to_whatever_stands_there(tmp_path: Path, before: str | None) -> None:
    """Only its hash; and each line that was there still is."""
    if before is not None:
        (tmp_path / INSTALLATION_FILE).write_text(before)
    held = names(tmp_path)

    token = add(tmp_path, "new", batches=["spring-*", "a?"], scopes=["read", "submit"])

    written = (tmp_path / INSTALLATION_FILE).read_text()
    (found,) = (each for each in read_installation(tmp_path).tokens if each.name == "new")
    assert token not in written
    assert (found.sha256, found.batches, found.expires) == (
        hash_of(token),
        ("spring-*", "a?"),
        UNTIL,
    )
    assert names(tmp_path) == sorted([*held, "new"])
    assert set((before or "").splitlines()) <= set(written.splitlines())
    assert (tmp_path / INSTALLATION_FILE).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(("name", "left"), [("office", ["night"]), ("night", ["office"])])
def test_a_token_is_taken_out_alone(tmp_path: Path, name: str, left: list[str]) -> None:
    """Over several lines or on one."""
    (tmp_path / INSTALLATION_FILE).write_text(BLOCK)

    remove_token(tmp_path, name)

    written = (tmp_path / INSTALLATION_FILE).read_text()
    assert names(tmp_path) == left
    assert f"    {name}:" not in written
    assert "retention_days: 400" in written
    assert "published: group   # analysts" in written


def test_the_last_token_can_be_taken_out(tmp_path: Path) -> None:
    """And another added after it."""
    add(tmp_path, "only")
    remove_token(tmp_path, "only")

    add(tmp_path, "next")

    assert names(tmp_path) == ["next"]


@pytest.mark.parametrize(
    "change",
    [
        lambda home: add(home, "night"),
        lambda home: add(home, "Night Shift"),
        lambda home: add(home, "no"),
        lambda home: add(home, "new", scopes=["reed"]),
        lambda home: add(home, "new", batches=["../x"]),
        lambda home: remove_token(home, "nobody"),
    ],
    ids=["taken", "no name", "a word of YAML", "no scope", "no group", "unknown"],
)
def test_what_cannot_be_used_changes_nothing(tmp_path: Path, change: object) -> None:
    """The file is an operator's: it is as it was, to the byte."""
    (tmp_path / INSTALLATION_FILE).write_text(BLOCK)

    with pytest.raises(SettingsError):
        change(tmp_path)  # type: ignore[operator]

    assert (tmp_path / INSTALLATION_FILE).read_text() == BLOCK
    assert [path.name for path in tmp_path.iterdir()] == [INSTALLATION_FILE]


def test_tokens_in_braces_are_left_to_their_owner(tmp_path: Path) -> None:
    """No line can be added to them, and the message says what to do."""
    (tmp_path / INSTALLATION_FILE).write_text(
        "tokens: {a: {sha256: '%s', scopes: [read], expires: 2027-01-01}}\n" % ("ab" * 32)
    )

    with pytest.raises(SettingsError, match="braces"):
        add(tmp_path, "new")
    with pytest.raises(SettingsError, match="by hand"):
        remove_token(tmp_path, "a")


def test_whoever_serves_sees_a_change_at_once_and_a_broken_file_lets_nobody_in(
    tmp_path: Path,
) -> None:
    """A revoked token must end without a restart, and a slip of the hand must open nothing."""
    tokens = tokens_of(tmp_path)
    seen = [len(tokens())]
    add(tmp_path, "one")
    seen.append(len(tokens()))
    add(tmp_path, "two")
    seen.append(len(tokens()))
    remove_token(tmp_path, "one")
    seen.append(len(tokens()))
    (tmp_path / INSTALLATION_FILE).write_text("tokens: [")
    seen.append(len(tokens()))

    assert seen == [0, 1, 2, 1, 0]
