"""What a row of OpenAI's result files means, whatever shape its failure takes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cj_pipeline.batch.comparisons import RequestOutcome
from cj_pipeline.judging.judges import load_judge
from cj_pipeline.judging.pricing import Usage
from cj_pipeline.judging.prompts import Prompt
from cj_pipeline.providers import chat_completions, responses
from cj_pipeline.providers.base import Reply
from cj_pipeline.providers.openai import parse_row
from cj_pipeline.providers.usage_evidence import UsageEvidence

_PROMPT = Prompt("system", "prefix", "one", "two", "0" * 16)
_CHAT_USAGE = {
    "prompt_tokens": 100,
    "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 10},
    "completion_tokens": 30,
    "completion_tokens_details": {"reasoning_tokens": 20},
}


def _chat(content: object = "{}", *, finish: str = "stop", **message: Any) -> dict[str, Any]:
    return {
        "model": "gpt-4.1-mini-2025-04-14",
        "choices": [{"finish_reason": finish, "message": {"content": content, **message}}],
        "usage": _CHAT_USAGE,
    }


def _row(body: object, *, status: object = 200, error: object = None) -> str:
    answer = {"status_code": status, "request_id": "req_1", "body": body}
    return json.dumps({"custom_id": "k-1", "response": answer, "error": error})


def _read(line: str) -> Reply:
    return parse_row(line, chat_completions.read_body)


def test_a_good_row_gives_text_usage_model_and_request_id() -> None:
    """All that is kept of it."""
    reply = _read(_row(_chat('{"winner": "A"}')))

    assert reply == Reply(
        custom_id="k-1",
        outcome=RequestOutcome.SUCCEEDED,
        text='{"winner": "A"}',
        evidence=UsageEvidence.REPORTED,
        usage=Usage(prompt=100, cached=60, cache_write_5m=10, completion=30, reasoning=20),
        model="gpt-4.1-mini-2025-04-14",
        request_id="req_1",
    )


def test_a_body_sent_as_a_json_string_reads_the_same() -> None:
    """Some services write it so."""
    assert _read(_row(json.dumps(_chat("hello")))) == _read(_row(_chat("hello")))


def test_content_in_parts_is_joined() -> None:
    """Some servers answer in parts."""
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]

    assert _read(_row(_chat(parts))).text == "one two"


@pytest.mark.parametrize(
    ("line", "outcome", "code", "may_retry"),
    [
        (
            _row({"error": {"code": "bad_schema", "message": "no"}}, status=400),
            RequestOutcome.PROVIDER_ERROR,
            "bad_schema",
            False,
        ),
        (
            _row({"error": {"type": "server_error"}}, status=500),
            RequestOutcome.PROVIDER_ERROR,
            None,
            True,
        ),
        (
            _row({"error": {"code": "rate"}}, status=429),
            RequestOutcome.PROVIDER_ERROR,
            "rate",
            True,
        ),
        (_row({"error": {"code": "odd"}}, status=200), RequestOutcome.PROVIDER_ERROR, "odd", True),
        (_row({}, status=503), RequestOutcome.PROVIDER_ERROR, "status_503", True),
        (_row(_chat(), status=None), RequestOutcome.PROVIDER_ERROR, "no_response", True),
        (_row("<html>", status=200), RequestOutcome.PROVIDER_ERROR, "no_body", True),
        (_row({"choices": []}), RequestOutcome.PROVIDER_ERROR, "no_choice", True),
        (_row(None, error="quite wrong"), RequestOutcome.PROVIDER_ERROR, "no_response", True),
        (_row(_chat(None, refusal="I will not.")), RequestOutcome.REFUSAL, "refusal", True),
        (_row(_chat('{"win', finish="length")), RequestOutcome.TRUNCATED, "length", True),
        (_row(_chat(None, finish="content_filter")), RequestOutcome.CONTENT_FILTER, None, False),
        (_row(_chat("")), RequestOutcome.INVALID_OUTPUT, "no_text", True),
        (
            json.dumps({"custom_id": "k-1", "response": None, "error": {"code": "batch_expired"}}),
            RequestOutcome.EXPIRED,
            "batch_expired",
            True,
        ),
        (
            json.dumps(
                {"custom_id": "k-1", "response": None, "error": {"code": "batch_cancelled"}}
            ),
            RequestOutcome.CANCELLED,
            "batch_cancelled",
            True,
        ),
    ],
)
def test_every_failure_has_its_outcome(
    line: str, outcome: RequestOutcome, code: str | None, may_retry: bool
) -> None:
    """A failed row is often not one whose `error` is set, and none of them is a verdict."""
    reply = _read(line)

    assert (reply.custom_id, reply.outcome, reply.may_retry) == ("k-1", outcome, may_retry)
    assert code is None or reply.error_code == code


def test_a_truncated_answer_keeps_the_usage_that_was_billed() -> None:
    """It is paid for although it is worth nothing."""
    reply = _read(_row(_chat('{"win', finish="length")))

    assert reply.usage is not None
    assert reply.usage.completion == 30


@pytest.mark.parametrize("line", ["", "{", "[1]", "null", '"text"', "[" * 100_000])
def test_a_garbled_line_answers_no_request(line: str) -> None:
    """It is recorded by whoever collects, and never fatal."""
    reply = _read(line)

    assert (reply.custom_id, reply.outcome) == (None, RequestOutcome.PROVIDER_ERROR)
    assert reply.error_code == "garbled"


_ROW_KEYS = (
    *("custom_id", "response", "error", "status_code", "body", "choices", "message", "content"),
    *("finish_reason", "usage", "code", "output", "type", "text", "status"),
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_ROW_KEYS), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(_JSON)
def test_no_row_of_whatever_shape_raises_or_makes_up_a_text(row: object) -> None:
    """Providers' rows are hostile input; a reader that falls over loses the whole job."""
    line = json.dumps(row)

    for words in (chat_completions, responses):
        reply = parse_row(line, words.read_body)

        assert reply.outcome is not RequestOutcome.SUCCEEDED or reply.text


