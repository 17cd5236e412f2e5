"""OpenAI's wire: doubt is told from refusal, lists are searched to their end, files come whole.

The real SDK, over a transport that answers as told. What a whole conversation does is in
`test_contract.py`.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from cj_pipeline.errors import (
    AccountRefusedError,
    AmbiguousSubmissionError,
    CJError,
    OutOfCreditError,
    ProviderRefusedError,
    ProviderUnavailableError,
    UncertainOutcomeError,
)
from cj_pipeline.providers import chat_completions
from cj_pipeline.providers.base import JobOutcome
from cj_pipeline.providers.openai import LIMITS, OpenAIBatches, read_status

_NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
_KEY = "ab" * 32

Handler = Callable[[httpx2.Request], httpx2.Response]


def openai_provider(handler: Handler) -> OpenAIBatches:
    """Return the adapter over a transport that answers as told."""
    client = openai.OpenAI(
        api_key="sk-secret",
        base_url="http://provider.invalid/v1",
        max_retries=0,
        http_client=httpx2.Client(transport=httpx2.MockTransport(handler)),
    )
    return OpenAIBatches(
        client=client,
        name="openai",
        account="openai-1",
        words=chat_completions,
        limits=LIMITS,
        has_jobs=True,
        clock=lambda: _NOW,
    )


def _says(status: int, body: object = None, **headers: str) -> Handler:
    content = body if isinstance(body, str) else json.dumps(body or {})
    return lambda request: httpx2.Response(status, text=content, headers=headers)


def _fails(error: Exception) -> Handler:
    def handler(request: httpx2.Request) -> httpx2.Response:
        raise error

    return handler


def _batch(**changes: Any) -> dict[str, Any]:
    batch = {
        "id": "batch_1",
        "status": "in_progress",
        "created_at": int(_NOW.timestamp()) - 60,
        "request_counts": {"total": 2, "completed": 0, "failed": 0},
        "metadata": {"submission_key": _KEY},
        "input_file_id": "file-1",
    }
    return batch | changes


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        (_fails(httpx2.ConnectError("no route")), ProviderUnavailableError),
        (_fails(httpx2.ConnectTimeout("no route")), ProviderUnavailableError),
        (_fails(httpx2.ReadTimeout("late")), UncertainOutcomeError),
        (_fails(httpx2.RemoteProtocolError("closed")), UncertainOutcomeError),
        (_says(500), UncertainOutcomeError),
        (_says(504, "<html>gateway</html>"), UncertainOutcomeError),
        (_says(409), UncertainOutcomeError),
        (_says(200, "<html>hello</html>"), UncertainOutcomeError),
        (_says(200, {"object": "batch"}), UncertainOutcomeError),
        (_says(429), ProviderUnavailableError),
        (_says(400, {"error": {"message": "Cannot find file file-1"}}), ProviderUnavailableError),
        (_says(400, {"error": {"message": "unknown model"}}), ProviderRefusedError),
        (_says(401, {"error": {"message": "Incorrect key sk-secret"}}), AccountRefusedError),
        (_says(429, {"error": {"code": "insufficient_quota"}}), OutOfCreditError),
    ],
)
def test_a_failed_create_says_whether_a_job_may_exist(
    handler: Handler, kind: type[CJError], tmp_path: Path
) -> None:
    """Only one kind has to be searched for, and only one must never be sent again."""
    with pytest.raises(kind) as caught:
        openai_provider(handler).create(tmp_path / "shard", "file-1", _KEY)

    assert type(caught.value) is kind
    assert "sk-secret" not in str(caught.value)


def test_nothing_is_sent_twice_by_the_sdk(tmp_path: Path) -> None:
    """Its own retries would create a second paid job after a lost reply."""
    calls = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        calls.append(request)
        return httpx2.Response(503)

    with pytest.raises(UncertainOutcomeError):
        openai_provider(handler).create(tmp_path / "shard", "file-1", _KEY)

    assert len(calls) == 1


def test_retry_after_is_passed_on_and_not_slept() -> None:
    """Two hours of sleep inside a sensor would stop every other batch."""
    with pytest.raises(ProviderUnavailableError) as caught:
        openai_provider(_says(429, **{"retry-after": "7200"})).poll("batch_1")

    assert caught.value.retry_after_s == 7200


def test_a_failed_poll_can_always_be_repeated() -> None:
    """It creates nothing, so it is never in doubt."""
    for handler in (_says(500), _says(200, "not json"), _fails(httpx2.ReadTimeout("late"))):
        with pytest.raises(ProviderUnavailableError):
            openai_provider(handler).poll("batch_1")


def test_a_batch_and_its_file_bear_the_submission_key(tmp_path: Path) -> None:
    """By either it is found again after a crash; both expire by themselves."""
    sent: list[bytes] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        sent.append(request.read())
        return httpx2.Response(200, json={"id": "new-1"})

    (tmp_path / "shard").write_text('{"custom_id": "k"}\n')
    provider = openai_provider(handler)

    file_id = provider.upload(tmp_path / "shard", _KEY)
    provider.create(tmp_path / "shard", file_id, _KEY)

    assert f'filename="{_KEY}.jsonl"'.encode() in sent[0]
    assert b"expires_after" in sent[0]
    assert json.loads(sent[1])["metadata"] == {"submission_key": _KEY}
    assert "output_expires_after" in json.loads(sent[1])


@pytest.mark.parametrize(
    ("batch", "state", "outcome"),
    [
        (_batch(status="validating"), "running", None),
        (_batch(status="scheduling"), "running", None),
        (_batch(status="failed"), "ended", JobOutcome.FAILED),
        (_batch(status="expired"), "ended", JobOutcome.EXPIRED),
        (_batch(status="cancelled", output_file_id=""), "ended", JobOutcome.CANCELLED),
        (_batch(status="completed"), "ended", JobOutcome.COMPLETED),
        (_batch(status="COMPLETED"), "ended", JobOutcome.COMPLETED),
        (_batch(status="IN_PROGRESS"), "running", None),
        (_batch(status="Done"), "ended", JobOutcome.COMPLETED),
        (_batch(status="SUCCESS"), "ended", JobOutcome.COMPLETED),
        (_batch(status="Canceled"), "ended", JobOutcome.CANCELLED),
        (_batch(status="TIMEOUT_EXCEEDED"), "ended", JobOutcome.EXPIRED),
    ],
)
def test_only_known_endings_end_a_batch(
    batch: dict[str, Any], state: str, outcome: JobOutcome | None
) -> None:
    """A word nobody knows may be a new stage; taking it for an end would lose paid rows."""
    status = read_status(batch, _NOW)

    assert (status.state, status.outcome) == (state, outcome)
    assert (status.warning is not None) == (batch["status"] == "scheduling")


@pytest.mark.parametrize(
    ("more", "outcome"),
    [
        ({}, None),
        ({"output_file_id": "file-1"}, JobOutcome.COMPLETED),
        ({"output_file_id": "file-1", "status": "in_progress"}, None),
        (
            {
                "output_file_id": "file-1",
                "request_counts": {"total": 3, "completed": 2, "failed": 0},
            },
            None,
        ),
        ({"errors": {"data": [{"code": "quota", "message": "none"}]}}, JobOutcome.FAILED),
    ],
)
def test_a_word_nobody_knows_is_an_end_where_all_is_there(
    more: dict[str, Any], outcome: JobOutcome | None
) -> None:
    """Otherwise verdicts that are paid for are never fetched; a known word is taken at its word."""
    counts = {"total": 3, "completed": 2, "failed": 1}
    batch = _batch(**({"status": "archived", "request_counts": counts} | more))

    assert read_status(batch, _NOW).outcome is outcome


@pytest.mark.parametrize("code", ["billing_hard_limit_reached", "token_limit_exceeded"])
@pytest.mark.parametrize(
    "done",
    [
        {"request_counts": {"total": 2, "completed": 1, "failed": 0}},
        {"request_counts": None, "output_file_id": "file-1"},
    ],
)
def test_a_batch_that_failed_half_way_is_not_sent_again_whole(
    code: str, done: dict[str, Any]
) -> None:
    """What was done of it was paid for; only one that never began goes out unchanged."""
    errors = {"data": [{"code": code, "message": "Not now.", "line": None}]}
    begun = read_status(_batch(**{"status": "failed", "errors": errors, **done}), _NOW)
    never = read_status(_batch(status="failed", errors=errors, request_counts=None), _NOW)

    assert not begun.waits_for_credit
    assert not begun.waits_for_capacity
    assert never.waits_for_credit or never.waits_for_capacity


@pytest.mark.parametrize("word", ["expired", "cancelled", "completed"])
@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ({"total": 12, "completed": 8, "failed": 4}, (8, 4)),
        ({"total": 12, "completed": 0, "failed": 0}, (0, 0)),
        ({"total": "12", "completed": "8", "failed": 4.0}, (8, 4)),
        ({"total": 0, "completed": 0, "failed": 0}, (None, None)),
        ({"total": 12, "completed": "some", "failed": None}, (None, None)),
        (None, (None, None)),
    ],
)
def test_counts_that_cannot_be_read_are_no_counts_of_zero(
    word: str, counts: dict[str, Any] | None, told: tuple[int | None, int | None]
) -> None:
    """Where nothing counts as done, missing rows are bought again, and what is there is deleted."""
    status = read_status(_batch(status=word, request_counts=counts), _NOW)

    assert (status.n_completed, status.n_failed) == told


def test_a_batch_whose_file_ids_come_late_is_waited_for() -> None:
    """`completed` does not imply that the file's id is there yet."""
    batch = _batch(
        status="completed",
        completed_at=int(_NOW.timestamp()) - 5,
        request_counts={"total": 2, "completed": 2, "failed": 0},
    )

    assert read_status(batch, _NOW).state == "running"
    assert read_status(batch, _NOW + timedelta(minutes=11)).state == "ended"


