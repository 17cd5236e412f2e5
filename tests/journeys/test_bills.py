"""Bills worked out by hand from rows as providers send them: cached, batched, thought, cut short.

USD per million tokens are those of `prices.yaml`; if a price changes there, the sum changes here.
"""

import json
from typing import Any

import pytest

from cj_pipeline.judging.pricing import Usage, cost_usd, price_of
from cj_pipeline.providers import chat_completions, responses
from cj_pipeline.providers.anthropic import parse_result
from cj_pipeline.providers.base import Reply
from cj_pipeline.providers.gemini import parse_response
from cj_pipeline.providers.openai import parse_row


def _bill(provider: str, model: str, replies: list[Reply], *, batched: bool) -> float:
    price = price_of(provider, model)
    return sum(cost_usd(price, reply.usage or Usage(), batched=batched) for reply in replies)


def _chat_row(finish: str, cached: int) -> str:
    body = {
        "choices": [{"finish_reason": finish, "message": {"content": "{}"}}],
        "usage": {
            "prompt_tokens": 2_000,
            "prompt_tokens_details": {"cached_tokens": cached},
            "completion_tokens": 100,
        },
    }
    return json.dumps({"custom_id": "k", "response": {"status_code": 200, "body": body}})


def test_an_openai_job_that_expired_is_billed_for_what_it_finished() -> None:
    """gpt-4.1-mini in a batch, halves of 0.40, 0.10 and 1.60.

    One good row:        2000 x 0.20              + 100 x 0.80 = 480
    One from the cache:   976 x 0.20 + 1024 x 0.05 + 100 x 0.80 = 326.4
    One cut off:         as the first, because it was written and read = 480
    One expired, one refused by the service: nothing.
    """
    expired = {"custom_id": "k", "response": None, "error": {"code": "batch_expired"}}
    wrong = {"custom_id": "k", "response": {"status_code": 400, "body": {"error": {}}}}
    rows = [
        _chat_row("stop", 0),
        _chat_row("stop", 1_024),
        _chat_row("length", 0),
        json.dumps(expired),
        json.dumps(wrong),
    ]

    replies = [parse_row(row, chat_completions.read_body) for row in rows]

    billed = _bill("openai", "gpt-4.1-mini", replies, batched=True)
    assert billed == pytest.approx((480 + 326.4 + 480) / 1e6, abs=1e-12)


def test_openai_reasoning_is_billed_once_as_output() -> None:
    """gpt-5.1, single call: 1500 x 1.25 + 900 x 10, of which 700 are reasoning."""
    body = {
        "status": "completed",
        "output": [{"type": "message", "content": [{"type": "output_text", "text": "{}"}]}],
        "usage": {
            "input_tokens": 1_500,
            "output_tokens": 900,
            "output_tokens_details": {"reasoning_tokens": 700},
        },
    }

    billed = _bill("openai", "gpt-5.1", [responses.read_body(body)], batched=False)

    assert billed == pytest.approx((1_875 + 9_000) / 1e6, abs=1e-12)


def _message_row(**usage: Any) -> str:
    message = {
        "content": [{"type": "text", "text": "{}"}],
        "stop_reason": "end_turn",
        "usage": usage,
    }
    return json.dumps({"custom_id": "k", "result": {"type": "succeeded", "message": message}})


def test_an_anthropic_bundle_pays_for_one_write_and_then_reads() -> None:
    """Sonnet 4.6, single calls, a prefix of 5000 tokens and essays of 800, answers of 60.

    The first: 800 x 3 + 5000 x 3.75 + 60 x 15 = 22050
    The next two, each: 800 x 3 + 5000 x 0.30 + 60 x 15 = 4800
    """
    rest = {"input_tokens": 800, "output_tokens": 60}
    rows = [
        _message_row(**rest, cache_creation_input_tokens=5_000),
        _message_row(**rest, cache_read_input_tokens=5_000),
        _message_row(**rest, cache_read_input_tokens=5_000),
    ]

    replies = [parse_result(row) for row in rows]

    billed = _bill("anthropic", "claude-sonnet-4-6", replies, batched=False)
    assert billed == pytest.approx((22_050 + 2 * 4_800) / 1e6, abs=1e-12)


