"""The emulator over HTTP and in the process: one state, the same answers, bounded memory."""

from __future__ import annotations

import json
import multiprocessing
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import anthropic
import httpx2
import openai
import pytest
import uvicorn
from google import genai
from google.genai import types

from cj_pipeline.emulator import change_settings, create_app, register_qualities
from cj_pipeline.emulator.config import EmulatorConfig, Fault
from tests.support.emulator_calls import (
    chat,
    emulator_config,
    line,
    openai_client,
    prompt,
    rows,
    submit,
    winners,
)


@contextmanager
def served(config: EmulatorConfig) -> Iterator[str]:
    """Serve the emulator over HTTP on a free port; give its address."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(config), log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)


def over_http(url: str, *, timeout: float = 30) -> openai.OpenAI:
    """Return OpenAI's SDK over a served emulator."""
    return openai.OpenAI(api_key="k", base_url=f"{url}/v1", max_retries=0, timeout=timeout)


def test_both_doors_lead_to_one_state() -> None:
    """What is made over HTTP is seen in the process, verdict for verdict."""
    config = emulator_config()
    inside = openai_client(config)
    lines = [line(f"r{i}", chat()) for i in range(20)]

    with served(config) as url:
        outside = over_http(url)
        made = submit(outside, lines)
        seen = inside.batches.retrieve(made.id)
        by_http = rows(outside, seen.output_file_id)

    assert seen.status == "completed"
    assert by_http == rows(inside, seen.output_file_id)


def test_all_three_sdks_reach_a_served_emulator() -> None:
    """Unpatched, with an address and a key."""
    with served(emulator_config()) as url:
        one = over_http(url).chat.completions.create(**chat()).choices[0].message.content
        with anthropic.Anthropic(api_key="k", base_url=url) as claude:
            message = claude.messages.create(
                model="quality", max_tokens=300, messages=[{"role": "user", "content": prompt()}]
            )
        gemini = genai.Client(
            api_key="k", http_options=types.HttpOptions(base_url=url), vertexai=False
        )
        three = gemini.models.generate_content(model="quality", contents=prompt()).text

    assert message.content[0].type == "text"
    for text in (one, message.content[0].text, three):
        assert json.loads(text or "")["winner"] in {"A", "B", "tie"}


def test_state_survives_a_restart() -> None:
    """A job made before is collected after."""
    config = emulator_config()
    with served(config) as url:
        made = submit(over_http(url), [line("r", chat())])

    with served(config) as url:
        batch = over_http(url).batches.retrieve(made.id)

    assert batch.status == "completed"


def test_a_reply_lost_over_http_closes_the_connection_with_nothing_said() -> None:
    """The client sees a dead server; the job is there."""
    config = emulator_config(faults=[Fault(kind="lost_reply", on="openai.batches.create", at=(1,))])

    with served(config) as url:
        client = over_http(url)
        with pytest.raises(openai.APIConnectionError) as caught:
            submit(client, [line("r", chat())])
        jobs = list(client.batches.list())

    assert isinstance(caught.value.__cause__, httpx2.RemoteProtocolError)
    assert len(jobs) == 1


def test_a_download_truncated_over_http_breaks_off() -> None:
    """Fewer bytes than promised, then the end of the connection."""
    config = emulator_config(faults=[Fault(kind="truncated", on="openai.files.content")])

    with served(config) as url:
        client = over_http(url)
        batch = client.batches.retrieve(submit(client, [line("r", chat())]).id)
        with (
            pytest.raises(httpx2.RemoteProtocolError),
            client.files.with_streaming_response.content(batch.output_file_id or "") as response,
        ):
            list(response.iter_lines())


def test_a_hang_over_http_lasts_longer_than_the_client_waits() -> None:
    """The client gives up by itself."""
    hang = Fault(kind="hang", on="openai.models.list", seconds=1.0)

    with (
        served(emulator_config(faults=[hang])) as url,
        pytest.raises(openai.APITimeoutError),
    ):
        over_http(url, timeout=0.2).models.list()


def test_registered_qualities_are_shared_by_every_process() -> None:
    """Over HTTP or in Python, a text's quality is known to all."""
    config = emulator_config(judges={"quality": {"discrimination": 50}})
    content = prompt("first text", "second text")
    lines = [line(f"r{i}", chat(content=content)) for i in range(10)]

    register_qualities(config, {"first text": 1.0, "second text": -1.0})
    before = set(winners(openai_client(config), lines).values())
    with served(config) as url:
        httpx2.post(
            f"{url}/emulator/qualities", json={"first text": -1.0, "second text": 1.0}
        ).raise_for_status()
    after = set(winners(openai_client(config), lines).values())

    assert (before, after) == ({"A"}, {"B"})


def test_the_clock_can_be_put_forward_over_http() -> None:
    """A day need not be waited for."""
    config = emulator_config(latency_s=3600)

    with served(config) as url:
        client = over_http(url)
        made = submit(client, [line("r", chat())])
        before = client.batches.retrieve(made.id).status
        httpx2.post(f"{url}/emulator/clock", json={"seconds": 3601}).raise_for_status()
        after = client.batches.retrieve(made.id).status

    assert (before, after) == ("validating", "completed")


def _submit_some(config: EmulatorConfig, name: str) -> None:
    client = openai_client(config)
    for number in range(5):
        made = submit(client, [line(f"{name}-{number}-{i}", chat()) for i in range(10)])
        client.batches.retrieve(made.id)


def test_many_processes_can_share_one_state() -> None:
    """Also when all of them are the first to open it."""
    config = emulator_config()
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_submit_some, args=(config, f"w{i}")) for i in range(4)]

    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
    jobs = list(openai_client(config).batches.list())

    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]
    assert len(jobs) == 20


def test_a_large_batch_needs_little_memory() -> None:
    """Uploads, rows and downloads pass through files: 300 rows of 80 kB in less than 10 MB."""
    config = emulator_config()
    client = openai_client(config)
    essay = f"{'x' * 500} " * 80
    lines = (line(f"r{i}", chat(content=prompt(essay, f"{essay}{i % 8}"))) for i in range(300))
    path = config.state_path.with_name("input.jsonl")
    path.write_text("".join(f"{text}\n" for text in lines))

    with path.open("rb") as raw:
        file = client.files.create(file=("input.jsonl", raw), purpose="batch")
    tracemalloc.start()
    made = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    batch = client.batches.retrieve(made.id)
    with client.files.with_streaming_response.content(batch.output_file_id or "") as response:
        n_rows = sum(1 for _ in response.iter_lines())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert path.stat().st_size > 20e6
    assert n_rows == 300
    assert peak < 10e6


def test_settings_changed_in_one_process_hold_in_all() -> None:
    """They are kept with the state."""
    config = emulator_config()
    inside = openai_client(config)

    change_settings(config, latency_s=1000)

    made = submit(inside, [line("r", chat())])
    assert inside.batches.retrieve(made.id).status == "validating"
