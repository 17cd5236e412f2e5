"""Gemini's words and wire: states of two spellings, counts in texts, keys in metadata.

The real SDK, over a transport that answers as told. What a whole conversation does is in
`test_contract.py`.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from google import genai
from google.genai import types
from hypothesis import given
from hypothesis import strategies as st

from cj_pipeline.batch.comparisons import RequestOutcome
from cj_pipeline.errors import (
    AccountRefusedError,
    CJError,
    ProviderRefusedError,
    ProviderUnavailableError,
    UncertainOutcomeError,
)
from cj_pipeline.judging.judges import load_judge
from cj_pipeline.judging.pricing import Usage
from cj_pipeline.judging.prompts import Prompt
from cj_pipeline.providers.base import JobOutcome
from cj_pipeline.providers.gemini import (
    LIMITS,
    BodyRecorder,
    GeminiBatches,
    parse_response,
    read_status,
)
from cj_pipeline.providers.generate_content import build_content

_NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
_KEY = "ab" * 32
_JUDGE = load_judge("gemini-2-5-flash")
_PROMPT = Prompt("system", "prefix", "one", "two", "0" * 16)

Handler = Callable[[httpx2.Request], httpx2.Response]


def _provider(handler: Handler) -> GeminiBatches:
    bodies = BodyRecorder()
    transport = httpx2.MockTransport(handler)
    http = httpx2.Client(transport=transport, event_hooks={"response": [bodies]})
    options = types.HttpOptions(base_url="http://provider.invalid", httpx_client=http)
    client = genai.Client(api_key="secret-key", http_options=options, vertexai=False)
    return GeminiBatches(
        client, bodies, "gemini", "gemini-1", LIMITS, lambda: _NOW, lambda _: client
    )


def _says(status: int, body: object = None, **headers: str) -> Handler:
    content = body if isinstance(body, str) else json.dumps(body or {})
    kind = {"content-type": "application/json"}
    return lambda request: httpx2.Response(status, text=content, headers=kind | headers)


def _fails(error: Exception) -> Handler:
    def handler(request: httpx2.Request) -> httpx2.Response:
        raise error

    return handler


def _error(code: int, status: str, message: str = "no") -> Handler:
    return _says(code, {"error": {"code": code, "status": status, "message": message}})


def _operation(state: str = "BATCH_STATE_RUNNING", **changes: Any) -> dict[str, Any]:
    metadata = {
        "displayName": _KEY,
        "state": state,
        "createTime": _NOW.isoformat(),
        "batchStats": {"requestCount": "3", "successfulRequestCount": "2"},
    }
    return {"name": "batches/b1", "metadata": metadata} | changes


def _response(text: str | None = "{}", finish: str = "STOP", **changes: Any) -> dict[str, Any]:
    parts = [{"text": "hm", "thought": True}, *([{"text": text}] if text else [])]
    answer = {
        "candidates": [{"content": {"parts": parts}, "finishReason": finish}],
        "modelVersion": "gemini-2.5-flash",
        "usageMetadata": {
            "promptTokenCount": 100,
            "cachedContentTokenCount": 60,
            "candidatesTokenCount": 10,
            "thoughtsTokenCount": 25,
        },
    }
    return answer | changes


def _row(**answer: Any) -> str:
    return json.dumps({"metadata": {"key": "k-1"}, **answer})


def test_thoughts_are_billed_as_completion_and_not_read_as_the_answer() -> None:
    """Gemini counts them beside the answer, and marks them inside it."""
    reply = parse_response(_row(response=_response("yes")))

    assert (reply.custom_id, reply.outcome, reply.text) == ("k-1", RequestOutcome.SUCCEEDED, "yes")
    assert reply.usage == Usage(prompt=100, cached=60, completion=35, reasoning=25)


@pytest.mark.parametrize(
    ("line", "outcome", "may_retry"),
    [
        (_row(response=_response("{", "MAX_TOKENS")), RequestOutcome.TRUNCATED, True),
        (_row(response=_response(None, "SAFETY")), RequestOutcome.CONTENT_FILTER, False),
        (
            _row(response={"promptFeedback": {"blockReason": "SAFETY"}}),
            RequestOutcome.CONTENT_FILTER,
            False,
        ),
        (_row(response=_response(None)), RequestOutcome.INVALID_OUTPUT, True),
        (
            _row(response=_response("x", "MALFORMED_FUNCTION_CALL")),
            RequestOutcome.INVALID_OUTPUT,
            True,
        ),
        (_row(response={"candidates": []}), RequestOutcome.PROVIDER_ERROR, True),
        (_row(error={"code": 3, "message": "bad"}), RequestOutcome.PROVIDER_ERROR, False),
        (_row(error={"code": 14}), RequestOutcome.PROVIDER_ERROR, True),
        (_row(error={"code": 1}), RequestOutcome.CANCELLED, True),
        (_row(), RequestOutcome.PROVIDER_ERROR, True),
    ],
)
def test_every_ending_of_a_row_has_its_outcome(
    line: str, outcome: RequestOutcome, may_retry: bool
) -> None:
    """Only the first kind of answer can hold a verdict."""
    reply = parse_response(line)

    assert (reply.custom_id, reply.outcome, reply.may_retry) == ("k-1", outcome, may_retry)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["metadata", "key", "response", "candidates", "content", "parts", "error", "text"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(_JSON)
def test_no_row_of_whatever_shape_raises_or_makes_up_a_text(row: object) -> None:
    """Providers' rows are hostile input; a reader that falls over loses the whole job."""
    reply = parse_response(json.dumps(row))

    assert reply.outcome is not RequestOutcome.SUCCEEDED or reply.text


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("BATCH_STATE_PENDING", None),
        ("JOB_STATE_RUNNING", None),
        ("JOB_STATE_DREAMING", None),
        ("BATCH_STATE_SUCCEEDED", JobOutcome.COMPLETED),
        ("JOB_STATE_PARTIALLY_SUCCEEDED", JobOutcome.COMPLETED),
        ("BATCH_STATE_EXPIRED", JobOutcome.EXPIRED),
        ("JOB_STATE_CANCELLED", JobOutcome.CANCELLED),
        ("job_state_succeeded", JobOutcome.COMPLETED),
        ("Running", None),
    ],
)
def test_states_of_both_spellings_end_a_batch_or_do_not(
    state: str, expected: JobOutcome | None
) -> None:
    """The SDK's own `done` never comes true for a partial success."""
    assert read_status(_operation(state)).outcome is expected


