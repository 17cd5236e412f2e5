"""OpenAI's endpoints behave as PROVIDERS describes them, to the official SDK."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from cj_pipeline.emulator.config import Limits
from tests.support.emulator_calls import (
    Clock,
    chat,
    emulator_config,
    line,
    openai_client,
    prompt,
    rows,
    submit,
)


def test_a_batch_is_validating_when_made_and_completed_when_its_time_is_over() -> None:
    """Status is a function of the clock; nothing runs in between."""
    clock = Clock()
    client = openai_client(emulator_config(latency_s=100), clock)

    made = submit(client, [line(f"r{i}", chat()) for i in range(40)])
    seen = []
    for second in (0, 50, 97, 101):
        clock.now = 1_800_000_000.0 + second
        batch = client.batches.retrieve(made.id)
        assert batch.request_counts is not None
        seen.append((batch.status, batch.request_counts.completed))

    assert made.status == "validating"
    assert [status for status, _ in seen] == [
        "validating",
        "in_progress",
        "finalizing",
        "completed",
    ]
    assert 0 < seen[1][1] < 40
    assert seen[3][1] == 40


def test_results_come_in_another_order_than_requests() -> None:
    """OpenAI guarantees no order, so neither do we."""
    client = openai_client(emulator_config())
    ids = [f"r{i}" for i in range(30)]

    made = submit(client, [line(i, chat()) for i in ids])
    got = [r["custom_id"] for r in rows(client, client.batches.retrieve(made.id).output_file_id)]

    assert sorted(got) == sorted(ids)
    assert got != ids


def test_a_batch_reports_the_sum_of_its_rows_usage() -> None:
    """Bills can be reconciled with the job's own usage."""
    client = openai_client(emulator_config())

    made = submit(client, [line(f"r{i}", chat()) for i in range(5)])
    batch = client.batches.retrieve(made.id)
    usages = [r["response"]["body"]["usage"] for r in rows(client, batch.output_file_id)]

    assert batch.usage is not None
    assert batch.usage.input_tokens == sum(u["prompt_tokens"] for u in usages)
    assert batch.usage.output_tokens == sum(u["completion_tokens"] for u in usages)


@pytest.mark.parametrize(
    ("lines", "code", "number"),
    [
        (["{"], "invalid_json_line", 1),
        ([line("a", chat()), line("a", chat())], "duplicate_custom_id", 2),
        ([line("a", chat(), url="/v1/responses")], "url_mismatch", 1),
        ([line("a", chat()), line("b", chat("human-votes"))], "model_mismatch", 2),
        ([" "], "empty_file", None),
    ],
)
def test_bad_input_fails_the_batch_only_after_it_was_made(
    lines: list[str], code: str, number: int | None
) -> None:
    """`create` answers 200; the batch is found to be `failed` with code and line."""
    client = openai_client(emulator_config())

    made = submit(client, lines)
    batch = client.batches.retrieve(made.id)

    assert made.status == "validating"
    assert batch.status == "failed"
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert (batch.errors.data[0].code, batch.errors.data[0].line) == (code, number)
    assert batch.output_file_id is None


def test_too_many_requests_fail_the_batch() -> None:
    """The limit per file is the provider's."""
    client = openai_client(emulator_config(limits=Limits(batch_requests=2)))

    made = submit(client, [line(f"r{i}", chat()) for i in range(3)])
    batch = client.batches.retrieve(made.id)

    assert batch.errors is not None
    assert batch.errors.data is not None
    assert batch.errors.data[0].code == "too_many_tasks"


def test_a_row_that_is_refused_bears_its_error_in_the_body() -> None:
    """A 4xx row has `error: null`; it is in the error file."""
    client = openai_client(emulator_config())

    made = submit(client, [line("good", chat()), line("bad", chat(content="no essays"))])
    batch = client.batches.retrieve(made.id)
    (row,) = rows(client, batch.error_file_id)

    assert row["custom_id"] == "bad"
    assert row["error"] is None
    assert row["response"]["status_code"] == 400
    assert row["response"]["body"]["error"]["code"] == "invalid_prompt"
    assert batch.request_counts is not None
    assert (batch.request_counts.completed, batch.request_counts.failed) == (1, 1)


