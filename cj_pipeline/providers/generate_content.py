"""The words of Gemini's generate-content endpoint."""

from __future__ import annotations

from typing import Any

from cj_pipeline.batch.comparisons import RequestOutcome
from cj_pipeline.judging.judges import Judge
from cj_pipeline.judging.prompts import Prompt, verdict_schema
from cj_pipeline.providers.base import Reply
from cj_pipeline.providers.transport import count, items, mapping, text_or_none
from cj_pipeline.providers.usage_evidence import SentCounts, UsageReading, read_usage

_FILTERED = frozenset(
    {"SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "OTHER"}
)


def build_content(prompt: Prompt, judge: Judge) -> dict[str, Any]:
    """Return model, contents and configuration of one request, as the SDK takes them.

    The schema goes out as `response_schema`: the newer `response_json_schema` was observed to
    give useless answers inside batches.
    """
    config: dict[str, Any] = {
        "system_instruction": {"parts": [{"text": prompt.system}]},
        "max_output_tokens": judge.settings.max_output_tokens,
        "response_mime_type": "application/json",
        "response_schema": _openapi_schema(verdict_schema(allow_ties=judge.allow_ties)),
    }
    if judge.settings.temperature is not None:
        config["temperature"] = judge.settings.temperature
    if judge.settings.reasoning_effort is not None:
        config["thinking_config"] = {"thinking_level": judge.settings.reasoning_effort}
    return {
        "model": judge.model,
        "contents": [{"role": "user", "parts": [{"text": prompt.prefix}, {"text": prompt.essays}]}],
        "config": config,
    }


def read_response(response: dict[str, Any]) -> Reply:
    """Parse a response; its custom id is the caller's to add."""
    candidates = items(response.get("candidates"))
    candidate = candidates[0] if candidates else {}
    parts = items(mapping(candidate.get("content")).get("parts"))
    texts = [part.get("text") for part in parts if not part.get("thought")]
    text = "".join(t for t in texts if isinstance(t, str)) or None
    outcome, code = _outcome(response, candidate, text)
    usage = _usage(response.get("usageMetadata"))
    return Reply(
        custom_id=None,
        outcome=outcome,
        text=text,
        usage=usage.usage,
        evidence=usage.evidence,
        service_tier=text_or_none(mapping(response.get("usageMetadata")).get("serviceTier")),
        model=text_or_none(response.get("modelVersion")),
        request_id=text_or_none(response.get("responseId")),
        error_code=code,
        may_retry=outcome not in {RequestOutcome.SUCCEEDED, RequestOutcome.CONTENT_FILTER},
    )


def _outcome(
    response: dict[str, Any], candidate: dict[str, Any], text: str | None
) -> tuple[RequestOutcome, str | None]:
    blocked = text_or_none(mapping(response.get("promptFeedback")).get("blockReason"))
    finish = text_or_none(candidate.get("finishReason"))
    if blocked is not None or finish in _FILTERED:
        return RequestOutcome.CONTENT_FILTER, blocked or finish
    if not candidate:
        return RequestOutcome.PROVIDER_ERROR, "no_candidate"
    if finish == "MAX_TOKENS":
        return RequestOutcome.TRUNCATED, finish
    if finish not in {"STOP", None}:
        return RequestOutcome.INVALID_OUTPUT, finish
    if text is None:
        return RequestOutcome.INVALID_OUTPUT, "no_text"
    return RequestOutcome.SUCCEEDED, None


def _usage(sent: object) -> UsageReading:
    """Return usage in our meaning: the prompt includes cached tokens, the answer lacks thoughts.

    Both are billed, thoughts at the price of output, and what tools add to the prompt as input.
    """
    usage = mapping(sent)
    prompt, of_tools = usage.get("promptTokenCount"), usage.get("toolUsePromptTokenCount")
    return read_usage(
        SentCounts(
            prompt=count(prompt) + count(of_tools) if of_tools else prompt,
            completion=usage.get("candidatesTokenCount"),
            cached=usage.get("cachedContentTokenCount"),
            reasoning=usage.get("thoughtsTokenCount"),
            total=usage.get("totalTokenCount"),
            reasoning_is_beside=True,
        )
    )


def _openapi_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a JSON schema in the dialect of OpenAPI that Gemini takes, which is closed anyway."""
    kept = {key: value for key, value in schema.items() if key != "additionalProperties"}
    kept["type"] = str(kept["type"]).upper()
    if "properties" in kept:
        kept["properties"] = {
            name: _openapi_schema(inner) for name, inner in kept["properties"].items()
        }
        kept["property_ordering"] = list(kept["properties"])
    return kept
