"""A judge is data, and its fingerprint moves with everything that could change a verdict."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cj_pipeline.errors import SettingsError, UnpricedModelError
from cj_pipeline.judging.judges import Judge, JudgeSettings, known_judges, load_judge


def _mine(folder: Path, text: str) -> Path:
    (folder / "mine.yaml").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", known_judges())
def test_every_built_in_judge_loads_and_has_a_price(name: str) -> None:
    """A judge without a price would be refused at its first wave."""
    judge = load_judge(name)

    assert judge.judge_id.startswith(f"{name}-")
    assert judge.price.output >= judge.price.input


@pytest.mark.parametrize("name", known_judges())
def test_a_judge_comes_back_whole_from_its_stored_definition(name: str) -> None:
    """A batch goes on with the judge it began with, whatever became of the judge's file."""
    judge = load_judge(name)

    again = Judge.from_definition(json.loads(json.dumps(judge.definition())))

    assert again == judge
    assert again.judge_id == judge.judge_id


@pytest.mark.parametrize(
    "change",
    [
        {"model": "quality-2"},
        {"api": "responses"},
        {"allow_ties": True},
        {"base_url": "http://localhost:1"},
        {"settings": JudgeSettings(max_output_tokens=512, temperature=0.5)},
        {"settings": JudgeSettings(max_output_tokens=256)},
    ],
)
def test_whatever_could_change_a_verdict_makes_a_new_judge(change: dict[str, object]) -> None:
    """Verdicts of two judges must never be pooled under one name by mistake."""
    judge = load_judge("quality")

    assert replace(judge, **change).judge_id != judge.judge_id  # type: ignore[arg-type]


def test_one_changed_word_in_the_template_makes_a_new_judge() -> None:
    """Also when a user edits a template and keeps its name."""
    judge = load_judge("quality")

    reworded = replace(judge, template=replace(judge.template, task="Which is longer?"))

    assert reworded.judge_id != judge.judge_id


def test_a_new_key_price_or_account_limit_asks_the_same_judge() -> None:
    """None of them reaches the model."""
    judge = load_judge("openai-gpt-4-1-mini")

    changed = replace(judge, key_variable="OTHER_KEY", limits={"max_requests": 10})

    assert changed.judge_id == judge.judge_id


def test_fingerprints_do_not_change_from_one_release_to_the_next() -> None:
    """A drifting fingerprint would split every running batch's judge in two."""
    assert load_judge("quality").judge_id == "quality-707cf7637696"


def test_only_emulated_judges_are_simulated() -> None:
    """A report must say so, and only then."""
    simulated = {name for name in known_judges() if load_judge(name).is_simulated}

    assert {"quality", "human-votes", "recorded", "cj-generic-batch"} <= simulated
    assert not simulated & {"openai-gpt-5-1-low", "anthropic-claude-haiku-4-5"}


def test_human_votes_may_be_ties() -> None:
    """The recorded crowd could call two arguments equally convincing."""
    judge = load_judge("human-votes")

    assert judge.allow_ties
    assert judge.template.name == "more-convincing-1"


def test_a_users_judge_wins_over_a_built_in_one(tmp_path: Path) -> None:
    """What lies in the batch folder is what its author meant."""
    (tmp_path / "quality.yaml").write_text(
        "{name: quality, provider: emulator, model: mine}", encoding="utf-8"
    )

    assert load_judge("quality", tmp_path).model == "mine"


def test_an_unknown_judge_is_refused_with_the_known_ones() -> None:
    """There is no default to fall back to: it would be another judge's verdicts."""
    with pytest.raises(SettingsError, match="human-votes"):
        load_judge("qualityy")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{name: mine, provider: emulator, model: quality, modle: x}", "modle"),
        ("{name: mine, provider: openai, model: m, api: messages}", "has no api messages"),
        ("{name: mine, provider: openai-compatible, model: m}", "base_url"),
        ("{name: mine, provider: emulator, model: m, key_variable: K}", "takes no key"),
        ("{name: other, provider: emulator, model: m}", "calls itself 'other'"),
        ("{name: mine, provider: openai, model: m, key_variable: sk-abc}", "key_variable"),
        ("name: [", "not YAML"),
    ],
)
def test_a_judge_file_that_cannot_be_used_says_why(tmp_path: Path, text: str, problem: str) -> None:
    """Also that a key is named by its variable, never written down."""
    with pytest.raises(SettingsError, match=problem):
        load_judge("mine", _mine(tmp_path, text))


def test_a_judge_may_bring_its_own_price(tmp_path: Path) -> None:
    """A contract's price, or a model the table does not know."""
    folder = _mine(
        tmp_path,
        "{name: mine, provider: openai, model: fine-tuned,"
        " price: {input: '0.8', output: '3.2', source: contract, as_of: 2026-01-01}}",
    )

    price = load_judge("mine", folder).price

    assert (float(price.input), float(price.output)) == (0.8, 3.2)
    assert float(price.batched.output) == 1.0


def test_a_model_nobody_has_a_price_for_is_refused(tmp_path: Path) -> None:
    """An unknown price is an error, never zero."""
    folder = _mine(tmp_path, "{name: mine, provider: openai, model: gpt-nobody-knows}")

    with pytest.raises(UnpricedModelError, match="gpt-nobody-knows"):
        _ = load_judge("mine", folder).price
