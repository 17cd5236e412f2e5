"""Anthropic's words and wire: results of every kind, and jobs that bear no name.

The real SDK, over a transport that answers as told. What a whole conversation does is in
`test_contract.py`.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest
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
from cj_pipeline.providers.anthropic import LIMITS, AnthropicBatches, parse_result, read_status
from cj_pipeline.providers.base import FoundJob, JobOutcome
from cj_pipeline.providers.messages import build_params

_NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
_KEY = "ab" * 32
_JUDGE = load_judge("anthropic-claude-haiku-4-5")
_PROMPT = Prompt("system", "prefix", "one", "two", "0" * 16)

Handler = Callable[[httpx2.Request], httpx2.Response]


def _provider(handler: Handler) -> AnthropicBatches:
    client = anthropic.Anthropic(
        api_key="sk-secret",
        base_url="http://provider.invalid",
        max_retries=0,
        http_client=httpx2.Client(transport=httpx2.MockTransport(handler)),
    )
    return AnthropicBatches(client, "anthropic", "anthropic-1", LIMITS, lambda: _NOW)


def _says(status: int, body: object = None, **headers: str) -> Handler:
    content = body if isinstance(body, str) else json.dumps(body or {})
    return lambda request: httpx2.Response(status, text=content, headers=headers)


def _fails(error: Exception) -> Handler:
    def handler(request: httpx2.Request) -> httpx2.Response:
        raise error

    return handler


def _message(*texts: str, stop: str | None = "end_turn") -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-haiku-4-5-20251001",
        "content": [{"type": "text", "text": text} for text in texts],
        "stop_reason": stop,
        "usage": {
            "input_tokens": 100,
            "cache_read_input_tokens": 40,
            "cache_creation_input_tokens": 30,
            "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 10},
            "output_tokens": 9,
        },
    }


def _row(**result: Any) -> str:
    return json.dumps({"custom_id": "k-1", "result": result})


def _counts(**counts: int) -> dict[str, int]:
    names = ("processing", "succeeded", "errored", "canceled", "expired")
    return {name: counts.get(name, 0) for name in names}


def _batch(**changes: Any) -> dict[str, Any]:
    batch = {
        "id": "msgbatch_1",
        "type": "message_batch",
        "processing_status": "in_progress",
        "created_at": _NOW.isoformat(),
        "expires_at": (_NOW + timedelta(days=1)).isoformat(),
        "request_counts": _counts(processing=2),
        "results_url": None,
    }
    return batch | changes


def test_a_succeeded_row_counts_cached_tokens_as_part_of_the_prompt() -> None:
    """Anthropic's input tokens leave them out; our bills count them once, at their own price."""
    reply = parse_result(_row(type="succeeded", message=_message('{"winner"', ': "A"}')))

    assert (reply.custom_id, reply.outcome) == ("k-1", RequestOutcome.SUCCEEDED)
    assert reply.text == '{"winner": "A"}'
    assert reply.usage == Usage(170, 40, 20, 10, 9, 0)


@pytest.mark.parametrize(
    ("line", "outcome", "may_retry"),
    [
        (
            _row(type="succeeded", message=_message("{", stop="max_tokens")),
            RequestOutcome.TRUNCATED,
            True,
        ),
        (
            _row(type="succeeded", message=_message("no", stop="refusal")),
            RequestOutcome.REFUSAL,
            True,
        ),
        (_row(type="succeeded", message=_message()), RequestOutcome.INVALID_OUTPUT, True),
        (
            _row(type="succeeded", message=_message("x", stop="tool_use")),
            RequestOutcome.INVALID_OUTPUT,
            True,
        ),
        (_row(type="expired"), RequestOutcome.EXPIRED, True),
        (_row(type="canceled"), RequestOutcome.CANCELLED, True),
        (_row(type="odd"), RequestOutcome.PROVIDER_ERROR, True),
        (
            _row(type="errored", error={"type": "error", "error": {"type": "overloaded_error"}}),
            RequestOutcome.PROVIDER_ERROR,
            True,
        ),
        (
            _row(
                type="errored",
                error={"type": "error", "error": {"type": "invalid_request_error"}},
            ),
            RequestOutcome.PROVIDER_ERROR,
            False,
        ),
    ],
)
def test_every_ending_of_a_row_has_its_outcome(
    line: str, outcome: RequestOutcome, may_retry: bool
) -> None:
    """Only the first kind of answer can hold a verdict."""
    reply = parse_result(line)

    assert (reply.custom_id, reply.outcome, reply.may_retry) == ("k-1", outcome, may_retry)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["custom_id", "result", "type", "message", "content", "error", "text"]),
            inner | st.sampled_from(["succeeded", "errored", "text", "end_turn"]),
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(_JSON)
def test_no_row_of_whatever_shape_raises_or_makes_up_a_text(row: object) -> None:
    """Providers' rows are hostile input; a reader that falls over loses the whole job."""
    reply = parse_result(json.dumps(row))

    assert reply.outcome is not RequestOutcome.SUCCEEDED or reply.text


