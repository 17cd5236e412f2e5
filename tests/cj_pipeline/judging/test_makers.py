"""Who made a model, by its name."""

from __future__ import annotations

import pytest

from cj_pipeline.judging.makers import maker_of, of_one_maker


@pytest.mark.parametrize(
    ("model", "maker"),
    [
        ("gpt-5-mini", "OpenAI"),
        ("claude-sonnet-4-5", "Anthropic"),
        ("Qwen/Qwen3-8B-Instruct", "Alibaba"),
        ("gemini-2.5-flash", "Google"),
        ("our-own-judge", None),
    ],
)
def test_a_models_name_says_who_made_it(model: str, maker: str | None) -> None:
    """Or nobody is named: a guess would be worse."""
    assert maker_of(model) == maker


def test_judges_that_share_a_maker_are_named_together() -> None:
    """Simulated ones have none, whatever they are called."""
    judges = [
        {"name": "a", "model": "gpt-5", "is_simulated": False},
        {"name": "b", "model": "gpt-5-mini", "is_simulated": False},
        {"name": "c", "model": "claude-opus-4-5", "is_simulated": False},
        {"name": "d", "model": "gpt-like", "is_simulated": True},
    ]

    assert of_one_maker(judges) == {"OpenAI": ["a", "b"]}