def test_a_batch_that_failed_for_lack_of_room_is_told_from_one_that_is_wrong() -> None:
    """The first is sent again unchanged when there is room, the second never."""
    crowded = {"data": [{"code": "token_limit_exceeded", "message": "Enqueued", "line": None}]}
    wrong = {"data": [{"code": "invalid_json_line", "message": "bad", "line": 7}]}

    full = read_status(_batch(status="failed", errors=crowded), _NOW)
    broken = read_status(_batch(status="failed", errors=wrong), _NOW)

    assert full.waits_for_capacity
    assert not broken.waits_for_capacity
    assert broken.error == "bad (line 7)"


def _pages(*pages: dict[str, Any]) -> tuple[Handler, list[str]]:
    """Return a server of batch lists by cursor, without files, and the cursors it was asked."""
    asked: list[str] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("/files"):
            return httpx2.Response(200, json={"data": []})
        asked.append(request.url.params.get("after", ""))
        return httpx2.Response(200, json=pages[min(len(asked), len(pages)) - 1])

    return handler, asked


def test_a_job_is_found_on_a_later_page() -> None:
    """An account with many jobs must not look as if ours were not there."""
    other = _batch(id="batch_0", metadata={})
    handler, asked = _pages(
        {"data": [other], "has_more": True}, {"data": [_batch()], "has_more": False}
    )

    found = openai_provider(handler).find(_KEY, _NOW - timedelta(hours=1), 2)

    assert [job.job_id for job in found] == ["batch_1"]
    assert asked == ["", "batch_0"]