def test_an_operation_that_is_done_is_an_end_whatever_its_state_is_called() -> None:
    """A new word would otherwise keep paid answers at the provider for ever."""
    done = _operation("BATCH_STATE_ARCHIVED") | {"done": True}

    assert read_status(done).outcome is JobOutcome.COMPLETED
    assert read_status(done | {"error": {"code": 13}}).outcome is JobOutcome.FAILED


def test_a_failed_batch_says_why_and_how_much_was_done() -> None:
    """The SDK drops both; they are read from the JSON as it came."""
    error = {"code": 8, "message": "quota"}

    status = _provider(_says(200, _operation("BATCH_STATE_FAILED", error=error))).poll("batches/b1")

    assert (status.error_code, status.error, status.n_completed) == ("8", "quota", 2)


@pytest.mark.parametrize("holder", ["response", "metadata"])
def test_responses_are_found_wherever_the_service_puts_them(holder: str) -> None:
    """The documents show one place, the SDK reads the other."""
    operation = _operation("BATCH_STATE_SUCCEEDED")
    output = {"inlinedResponses": {"inlinedResponses": [{"response": _response("yes")}]}}
    if holder == "response":
        operation["response"] = output
    else:
        operation["metadata"]["output"] = output

    lines = list(_provider(_says(200, operation)).collect("batches/b1"))

    assert [parse_response(line.text).text for line in lines] == ["yes"]


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        (_fails(httpx2.ConnectError("no route")), ProviderUnavailableError),
        (_fails(httpx2.ReadTimeout("late")), UncertainOutcomeError),
        (_error(503, "UNAVAILABLE"), UncertainOutcomeError),
        (_says(200, "<html>"), UncertainOutcomeError),
        (_says(200, {"done": False}), UncertainOutcomeError),
        (_error(429, "RESOURCE_EXHAUSTED"), ProviderUnavailableError),
        (_error(400, "INVALID_ARGUMENT"), ProviderRefusedError),
        (_error(400, "INVALID_ARGUMENT", "API key not valid: secret-key"), AccountRefusedError),
        (_error(403, "PERMISSION_DENIED"), AccountRefusedError),
    ],
)
def test_a_failed_create_says_whether_a_job_may_exist(
    handler: Handler, kind: type[CJError], tmp_path: Path
) -> None:
    """Creating a batch is not idempotent here, as its documents say themselves."""
    shard = tmp_path / "shard"
    provider = _provider(handler)
    shard.write_text(json.dumps(provider.build_request(_PROMPT, _JUDGE, "k-1")) + "\n")

    with pytest.raises(kind) as caught:
        provider.create(shard, None, _KEY)

    assert type(caught.value) is kind
    assert "secret-key" not in str(caught.value)


