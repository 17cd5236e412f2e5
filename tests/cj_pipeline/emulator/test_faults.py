"""Everything that can go wrong does so exactly when it is configured to."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import openai
import pytest

from cj_pipeline.emulator import change_settings, in_process_client
from cj_pipeline.emulator.config import EmulatorConfig, Fault
from tests.support.emulator_calls import (
    Clock,
    chat,
    emulator_config,
    line,
    openai_client,
    rows,
    submit,
)


def config_with(*faults: Fault, **settings: Any) -> EmulatorConfig:
    """Return a configuration with these faults."""
    return emulator_config(faults=faults, **settings)


def audit(config: EmulatorConfig) -> dict[str, Any]:
    """Return what the emulator says was really done."""
    response = in_process_client(config).get("http://emulator.invalid/emulator/audit")
    body: dict[str, Any] = response.json()
    return body


def test_a_lost_reply_leaves_a_job_behind() -> None:
    """The server committed, the client saw a dead connection: this is how jobs get paid twice."""
    config = config_with(Fault(kind="lost_reply", on="openai.batches.create", at=(1,)))
    client = openai_client(config)

    with pytest.raises(openai.APIConnectionError):
        submit(client, [line("r", chat())])

    assert audit(config)["totals"]["jobs"] == 1


def test_the_sdks_own_retries_make_three_jobs_of_lost_replies() -> None:
    """Default retries create duplicate paid jobs, and the audit shows it."""
    config = config_with(Fault(kind="lost_reply", on="openai.batches.create", at=(1, 2)))
    client = openai_client(config)
    raw = line("r", chat()).encode()
    file = client.files.create(file=("input.jsonl", raw), purpose="batch")

    retrying = client.with_options(max_retries=2)
    retrying.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    told = audit(config)

    assert told["totals"]["jobs"] == 3
    assert told["jobs_with_the_same_content"][0]["jobs"] == 3
    assert told["paid_twice"] == ["r"]


def test_a_lost_request_leaves_nothing_behind() -> None:
    """The same result from outside, nothing done inside."""
    config = config_with(Fault(kind="lost_request", on="openai.batches.create"))

    with pytest.raises(openai.APIConnectionError):
        submit(openai_client(config), [line("r", chat())])

    assert audit(config)["totals"]["jobs"] == 0


def test_a_hang_after_commit_times_out_at_once_in_process() -> None:
    """Nobody has to wait for a test of waiting."""
    hang = Fault(kind="hang", on="openai.batches.create", after_commit=True, seconds=9999)
    config = config_with(hang)

    with pytest.raises(openai.APITimeoutError):
        submit(openai_client(config), [line("r", chat())])

    assert audit(config)["totals"]["jobs"] == 1


@pytest.mark.parametrize("after", ["7", "86400", "Wed, 21 Oct 2026 07:28:00 GMT", "soon"])
def test_429_comes_with_any_retry_after(after: str) -> None:
    """Seconds, dates and nonsense are all seen in the wild."""
    busy = Fault(kind="status", on="*.retrieve", status=429, retry_after=after, at=(1,))
    client = openai_client(config_with(busy))
    made = submit(client, [line("r", chat())])

    with pytest.raises(openai.RateLimitError) as caught:
        client.batches.retrieve(made.id)

    assert caught.value.response.headers["retry-after"] == after
    assert client.batches.retrieve(made.id).status == "completed"


def test_504_may_have_created_the_job_all_the_same() -> None:
    """As gateways do it."""
    gateway = Fault(kind="status", on="openai.batches.create", status=504, after_commit=True)
    config = config_with(gateway)

    with pytest.raises(openai.InternalServerError):
        submit(openai_client(config), [line("r", chat())])

    assert audit(config)["totals"]["jobs"] == 1


def test_a_truncated_download_breaks_off() -> None:
    """A streamed download raises the transport's own error."""
    config = config_with(Fault(kind="truncated", on="openai.files.content", share=0.5))
    client = openai_client(config)
    made = submit(client, [line(f"r{i}", chat()) for i in range(10)])
    file_id = client.batches.retrieve(made.id).output_file_id or ""

    with (
        pytest.raises(httpx2.RemoteProtocolError),
        client.files.with_streaming_response.content(file_id) as response,
    ):
        list(response.iter_lines())


