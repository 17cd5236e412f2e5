"""The words of OpenAI's chat completions, which many other servers speak as well."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cj_pipeline.batch.comparisons import RequestOutcome
from cj_pipeline.judging.judges import Judge
from cj_pipeline.judging.prompts import Prompt, verdict_schema
from cj_pipeline.providers.base import Reply
from cj_pipeline.providers.transport import items, mapping, text_or_none
from cj_pipeline.providers.usage_evidence import SentCounts, UsageReading, read_usage

ENDPOINT = "/v1/chat/completions"
WANTED = "choices"
"""The field that an answer has, and an error in its place has not."""


def build_body(prompt: Prompt, judge: Judge) -> dict[str, Any]:
    """Return the body of one request: first what never changes, so that a cache can serve it."""
    body: dict[str, Any] = {
        "model": judge.model,
        "messages": [
            {"role": "system", "content": prompt.system},
            {"role": "user", "content": f"{prompt.prefix}\n\n{prompt.essays}"},
        ],
    }
    if judge.json_by == "json_schema":
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {
                "name": "verdict",
                "strict": True,
                "schema": verdict_schema(allow_ties=judge.allow_ties),
            },
        }
    elif judge.json_by == "json_object":
        body["response_format"] = {"type": "json_object"}
    # OpenAI's reasoning models refuse the old name, most other servers know only that one.
    limit = "max_completion_tokens" if judge.is_simulated else judge.service.answer_limit
    body[limit] = judge.settings.max_output_tokens
    if judge.settings.temperature is not None:
        body["temperature"] = judge.settings.temperature
    if judge.settings.reasoning_effort is not None:
        body["reasoning_effort"] = judge.settings.reasoning_effort
    return body | dict(judge.service.extra_body)


AS_STREAM: Mapping[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
"""What a body has besides that asks for a stream."""


def joined(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the completion that the events of a stream make together.

    Raises:
        ValueError: If none of them says that it is over.
    """
    whole: dict[str, Any] = {}
    said = {"content": "", "refusal": ""}
    finish = None
    for event in events:
        if event.get("error"):
            return event
        whole |= {name: event[name] for name in _OF_THE_WHOLE if event.get(name) is not None}
        for choice in items(event.get("choices")):
            for name in said:
                piece = mapping(choice.get("delta")).get(name)
                said[name] += piece if isinstance(piece, str) else ""
            finish = choice.get("finish_reason") or finish
    if finish is None:
        msg = "the stream ended before the answer did"
        raise ValueError(msg)
    message = {name: text or None for name, text in said.items()}
    return whole | {"choices": [{"index": 0, "message": message, "finish_reason": finish}]}


_OF_THE_WHOLE = ("id", "model", "system_fingerprint", "service_tier", "usage")


def read_body(body: dict[str, Any]) -> Reply:
    """Parse a completion; its custom id is the caller's to add."""
    choices = body.get("choices")
    choice = mapping(choices[0]) if isinstance(choices, list) and choices else {}
    message = mapping(choice.get("message"))
    text = _text(message.get("content"))
    outcome, code = _outcome(choice, message, text)
    usage = _usage(body.get("usage"))
    return Reply(
        custom_id=None,
        outcome=outcome,
        text=text,
        usage=usage.usage,
        evidence=usage.evidence,
        stated_usd=_stated_usd(body.get("usage")),
        model=text_or_none(body.get("model")),
        fingerprint=text_or_none(body.get("system_fingerprint")),
        service_tier=text_or_none(body.get("service_tier")),
        error_code=code,
        error_message=text_or_none(message.get("refusal")),
        may_retry=outcome not in {RequestOutcome.SUCCEEDED, RequestOutcome.CONTENT_FILTER},
    )


def _outcome(
    choice: dict[str, Any], message: dict[str, Any], text: str | None
) -> tuple[RequestOutcome, str | None]:
    finish = choice.get("finish_reason")
    if not choice or choice.get("error") or finish == "error":
        return RequestOutcome.PROVIDER_ERROR, "error_in_answer" if choice else "no_choice"
    if message.get("refusal"):
        return RequestOutcome.REFUSAL, "refusal"
    if finish == "length":
        return RequestOutcome.TRUNCATED, "length"
    if finish == "content_filter":
        return RequestOutcome.CONTENT_FILTER, "content_filter"
    if text is None:
        return RequestOutcome.INVALID_OUTPUT, "no_text"
    return RequestOutcome.SUCCEEDED, None


def _text(content: object) -> str | None:
    """Return the text of a message, which some servers send in parts."""
    if isinstance(content, list):
        parts = [mapping(part).get("text") for part in content]
        return "".join(part for part in parts if isinstance(part, str)) or None
    return text_or_none(content)


def _stated_usd(usage: object) -> float | None:
    """Return what an answer says it cost; only some services do, and only they are believed."""
    cost = mapping(usage).get("cost")
    if isinstance(cost, bool) or not isinstance(cost, int | float) or not math.isfinite(cost):
        return None
    return float(cost) if 0 <= cost < MOST_USD else None


MOST_USD = 1_000.0
"""No answer costs as much: a larger figure is a mistake."""


def _usage(sent: object) -> UsageReading:
    """Return usage in our meaning: OpenAI's prompt tokens include cached and written ones."""
    usage = mapping(sent)
    prompt_details = mapping(usage.get("prompt_tokens_details"))
    completion_details = mapping(usage.get("completion_tokens_details"))
    return read_usage(
        SentCounts(
            prompt=usage.get("prompt_tokens"),
            completion=usage.get("completion_tokens"),
            cached=prompt_details.get("cached_tokens"),
            written_5m=prompt_details.get("cache_write_tokens"),
            reasoning=completion_details.get("reasoning_tokens"),
            total=usage.get("total_tokens"),
        )
    )