def test_an_anthropic_job_bills_only_what_succeeded() -> None:
    """Haiku 4.5 in a batch: 1200 x 0.50 + 80 x 2.50; errored, expired and cancelled are free."""
    others: list[dict[str, Any]] = [
        {"type": "errored", "error": {"error": {"type": "api_error"}}},
        {"type": "expired"},
        {"type": "canceled"},
    ]
    rows = [_message_row(input_tokens=1_200, output_tokens=80)]
    rows += [json.dumps({"custom_id": "k", "result": result}) for result in others]

    billed = _bill(
        "anthropic", "claude-haiku-4-5", [parse_result(row) for row in rows], batched=True
    )

    assert billed == pytest.approx((600 + 200) / 1e6, abs=1e-12)


def test_a_gemini_job_bills_thoughts_as_output_and_cache_hits_at_the_standard_price() -> None:
    """2.5 Flash in a batch: 1000 x 0.15 + 1500 x 0.03 + (50 + 450) x 1.25; an error is free."""
    answer = {
        "candidates": [{"content": {"parts": [{"text": "{}"}]}, "finishReason": "STOP"}],
        "usageMetadata": {
            "promptTokenCount": 2_500,
            "cachedContentTokenCount": 1_500,
            "candidatesTokenCount": 50,
            "thoughtsTokenCount": 450,
        },
    }
    rows = [
        {"metadata": {"key": "k"}, "response": answer},
        {"metadata": {"key": "k"}, "error": {"code": 14}},
    ]

    replies = [parse_response(json.dumps(row)) for row in rows]

    billed = _bill("gemini", "gemini-2.5-flash", replies, batched=True)
    assert billed == pytest.approx((150 + 45 + 625) / 1e6, abs=1e-12)


def test_an_openai_responses_job_bills_cache_and_reasoning_at_half() -> None:
    """gpt-5.1 in a batch, halves of 1.25, 0.125 and 10: 1000 x 0.625 + 1024 x 0.0625 + 500 x 5.

    Of the output 400 are reasoning; a response that was cut off is billed, one that failed is not.
    """
    body = {
        "status": "incomplete",
        "incomplete_details": {"reason": "max_output_tokens"},
        "output": [],
        "usage": {
            "input_tokens": 2_024,
            "input_tokens_details": {"cached_tokens": 1_024},
            "output_tokens": 500,
            "output_tokens_details": {"reasoning_tokens": 400},
        },
    }
    rows = [
        {"custom_id": "k", "response": {"status_code": 200, "body": body}, "error": None},
        {"custom_id": "k", "response": {"status_code": 500, "body": {"error": {}}}, "error": None},
    ]

    replies = [parse_row(json.dumps(row), responses.read_body) for row in rows]

    billed = _bill("openai", "gpt-5.1", replies, batched=True)
    assert billed == pytest.approx((625 + 64 + 2_500) / 1e6, abs=1e-12)


def test_an_anthropic_job_bills_writes_reads_and_thinking_at_half() -> None:
    """Haiku 4.5 in a batch, halves of 1, 1.25, 2, 0.10 and 5.

    200 x 0.50 + 3000 x 0.625 (5 m) + 1000 x 1 (1 h) + 2000 x 0.05 + 300 x 2.50, thinking included.
    """
    row = _message_row(
        input_tokens=200,
        cache_creation_input_tokens=4_000,
        cache_creation={"ephemeral_5m_input_tokens": 3_000, "ephemeral_1h_input_tokens": 1_000},
        cache_read_input_tokens=2_000,
        output_tokens=300,
    )

    billed = _bill("anthropic", "claude-haiku-4-5", [parse_result(row)], batched=True)

    assert billed == pytest.approx((100 + 1_875 + 1_000 + 100 + 750) / 1e6, abs=1e-12)
