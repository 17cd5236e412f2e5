"""Anthropic's endpoints behave as PROVIDERS describes them, to the official SDK."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import httpx2
import pytest

from cj_pipeline.emulator import in_process_client
from cj_pipeline.emulator.config import Fault, Limits
from cj_pipeline.judging.prompts import verdict_schema
from tests.support.emulator_calls import Clock, anthropic_client, emulator_config, prompt


def params(prefix: str = "", ttl: str = "5m", **more: Any) -> dict[str, Any]:
    """Return a message's parameters; a prefix is marked to be cached."""
    content: list[dict[str, Any]] = [{"type": "text", "text": prompt()}]
    if prefix:
        mark = {"type": "ephemeral", "ttl": ttl}
        content.insert(0, {"type": "text", "text": prefix, "cache_control": mark})
    return {
        "model": "quality",
        "max_tokens": 500,
        "system": "You compare essays.",
        "messages": [{"role": "user", "content": content}],
        "output_config": {
            "format": {"type": "json_schema", "schema": verdict_schema(allow_ties=False)}
        },
        **more,
    }


def requests(*ids: str, **more: Any) -> list[Any]:
    """Return a batch's requests."""
    return [{"custom_id": i, "params": params(**more)} for i in ids]


def test_counts_are_zero_until_the_whole_batch_has_ended() -> None:
    """There is no progress signal."""
    clock = Clock()
    client = anthropic_client(emulator_config(latency_s=100), clock)
    made = client.messages.batches.create(requests=requests(*(f"r{i}" for i in range(20))))

    clock.now += 90
    running = client.messages.batches.retrieve(made.id)
    clock.now += 11
    ended = client.messages.batches.retrieve(made.id)

    assert (running.processing_status, running.request_counts.processing) == ("in_progress", 20)
    assert running.request_counts.succeeded == 0
    assert running.results_url is None
    assert (ended.processing_status, ended.request_counts.succeeded) == ("ended", 20)
    assert ended.request_counts.processing == 0


def test_results_come_from_an_address_of_the_emulators_own() -> None:
    """The SDK follows `results_url` as it is given."""
    client = anthropic_client(emulator_config())
    ids = [f"r{i}" for i in range(20)]

    made = client.messages.batches.create(requests=requests(*ids))
    url = client.messages.batches.retrieve(made.id).results_url or ""
    got = list(client.messages.batches.results(made.id))

    assert url.startswith("http://emulator.invalid/")
    assert sorted(r.custom_id for r in got) == sorted(ids)
    assert [r.custom_id for r in got] != ids
    for row in got:
        assert row.result.type == "succeeded"
        assert row.result.message.usage.service_tier == "batch"
        assert row.result.message.content[0].type == "text"
        assert json.loads(row.result.message.content[0].text)["winner"] in {"A", "B"}


def test_parameters_are_checked_only_in_their_row() -> None:
    """The batch is made all the same; the row says what is wrong."""
    client = anthropic_client(emulator_config())
    bad = [{"custom_id": "bad", "params": params(extra_body={})}]

    made = client.messages.batches.create(requests=[*requests("good"), *bad])  # type: ignore[list-item]
    got = {r.custom_id: r.result for r in client.messages.batches.results(made.id)}

    assert got["good"].type == "succeeded"
    assert got["bad"].type == "errored"
    assert got["bad"].error.error.type == "invalid_request_error"
    assert got["bad"].error.error.message == "extra_body: Extra inputs are not permitted"


@pytest.mark.parametrize("ids", [("a", "a"), ("has space",), ("x" * 65,), ()])
def test_custom_ids_are_checked_at_once(ids: tuple[str, ...]) -> None:
    """They must be unique, short and plain, and there must be one."""
    client = anthropic_client(emulator_config())

    with pytest.raises(anthropic.BadRequestError):
        client.messages.batches.create(requests=requests(*ids))


def test_too_many_requests_are_refused() -> None:
    """Per batch, and in the queue."""
    small = Limits(message_batch_requests=2, message_batch_queue=3)
    client = anthropic_client(emulator_config(latency_s=100, limits=small))

    with pytest.raises(anthropic.BadRequestError):
        client.messages.batches.create(requests=requests("a", "b", "c"))
    client.messages.batches.create(requests=requests("a", "b"))

    with pytest.raises(anthropic.RateLimitError):
        client.messages.batches.create(requests=requests("c", "d"))


def test_too_many_bytes_are_refused_with_413() -> None:
    """The limit is on the whole request."""
    client = anthropic_client(emulator_config(limits=Limits(message_batch_bytes=100)))

    with pytest.raises(anthropic.APIStatusError) as caught:
        client.messages.batches.create(requests=requests("a"))

    assert caught.value.status_code == 413


def test_a_cancelled_batch_keeps_what_was_done() -> None:
    """Only what succeeded is billed."""
    clock = Clock()
    config = emulator_config(latency_s=100, cancel_latency_s=10)
    client = anthropic_client(config, clock)
    made = client.messages.batches.create(requests=requests(*(f"r{i}" for i in range(40))))

    clock.now += 50
    canceling = client.messages.batches.cancel(made.id)
    clock.now += 11
    counts = client.messages.batches.retrieve(made.id).request_counts
    kinds = [r.result.type for r in client.messages.batches.results(made.id)]

    assert canceling.processing_status == "canceling"
    assert 0 < counts.succeeded < 40
    assert counts.succeeded + counts.canceled == 40
    assert (kinds.count("succeeded"), kinds.count("canceled")) == (
        counts.succeeded,
        counts.canceled,
    )


