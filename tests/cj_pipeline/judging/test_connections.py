"""A batch's own judge sends essays and keys only where the installation lets it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cj_pipeline.installation import BatchJudges
from cj_pipeline.judging.connections import connection_problems, is_loopback, origin_of
from cj_pipeline.judging.judges import Judge, load_judge

AWAY = "https://llm.school.example/v1"
ATTENDED = BatchJudges()


def _judge(base_url: str | None = AWAY, key: str | None = "LAB_API_KEY") -> Judge:
    mini = load_judge("openai-gpt-4-1-mini")
    return replace(mini, name="lab", base_url=base_url, key_variable=key)


def _problems(judge: Judge, rules: BatchJudges = ATTENDED, *, is_own: bool = True) -> str:
    return "\n".join(connection_problems(judge, rules, is_own=is_own))


@pytest.mark.parametrize(
    "key",
    [
        *("AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "DATABASE_PASSWORD", "CJ_SERVE_TOKEN"),
        *("SSH_PRIVATE_KEY", "DJANGO_SECRET_KEY", "HOME", "STRIPE_KEY"),
    ],
)
@pytest.mark.parametrize("mode", [None, "allow", "refuse"])
def test_no_variable_that_is_no_api_key_leaves_for_another_machine(key: str, mode: object) -> None:
    """Whatever the mode: only a declared variable may be named otherwise."""
    rules = BatchJudges(mode=mode, hosts=("llm.school.example",))  # type: ignore[arg-type]
    assert key in _problems(_judge(key=key), rules)
    assert not _problems(_judge(key=key), replace(rules, keys={key: ()}))


@pytest.mark.parametrize("key", ["AWS_SECRET_ACCESS_KEY", "SSH_PRIVATE_KEY", "GITHUB_TOKEN"])
def test_secrets_of_other_things_do_not_even_go_to_this_machine(key: str) -> None:
    """Whoever listens on a port here need not be who holds the key."""
    assert key in _problems(_judge("http://127.0.0.1:8000/v1", key))


@pytest.mark.parametrize("base_url", ["http://127.0.0.1:8000/v1", "http://[::1]:80", AWAY])
def test_a_person_may_use_a_server_of_their_own_with_its_api_key(base_url: str) -> None:
    """By hand, on a folder of one's own: nothing has to be declared."""
    assert not _problems(_judge(base_url))
    assert not _problems(_judge(base_url, None))
    assert not _problems(_judge("http://localhost:11434/v1", "LAB_KEY"))


@pytest.mark.parametrize("base_url", [AWAY, "http://127.0.0.1:8000/v1", "https://api.openai.com.x"])
def test_the_key_of_a_provider_goes_to_that_provider_only(base_url: str) -> None:
    """Also where everything else is allowed; an installation may name one more address for it."""
    for rules in (ATTENDED, BatchJudges(mode="allow")):
        for key in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
            assert f"would send {key} to" in _problems(_judge(base_url, key), rules)
    declared = BatchJudges(keys={"OPENAI_API_KEY": (AWAY,)})
    assert not _problems(_judge(AWAY, "OPENAI_API_KEY"), declared)
    assert _problems(_judge("https://other.example/v1", "OPENAI_API_KEY"), declared)
    assert not _problems(_judge(None, "OPENAI_API_KEY"))
    assert not _problems(_judge("https://api.openai.com/v1", "OPENAI_API_KEY"))


def test_what_nobody_attends_may_name_neither_address_nor_key() -> None:
    """The inbox and the service take in what others wrote."""
    told = _problems(_judge(), is_own=False)
    assert "https://llm.school.example" in told
    assert "LAB_API_KEY" in told
    assert "allowed_hosts" in told
    assert not _problems(_judge(), BatchJudges(mode="allow"), is_own=False)
    listed = BatchJudges(hosts=("*.school.example",), keys={"LAB_API_KEY": (AWAY,)})
    assert not _problems(_judge(), listed, is_own=False)
    assert _problems(_judge("https://school.example.evil.example/v1"), listed, is_own=False)
    assert not _problems(_judge(None, "OPENAI_API_KEY"), is_own=False)


def test_refuse_holds_for_people_at_a_terminal_too() -> None:
    """Who runs an installation may close it for everybody."""
    assert _problems(_judge(), BatchJudges(mode="refuse"))


def test_listed_hosts_hold_in_every_mode() -> None:
    """A list is the whole list."""
    rules = BatchJudges(mode="allow", hosts=("other.example", "llm.school.example:8443"))
    assert "llm.school.example" in _problems(_judge(), rules)
    assert not _problems(_judge("https://llm.school.example:8443/v1"), rules)


def test_nothing_goes_in_the_clear_beyond_this_machine() -> None:
    """Unless the installation names the host so, as for a server in its own network."""
    plain = _judge("http://gpu.local:11434/v1", None)
    assert "https" in _problems(plain)
    assert "https" in _problems(plain, BatchJudges(mode="allow", hosts=("gpu.local",)))
    assert not _problems(plain, BatchJudges(hosts=("http://gpu.local:11434",)))


@pytest.mark.parametrize("base_url", ["https://me:secret@llm.example/v1", "https:///v1"])
def test_an_address_with_a_password_or_without_a_host_is_refused(base_url: str) -> None:
    """A password in an address ends up in logs and in the store."""
    assert "base_url" in _problems(_judge(base_url), BatchJudges(mode="allow"))


def test_an_origin_is_scheme_host_and_port() -> None:
    """The usual port is no other place."""
    assert origin_of("https://API.example:443/v1") == origin_of("https://api.example/")
    assert origin_of("https://api.example:8443") != origin_of("https://api.example")
    assert origin_of("http://api.example") != origin_of("https://api.example")
    assert is_loopback("http://127.8.0.1:1")
    assert not is_loopback("http://127.0.0.1.example:1")


def test_the_folder_of_judges_is_found_only_by_proper_names(tmp_path: Path) -> None:
    """A name is no path."""
    from cj_pipeline.judging.judges import own_file

    (tmp_path / "lab.yaml").write_text("{}")
    assert own_file("lab", tmp_path) == tmp_path / "lab.yaml"
    assert own_file("quality", tmp_path) is None
    assert own_file("../lab", tmp_path / "x") is None
