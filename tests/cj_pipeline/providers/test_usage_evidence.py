"""What answers say of their tokens: reported, not reported, or contradictory."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cj_pipeline.judging.pricing import Usage
from cj_pipeline.providers import chat_completions, generate_content, messages, responses
from cj_pipeline.providers.base import Reply
from cj_pipeline.providers.usage_evidence import (
    SentCounts,
    UsageEvidence,
    is_far_from,
    read_usage,
)

REPORTED, NOT_REPORTED = UsageEvidence.REPORTED, UsageEvidence.NOT_REPORTED
CONTRADICTORY = UsageEvidence.CONTRADICTORY


def chat(usage: Any) -> Reply:
    """Return a completion with this usage, read."""
    choice = {"finish_reason": "stop", "message": {"content": "{}"}}
    return chat_completions.read_body({"choices": [choice], "usage": usage})


def response(usage: Any) -> Reply:
    """Return a response with this usage, read."""
    part = {"type": "output_text", "text": "{}"}
    output = [{"type": "message", "content": [part]}]
    return responses.read_body({"status": "completed", "output": output, "usage": usage})


def message(usage: Any) -> Reply:
    """Return a message with this usage, read."""
    content = [{"type": "text", "text": "{}"}]
    return messages.read_message({"stop_reason": "end_turn", "content": content, "usage": usage})


def content(usage: Any) -> Reply:
    """Return a Gemini response with this usage, read."""
    candidate = {"finishReason": "STOP", "content": {"parts": [{"text": "{}"}]}}
    return generate_content.read_response({"candidates": [candidate], "usageMetadata": usage})


@pytest.mark.parametrize("read", [chat, response, message, content])
@pytest.mark.parametrize("usage", [None, {}, [], "1100 tokens"])
def test_an_answer_without_usage_reports_none(read: Any, usage: Any) -> None:
    """It was paid for all the same, at nobody knows what."""
    reply = read(usage)

    assert (reply.usage, reply.evidence) == (None, NOT_REPORTED)


def _chat_usage(prompt: Any, completion: Any, total: Any = None, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total} | {
        "prompt_tokens_details": {
            "cached_tokens": more.get("cached", 0),
            "cache_write_tokens": more.get("written", 0),
        },
        "completion_tokens_details": {"reasoning_tokens": more.get("reasoning", 0)},
    }


@pytest.mark.parametrize(
    ("usage", "expected", "evidence"),
    [
        pytest.param(_chat_usage(0, 0, 0), None, NOT_REPORTED, id="zeros"),
        pytest.param(_chat_usage(0, 50, 50), None, NOT_REPORTED, id="no prompt"),
        pytest.param(_chat_usage(1000, 100, 1100), (1000, 100), REPORTED, id="adds up"),
        pytest.param(_chat_usage(1000, 100), (1000, 100), REPORTED, id="no total"),
        pytest.param(_chat_usage("1000", 100.0, "1100"), (1000, 100), REPORTED, id="text"),
        pytest.param(
            _chat_usage(1000, 100, 1100, reasoning=60), (1000, 100), REPORTED, id="thought inside"
        ),
        pytest.param(
            _chat_usage(1000, 100, 3900, reasoning=2800), (1000, 2900), REPORTED, id="beside"
        ),
        pytest.param(
            _chat_usage(1000, 100, reasoning=2800),
            (1000, 2900),
            REPORTED,
            id="too large for inside",
        ),
        pytest.param(
            _chat_usage(1000, 100, 1100, cached=400), (1000, 100), REPORTED, id="cache inside"
        ),
        pytest.param(
            _chat_usage(100, 100, 1100, cached=600, written=300),
            (1000, 100),
            REPORTED,
            id="cache read and written beside",
        ),
        pytest.param(
            _chat_usage(100, 100, 3000, cached=900, reasoning=1900),
            (1000, 2000),
            REPORTED,
            id="both beside",
        ),
        pytest.param(
            _chat_usage(1000, 100, 5000), (4900, 100), CONTRADICTORY, id="total of something else"
        ),
        pytest.param(_chat_usage(1000, "many", 1100), (1100, 0), CONTRADICTORY, id="no number"),
        pytest.param(_chat_usage(1000, -7), (1000, 0), CONTRADICTORY, id="negative"),
        pytest.param(_chat_usage(1000, 100.5), (1000, 0), CONTRADICTORY, id="half a token"),
    ],
)
def test_the_total_decides_what_is_inside_and_what_is_beside(
    usage: Any, expected: tuple[int, int] | None, evidence: UsageEvidence
) -> None:
    """Services that speak the same API count differently, and only adding up tells."""
    reply = chat(usage)

    told = None if reply.usage is None else (reply.usage.prompt, reply.usage.completion)
    assert (told, reply.evidence) == (expected, evidence)


def test_anthropics_input_leaves_out_what_was_cached_and_written() -> None:
    """All of it is billed; the two ways of telling what was written have to agree."""
    usage = {"input_tokens": 100, "output_tokens": 50, "cache_read_input_tokens": 600}
    by_life = {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 100}

    agreeing = message(usage | {"cache_creation_input_tokens": 300, "cache_creation": by_life})
    differing = message(usage | {"cache_creation_input_tokens": 5, "cache_creation": by_life})

    assert (agreeing.usage, agreeing.evidence) == (Usage(1000, 600, 200, 100, 50), REPORTED)
    assert (differing.usage, differing.evidence) == (Usage(1000, 600, 200, 100, 50), CONTRADICTORY)


def test_geminis_thoughts_are_beside_unless_its_total_says_otherwise() -> None:
    """And what tools add to the prompt is input."""
    usage = {"promptTokenCount": 1000, "candidatesTokenCount": 100, "thoughtsTokenCount": 40}

    beside = content(usage | {"totalTokenCount": 1140})
    inside = content(usage | {"totalTokenCount": 1100})
    wrong = content(usage | {"totalTokenCount": 9})
    tools = content(usage | {"toolUsePromptTokenCount": 10, "totalTokenCount": 1150})

    assert beside.usage == Usage(prompt=1000, completion=140, reasoning=40)
    assert inside.usage == Usage(prompt=1000, completion=100, reasoning=40)
    assert tools.usage == Usage(prompt=1010, completion=140, reasoning=40)
    assert [each.evidence for each in (beside, inside, wrong, tools)] == [
        REPORTED,
        REPORTED,
        CONTRADICTORY,
        REPORTED,
    ]


_FIGURE = st.none() | st.integers(-5, 5_000) | st.floats() | st.text(max_size=4) | st.booleans()


@given(_FIGURE, _FIGURE, _FIGURE, _FIGURE, _FIGURE, st.booleans(), st.booleans())
def test_no_figures_make_usage_that_is_not_whole(
    prompt: Any,
    completion: Any,
    cached: Any,
    reasoning: Any,
    total: Any,
    cache_is_beside: bool,
    reasoning_is_beside: bool,
) -> None:
    """Whatever is sent: parts are no larger than their whole, and nothing is negative."""
    reading = read_usage(
        SentCounts(
            prompt,
            completion,
            cached,
            reasoning=reasoning,
            total=total,
            cache_is_beside=cache_is_beside,
            reasoning_is_beside=reasoning_is_beside,
        )
    )

    usage = reading.usage
    assert (usage is None) == (reading.evidence is NOT_REPORTED)
    if usage is not None:
        assert 0 <= usage.cached <= usage.prompt
        assert 0 <= usage.reasoning <= usage.completion


@pytest.mark.parametrize(
    ("usage", "n_prompt_bytes", "n_answer_bytes", "is_far"),
    [
        (Usage(prompt=600, completion=80), 2_400, 300, False),
        (Usage(prompt=5_000, completion=80), 2_400, 300, False),
        (Usage(prompt=9_000, completion=80), 2_400, 300, True),
        (Usage(prompt=9_000, completion=80), None, 300, False),
        (Usage(prompt=1, completion=80), 2_400, 300, True),
        (Usage(prompt=61, completion=80), 2_400, 300, False),
        (Usage(prompt=600, completion=0), 2_400, 300, True),
        (Usage(prompt=600, completion=3_000, reasoning=2_900), 2_400, 300, False),
    ],
)
def test_usage_is_held_against_what_was_sent_and_came_back(
    usage: Usage, n_prompt_bytes: int | None, n_answer_bytes: int, is_far: bool
) -> None:
    """More tokens than bytes, hardly any for thousands, an answer of none: it was not so."""
    assert is_far_from(usage, n_prompt_bytes, n_answer_bytes) is is_far
