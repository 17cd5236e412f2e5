"""Services are data: shipped definitions can be used, own ones are checked, nothing known moves."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cj_pipeline.errors import SettingsError
from cj_pipeline.judging.addresses import is_loopback
from cj_pipeline.judging.judges import Judge, load_judge
from cj_pipeline.judging.provider_definitions import (
    WITHOUT_DEFINITION,
    known_definitions,
    known_providers,
    provider_definition,
)

SHIPPED = {
    *("openai", "azure-openai", "anthropic", "gemini", "mistral", "groq", "together", "openrouter"),
    *("xai", "deepseek", "ollama", "vllm", "llama-cpp", "lm-studio", "litellm"),
}
PRICE = "price: {input: 1, output: 2, source: a contract, as_of: 2026-11-01}\n"


def _judge(folder: Path, text: str, providers: Path | None = None) -> Judge:
    folder.mkdir(exist_ok=True)
    (folder / "mine.yaml").write_text(f"name: mine\nmodel: m\n{text}")
    return load_judge("mine", folder, providers)


def _own(folder: Path, name: str, **said: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({"name": name, **said}))
    return folder


def test_every_service_that_is_promised_is_shipped() -> None:
    """Keys go over https; only servers on this machine are free."""
    assert set(known_providers()) >= SHIPPED
    for definition in known_definitions():
        assert definition.base_url is None or (
            definition.base_url.startswith("https://") or is_loopback(definition.base_url)
        )
        assert not definition.free or is_loopback(definition.base_url or "")
        assert definition.token_command is None


@pytest.mark.parametrize(
    ("text", "judge_id"),
    [
        (
            "provider: openai\nbase_url: https://x.example/v1\nkey_variable: LAB_API_KEY\n",
            "mine-47609336d178",
        ),
        (
            "provider: openai-compatible\nbase_url: http://localhost:1/v1\nanswers_as: [x]\n",
            "mine-b5728b3d498a",
        ),
        ("provider: anthropic\nsettings: {temperature: 0}\n", "mine-17bd5d5154cb"),
    ],
)
def test_fingerprints_from_before_there_were_definitions_stay(
    tmp_path: Path, text: str, judge_id: str
) -> None:
    """A batch that is half judged goes on; figures worked out by the code before."""
    judge = _judge(tmp_path, text)

    assert judge.judge_id == judge_id
    assert "service" not in judge.definition()


def test_a_judge_needs_no_more_than_the_name_of_its_service(tmp_path: Path) -> None:
    """Address, key and manner come from the definition, and are kept with the judge."""
    judge = _judge(tmp_path, f"provider: deepseek\n{PRICE}")

    assert judge.base_url == "https://api.deepseek.com"
    assert judge.key_variable == "DEEPSEEK_API_KEY"
    assert judge.json_by == "json_object"
    assert not judge.has_jobs
    assert not judge.has_own_address
    kept = Judge.from_definition(judge.definition())
    assert (kept.judge_id, kept) == (judge.judge_id, judge)


def test_what_could_change_a_verdict_is_in_the_fingerprint(tmp_path: Path) -> None:
    """Another manner of asking is another judge; a key, a limit or a region is not."""

    def judge_id(**said: object) -> str:
        base = {"wire": "openai", "base_url": "https://x.example/v1"}
        own = _own(tmp_path / "providers", "own", **(base | said))
        return _judge(tmp_path / "judges", "provider: own\n", own).judge_id

    changed = {
        judge_id(),
        judge_id(structured="prompt"),
        judge_id(extra_body={"top_k": 1}),
        judge_id(base_url="https://y.example/v1"),
    }
    same = {
        judge_id(),
        judge_id(key_variable="X_API_KEY"),
        judge_id(batch="openai"),
        judge_id(data_region="EU"),
    }
    assert (len(changed), len(same)) == (4, 1)


def test_a_price_of_ones_own_has_no_discount_that_it_does_not_state(tmp_path: Path) -> None:
    """Another server under OpenAI's language need not halve anything."""
    plain = _judge(tmp_path, f"provider: openai\n{PRICE}").price
    halved = _judge(tmp_path, f"provider: openai\n{PRICE.replace('2,', '2, batched: 0.5,')}").price

    assert plain.batched.input == plain.batched.output == 1
    assert float(halved.batched.input) == float(halved.batched.output) == 0.5


@pytest.mark.parametrize(
    "text",
    [
        "provider: ollama\n",
        "provider: vllm\n",
        "provider: openai-compatible\nbase_url: http://127.0.0.1:8080/v1\n",
    ],
)
def test_a_free_server_of_ones_own_needs_no_price(tmp_path: Path, text: str) -> None:
    """Nobody bills it."""
    price = _judge(tmp_path, text).price
    assert (price.input, price.output) == (0, 0)


def test_an_own_definition_may_be_like_a_shipped_one(tmp_path: Path) -> None:
    """An Azure resource differs from Azure by its address."""
    own = _own(
        tmp_path,
        "school-azure",
        like="azure-openai",
        base_url="https://school.openai.azure.com/openai/v1",
    )

    definition = provider_definition("school-azure", own)

    assert definition.key_header == "api-key"
    assert definition.base_url == "https://school.openai.azure.com/openai/v1"
    assert (definition.batch, definition.canary) == ("openai", False)


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"wire": "smtp"}, "no language that is spoken"),
        ({"wire": "emulator"}, "no language that is spoken"),
        ({"wire": "openai", "bas_url": "x"}, "bas_url"),
        ({"wire": "openai", "apis": ["messages"]}, "has no messages"),
        ({"like": "nowhere"}, "Unknown provider"),
        ({"like": "own"}, "in a circle"),
        ({"wire": "openai", "key_variable": "sk-secret"}, "key_variable"),
        ({"wire": "openai", "name": "other"}, "calls itself"),
    ],
)
def test_an_own_definition_that_cannot_be_used_says_why(
    tmp_path: Path, said: dict[str, object], problem: str
) -> None:
    """Before anything is asked of it."""
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"name": "own"} | said))
    own = tmp_path

    with pytest.raises(SettingsError, match=problem):
        provider_definition("own", own)


def test_own_definitions_take_no_shipped_name(tmp_path: Path) -> None:
    """Keys are bound to what a shipped name stands for."""
    own = _own(tmp_path, "openai", wire="openai", base_url="https://evil.example/v1")

    assert provider_definition("openai", own).base_url == "https://api.openai.com/v1"
    assert "openai" in WITHOUT_DEFINITION


def test_a_judge_of_an_unknown_service_is_told_the_known_ones(tmp_path: Path) -> None:
    """The nearest is often a typing error away."""
    with pytest.raises(SettingsError, match=r"Unknown provider 'olama'; known: .*ollama"):
        _judge(tmp_path, "provider: olama\n")
