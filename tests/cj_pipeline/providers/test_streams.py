"""Single calls that are asked for as streams, where a service answers in no other way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from cj_pipeline.batch.comparisons import RequestOutcome
from cj_pipeline.errors import SettingsError, UncertainOutcomeError
from cj_pipeline.judging.judges import Judge, load_judge
from cj_pipeline.judging.prompts import Prompt
from cj_pipeline.judging.provider_definitions import provider_definition
from cj_pipeline.providers.base import Provider, Reply
from cj_pipeline.providers.registry import open_pool, open_provider
from tests.support.answering import answering

PROMPT = Prompt("system", "prefix", "one", "two", "0" * 16)
VERDICT = '{"winner": "A", "confidence": 3, "justification": "Clearer, "}'
USAGE = {"prompt_tokens": 120, "completion_tokens": 20, "total_tokens": 140}


def _chunk(content: str | None, finish: str | None = None, **more: object) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    return {"id": "c1", "model": "m-1", "choices": [choice], **more}


CHUNKS = [
    *(_chunk(VERDICT[at : at + 7]) for at in range(0, len(VERDICT), 7)),
    _chunk(None, "stop"),
    {"id": "c1", "model": "m-1", "choices": [], "usage": USAGE},
]
RESPONSE = {
    "id": "r1",
    "model": "m-1",
    "status": "completed",
    "output": [{"type": "message", "content": [{"type": "output_text", "text": VERDICT}]}],
    "usage": {"input_tokens": 120, "output_tokens": 20, "total_tokens": 140},
}
EVENTS = [
    {"type": "response.output_text.delta", "delta": VERDICT[:7]},
    {"type": "response.completed", "response": RESPONSE},
]


def sent_as_stream(events: list[dict[str, Any]], *, end: str = "data: [DONE]\n\n") -> str:
    """Return events as a server sends them, with a comment that keeps the connection alive."""
    lines = [f"event: x\ndata: {json.dumps(event)}\n\n" for event in events]
    return ": alive\n\n" + "".join(lines) + end


def _judge(folder: Path, address: str, api: str = "chat_completions", **more: object) -> Judge:
    (folder / "providers").mkdir(exist_ok=True)
    own = {"name": "lab", "like": "openai-compatible", "streaming": True, "apis": [api]}
    (folder / "providers" / "lab.yaml").write_text(yaml.safe_dump(own | more))
    (folder / "mine.yaml").write_text(
        f"name: mine\nprovider: lab\nmodel: m\nbase_url: {address}/v1\napi: {api}\n"
        "template: more-convincing-1\n"
    )
    return load_judge("mine", folder, folder / "providers")


def _asked(folder: Path, judge: Judge, *, is_live: bool) -> Reply:
    provider = open_provider(judge, {}, folder)
    request = provider.build_request(PROMPT, judge, "r1")
    line = (
        asyncio.run(_live(folder, judge, provider, request))
        if is_live
        else provider.single(request, timeout_s=5)
    )
    return provider.parse_reply(line)


async def _live(folder: Path, judge: Judge, provider: Provider, request: Mapping[str, Any]) -> str:
    async with open_pool(judge, {}, folder, 1) as pool:
        return await provider.live(pool).single(request, timeout_s=5)


@pytest.mark.parametrize("is_live", [False, True], ids=["one", "many at once"])
@pytest.mark.parametrize(
    ("api", "events"), [("chat_completions", CHUNKS), ("responses", EVENTS)], ids=["chat", "resp"]
)
def test_what_a_stream_brings_reads_as_if_it_had_come_whole(
    tmp_path: Path, api: str, events: list[dict[str, Any]], *, is_live: bool
) -> None:
    """With what it used, which has to be asked for."""
    asked: list[bytes] = []
    with answering(sent_as_stream(events), kind="text/event-stream", asked=asked) as address:
        reply = _asked(tmp_path, _judge(tmp_path, address, api), is_live=is_live)

    assert (reply.outcome, reply.text, reply.model) == (RequestOutcome.SUCCEEDED, VERDICT, "m-1")
    assert reply.usage is not None
    assert (reply.usage.prompt, reply.usage.completion) == (120, 20)
    body = json.loads(asked[0])
    assert body["stream"] is True
    if api == "chat_completions":
        assert body["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    "came",
    [
        sent_as_stream(CHUNKS[:5], end=""),
        sent_as_stream(CHUNKS[:5], end='data: {"id": "c1", "cho'),
        sent_as_stream(CHUNKS[:-2], end=""),
        "",
    ],
    ids=["between events", "within one", "before its end is told", "at once"],
)
def test_a_stream_that_is_cut_is_no_answer(tmp_path: Path, came: str) -> None:
    """Half of a verdict may read like a whole one; it may have been billed."""
    with (
        answering(came, kind="text/event-stream; charset=utf-8") as address,
        pytest.raises(UncertainOutcomeError),
    ):
        _asked(tmp_path, _judge(tmp_path, address), is_live=False)


def test_an_error_within_a_stream_is_that_error(tmp_path: Path) -> None:
    """What came before it does not count."""
    broken = {"error": {"message": "overloaded", "code": "server_error"}}
    came = sent_as_stream([*CHUNKS[:3], broken])
    with answering(came, kind="text/event-stream") as address:
        reply = _asked(tmp_path, _judge(tmp_path, address), is_live=False)

    assert reply.outcome is RequestOutcome.PROVIDER_ERROR
    assert reply.may_retry


def test_a_server_that_answers_whole_all_the_same_is_understood(tmp_path: Path) -> None:
    """Not every server minds what it was asked for."""
    choice = {"index": 0, "message": {"content": VERDICT}, "finish_reason": "stop"}
    whole = {"id": "c1", "model": "m-1", "choices": [choice], "usage": USAGE}
    with answering(json.dumps(whole)) as address:
        reply = _asked(tmp_path, _judge(tmp_path, address), is_live=False)

    assert (reply.outcome, reply.text) == (RequestOutcome.SUCCEEDED, VERDICT)


def test_only_the_language_that_streams_here_may_be_told_to(tmp_path: Path) -> None:
    """Another would take the setting and not do it."""
    (tmp_path / "lab.yaml").write_text("name: lab\nlike: anthropic\nstreaming: true\n")

    with pytest.raises(SettingsError, match="streaming goes with wire: openai"):
        provider_definition("lab", tmp_path)