def test_a_delay_in_an_errors_details_is_passed_on() -> None:
    """Google asks for patience there, and not in a header."""
    details = [{"@type": "google.rpc.RetryInfo", "retryDelay": "30s"}]
    body = {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": details}}

    with pytest.raises(ProviderUnavailableError) as caught:
        _provider(_says(429, body)).poll("batches/b1")

    assert caught.value.retry_after_s == 30


def test_a_batch_is_sent_with_its_key_its_schema_and_every_custom_id(tmp_path: Path) -> None:
    """What the service is asked, as the SDK puts it on the wire."""
    sent: list[dict[str, Any]] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        sent.append(json.loads(request.read()))
        return httpx2.Response(200, json=_operation())

    provider = _provider(handler)
    shard = tmp_path / "shard"
    shard.write_text(json.dumps(provider.build_request(_PROMPT, _JUDGE, "k-1")) + "\n")

    job_id = provider.create(shard, None, _KEY)

    batch = sent[0]["batch"]
    item = batch["inputConfig"]["requests"]["requests"][0]
    assert (job_id, batch["displayName"]) == ("batches/b1", _KEY)
    assert item["metadata"] == {"key": "k-1"}
    assert item["request"]["generationConfig"]["responseSchema"]["type"] == "OBJECT"
    assert item["request"]["systemInstruction"]["parts"][0]["text"] == "system"


def test_a_job_is_found_by_its_display_name_on_any_page() -> None:
    """The list has no filter on this API, and no stated order."""
    older = _operation()
    older["metadata"] = {**older["metadata"], "createTime": (_NOW - timedelta(days=2)).isoformat()}
    pages = {"": {"operations": [older | {"name": "batches/b0"}], "nextPageToken": "two"}}
    pages["two"] = {"operations": [_operation()]}

    def handler(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json=pages[request.url.params.get("pageToken", "")])

    found = _provider(handler).find(_KEY, _NOW, 3)

    assert [(job.job_id, job.is_certain) for job in found] == [("batches/b1", True)]


def test_the_schema_is_written_in_the_dialect_that_works_in_batches() -> None:
    """Its newer sibling has been seen to give useless answers there."""
    config = build_content(_PROMPT, _JUDGE)["config"]

    assert "response_json_schema" not in config
    assert "additionalProperties" not in json.dumps(config)
    assert config["response_schema"]["properties"]["winner"]["enum"] == ["A", "B"]


def test_a_single_call_that_is_wrong_is_a_row_that_failed() -> None:
    """One bad comparison must not look like a provider that is down."""
    provider = _provider(_error(400, "INVALID_ARGUMENT", "too long"))

    line = provider.single(provider.build_request(_PROMPT, _JUDGE, "k-1"), timeout_s=5)
    reply = provider.parse_reply(line)

    assert (reply.custom_id, reply.may_retry) == ("k-1", False)


@pytest.mark.parametrize(
    ("stats", "told"),
    [
        ({"requestCount": "3", "successfulRequestCount": "2"}, (2, 0)),
        ({"requestCount": 3, "failedRequestCount": 3.0}, (0, 3)),
        ({"requestCount": "0", "successfulRequestCount": "0"}, (None, None)),
        ({"requestCount": "3"}, (None, None)),
    ],
)
def test_counts_of_no_requests_say_nothing(
    stats: dict[str, Any], told: tuple[int | None, int | None]
) -> None:
    """Where nothing counts as done, missing rows are bought again, and what is there is deleted."""
    operation = _operation("BATCH_STATE_CANCELLED")
    operation["metadata"]["batchStats"] = stats

    status = read_status(operation)

    assert (status.n_completed, status.n_failed) == told


def test_a_batch_that_failed_with_results_is_not_sent_again_whole() -> None:
    """What was done of it was paid for, whether or not it is counted."""
    failed = _operation("BATCH_STATE_FAILED")
    failed["metadata"]["batchStats"] = {}
    failed["error"] = {"code": 8, "message": "Your prepayment credits are depleted."}
    results = {"inlinedResponses": {"inlinedResponses": [{"response": {}}, {"error": {}}]}}

    assert read_status(failed).waits_for_credit
    assert not read_status(failed | {"response": results}).waits_for_credit