def test_a_job_is_found_by_its_file_where_metadata_is_lost() -> None:
    """Some services that speak this dialect drop metadata."""

    def handler(request: httpx2.Request) -> httpx2.Response:
        at = int(_NOW.timestamp())
        if request.url.path.endswith("/files"):
            file = {"id": "file-9", "filename": f"{_KEY}.jsonl", "created_at": at}
            return httpx2.Response(200, json={"data": [file]})
        batch = _batch(metadata=None, input_file_id="file-9")
        return httpx2.Response(200, json={"data": [batch]})

    found = openai_provider(handler).find(_KEY, _NOW - timedelta(hours=1), 2)

    assert [job.job_id for job in found] == ["batch_1"]


def test_a_search_goes_no_further_back_than_the_intent() -> None:
    """Whatever is older cannot be ours, and an old account's list is long."""
    old = _batch(id="batch_0", created_at=int((_NOW - timedelta(days=9)).timestamp()))
    handler, asked = _pages({"data": [old], "has_more": True})

    assert openai_provider(handler).find(_KEY, _NOW - timedelta(hours=1), 2) == ()
    assert len(asked) == 1


def test_a_server_that_ignores_the_cursor_does_not_hold_us_for_ever() -> None:
    """The SDK's own paging would ask for the same page without end."""
    handler, asked = _pages({"data": [_batch(metadata={})], "has_more": True})

    assert openai_provider(handler).find(_KEY, _NOW - timedelta(hours=1), 2) == ()
    assert len(asked) == 2


