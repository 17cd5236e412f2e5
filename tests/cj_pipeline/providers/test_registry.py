"""A judge is reached at its own address, with its own key, or not at all."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest

from cj_pipeline.errors import SettingsError
from cj_pipeline.judging.judges import Judge, load_judge
from cj_pipeline.providers.anthropic import AnthropicBatches
from cj_pipeline.providers.base import Provider
from cj_pipeline.providers.gemini import GeminiBatches
from cj_pipeline.providers.openai import OpenAIBatches
from cj_pipeline.providers.registry import open_provider

_KEYS = {"OPENAI_API_KEY": "sk-1", "ANTHROPIC_API_KEY": "sk-2", "GEMINI_API_KEY": "k-3"}


def _opened(judge: Judge, environment: dict[str, str], home: Path) -> Provider:
    return open_provider(judge, environment, home)


@pytest.mark.parametrize(
    ("name", "adapter"),
    [
        ("openai-gpt-4-1-mini", OpenAIBatches),
        ("openai-gpt-5-1-low", OpenAIBatches),
        ("anthropic-claude-haiku-4-5", AnthropicBatches),
        ("gemini-2-5-flash", GeminiBatches),
    ],
)
def test_each_real_judge_is_reached_through_its_providers_adapter(
    name: str, adapter: type, tmp_path: Path
) -> None:
    """Opening connects to nothing yet."""
    provider = _opened(load_judge(name), _KEYS, tmp_path)

    assert isinstance(provider, adapter)
    assert provider.account.startswith(provider.name)


@pytest.mark.parametrize("environment", [{}, {"OPENAI_API_KEY": "  "}])
def test_a_missing_key_is_named_by_its_variable(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """There is no other judge to fall back to."""
    with pytest.raises(SettingsError, match="OPENAI_API_KEY"):
        _opened(load_judge("openai-gpt-4-1-mini"), environment, tmp_path)


def test_another_key_is_another_account(tmp_path: Path) -> None:
    """Jobs made with one key must not be looked for with another."""
    judge = load_judge("openai-gpt-4-1-mini")

    one = _opened(judge, {"OPENAI_API_KEY": "sk-1"}, tmp_path)
    other = _opened(judge, {"OPENAI_API_KEY": "sk-9"}, tmp_path)

    assert one.account != other.account


def test_a_judges_own_limits_take_the_place_of_the_documented_ones(tmp_path: Path) -> None:
    """Enqueued tokens depend on the account, so only its owner can tell."""
    judge = replace(load_judge("openai-gpt-4-1-mini"), limits={"max_enqueued_tokens": 90_000})

    limits = _opened(judge, _KEYS, tmp_path).limits

    assert (limits.max_enqueued_tokens, limits.max_requests) == (90_000, 50_000)


def test_a_local_server_is_asked_by_single_calls_only(tmp_path: Path) -> None:
    """It has no batch endpoint, and needs no key."""
    provider = _opened(load_judge("local-ollama-llama-3-1"), {}, tmp_path)

    assert not provider.has_jobs


def test_an_emulator_over_http_is_reached_where_the_environment_says(tmp_path: Path) -> None:
    """So that several processes, or a colleague's machine, share one."""
    environment = {"CJ_EMULATOR_URL": "http://127.0.0.1:9/"}

    provider = _opened(load_judge("quality"), environment, tmp_path)

    assert isinstance(provider, OpenAIBatches)
    assert str(provider.client.base_url) == "http://127.0.0.1:9/v1/"


@pytest.mark.parametrize("name", ["openai-gpt-4-1-mini", "anthropic-claude-haiku-4-5"])
def test_a_key_does_not_follow_a_redirect_to_another_host(name: str, tmp_path: Path) -> None:
    """The SDKs follow redirects, and hand some headers on."""
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        if request.url.host != "elsewhere.example":
            return httpx2.Response(307, headers={"location": "https://elsewhere.example/v1/x"})
        return httpx2.Response(200, json={"data": []})

    provider = _opened(load_judge(name), _KEYS, tmp_path)
    client = provider.client._client  # type: ignore[attr-defined]  # the SDK's, with our hooks
    client._transport = httpx2.MockTransport(answer)
    client._mounts = {}
    list(provider.list_jobs(datetime.now(UTC)))

    assert [request.url.host for request in seen][-1] == "elsewhere.example"
    assert not {"authorization", "x-api-key"} & set(seen[-1].headers)
    assert {"authorization", "x-api-key"} & set(seen[0].headers)
