"""Requests to the emulator as tests make them, in words and on the wire."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anthropic
import openai
from google import genai
from google.genai import types
from openai.types import Batch

from cj_pipeline.emulator import in_process_client
from cj_pipeline.emulator.config import EmulatorConfig, Settings
from cj_pipeline.judging.prompts import Template, render_prompt, verdict_schema

CHAT = "/v1/chat/completions"
TEMPLATE = Template("test", "You compare essays.", "Which is better?", "Answer with JSON.")
GOOD = "A well argued essay with many different and precise words. " * 8
WEAK = "Bad bad bad."


class Clock:
    """A clock that moves only when told."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def emulator_config(**settings: Any) -> EmulatorConfig:
    """Return a configuration over a fresh state."""
    folder = Path(tempfile.mkdtemp(prefix="emulator-"))
    return EmulatorConfig(state_path=folder / "e.sqlite", settings=Settings(**settings))


def prompt(text_a: str = GOOD, text_b: str = WEAK, instructions: str = "") -> str:
    """Return a prompt as judges are shown it."""
    shown = render_prompt(
        TEMPLATE,
        instructions=instructions,
        rubric="",
        text_a=text_a,
        text_b=text_b,
        nonce="0123456789abcdef",
    )
    return f"{shown.prefix}\n\n{shown.essays}"


def chat(
    model: str = "quality", content: str | None = None, *, ties: bool = False
) -> dict[str, Any]:
    """Return a chat completion's body."""
    schema = {"name": "verdict", "schema": verdict_schema(allow_ties=ties), "strict": True}
    return {
        "model": model,
        "messages": [{"role": "user", "content": prompt() if content is None else content}],
        "response_format": {"type": "json_schema", "json_schema": schema},
    }


def line(custom_id: str, body: Mapping[str, Any], url: str = CHAT) -> str:
    """Return one line of a batch's input file."""
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body})


def openai_client(config: EmulatorConfig, clock: Any = None, key: str = "k") -> openai.OpenAI:
    """Return OpenAI's SDK over the emulator in this process."""
    http = in_process_client(config, clock) if clock else in_process_client(config)
    return openai.OpenAI(
        api_key=key, base_url="http://emulator.invalid/v1", http_client=http, max_retries=0
    )


def anthropic_client(config: EmulatorConfig, clock: Any = None) -> anthropic.Anthropic:
    """Return Anthropic's SDK over the emulator in this process."""
    http = in_process_client(config, clock) if clock else in_process_client(config)
    return anthropic.Anthropic(
        api_key="k", base_url="http://emulator.invalid", http_client=http, max_retries=0
    )


def gemini_client(config: EmulatorConfig, clock: Any = None) -> genai.Client:
    """Return Google's SDK over the emulator in this process."""
    http = in_process_client(config, clock) if clock else in_process_client(config)
    options = types.HttpOptions(base_url="http://emulator.invalid", httpx_client=http)
    return genai.Client(api_key="k", http_options=options, vertexai=False)


def submit(client: openai.OpenAI, lines: Sequence[str], endpoint: Any = CHAT) -> Batch:
    """Upload lines and make a batch of them."""
    raw = "".join(f"{text}\n" for text in lines).encode()
    file = client.files.create(file=("input.jsonl", raw), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h")


def rows(client: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    """Return the rows of a result file; none for no file."""
    if not file_id:
        return []
    return [json.loads(text) for text in client.files.content(file_id).text.splitlines()]


def winner(row: Mapping[str, Any]) -> str:
    """Return the winner told in a row of an output file."""
    content = row["response"]["body"]["choices"][0]["message"]["content"]
    return str(json.loads(content)["winner"])


def winners(client: openai.OpenAI, lines: Sequence[str]) -> dict[str, str]:
    """Run lines as a batch; return the winner by custom id."""
    batch = client.batches.retrieve(submit(client, lines).id)
    return {row["custom_id"]: winner(row) for row in rows(client, batch.output_file_id)}
