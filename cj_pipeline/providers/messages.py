"""The words of Anthropic's messages endpoint."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cj_pipeline.batch.comparisons import RequestOutcome
from cj_pipeline.judging.judges import Judge
from cj_pipeline.judging.prompts import Prompt, verdict_schema
from cj_pipeline.providers.base import Reply
from cj_pipeline.providers.transport import count, mapping, text_or_none
from cj_pipeline.providers.usage_evidence import (
    SentCounts,
    UsageEvidence,
    UsageReading,
    read_usage,
)

_ENDINGS = {
    "end_turn": RequestOutcome.SUCCEEDED,
    "stop_sequence": RequestOutcome.SUCCEEDED,
    "max_tokens": RequestOutcome.TRUNCATED,
    "model_context_window_exceeded": RequestOutcome.TRUNCATED,
    "refusal": RequestOutcome.REFUSAL,
}


def build_params(prompt: Prompt, judge: Judge, *, cache_prefix: bool) -> dict[str, Any]:
    """Return the parameters of one message: first what never changes, marked if it is to be kept.

    This provider caches only what is marked, and bills the writing of it, so the mark is
    set where by `prompt_caching` it pays.
    """
    prefix: dict[str, Any] = {"type": "text", "text": prompt.prefix}
    if cache_prefix:
        prefix["cache_control"] = {"type": "ephemeral", "ttl": "5m"}
    output: dict[str, Any] = {
        "format": {"type": "json_schema", "schema": verdict_schema(allow_ties=judge.allow_ties)}
    }
    if judge.settings.reasoning_effort is not None:
        output["effort"] = judge.settings.reasoning_effort
    params: dict[str, Any] = {
        "model": judge.model,
        "max_tokens": judge.settings.max_output_tokens,
        "system": [{"type": "text", "text": prompt.system}],
        "messages": [
            {"role": "user", "content": [prefix, {"type": "text", "text": prompt.essays}]}
        ],
        "output_config": output,
    }
    if judge.settings.temperature is not None:
        params["temperature"] = judge.settings.temperature
    return params


def read_message(message: dict[str, Any]) -> Reply:
    """Parse a message; its custom id is the caller's to add."""
    content = message.get("content")
    blocks = [mapping(block) for block in content] if isinstance(content, list) else []
    texts = [block.get("text") for block in blocks if block.get("type") == "text"]
    text = "".join(t for t in texts if isinstance(t, str)) or None
    stop = text_or_none(message.get("stop_reason"))
    outcome = _ENDINGS.get(stop or "", RequestOutcome.INVALID_OUTPUT)
    code = stop or "no_stop_reason"
    if outcome is RequestOutcome.SUCCEEDED and text is None:
        outcome, code = RequestOutcome.INVALID_OUTPUT, "no_text"
    usage = _usage(message.get("usage"))
    return Reply(
        custom_id=None,
        outcome=outcome,
        text=text,
        usage=usage.usage,
        evidence=usage.evidence,
        model=text_or_none(message.get("model")),
        service_tier=text_or_none(mapping(message.get("usage")).get("service_tier")),
        request_id=text_or_none(message.get("id")),
        error_code=None if outcome is RequestOutcome.SUCCEEDED else code,
        may_retry=outcome is not RequestOutcome.SUCCEEDED,
    )


def _usage(sent: object) -> UsageReading:
    """Return usage in our meaning: Anthropic's input tokens exclude cached and written ones."""
    usage = mapping(sent)
    written = usage.get("cache_creation_input_tokens")
    by_life = mapping(usage.get("cache_creation"))
    short_lived = by_life.get("ephemeral_5m_input_tokens")
    long_lived = by_life.get("ephemeral_1h_input_tokens")
    told_twice = written is not None and bool(by_life)
    reading = read_usage(
        SentCounts(
            prompt=usage.get("input_tokens"),
            completion=usage.get("output_tokens"),
            cached=usage.get("cache_read_input_tokens"),
            written_5m=short_lived if by_life else written,
            written_1h=long_lived,
            reasoning=mapping(usage.get("output_tokens_details")).get("thinking_tokens"),
            cache_is_beside=True,
        )
    )
    if told_twice and count(written) != count(short_lived) + count(long_lived):
        return replace(reading, evidence=UsageEvidence.CONTRADICTORY)
    return reading