def test_a_list_without_end_is_ambiguous_and_not_empty() -> None:
    """Taking it for 'not found' would create the job a second time."""
    made = iter(range(10_000))

    def handler(request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("/files"):
            return httpx2.Response(200, json={"data": []})
        batch = _batch(id=f"batch_{next(made)}", metadata={})
        return httpx2.Response(200, json={"data": [batch], "has_more": True})

    with pytest.raises(AmbiguousSubmissionError):
        openai_provider(handler).find(_KEY, _NOW - timedelta(hours=1), 2)


def _results(files: dict[str, bytes], **batch: Any) -> Handler:
    def handler(request: httpx2.Request) -> httpx2.Response:
        parts = request.url.path.strip("/").split("/")
        if parts[-1] == "content":
            return httpx2.Response(200, content=files[parts[-2]])
        if parts[-2] == "files":
            return httpx2.Response(200, json={"id": parts[-1], "bytes": 1_000})
        return httpx2.Response(200, json=_batch(status="completed", **batch))

    return handler


def test_both_result_files_are_read() -> None:
    """Paid rows are in one, the reasons of the others in the other."""
    handler = _results(
        {"out": b'{"a":1}\n\n{"a":2}\n', "err": b'{"a":3}\n'},
        output_file_id="out",
        error_file_id="err",
    )

    lines = list(openai_provider(handler).collect("batch_1"))

    assert [(line.source, line.line, line.text) for line in lines] == [
        ("output", 1, '{"a":1}'),
        ("output", 3, '{"a":2}'),
        ("error", 1, '{"a":3}'),
    ]


def test_a_separator_inside_a_text_does_not_break_a_line() -> None:
    """JSON may hold U+2028 as it is, and an essay may as well."""
    row = json.dumps({"a": "one\u2028two\x85three"}, ensure_ascii=False)
    handler = _results({"out": f"{row}\n".encode()}, output_file_id="out")

    assert [line.text for line in openai_provider(handler).collect("batch_1")] == [row]


@pytest.mark.parametrize("ids", [{}, {"output_file_id": "", "error_file_id": None}])
def test_missing_result_files_are_no_error(ids: dict[str, Any]) -> None:
    """Every row is then missing, which whoever collects finds out by counting."""
    assert list(openai_provider(_results({}, **ids)).collect("batch_1")) == []


def test_of_a_file_cut_off_within_a_row_the_whole_rows_are_taken() -> None:
    """The rest is found to be missing by counting, and asked for again."""
    handler = _results({"out": b'{"a":1}\n{"a":'}, output_file_id="out")

    assert [line.text for line in openai_provider(handler).collect("batch_1")] == ['{"a":1}']


def test_a_byte_order_mark_is_no_part_of_a_row() -> None:
    """Some storage services put one before a file."""
    handler = _results({"out": b'\xef\xbb\xbf{"a":1}\n{"a":2}\n'}, output_file_id="out")

    lines = [line.text for line in openai_provider(handler).collect("batch_1")]

    assert lines == ['{"a":1}', '{"a":2}']


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><html>Sign in</html>", b"OK\n", b"null\n"])
def test_a_web_page_with_status_200_is_no_result_file(page: bytes) -> None:
    """A network's sign-in page would otherwise be a file without a single row."""
    handler = _results({"out": page}, output_file_id="out")

    with pytest.raises(ProviderUnavailableError, match="is no result file"):
        list(openai_provider(handler).collect("batch_1"))


def test_a_batch_that_has_ended_refuses_to_be_cancelled_without_harm() -> None:
    """Cancelling is asked for at any time, also a moment too late."""

    def handler(request: httpx2.Request) -> httpx2.Response:
        if request.method == "POST":
            return httpx2.Response(400, json={"error": {"message": "already completed"}})
        return httpx2.Response(200, json=_batch(status="completed"))

    assert openai_provider(handler).cancel("batch_1").outcome is JobOutcome.COMPLETED


def test_deleting_what_is_gone_already_is_no_error() -> None:
    """Tidying up is repeated after a kill."""
    openai_provider(_says(404)).discard("batch_1", ["file-1"])


def test_a_single_call_that_is_wrong_is_a_row_that_failed() -> None:
    """One bad comparison must not look like a provider that is down."""
    provider = openai_provider(_says(400, {"error": {"code": "context_length_exceeded"}}))
    request = {"custom_id": "k-1", "body": {"model": "m", "messages": []}}

    reply = provider.parse_reply(provider.single(request, timeout_s=5))

    assert (reply.custom_id, reply.error_code) == ("k-1", "context_length_exceeded")
    assert not reply.may_retry


def test_a_single_call_whose_reply_is_lost_may_have_been_paid() -> None:
    """It is counted against the cap as if it had."""
    request = {"custom_id": "k-1", "body": {"model": "m", "messages": []}}

    with pytest.raises(UncertainOutcomeError):
        openai_provider(_fails(httpx2.ReadTimeout("late"))).single(request, timeout_s=5)


def test_a_single_call_bears_its_own_id() -> None:
    """A call whose reply was lost can be asked about at the provider's support by it."""
    seen: list[str | None] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.headers.get("x-client-request-id"))
        return httpx2.Response(200, text="{}")

    request = {"custom_id": "k-1", "body": {"model": "m", "messages": []}}
    openai_provider(handler).single(request, timeout_s=5)

    assert seen == ["k-1"]