def test_the_prefix_is_marked_for_caching_only_where_that_is_asked() -> None:
    """Writing a cache costs more than reading it saves unless the prefix comes again soon."""
    plain = build_params(_PROMPT, _JUDGE, cache_prefix=False)
    marked = build_params(_PROMPT, _JUDGE, cache_prefix=True)

    assert "cache_control" not in json.dumps(plain)
    assert marked["messages"][0]["content"][0]["cache_control"]["ttl"] == "5m"
    assert "cache_control" not in marked["messages"][0]["content"][1]


def test_requests_ask_for_the_verdicts_schema() -> None:
    """It spares most invalid outputs."""
    params = build_params(_PROMPT, _JUDGE, cache_prefix=False)

    assert params["output_config"]["format"]["type"] == "json_schema"
    assert params["max_tokens"] == 1024


@pytest.mark.parametrize(
    ("batch", "state", "outcome"),
    [
        (_batch(), "running", None),
        (_batch(processing_status="canceling"), "running", None),
        (_batch(processing_status="archiving"), "running", None),
        (
            _batch(processing_status="ENDED", request_counts=_counts(succeeded=2)),
            "ended",
            JobOutcome.COMPLETED,
        ),
        (
            _batch(
                processing_status="archived",
                request_counts=_counts(succeeded=2),
                results_url="https://example.org/results",
            ),
            "ended",
            JobOutcome.COMPLETED,
        ),
        (
            _batch(processing_status="ended", request_counts=_counts(succeeded=2)),
            "ended",
            JobOutcome.COMPLETED,
        ),
        (
            _batch(processing_status="ended", request_counts=_counts(succeeded=1, expired=1)),
            "ended",
            JobOutcome.EXPIRED,
        ),
        (
            _batch(
                processing_status="ended",
                request_counts=_counts(canceled=2),
                cancel_initiated_at=_NOW.isoformat(),
            ),
            "ended",
            JobOutcome.CANCELLED,
        ),
    ],
)
def test_only_ended_ends_a_batch(
    batch: dict[str, Any], state: str, outcome: JobOutcome | None
) -> None:
    """How it ended is told by its counts."""
    status = read_status(batch)

    assert (status.state, status.outcome) == (state, outcome)


def test_a_running_batch_tells_no_counts() -> None:
    """All but one are 0 until the end, which is no sign of a stall."""
    assert read_status(_batch()).n_completed is None


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        (_fails(httpx2.ConnectError("no route")), ProviderUnavailableError),
        (_fails(httpx2.ReadTimeout("late")), UncertainOutcomeError),
        (_says(529, {"error": {"type": "overloaded_error"}}), UncertainOutcomeError),
        (_says(200, "<html>"), UncertainOutcomeError),
        (_says(200, {"type": "message_batch"}), UncertainOutcomeError),
        (_says(429, {"error": {"type": "rate_limit_error"}}), ProviderUnavailableError),
        (_says(400, {"error": {"type": "invalid_request_error"}}), ProviderRefusedError),
        (_says(401, {"error": {"message": "bad sk-secret"}}), AccountRefusedError),
    ],
)
def test_a_failed_create_says_whether_a_job_may_exist(
    handler: Handler, kind: type[CJError], tmp_path: Path
) -> None:
    """Nothing on an Anthropic batch tells whose it is, so doubt must never be missed."""
    shard = tmp_path / "shard"
    shard.write_text(json.dumps(_provider(handler).build_request(_PROMPT, _JUDGE, "k-1")) + "\n")

    with pytest.raises(kind) as caught:
        _provider(handler).create(shard, None, _KEY)

    assert type(caught.value) is kind
    assert "sk-secret" not in str(caught.value)