def test_a_batch_expires_after_a_day() -> None:
    """What is not done by then has a row that says so."""
    clock = Clock()
    client = anthropic_client(emulator_config(latency_s=48 * 3600), clock)
    made = client.messages.batches.create(requests=requests(*(f"r{i}" for i in range(40))))

    clock.now += 24 * 3600
    counts = client.messages.batches.retrieve(made.id).request_counts

    assert counts.expired > 0
    assert counts.succeeded + counts.expired == 40


def test_results_are_gone_29_days_after_creation() -> None:
    """Not after the end."""
    clock = Clock()
    client = anthropic_client(emulator_config(), clock)
    made = client.messages.batches.create(requests=requests("r"))

    clock.now += 29 * 86_400
    batch = client.messages.batches.retrieve(made.id)

    assert batch.archived_at is not None
    assert batch.results_url is None


def test_only_an_ended_batch_can_be_deleted_or_not_cancelled() -> None:
    """Deleting needs the end, cancelling needs none."""
    clock = Clock()
    client = anthropic_client(emulator_config(latency_s=100), clock)
    made = client.messages.batches.create(requests=requests("r"))

    with pytest.raises(anthropic.BadRequestError):
        client.messages.batches.delete(made.id)
    clock.now += 101
    with pytest.raises(anthropic.BadRequestError):
        client.messages.batches.cancel(made.id)
    client.messages.batches.delete(made.id)

    with pytest.raises(anthropic.NotFoundError):
        client.messages.batches.retrieve(made.id)


def test_lists_go_both_ways() -> None:
    """Newest first, by `after_id` and `before_id`."""
    client = anthropic_client(emulator_config())
    made = [client.messages.batches.create(requests=requests("r")).id for _ in range(5)]

    everything = [b.id for b in client.messages.batches.list(limit=2)]
    newer = client.messages.batches.list(limit=2, before_id=made[1]).data

    assert everything == made[::-1]
    assert [b.id for b in newer] == [made[3], made[2]]


def test_every_row_of_a_cold_batch_writes_the_prefix_and_a_warm_one_reads_it() -> None:
    """Rows run side by side: only what was cached before the batch is read."""
    clock = Clock()
    client = anthropic_client(emulator_config(), clock)
    prefix = "word " * 2000

    def usages() -> list[tuple[int, int]]:
        made = client.messages.batches.create(requests=requests("a", "b", "c", prefix=prefix))
        rows = client.messages.batches.results(made.id)
        found = [r.result.message.usage for r in rows if r.result.type == "succeeded"]
        return [(u.cache_creation_input_tokens or 0, u.cache_read_input_tokens or 0) for u in found]

    cold = usages()
    clock.now += 10
    warm = usages()
    clock.now += 3600
    late = usages()

    assert all(written > 2000 and read == 0 for written, read in cold + late)
    assert all(written == 0 and read > 2000 for written, read in warm)


def test_input_tokens_leave_out_the_cache() -> None:
    """Unlike OpenAI's: the prompt is the sum of three figures."""
    client = anthropic_client(emulator_config())

    plain = client.messages.create(**params()).usage
    cached = client.messages.create(**params(prefix="word " * 2000, ttl="1h")).usage

    assert (plain.cache_creation_input_tokens, plain.cache_read_input_tokens) == (0, 0)
    assert cached.cache_creation is not None
    assert cached.cache_creation.ephemeral_1h_input_tokens == cached.cache_creation_input_tokens
    assert abs(cached.input_tokens - plain.input_tokens) < 20


def test_a_verdict_may_be_asked_through_a_tool() -> None:
    """Structured output of the older kind."""
    client = anthropic_client(emulator_config())
    tool = {"name": "verdict", "input_schema": verdict_schema(allow_ties=False), "strict": True}
    choice = {"type": "tool", "name": "verdict", "disable_parallel_tool_use": True}
    asked = params(tools=[tool], tool_choice=choice)
    del asked["output_config"]

    message = client.messages.create(**asked)

    assert message.stop_reason == "tool_use"
    assert message.content[0].type == "tool_use"
    assert message.content[0].input["winner"] in {"A", "B"}  # type: ignore[index]


@pytest.mark.parametrize("header", [{"x-api-key": "k"}, {"authorization": "Bearer k"}])
def test_either_kind_of_key_is_taken(header: dict[str, str]) -> None:
    """The SDK sends a bearer token to a custom address; plain clients send x-api-key."""
    http = in_process_client(emulator_config())

    found = http.get("http://emulator.invalid/v1/messages/batches", headers=header)

    assert found.status_code == 200


def test_without_a_key_nothing_is_answered() -> None:
    """In Anthropic's words."""
    http = in_process_client(emulator_config())

    found: httpx2.Response = http.get("http://emulator.invalid/v1/messages/batches")

    assert found.status_code == 401
    assert found.json()["error"]["type"] == "authentication_error"


def test_a_lost_reply_leaves_a_batch_without_any_mark() -> None:
    """Nothing on the job says whose it is: it must be found by time, count and custom ids."""
    lost = Fault(kind="lost_reply", on="anthropic.batches.create", at=(1,))
    client = anthropic_client(emulator_config(faults=[lost]))

    with pytest.raises(anthropic.APIConnectionError):
        client.messages.batches.create(requests=requests("a", "b"))
    (found,) = client.messages.batches.list()

    assert found.request_counts.succeeded == 2