@pytest.mark.parametrize("field", ["expires_after", "output_expires_after"])
def test_a_service_that_knows_no_expiry_gets_none(field: str, tmp_path: Path) -> None:
    """It refused the request whole, so nothing was stored or created by it."""
    sent: list[bytes] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        body = request.read()
        sent.append(body)
        if f'"{field}"'.encode() in body or f'"{field}['.encode() in body:
            error = {"message": f"Unrecognized request argument supplied: {field}"}
            return httpx2.Response(400, json={"error": error})
        return httpx2.Response(200, json={"id": "made-1", "status": "validating"})

    shard = tmp_path / "shard.jsonl"
    shard.write_bytes(b'{"custom_id": "k-1"}\n')
    provider = openai_provider(handler)

    if field == "expires_after":
        assert provider.upload(shard, "k" * 64) == "made-1"
    else:
        assert provider.create(shard, "file-1", "k" * 64) == "made-1"

    assert len(sent) == 2
    assert field.encode() not in sent[1].replace(b"output_expires_after", b"")


def test_a_wrong_expiry_is_no_reason_to_send_again(tmp_path: Path) -> None:
    """A service that knows the field and objects to its value has said what is wrong."""
    n_sent = 0

    def handler(request: httpx2.Request) -> httpx2.Response:
        nonlocal n_sent
        n_sent += 1
        error = {"message": "output_expires_after.seconds must be 3600 to 2592000."}
        return httpx2.Response(400, json={"error": error})

    with pytest.raises(ProviderRefusedError, match="must be 3600"):
        openai_provider(handler).create(tmp_path / "x", "file-1", "k" * 64)
    assert n_sent == 1


def test_a_403_is_told_in_the_providers_words_without_the_key() -> None:
    """Which plan, country or project is meant, only its words say."""
    words = "Project school has no access to model gpt-9 (key sk-proj-ab12CD34ef56GH78ij90KL12)."
    provider = openai_provider(_says(403, {"error": {"message": words, "code": "model_not_found"}}))

    with pytest.raises(AccountRefusedError, match="Project school has no access") as raised:
        provider.poll("batch_1")

    assert "sk-proj" not in str(raised.value)
    assert "ab12CD34" not in str(raised.value)
