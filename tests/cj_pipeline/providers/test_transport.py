"""Envelopes are read as services send them: waits in several units, errors where answers belong."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from cj_pipeline.errors import (
    AccountRefusedError,
    JobTooLargeError,
    OutOfCreditError,
    ProviderUnavailableError,
    TransientError,
)
from cj_pipeline.judging.judges import load_judge
from cj_pipeline.providers import transport
from cj_pipeline.providers.base import Provider
from cj_pipeline.providers.registry import open_provider
from cj_pipeline.providers.transport import (
    SINGLE_CALL,
    Call,
    ErrorAnswer,
    error_within,
    failed_call,
    is_out_of_credit,
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


def test_a_judge_that_is_not_there_is_told_what_to_set() -> None:
    """At its canary, before anything else was sent."""
    told = str(failed_call(Call("ollama", SINGLE_CALL, creates=True), ErrorAnswer(404, None, "no")))

    assert "model and base_url" in told
    assert "model and base_url" not in str(failed_call(LIST, ErrorAnswer(404, None, "no")))


def test_a_body_that_is_too_large_is_told_apart_where_something_was_to_be_made() -> None:
    """Only then is there anything to split."""
    create = Call("openai", "create a batch", creates=True)
    answer = ErrorAnswer(413, None, "Request Entity Too Large")

    assert isinstance(failed_call(create, answer), JobTooLargeError)
    assert not isinstance(failed_call(LIST, answer), JobTooLargeError)


JUDGES = {
    "openai-gpt-4-1-mini": "OPENAI_API_KEY",
    "anthropic-claude-haiku-4-5": "ANTHROPIC_API_KEY",
    "gemini-2-5-flash": "GEMINI_API_KEY",
}


@pytest.fixture
def endless() -> Iterator[str]:
    """The address of a server that answers 200 and then sends a space now and then, for ever."""
    ended = threading.Event()

    def answer(connection: socket.socket) -> None:
        with connection:
            connection.recv(65_536)
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
            connection.sendall(head + b"content-length: 1000000\r\n\r\n")
            while not ended.is_set():
                try:
                    connection.sendall(b" ")
                except OSError:
                    return
                time.sleep(0.002)

    def serve(listener: socket.socket) -> None:
        while not ended.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        ended.set()


def _opened(name: str, address: str, home: Path) -> Provider:
    judge = load_judge(name)
    own = f"{address}/v1" if judge.provider == "openai" else address
    judge = replace(judge, base_url=own)
    return open_provider(judge, {JUDGES[name]: "sk-none"}, home, clock=lambda: NOW)


@pytest.mark.parametrize("name", JUDGES)
def test_no_answer_is_waited_for_without_end(
    name: str, endless: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that sends a byte a second breaks no silence and would hold a sensor for days."""
    seconds = itertools.count(step=7)
    monkeypatch.setattr(transport, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    provider = _opened(name, endless, tmp_path)

    with pytest.raises(TransientError, match="ReadTimeout"):
        provider.poll("batches/1" if name.startswith("gemini") else "job-1")

    assert next(seconds) <= 60, "a poll has to be over within its sensor's minute"


def test_a_large_file_may_take_an_hour() -> None:
    """Results of 50,000 comparisons come slowly, and are no reason to begin again."""
    silence = transport.TRANSFER_TIMEOUT.read
    assert silence is not None
    assert silence * transport.SILENCES_OF_A_TRANSFER == 3600


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (429, "insufficient_quota", "You exceeded your current quota, please check your plan."),
        (400, "billing_hard_limit_reached", "Billing hard limit has been reached"),
        (402, None, "Payment Required"),
        (400, "invalid_request_error", "Your credit balance is too low to access the API."),
        (
            400,
            "invalid_request_error",
            "You have reached your specified API usage limits.",
        ),
        (403, "billing_error", "Your organization has disabled billing"),
        (
            403,
            "permission-denied",
            "Your team has run out of credits or reached its limit",
        ),
        (429, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted. Please go to AI Studio"),
        (429, "RESOURCE_EXHAUSTED", "Your project has exceeded its monthly spending cap."),
        (403, "PERMISSION_DENIED", "This API method requires billing to be enabled."),
        (400, "FAILED_PRECONDITION", "The free tier is not available here. Please enable billing"),
        (429, "access_terminated", "Your account is not active, please check your billing details"),
        (400, "budget_exceeded", "ExceededBudget: Crossed spend within 30d"),
        (400, "Arrearage", "Please make sure your account is in good standing."),
    ],
)
def test_want_of_credit_is_known_in_every_service_s_words(
    status: int, code: str | None, message: str
) -> None:
    """Taken for a wrong request it ends a batch; taken for a busy server nobody learns of it."""
    assert is_out_of_credit(code, message, status=status)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("rate_limit_exceeded", "Rate limit reached for gpt-4.1 on tokens per min (TPM): 30000"),
        (
            "RESOURCE_EXHAUSTED",
            "You exceeded your current quota, check your plan and billing",
        ),
        ("429", "You have reached the usage limit of 20 requests per minute"),
        ("invalid_request_error", "max_tokens: 10 > 5, which is the maximum allowed number"),
        ("invalid_prompt", "The essay about credit and billing was flagged"),
    ],
)
def test_what_passes_by_itself_is_not_want_of_credit(code: str, message: str) -> None:
    """A pause of a minute needs no person."""
    assert not is_out_of_credit(code, message, status=429)
