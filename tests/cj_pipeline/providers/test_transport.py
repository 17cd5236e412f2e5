"""Envelopes are read as services send them: waits in several units, errors where answers belong."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest

from cj_pipeline.errors import (
    AccountRefusedError,
    JobTooLargeError,
    OutOfCreditError,
    ProviderUnavailableError,
)
from cj_pipeline.providers.transport import (
    Call,
    ErrorAnswer,
    error_within,
    failed_call,
    refuse_error_within,
    require_list,
    retry_after_s,
)

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
LIST = Call("openai", "list batches")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "120"}, 120),
        ({"retry-after": "120s"}, 120),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "1m30s"}, 90),
        ({"retry-after": "500ms"}, 0.5),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7),
        ({"retry-after": "-5"}, 0),
        ({"retry-after": "Sun, 29 Nov 2026 12:01:00 GMT"}, 60),
        ({"retry-after": "later"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": ""}, None),
        ({}, None),
        ({"retry-after": "9" * 400}, 86_400),
    ],
)
def test_a_wait_is_read_however_it_is_written(
    headers: dict[str, str], seconds: float | None
) -> None:
    """Waiting too short costs refusals, an error here would cost the wave."""
    assert retry_after_s(httpx2.Headers(headers), NOW) == seconds


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"code": 429, "message": "slow down"}, 429),
        ({"code": "rate_limit_exceeded", "message": "x"}, 429),
        ({"code": "RESOURCE_EXHAUSTED", "message": "x"}, 429),
        ({"code": 401, "message": "no"}, 401),
        ({"type": "authentication_error", "message": "x"}, 401),
        ({"type": "invalid_request_error", "message": "x"}, 400),
        ({"code": None, "message": "who knows"}, 500),
        ("model overloaded", 500),
    ],
)
def test_an_error_in_place_of_an_answer_is_that_error(error: Any, status: int) -> None:
    """HTTP 200 around it says nothing."""
    found = error_within({"error": error}, "choices")

    assert found is not None
    assert found.status == status
    assert error_within({"error": None, "choices": []}, "choices") is None
    assert error_within({"error": error, "choices": [{}]}, "choices") is None


def test_an_error_for_a_list_is_no_empty_list() -> None:
    """Taken for one, it would prove that a job is not there, and have it bought again."""
    with pytest.raises(ProviderUnavailableError):
        require_list(LIST, {"error": {"code": 429, "message": "slow down"}}, "data")
    with pytest.raises(AccountRefusedError):
        require_list(LIST, {"error": {"code": 401, "message": "no"}}, "data")
    with pytest.raises(ValueError, match="not a list"):
        require_list(LIST, {"ok": True}, "data")
    require_list(LIST, {"data": []}, "data")
    require_list(LIST, {"data": None}, "data")


def test_credit_that_is_used_up_is_told_in_an_answer_too() -> None:
    """It parks the batch and ends nothing."""
    with pytest.raises(OutOfCreditError):
        refuse_error_within(
            LIST, {"error": {"code": "insufficient_quota", "message": "pay"}}, "data"
        )


def test_a_body_that_is_too_large_is_told_apart_where_something_was_to_be_made() -> None:
    """Only then is there anything to split."""
    create = Call("openai", "create a batch", creates=True)
    answer = ErrorAnswer(413, None, "Request Entity Too Large")

    assert isinstance(failed_call(create, answer), JobTooLargeError)
    assert not isinstance(failed_call(LIST, answer), JobTooLargeError)