def test_completed_without_successes_has_no_output_file() -> None:
    """`completed` does not imply `output_file_id`."""
    client = openai_client(emulator_config())

    made = submit(client, [line("bad", chat(content="no essays"))])
    batch = client.batches.retrieve(made.id)

    assert batch.status == "completed"
    assert batch.output_file_id is None
    assert batch.error_file_id is not None


def test_a_cancelled_batch_keeps_what_was_done() -> None:
    """Partial results are paid for; the rest is named in the error file."""
    clock = Clock()
    client = openai_client(emulator_config(latency_s=100, cancel_latency_s=10), clock)
    made = submit(client, [line(f"r{i}", chat()) for i in range(40)])

    clock.now += 50
    cancelling = client.batches.cancel(made.id)
    clock.now += 11
    batch = client.batches.retrieve(made.id)
    done, undone = rows(client, batch.output_file_id), rows(client, batch.error_file_id)

    assert cancelling.status == "cancelling"
    assert batch.status == "cancelled"
    assert 0 < len(done) < 40
    assert len(done) + len(undone) == 40
    assert {r["error"]["code"] for r in undone} == {"batch_cancelled"}


def test_an_ended_batch_cannot_be_cancelled() -> None:
    """The refusal is a 409."""
    client = openai_client(emulator_config())
    made = submit(client, [line("r", chat())])

    with pytest.raises(openai.ConflictError, match="completed"):
        client.batches.cancel(made.id)


def test_a_batch_that_takes_longer_than_a_day_expires_with_partial_results() -> None:
    """The completion window is 24 h; what is done is delivered and billed."""
    clock = Clock()
    client = openai_client(emulator_config(latency_s=48 * 3600), clock)
    made = submit(client, [line(f"r{i}", chat()) for i in range(40)])

    clock.now += 24 * 3600
    batch = client.batches.retrieve(made.id)
    undone = rows(client, batch.error_file_id)

    assert batch.status == "expired"
    assert 0 < len(rows(client, batch.output_file_id)) < 40
    assert {r["error"]["code"] for r in undone} == {"batch_expired"}
    assert {r["response"] for r in undone} == {None}


def test_lists_are_paged_newest_first() -> None:
    """Search after a crash pages through the whole list."""
    client = openai_client(emulator_config())
    made = [submit(client, [line("r", chat())]).id for _ in range(5)]

    page = client.batches.list(limit=2)
    everything = [batch.id for batch in page]

    assert len(page.data) == 2
    assert page.has_more
    assert everything == made[::-1]


def test_another_key_sees_nothing() -> None:
    """Jobs and files belong to an account."""
    config = emulator_config()
    made = submit(openai_client(config), [line("r", chat())])
    stranger = openai_client(config, key="other")

    with pytest.raises(openai.NotFoundError):
        stranger.batches.retrieve(made.id)
    assert not list(stranger.files.list())


def test_files_can_be_found_read_and_deleted() -> None:
    """Input files are found by name and removed after use."""
    client = openai_client(emulator_config())
    expiry: Any = {"anchor": "created_at", "seconds": 3600}

    made = client.files.create(
        file=("key.jsonl", b"one\r\ntwo\n"), purpose="batch", expires_after=expiry
    )
    listed = [(f.id, f.filename, f.purpose) for f in client.files.list(purpose="batch")]
    content = client.files.content(made.id).content
    client.files.delete(made.id)

    assert listed == [(made.id, "key.jsonl", "batch")]
    assert made.expires_at == made.created_at + 3600
    assert content == b"one\r\ntwo\n"
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(made.id)


def test_files_expire() -> None:
    """A batch's input lives 30 days by default."""
    clock = Clock()
    client = openai_client(emulator_config(), clock)
    made = client.files.create(file=("a", b"x"), purpose="batch")

    clock.now += 30 * 86_400 + 1

    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(made.id)


def test_metadata_comes_back_and_is_limited() -> None:
    """The submission key travels in it."""
    client = openai_client(emulator_config())
    file = client.files.create(file=("a", line("r", chat()).encode()), purpose="batch")
    given: Any = {"input_file_id": file.id, "endpoint": "/v1/chat/completions"}

    made = client.batches.create(**given, completion_window="24h", metadata={"key": "v"})

    assert client.batches.retrieve(made.id).metadata == {"key": "v"}
    with pytest.raises(openai.BadRequestError):
        client.batches.create(**given, completion_window="24h", metadata={"k": "v" * 513})