def _account(*batches: dict[str, Any], first_ids: dict[str, str]) -> Handler:
    """Return a workspace with these batches, newest first, and what their results begin with."""

    def handler(request: httpx2.Request) -> httpx2.Response:
        parts = request.url.path.strip("/").split("/")
        if parts[-1] == "results":
            row = {"custom_id": first_ids[parts[-2]], "result": {"type": "expired"}}
            return httpx2.Response(200, text=json.dumps(row) + "\n")
        if parts[-1] == "batches":
            return httpx2.Response(200, json={"data": list(batches), "has_more": False})
        batch = next(b for b in batches if b["id"] == parts[-1])
        return httpx2.Response(200, json=batch)

    return handler


def _ended(job_id: str, n: int, **changes: Any) -> dict[str, Any]:
    url = f"http://provider.invalid/v1/messages/batches/{job_id}/results"
    counts = _counts(succeeded=n)
    return _batch(
        id=job_id, processing_status="ended", request_counts=counts, results_url=url, **changes
    )


def test_an_ended_batch_is_known_by_the_custom_ids_in_its_results() -> None:
    """Another of the same size is somebody else's."""
    handler = _account(
        _ended("theirs", 2),
        _ended("ours", 2),
        first_ids={"theirs": "somebody-1", "ours": f"{_KEY[:16]}-x-1"},
    )

    found = _provider(handler).find(_KEY, _NOW, 2)

    assert found == (FoundJob("ours", is_certain=True, is_running=False),)


def test_a_running_batch_of_the_same_size_may_be_ours_and_may_not() -> None:
    """It must neither be adopted nor be created again until it tells."""
    found = _provider(_account(_batch(), first_ids={})).find(_KEY, _NOW, 2)

    assert found == (FoundJob("msgbatch_1", is_certain=False, is_running=True),)


def test_batches_of_another_size_or_from_before_the_intent_are_not_ours() -> None:
    """So that a busy workspace is no reason to wait."""
    early = (_NOW - timedelta(hours=30)).isoformat()
    handler = _account(_batch(), _batch(id="old", created_at=early), first_ids={})

    assert _provider(handler).find(_KEY, _NOW, 3) == ()
    assert [job.job_id for job in _provider(handler).list_jobs(_NOW)] == ["msgbatch_1"]


def test_a_garbled_line_does_not_stop_the_collection() -> None:
    """The SDK's own reader would raise at it and lose all that comes after."""
    body = '{"custom_id": "a"}\n{"cus\n{"custom_id": "b"}\n'

    def handler(request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("/results"):
            return httpx2.Response(200, text=body)
        return httpx2.Response(200, json=_ended("msgbatch_1", 3))

    assert [line.line for line in _provider(handler).collect("msgbatch_1")] == [1, 2, 3]


def test_of_results_cut_off_within_a_row_the_whole_rows_are_taken() -> None:
    """The rest is found to be missing by counting, and asked for again."""

    def handler(request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("/results"):
            return httpx2.Response(200, text='{"custom_id": "a"}\n{"cus')
        return httpx2.Response(200, json=_ended("msgbatch_1", 3))

    lines = [line.text for line in _provider(handler).collect("msgbatch_1")]

    assert lines == ['{"custom_id": "a"}']


def test_a_web_page_with_status_200_is_no_result_file() -> None:
    """A network's sign-in page would otherwise be results without a single row."""

    def handler(request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("/results"):
            return httpx2.Response(200, text="<html>Sign in</html>")
        return httpx2.Response(200, json=_ended("msgbatch_1", 3))

    with pytest.raises(ProviderUnavailableError, match="is no result file"):
        list(_provider(handler).collect("msgbatch_1"))


def test_a_single_call_that_is_wrong_is_a_row_that_failed() -> None:
    """One bad comparison must not look like a provider that is down."""
    provider = _provider(_says(400, {"type": "error", "error": {"type": "invalid_request_error"}}))

    line = provider.single(provider.build_request(_PROMPT, _JUDGE, "k-1"), timeout_s=5)
    reply = provider.parse_reply(line)

    assert (reply.custom_id, reply.error_code) == ("k-1", "invalid_request_error")
    assert not reply.may_retry