def test_malformed_json_is_answered_with_200() -> None:
    """The SDK raises what the standard library raises."""
    client = openai_client(config_with(Fault(kind="malformed", on="openai.batches.list")))

    with pytest.raises(json.JSONDecodeError):
        client.batches.list()


def run_rows(kind: Any, **settings: Any) -> tuple[openai.OpenAI, Any]:
    """Return a client and an ended batch of ten whose third row has a fault."""
    config = config_with(Fault(kind=kind, at=(3,)), in_order=True, **settings)
    client = openai_client(config)
    made = submit(client, [line(f"r{i}", chat()) for i in range(1, 11)])
    return client, client.batches.retrieve(made.id)


def test_a_missing_row_is_counted_but_nowhere() -> None:
    """Counts cannot be trusted for rows."""
    client, batch = run_rows("missing")

    got = rows(client, batch.output_file_id)

    assert batch.request_counts.completed == 10
    assert [r["custom_id"] for r in got] == [f"r{i}" for i in range(1, 11) if i != 3]


@pytest.mark.parametrize(("kind", "n_alike"), [("duplicated", 2), ("contradicted", 2)])
def test_a_row_may_come_twice(kind: str, n_alike: int) -> None:
    """With the same content, or with the other winner."""
    client, batch = run_rows(kind)

    twice = [r for r in rows(client, batch.output_file_id) if r["custom_id"] == "r3"]
    contents = {r["response"]["body"]["choices"][0]["message"]["content"] for r in twice}

    assert len(twice) == n_alike
    assert len(contents) == (1 if kind == "duplicated" else 2)


def test_a_foreign_row_has_an_id_nobody_sent() -> None:
    """It belongs to no request."""
    client, batch = run_rows("foreign")

    ids = [r["custom_id"] for r in rows(client, batch.output_file_id)]

    assert len(ids) == 11
    assert "foreign-r3" in ids


def test_a_garbled_row_is_no_json() -> None:
    """One line of the file cannot be read; the others can."""
    client, batch = run_rows("garbled")

    lines = client.files.content(batch.output_file_id).text.splitlines()
    with pytest.raises(json.JSONDecodeError):
        json.loads(lines[2])

    assert len(lines) == 10


@pytest.mark.parametrize(
    ("kind", "status"), [("status_400", 400), ("status_429", 429), ("status_500", 500)]
)
def test_a_row_may_fail_with_a_status_and_no_error(kind: str, status: int) -> None:
    """`error: null` on a row that failed."""
    client, batch = run_rows(kind)

    (row,) = rows(client, batch.error_file_id)

    assert (row["custom_id"], row["error"]) == ("r3", None)
    assert row["response"]["status_code"] == status


def test_a_row_may_say_nothing_about_its_error() -> None:
    """Neither response nor error."""
    client, batch = run_rows("no_error_told")

    (row,) = rows(client, batch.error_file_id)

    assert (row["response"], row["error"]) == (None, None)


def test_a_body_may_be_a_string() -> None:
    """JSON within JSON."""
    client, batch = run_rows("body_as_string")

    row = rows(client, batch.output_file_id)[2]

    assert json.loads(row["response"]["body"])["object"] == "chat.completion"


@pytest.mark.parametrize(
    ("kind", "finish"),
    [("refusal", "stop"), ("truncated_answer", "length"), ("content_filter", "content_filter")],
)
def test_an_answer_may_be_none(kind: str, finish: str) -> None:
    """Paid for, and no verdict."""
    client, batch = run_rows(kind)

    choice = rows(client, batch.output_file_id)[2]["response"]["body"]["choices"][0]

    assert choice["finish_reason"] == finish
    assert (choice["message"]["refusal"] is not None) == (kind == "refusal")


@pytest.mark.parametrize(
    ("kind", "status"),
    [("expires", "expired"), ("is_cancelled", "cancelled"), ("fails_half_way", "failed")],
)
def test_a_job_may_end_early_with_partial_results(kind: Any, status: str) -> None:
    """Half of the rows are done and paid for."""
    config = config_with(Fault(kind=kind, share=0.5))
    client = openai_client(config)

    made = submit(client, [line(f"r{i}", chat()) for i in range(40)])
    batch = client.batches.retrieve(made.id)
    done = len(rows(client, batch.output_file_id))

    assert batch.status == status
    assert done == 20
    if status != "failed":
        assert done + len(rows(client, batch.error_file_id)) == 40
    assert audit(config)["totals"]["requests_paid"] == done


