"""Who answered, against who was asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from cj_pipeline.diagnostics.answering_models import (
    AskedJudge,
    models_that_differ,
    who_answered,
)

ASKED = {"name": "lab", "model": "gpt-4.1-mini", "base_url": None, "answers_as": []}


def answers(*words: Sequence[Any]) -> list[dict[str, Any]]:
    """Return attempts by (model, fingerprint, tier, whether in a provider batch)."""
    return [
        {
            "judge_id": "lab-1",
            "custom_id": f"{number:04d}",
            "requested_at": "2026-01-05",
            "answered_model": model,
            "answered_fingerprint": fingerprint,
            "service_tier": tier,
            "is_batched": is_batched,
        }
        for number, (model, fingerprint, tier, is_batched) in enumerate(words)
    ]


def problems(definition: dict[str, Any], *words: Sequence[Any]) -> tuple[str, ...]:
    """Return what is wrong with the answers of one judge."""
    judge = {"judge_id": "lab-1", "definition": ASKED | definition}
    (answered,) = who_answered(answers(*words), [judge])
    return answered.problems


@pytest.mark.parametrize(
    ("definition", "answered", "may_be"),
    [
        ({}, "gpt-4.1-mini", True),
        ({}, "gpt-4.1-mini-2025-04-14", True),
        ({}, "gpt-4.1-nano-2025-04-14", False),
        ({"model": "gemini-2.5-flash"}, "models/gemini-2.5-flash", True),
        ({"model": "latest", "answers_as": ["gpt-4.1"]}, "gpt-4.1-2025-04-14", True),
        ({"model": "our-deployment", "base_url": "https://school.example/v1"}, "gpt-4.1", True),
        (
            {"model": "d", "base_url": "https://school.example/v1", "answers_as": ["gpt-4.1"]},
            "gpt-5",
            False,
        ),
    ],
)
def test_an_answer_begins_with_what_was_asked_or_bears_a_stated_name(
    definition: dict[str, Any], answered: str, may_be: bool
) -> None:
    """A deployment has a name of its own: there the first answer says who it is."""
    assert AskedJudge.from_definition(ASKED | definition).may_be(answered) is may_be


def test_the_same_judge_all_through_is_no_problem() -> None:
    """Single calls and provider batches have tiers of their own; what is not told is not held."""
    steady = ("gpt-4.1-mini-2025-04-14", "fp_1", "default", False)
    batched = ("gpt-4.1-mini-2025-04-14", "fp_1", "batch", True)

    assert problems({}, steady, steady, batched, (None, None, None, True)) == ()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            ("gpt-4.1-nano", "fp_1", "default", False),
            "asks for gpt-4.1-mini; gpt-4.1-nano answered",
        ),
        (("gpt-4.1-mini-2", "fp_1", "default", False), "changed its model"),
        (("gpt-4.1-mini", "fp_2", "default", False), "changed its fingerprint"),
        (("gpt-4.1-mini", "fp_1", "priority", False), "changed its service tier"),
    ],
)
def test_any_change_within_a_batch_is_told(answer: Sequence[Any], words: str) -> None:
    """Verdicts of two models on one scale are not what anybody asked for."""
    told = problems({}, ("gpt-4.1-mini", "fp_1", "default", False), answer)

    assert any(words in each for each in told), told


def test_two_batches_that_other_models_answered_for_are_told_apart() -> None:
    """Linked batches and runs of a trial compare verdicts of judges that bear one name."""
    judge = {"judge_id": "lab-1", "definition": ASKED}
    before = who_answered(answers(("gpt-4.1-mini-1", None, None, True)), [judge])
    after = who_answered(answers(("gpt-4.1-mini-2", None, None, True)), [judge])

    (told,) = models_that_differ(before, after, "spring")

    assert told == "'lab' is answered for by gpt-4.1-mini-2, and by gpt-4.1-mini-1 in spring"
    assert models_that_differ(after, after, "spring") == ()
    assert models_that_differ(who_answered([], [judge]), after, "spring") == ()
