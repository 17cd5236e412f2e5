"""The words of OpenAI's responses endpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cj_pipeline.batch.comparisons import RequestOutcome
from cj_pipeline.judging.judges import Judge
from cj_pipeline.judging.prompts import Prompt, verdict_schema
from cj_pipeline.providers.base import Reply
from cj_pipeline.providers.transport import count, items, mapping, shortened, text_or_none
from cj_pipeline.providers.usage_evidence import SentCounts, UsageReading, read_usage

ENDPOINT = "/v1/responses"
WANTED = "output"
"""The field that an answer has, and an error in its place has not."""


def build_body(prompt: Prompt, judge: Judge) -> dict[str, Any]:
    """Return the body of one request; `store` is off, because essays are their authors'."""
    body: dict[str, Any] = {
        "model": judge.model,
        "instructions": prompt.system,
        "input": f"{prompt.prefix}\n\n{prompt.essays}",
        **({} if judge.json_by == "prompt" else {"text": {"format": _format(judge)}}),
        "max_output_tokens": judge.settings.max_output_tokens,
        "store": False,
    }
    if judge.settings.temperature is not None:
        body["temperature"] = judge.settings.temperature
    if judge.settings.reasoning_effort is not None:
        body["reasoning"] = {"effort": judge.settings.reasoning_effort}
    return body | dict(judge.service.extra_body)


def _format(judge: Judge) -> dict[str, Any]:
    if judge.json_by == "json_object":
        return {"type": "json_object"}
    return {
        "type": "json_schema",
        "name": "verdict",
        "strict": True,
        "schema": verdict_schema(allow_ties=judge.allow_ties),
    }


AS_STREAM: Mapping[str, Any] = {"stream": True}
"""What a body has besides that asks for a stream."""

_LAST = frozenset({"response.completed", "response.incomplete", "response.failed"})


def joined(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the response that the last event of a stream holds.

    Raises:
        ValueError: If none of them says that it is over.
    """
    for event in events:
        if event.get("type") in _LAST:
            return mapping(event.get("response"))
        if event.get("type") == "error":
            return {"error": mapping(event.get("error")) or event}
    msg = "the stream ended before the answer did"
    raise ValueError(msg)


def read_body(body: dict[str, Any]) -> Reply:
    """Parse a response; its custom id is the caller's to add."""
    messages = [
        items(item.get("content"))
        for item in items(body.get("output"))
        if item.get("type") == "message"
    ]
    parts = [part for message in messages for part in message]
    texts = [_text(message) for message in messages]
    # Some answers hold the same message twice, and it is one answer.
    is_one = len({text.strip() for text in texts}) == 1
    text = (texts[-1] if is_one else "".join(texts)) or None
    refusals = [part.get("refusal") for part in parts if part.get("type") == "refusal"]
    outcome, code = _outcome(body, text, is_refused=bool(refusals))
    usage = _usage(body.get("usage"))
    error = mapping(body.get("error"))
    error_text = refusals[0] if refusals else error.get("message")
    return Reply(
        custom_id=None,
        outcome=outcome,
        text=text,
        usage=usage.usage,
        evidence=usage.evidence,
        model=text_or_none(body.get("model")),
        fingerprint=text_or_none(body.get("system_fingerprint")),
        service_tier=text_or_none(body.get("service_tier")),
        error_code=text_or_none(error.get("code")) or code,
        error_message=shortened(error_text) if error_text else None,
        may_retry=outcome not in {RequestOutcome.SUCCEEDED, RequestOutcome.CONTENT_FILTER},
    )


def _text(message: list[dict[str, Any]]) -> str:
    texts = [part.get("text") for part in message if part.get("type") == "output_text"]
    return "".join(text for text in texts if isinstance(text, str))


def _outcome(
    body: dict[str, Any], text: str | None, *, is_refused: bool
) -> tuple[RequestOutcome, str | None]:
    reason = mapping(body.get("incomplete_details")).get("reason")
    if is_refused:
        return RequestOutcome.REFUSAL, "refusal"
    if reason == "content_filter":
        return RequestOutcome.CONTENT_FILTER, "content_filter"
    if body.get("status") == "incomplete":
        return RequestOutcome.TRUNCATED, text_or_none(reason) or "incomplete"
    if body.get("status") != "completed":
        return RequestOutcome.PROVIDER_ERROR, text_or_none(body.get("status")) or "no_status"
    if text is None:
        return RequestOutcome.INVALID_OUTPUT, "no_text"
    return RequestOutcome.SUCCEEDED, None


def _usage(sent: object) -> UsageReading:
    """Return usage in our meaning: input tokens include cached and written ones."""
    usage = mapping(sent)
    details = mapping(usage.get("input_tokens_details"))
    written, long_lived = details.get("cache_write_tokens"), None
    if sent_long := mapping(details.get("cache_write_tokens_details")).get("ttl_12h_tokens"):
        long_lived = min(count(written), count(sent_long))
        written = count(written) - long_lived
    return read_usage(
        SentCounts(
            prompt=usage.get("input_tokens"),
            completion=usage.get("output_tokens"),
            cached=details.get("cached_tokens"),
            written_5m=written,
            written_1h=long_lived,
            reasoning=mapping(usage.get("output_tokens_details")).get("reasoning_tokens"),
            total=usage.get("total_tokens"),
        )
    )
