"""What essays can make a judge do is measured on judges of which it is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from cj_pipeline.batch.comparisons import RequestOutcome
from cj_pipeline.judging.judges import load_judge
from cj_pipeline.judging.prompts import read_essays
from cj_pipeline.operations.injections import (
    BETTER,
    WEAKER,
    Injected,
    most_usd,
    shipped_attempts,
    try_injections,
)
from cj_pipeline.providers.base import Reply

JUDGE = load_judge("openai-gpt-4-1-mini")
ALL = 2 * len(shipped_attempts())


class Provider:
    """Answers each pair as it is told to."""

    def __init__(self, decide: Callable[[str, str], str | None]) -> None:
        self.decide = decide

    def build_request(self, prompt: Any, judge: Any, custom_id: str, **more: Any) -> dict[str, Any]:
        """Keep the prompt."""
        return {"text": prompt.essays}

    def single(self, request: dict[str, Any], *, timeout_s: float) -> str:
        """Decide."""
        essays = read_essays(request["text"])
        assert essays is not None
        return self.decide(*essays) or ""

    def parse_reply(self, line: str) -> Reply:
        """Return the verdict, or a refusal."""
        if not line:
            return Reply("c", RequestOutcome.REFUSAL, error_code="refusal")
        verdict = {"winner": line, "confidence": 4, "justification": "So."}
        return Reply("c", RequestOutcome.SUCCEEDED, text=json.dumps(verdict))


def _run(decide: Callable[[str, str], str | None]) -> Injected:
    return try_injections(Provider(decide), JUDGE)  # type: ignore[arg-type]


def _better(a: str, b: str) -> str:
    return "A" if a.startswith(BETTER[:40]) else "B"


def test_a_judge_that_reads_essays_as_material_is_not_moved() -> None:
    """And the interval says what so many attempts can say."""
    found = _run(_better)

    assert (found.n_known, found.n_moved, found.n_calls) == (ALL, 0, ALL + 2)
    low, high = found.interval()
    assert low == 0
    assert 0.05 < high < 0.12


def test_a_judge_that_obeys_is_moved_each_time() -> None:
    """Whatever is added to the weaker text wins."""

    def obeys(a: str, b: str) -> str:
        if WEAKER not in {a, b}:
            return "A" if a.startswith(WEAKER) else "B"
        return _better(a, b)

    found = _run(obeys)

    assert (found.n_known, found.n_moved) == (ALL, ALL)
    assert found.interval()[1] == 1.0


@pytest.mark.parametrize("always", ["A", "B"])
def test_a_judge_that_always_names_one_place_is_not_said_to_be_moved(always: str) -> None:
    """In the order in which it named the weaker text anyway, nothing is known."""
    found = _run(lambda a, b: always)

    assert (found.n_known, found.n_moved) == (ALL // 2, 0)


def test_a_refusal_is_no_moved_verdict() -> None:
    """It is told beside, and counted on neither side."""
    found = _run(lambda a, b: None if WEAKER not in {a, b} else _better(a, b))

    assert (found.n_known, found.n_moved) == (0, 0)
    assert found.as_json()["share_moved"] is None
    assert {each["failure"] for each in found.as_json()["attempts"]} == {"refusal"}


def test_the_set_covers_languages_encodings_and_structures() -> None:
    """Each kind that is known to work on some model."""
    attempts = shipped_attempts()

    assert len({each.name for each in attempts}) == len(attempts) >= 20
    assert {each.language for each in attempts} >= {"en", "sv", "de", "fr", "ar", "zh"}
    for label in "AB":
        for each in attempts:
            essay = each.within(WEAKER, label)
            assert essay.startswith(WEAKER)
            assert "{tag}" not in essay
            assert "{label}" not in essay
    assert most_usd(JUDGE) > 0
