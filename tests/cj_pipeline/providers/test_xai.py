"""xAI's batches, whose state follows from counts."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cj_pipeline.batch.comparisons import RequestOutcome
from cj_pipeline.providers.base import JobOutcome
from cj_pipeline.providers.chat_completions import read_body
from cj_pipeline.providers.openai import read_status
from cj_pipeline.providers.xai import as_batch, parse_result
from tests.journeys.test_provider_contract import Conversation

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
NOTHING = {"num_requests": 0, "num_pending": 0, "num_success": 0, "num_error": 0}


def batch(state: dict[str, Any], **told: Any) -> dict[str, Any]:
    """Return a batch as the public reference has it."""
    usual = {
        "batch_id": "batch_1",
        "name": "k",
        "create_time": "2026-11-30T09:00:00Z",
        "expire_time": "2026-12-01T09:00:00Z",
        "cancel_time": None,
        "cancel_by_xai_message": None,
        "input_file_id": "file_1",
        "state": state,
    }
    return usual | told


@pytest.mark.parametrize(
    ("state", "told", "word", "outcome"),
    [
        (NOTHING, {}, "validating", None),
        ({"num_requests": 4, "num_pending": 1, "num_success": 3}, {}, "in_progress", None),
        ({"num_requests": 4, "num_pending": 0, "num_success": 4}, {}, "completed", "completed"),
        ({"num_requests": 4, "num_success": 3, "num_error": 1}, {}, "completed", "completed"),
        (
            {"num_requests": 4, "num_pending": 0, "num_success": 1, "num_cancelled": 3},
            {"cancel_time": "2026-11-30T10:00:00Z"},
            *("cancelled", "cancelled"),
        ),
        (
            {"num_requests": 4, "num_pending": 2, "num_success": 2},
            {"cancel_time": "2026-11-30T10:00:00Z"},
            *("cancelling", None),
        ),
        (NOTHING, {"cancel_time": "2026-11-30T10:00:00Z"}, "cancelled", "cancelled"),
        (
            {"num_requests": 4, "num_pending": 2, "num_success": 2},
            {"expire_time": "2026-11-30T11:00:00Z"},
            *("expired", "expired"),
        ),
        (
            NOTHING,
            {"cancel_by_xai_message": "line 2 is no JSON", "cancel_time": "2026-11-30T10:00:00Z"},
            *("failed", "failed"),
        ),
        ({}, {}, "validating", None),
    ],
)
def test_its_counts_have_one_meaning(
    state: dict[str, Any], told: dict[str, Any], word: str, outcome: str | None
) -> None:
    """All are 0 before a file is read and after it was refused: 0 left is no end by itself."""
    status = read_status(as_batch(batch(state, **told), NOW), NOW)

    assert (status.provider_status, status.outcome) == (word, outcome and JobOutcome(outcome))


def test_counts_that_do_not_come_to_the_whole_are_not_believed() -> None:
    """Nothing left and nothing done: then nobody knows what was paid for."""
    state = {"num_requests": 4, "num_pending": 0, "num_success": 0, "num_error": 0}

    status = read_status(as_batch(batch(state), NOW), NOW)

    assert (status.state, status.n_completed, status.n_failed) == ("ended", None, None)


def test_want_of_credit_told_in_a_refused_batch_is_waited_out() -> None:
    """Nothing is wrong with the requests."""
    told = {"cancel_by_xai_message": "Your team has used all available credits: no credits left"}

    assert read_status(as_batch(batch(NOTHING, **told), NOW), NOW).waits_for_credit


def test_a_bare_date_is_never_too_old() -> None:
    """Some answers have only the day: a job made in its last minute must be found."""
    shown = as_batch(batch(NOTHING, create_time="2026-11-30"), NOW)

    assert datetime.fromtimestamp(shown["created_at"], UTC) >= NOW + timedelta(hours=12)


ANSWER = {
    "id": "c1",
    "choices": [{"finish_reason": "stop", "message": {"content": '{"winner": "A"}'}}],
    "usage": {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "total_tokens": 170,
        "completion_tokens_details": {"reasoning_tokens": 50},
    },
}


def parsed(result: dict[str, Any]) -> Any:
    """Parse one result."""
    return parse_result(json.dumps({"batch_request_id": "r1", "batch_result": result}), read_body)


def test_reasoning_beside_the_completion_is_billed() -> None:
    """Its total says that 50 tokens of thought are not among the 20."""
    reply = parsed({"response": {"chat_get_completion": ANSWER}})

    assert (reply.custom_id, reply.outcome) == ("r1", RequestOutcome.SUCCEEDED)
    assert reply.usage is not None
    assert (reply.usage.completion, reply.usage.reasoning) == (70, 50)


@pytest.mark.parametrize(
    ("result", "code", "may_retry"),
    [
        ({"error": {"code": 3, "message": "bad"}}, "invalid_request_error", False),
        ({"error": {"code": 14, "message": "busy"}}, "code_14", True),
        ({"error": {"code": 8, "message": "credit balance is too low"}}, "out_of_credit", True),
        ({"error": "boom"}, "no_response", True),
        ({}, "no_response", True),
        ({"response": None}, "no_response", True),
    ],
)
def test_a_failed_result_says_whether_asking_again_may_help(
    result: dict[str, Any], code: str, may_retry: bool
) -> None:
    """gRPC's 3 is the request's own fault, 14 is not."""
    reply = parsed(result)

    assert reply.outcome is RequestOutcome.PROVIDER_ERROR
    assert (reply.error_code, reply.may_retry) == (code, may_retry)


@pytest.mark.parametrize("line", ["", "[]", '{"batch_request_id": 3}', '{"batch_result": []}'])
def test_what_is_no_result_raises_nothing(line: str) -> None:
    """A parser that raises would cost its neighbours."""
    assert parse_result(line, read_body).outcome is RequestOutcome.PROVIDER_ERROR


def test_results_of_many_pages_all_come(tmp_path: Path) -> None:
    """A page holds a thousand."""
    talk = Conversation("quality-xai", tmp_path)

    job_id = talk.submit(1_001)

    assert len({reply.custom_id for reply in talk.replies(job_id)}) == 1_001


def test_a_page_that_is_no_list_is_no_empty_one(tmp_path: Path) -> None:
    """A sign-in page of a network must not pass for a batch without results."""
    fault = {"kind": "web_page", "on": "*batches.results", "at": [1]}
    talk = Conversation("quality-xai", tmp_path, faults=[fault])
    job_id = talk.submit(2)

    with pytest.raises(Exception, match="no readable answer"):
        talk.replies(job_id)

    assert len(talk.replies(job_id)) == 2