def test_creations_are_limited_per_hour() -> None:
    """429 with a Retry-After, and room again an hour later."""
    clock = Clock()
    client = openai_client(emulator_config(limits=Limits(creations_per_hour=1)), clock)
    submit(client, [line("r", chat())])

    with pytest.raises(openai.RateLimitError) as caught:
        submit(client, [line("r", chat())])
    clock.now += 3601

    assert caught.value.response.headers["retry-after"] == "3600"
    assert submit(client, [line("r", chat())]).status == "validating"


def test_too_many_enqueued_tokens_fail_the_batch_until_others_end() -> None:
    """`token_limit_exceeded` is reported after creation, and goes away by waiting."""
    clock = Clock()
    client = openai_client(
        emulator_config(latency_s=100, limits=Limits(enqueued_tokens=300)), clock
    )
    submit(client, [line("r", chat())])

    second = submit(client, [line("r", chat())])
    clock.now += 101
    third = submit(client, [line("r", chat())])
    clock.now += 101
    refused, taken = client.batches.retrieve(second.id), client.batches.retrieve(third.id)

    assert refused.errors is not None
    assert refused.errors.data is not None
    assert refused.errors.data[0].code == "token_limit_exceeded"
    assert refused.errors.data[0].line is None
    assert taken.status == "completed"


def test_single_calls_answer_as_the_endpoint_does() -> None:
    """Chat completions and responses give the same judge."""
    client = openai_client(emulator_config())

    completion = client.chat.completions.create(**chat())
    response = client.responses.create(model="quality", input=prompt())

    assert json.loads(completion.choices[0].message.content or "")["winner"] in {"A", "B"}
    assert json.loads(response.output_text)["winner"] in {"A", "B", "tie"}
    assert response.usage is not None
    assert response.usage.input_tokens > 0


def test_an_unknown_model_is_not_found() -> None:
    """A typo in a judge's model is reported, never answered."""
    client = openai_client(emulator_config())

    with pytest.raises(openai.NotFoundError, match="qualty"):
        client.chat.completions.create(**chat("qualty"))


def test_responses_can_be_batched() -> None:
    """A batch's endpoint decides how its rows are worded."""
    client = openai_client(emulator_config())
    body = {"model": "quality", "input": prompt()}

    made = submit(client, [line("r", body, url="/v1/responses")], "/v1/responses")
    (row,) = rows(client, client.batches.retrieve(made.id).output_file_id)

    assert row["response"]["body"]["object"] == "response"
    assert row["response"]["body"]["output"][0]["content"][0]["type"] == "output_text"


def test_a_short_limit_truncates_the_answer() -> None:
    """`finish_reason` is `length`, and the text is no whole verdict."""
    client = openai_client(emulator_config())

    completion = client.chat.completions.create(**chat(), max_completion_tokens=5)

    assert completion.choices[0].finish_reason == "length"
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 5


def test_a_repeated_prefix_is_reported_as_cached() -> None:
    """Rows after the first read the shared prefix from the cache, in steps of 128 tokens."""
    client = openai_client(emulator_config())
    shared = prompt(instructions="word " * 1500)

    made = submit(client, [line(f"r{i}", chat(content=shared)) for i in range(4)])
    batch = client.batches.retrieve(made.id)
    cached = sorted(
        r["response"]["body"]["usage"]["prompt_tokens_details"]["cached_tokens"]
        for r in rows(client, batch.output_file_id)
    )

    assert cached[0] == 0
    assert cached[1] == cached[3] > 1500
    assert cached[1] % 128 == 0


def test_a_single_call_asked_again_gives_the_lost_answer_or_a_new_try() -> None:
    """What was lost on the way can be had again; what was no verdict is redrawn."""
    steady = openai_client(emulator_config())
    clumsy = openai_client(emulator_config(judges={"quality": {"invalid_rate": 0.8}}))

    def ask(client: openai.OpenAI) -> str:
        return client.chat.completions.create(**chat()).choices[0].message.content or ""

    same = {ask(steady) for _ in range(6)}
    tries = [ask(clumsy) for _ in range(40)]

    assert len(same) == 1
    assert tries[0] != tries[-1]
    assert json.loads(tries[-1])["winner"] in {"A", "B"}
