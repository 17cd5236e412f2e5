"""A judge's key may be a token that is fetched anew; its account stays the same."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from cj_pipeline.errors import SettingsError
from cj_pipeline.judging.judges import load_judge
from cj_pipeline.judging.prompts import Prompt
from cj_pipeline.providers.keys import TokenSource, token_source
from cj_pipeline.providers.registry import open_provider
from tests.support.served_emulator import served_emulator

JUDGE = load_judge("openai-gpt-4-1-mini")
NAMES = ("openai-gpt-4-1-mini", "anthropic-claude-haiku-4-5", "gemini-2-5-flash")


PROMPT = Prompt(system="s", prefix="p", text_a="a", text_b="b", nonce="e")


def _calls(home: Path) -> list[sqlite3.Row]:
    with closing(sqlite3.connect(home / "emulator.sqlite")) as db:
        db.row_factory = sqlite3.Row
        return db.execute("SELECT account FROM single_calls").fetchall()


def test_a_file_is_read_again_each_time(tmp_path: Path) -> None:
    """Whoever rotates it writes it; nobody restarts anything."""
    file = tmp_path / "token"
    file.write_text("one\n")
    source = token_source(JUDGE, {"OPENAI_API_KEY_FILE": str(file)})
    assert source is not None
    first = source.current()
    file.write_text('{"accessToken": "two"}')

    assert (first, source.current()) == ("one", "two")


def test_a_command_is_asked_again_when_its_token_may_have_ended() -> None:
    """As those of cloud accounts do, after an hour."""
    answers = iter(["one", "two"])
    source = TokenSource("X_COMMAND", lambda: next(answers), lasts_s=3600)

    assert [source.current(), source.current()] == ["one", "one"]


@pytest.mark.parametrize(
    "command", ["/nowhere/at/all", f"{sys.executable} -c 'import sys; sys.exit(3)'", "true", "'"]
)
def test_a_command_that_yields_nothing_is_named_by_its_variable(command: str) -> None:
    """What it printed may be a secret, and is not shown."""
    source = token_source(JUDGE, {"OPENAI_API_KEY_COMMAND": command})
    assert source is not None

    with pytest.raises(SettingsError, match="OPENAI_API_KEY_COMMAND yields no token"):
        source.current()


def test_a_command_may_be_any_program() -> None:
    """Without a shell, so nothing in it is expanded."""
    said = '{"access_token": "$HOME"}'
    command = f'{sys.executable} -c \'print("""{said}""")\''
    source = token_source(JUDGE, {"OPENAI_API_KEY_COMMAND": command})
    assert source is not None

    assert source.current() == "$HOME"


def test_a_key_in_the_variable_itself_wins() -> None:
    """One way at a time, and the plainest first."""
    assert token_source(JUDGE, {"OPENAI_API_KEY": "sk", "OPENAI_API_KEY_FILE": "/x"}) is None


@pytest.mark.parametrize("name", NAMES)
def test_a_token_that_changes_is_sent_as_it_is_now(name: str, tmp_path: Path) -> None:
    """The client is open for longer than a token lives; the account is the same all along."""
    file = tmp_path / "token"
    file.write_text("school--old")
    variable = load_judge(name).key_variable
    with served_emulator(tmp_path / "emulator") as address:
        base = address + ("/v1" if name.startswith("openai") else "")
        judge = replace(load_judge(name), base_url=base)
        provider = open_provider(judge, {f"{variable}_FILE": str(file)}, tmp_path)
        before = provider.account
        request = provider.build_request(PROMPT, judge, "0123456789abcdef-0123456789-0000001-1")
        provider.single(request, timeout_s=20)
        file.write_text("another")
        provider.single(request, timeout_s=20)
        books_of = {row["account"] for row in _calls(tmp_path / "emulator")}

        assert len(books_of) == 2, "the second call bore the second token"
        assert open_provider(judge, {f"{variable}_FILE": str(file)}, tmp_path).account == before


def test_the_header_that_the_sdk_wrote_is_replaced() -> None:
    """Each of the three providers has its own."""
    source = TokenSource("X_FILE", lambda: "new", 0.0)
    for name, value in (
        ("Authorization", "Bearer new"),
        ("x-api-key", "new"),
        ("x-goog-api-key", "new"),
    ):
        old = value.replace("new", "old")
        request = httpx2.Request("GET", "https://example.org", headers={name: old})
        source.sign(request)
        assert request.headers[name] == value


def test_a_named_account_is_known_by_its_name(tmp_path: Path) -> None:
    """Whatever its key is today; and the judge is the same judge."""
    named = replace(JUDGE, account="school-azure")

    one = open_provider(named, {"OPENAI_API_KEY": "sk-1"}, tmp_path).account
    other = open_provider(named, {"OPENAI_API_KEY": "sk-2"}, tmp_path).account
    elsewhere = open_provider(
        replace(named, account="other"), {"OPENAI_API_KEY": "sk-1"}, tmp_path
    ).account

    assert one == other != elsewhere
    assert named.judge_id == JUDGE.judge_id
    assert type(named).from_definition(named.definition()).account == "school-azure"