def test_odd_counts_are_no_report() -> None:
    """A negative or absurd count must not pay us back, nor empty the budget."""
    body = _chat("x") | {"usage": {"prompt_tokens": -5, "completion_tokens": 10**30}}

    reply = _read(_row(body))

    assert (reply.usage, reply.evidence) == (None, UsageEvidence.NOT_REPORTED)


def test_chat_requests_ask_for_the_verdicts_schema_and_bound_the_answer() -> None:
    """The schema spares most invalid outputs, the bound every runaway bill."""
    body = chat_completions.build_body(_PROMPT, load_judge("quality"))

    assert body["response_format"]["json_schema"]["strict"] is True
    assert body["max_completion_tokens"] == 512
    assert "temperature" not in body


def test_local_servers_are_asked_with_the_older_name_of_the_bound() -> None:
    """Most of them do not know the newer one, and would answer without end."""
    body = chat_completions.build_body(_PROMPT, load_judge("local-ollama-llama-3-1"))

    assert body["max_tokens"] == 512
    assert body["temperature"] == 0


def test_the_prompt_begins_with_what_never_changes() -> None:
    """Or no provider's cache could serve two comparisons."""
    messages = chat_completions.build_body(_PROMPT, load_judge("quality"))["messages"]

    assert messages == [
        {"role": "system", "content": "system"},
        {"role": "user", "content": f"prefix\n\n{_PROMPT.essays}"},
    ]


def test_responses_are_not_stored_at_the_provider() -> None:
    """Essays are their authors'; that endpoint keeps them unless told not to."""
    body = responses.build_body(_PROMPT, load_judge("openai-gpt-5-1-low"))

    assert body["store"] is False
    assert body["reasoning"] == {"effort": "low"}
    assert body["text"]["format"]["type"] == "json_schema"


def _response(*parts: dict[str, Any], status: str = "completed", **more: Any) -> dict[str, Any]:
    return {
        "status": status,
        "model": "gpt-5.1",
        "output": [{"type": "reasoning"}, {"type": "message", "content": list(parts)}],
        "usage": {
            "input_tokens": 50,
            "input_tokens_details": {
                "cached_tokens": 20,
                "cache_write_tokens": 12,
                "cache_write_tokens_details": {"ttl_30m_tokens": 8, "ttl_12h_tokens": 4},
            },
            "output_tokens": 9,
            "output_tokens_details": {"reasoning_tokens": 5},
        },
        **more,
    }


def test_a_response_gives_the_text_of_its_message_and_its_usage() -> None:
    """Reasoning items are passed over; writes are split by how long they live."""
    reply = responses.read_body(_response({"type": "output_text", "text": "yes"}))

    assert (reply.outcome, reply.text) == (RequestOutcome.SUCCEEDED, "yes")
    assert reply.usage == Usage(50, 20, 8, 4, 9, 5)


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (_response({"type": "refusal", "refusal": "no"}), RequestOutcome.REFUSAL),
        (
            _response(status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
            RequestOutcome.TRUNCATED,
        ),
        (
            _response(status="incomplete", incomplete_details={"reason": "content_filter"}),
            RequestOutcome.CONTENT_FILTER,
        ),
        (_response(status="failed"), RequestOutcome.PROVIDER_ERROR),
        (_response(), RequestOutcome.INVALID_OUTPUT),
    ],
)
def test_a_response_without_an_answer_has_its_outcome(
    body: dict[str, Any], outcome: RequestOutcome
) -> None:
    """None of them is a verdict."""
    assert responses.read_body(body).outcome is outcome