def test_a_job_may_fail_with_any_code() -> None:
    """For instance for lack of capacity."""
    client = openai_client(config_with(Fault(kind="fails", word="token_limit_exceeded")))

    batch = client.batches.retrieve(submit(client, [line("r", chat())]).id)

    assert batch.status == "failed"
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert batch.errors.data[0].code == "token_limit_exceeded"


def test_a_stuck_job_never_ends() -> None:
    """Not even when its window is over."""
    clock = Clock()
    client = openai_client(config_with(Fault(kind="stuck", share=0.5)), clock)
    made = submit(client, [line(f"r{i}", chat()) for i in range(10)])

    clock.now += 10 * 86_400
    batch = client.batches.retrieve(made.id)

    assert batch.status == "in_progress"
    assert batch.output_file_id is None


def test_a_running_job_may_show_a_word_nobody_knows() -> None:
    """It passes through the SDK untyped."""
    clock = Clock()
    config = config_with(Fault(kind="status_word", word="scheduling"), latency_s=100)
    client = openai_client(config, clock)
    made = submit(client, [line("r", chat())])

    clock.now += 50
    running = client.batches.retrieve(made.id).status
    clock.now += 60

    assert running == "scheduling"
    assert client.batches.retrieve(made.id).status == "completed"


def test_file_ids_may_come_late() -> None:
    """`completed` without an id, then with one."""
    clock = Clock()
    client = openai_client(config_with(Fault(kind="late_file_ids", seconds=60)), clock)
    made = submit(client, [line("r", chat())])

    early = client.batches.retrieve(made.id)
    clock.now += 61

    assert (early.status, early.output_file_id) == ("completed", None)
    assert client.batches.retrieve(made.id).output_file_id is not None


def test_a_missing_file_may_have_an_empty_id() -> None:
    """The empty string is no id."""
    client = openai_client(config_with(Fault(kind="empty_file_ids")))

    batch = client.batches.retrieve(submit(client, [line("r", chat())]).id)

    assert batch.error_file_id == ""
    assert batch.output_file_id


def test_lists_may_lag_behind() -> None:
    """A new job can be fetched before it is listed."""
    clock = Clock()
    client = openai_client(emulator_config(list_lag_s=30), clock)
    made = submit(client, [line("r", chat())])

    early = [b.id for b in client.batches.list()]
    clock.now += 31

    assert client.batches.retrieve(made.id).id == made.id
    assert early == []
    assert [b.id for b in client.batches.list()] == [made.id]


def test_an_upload_may_be_invisible_at_first() -> None:
    """A batch made of it too early is refused with 404."""
    clock = Clock()
    client = openai_client(emulator_config(upload_lag_s=5), clock)
    file = client.files.create(file=("a", line("r", chat()).encode()), purpose="batch")
    given: Any = {
        "input_file_id": file.id,
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    }

    with pytest.raises(openai.NotFoundError):
        client.batches.create(**given)
    clock.now += 6

    assert client.batches.create(**given).status == "validating"


def test_rates_are_met_over_many_requests() -> None:
    """A rate is drawn for each request."""
    config = config_with(Fault(kind="status", on="openai.models.list", rate=0.3))
    client = openai_client(config)
    failed = 0

    for _ in range(200):
        try:
            client.models.list()
        except openai.InternalServerError:
            failed += 1

    assert 35 < failed < 85


def test_faults_can_be_changed_while_running() -> None:
    """By any user of the state, over HTTP or in Python."""
    config = emulator_config()
    client = openai_client(config)
    http = in_process_client(config)
    url = "http://emulator.invalid/emulator/settings"
    fault = {"kind": "status", "on": "openai.models.list", "status": 500}

    answer = http.put(url, json={"faults": [fault]})
    with pytest.raises(openai.InternalServerError):
        client.models.list()
    change_settings(config, faults=[])

    assert answer.status_code == 200
    assert client.models.list().data
    assert http.put(url, json={"faults": [{"kind": "nonsense"}]}).status_code == 400
