"""Time and memory to build, upload, download and read 50,000 comparisons through OpenAI's files.

The emulator serves in a process of its own, so only the client is measured: once through the whole
pipeline with its store, once through its adapter alone, and once through the plain loop of the
SDK's examples. Each way runs in a process of its own as well.
`python benchmarks/openai_path.py [N]` prints a table.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import structlog

from cj_pipeline.batch.comparisons import custom_id
from cj_pipeline.errors import TransientError
from cj_pipeline.judging.judges import load_judge
from cj_pipeline.judging.prompts import Prompt, render_prompt
from cj_pipeline.providers.base import Provider, split_shards
from cj_pipeline.providers.registry import open_provider
from cj_pipeline.runtime import RunEnvironment, Runtime
from cj_pipeline.steps.collect_wave import collect_wave
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.plan_wave import plan_wave
from cj_pipeline.steps.poll import poll
from cj_pipeline.steps.submit_wave import submit_wave
from cj_pipeline.store.file_store import FileStore

ESSAY_CHARACTERS = 2_000
N_ESSAYS = 320
"""Enough for 50,000 pairs."""

IDLE = "idle"

_KEY = "0123456789abcdef" * 4
_JUDGE = load_judge("quality")


def main() -> None:
    """Serve, measure every way, print."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    print(f"{n} comparisons, essays of {ESSAY_CHARACTERS} characters; peak MiB is above idle")
    for way in ("pipeline", "adapter", "plain"):
        with tempfile.TemporaryDirectory() as folder:
            port = _free_port()
            server = _serve(Path(folder), port)
            try:
                _wait_for(port)
                environment = os.environ | {"CJ_EMULATOR_URL": f"http://127.0.0.1:{port}"}
                command = [sys.executable, __file__, str(n), way, folder]
                subprocess.run(command, check=True, env=environment)
            finally:
                server.terminate()
                server.wait()


def measure(n: int, way: str, folder: Path) -> None:
    """Run one way and print what each part took."""
    provider = open_provider(_JUDGE, os.environ, folder)
    ways = {
        "pipeline": _through_pipeline,
        "adapter": _through_adapter,
        "plain": _through_plain_loop,
    }
    idle = _peak_mib()
    started = time.perf_counter()
    for step, result in ways[way](provider, n, folder):
        if step == IDLE:
            idle, started = _peak_mib(), time.perf_counter()
            continue
        seconds = time.perf_counter() - started
        print(f"{way:8} {step:26} {seconds:8.1f} s  {_peak_mib() - idle:7.0f} MiB  {result}")
        started = time.perf_counter()


def _through_pipeline(_: Provider, n: int, folder: Path) -> Iterator[tuple[str, object]]:
    """A batch's own steps: what is sent and what was collected is in the store."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    batch = folder / "large"
    (batch / "essays").mkdir(parents=True)
    for number in range(N_ESSAYS):
        (batch / "essays" / f"essay-{number:04d}.txt").write_text(_essay(number))
    (batch / "instructions.md").write_text("Describe a walk.\n")
    (batch / "batch.yaml").write_text(
        f"judges: [quality]\nall_at_once: true\nstrategy: coverage\nmax_pairwise_comparisons: {n}\n"
    )
    home = folder / "home"
    runtime = Runtime(
        FileStore(home), home, os.environ, RunEnvironment("0000000", "bench", "3", "os")
    )
    batch_id = ingest(runtime, batch).batch_id
    import numpy as np  # noqa: F401 -- planning does

    yield IDLE, "the essays are in, and every library that the steps need is loaded"
    yield "plan", f"{len(plan_wave(runtime, batch_id).comparisons)} comparisons"
    yield "build, upload, create", f"{_sent(runtime, batch_id)} jobs"
    _wait_until_ended(lambda: bool(poll(runtime, batch_id=batch_id).batches_with_ended_jobs))
    yield "(emulator writes results)", ""
    n_read = 0
    while n_read < n:
        n_read += collect_wave(runtime, batch_id).n_requested
        poll(runtime, batch_id=batch_id)
    yield "download, store and settle", f"{n_read} replies"


def _sent(runtime: Runtime, batch_id: str) -> int:
    """Submit until everything is out: on a busy machine the emulator may be too slow to answer."""
    n_sent = 0
    while _is_unsent(runtime, batch_id):
        try:
            n_sent += submit_wave(runtime, batch_id).n_sent
        except TransientError as error:
            print(f"         ({error})")
            time.sleep(10)
    return n_sent


def _is_unsent(runtime: Runtime, batch_id: str) -> bool:
    """Return whether anything is still to be sent, now or after a wait."""
    with runtime.store.read() as db:
        row = db.one(
            "SELECT count(*) AS n FROM comparison_pairs p"
            " LEFT JOIN attempts a USING (comparison_id)"
            " LEFT JOIN provider_jobs j USING (submission_key) WHERE p.batch_id = ?"
            " AND coalesce(j.state, 'intent') IN ('intent', 'uploaded', 'ambiguous')",
            [batch_id],
        )
    return row is not None and row["n"] > 0


def _through_adapter(provider: Provider, n: int, folder: Path) -> Iterator[tuple[str, object]]:
    def line(number: int) -> bytes:
        request = provider.build_request(_prompt(number), _JUDGE, _custom_id(number))
        return json.dumps(request, ensure_ascii=False, separators=(",", ":")).encode()

    sizes = [len(line(number)) for number in range(n)]
    shards = split_shards(sizes, provider.limits)
    yield "size and split", f"{len(shards)} shards"
    jobs = []
    for shard in shards:
        path = folder / "shard.jsonl"
        with path.open("wb") as file:
            for number in shard:
                file.write(line(number) + b"\n")
        yield "build", f"{path.stat().st_size / 1e6:.0f} MB"
        file_id = provider.upload(path, _KEY)
        yield "upload", file_id
        jobs.append(provider.create(path, file_id, _KEY))
        yield "(emulator judges)", jobs[-1]
    n_read = 0
    for job in jobs:
        _wait_until_ended(lambda job=job: provider.poll(job).state == "ended")
        yield "(emulator writes results)", job
        for raw in provider.collect(job):
            n_read += provider.parse_reply(raw.text).custom_id is not None
        yield "download and read", f"{n_read} replies"


def _through_plain_loop(provider: Any, n: int, folder: Path) -> Iterator[tuple[str, object]]:
    """As the SDK's examples do it: everything in lists and strings."""
    client = provider.client
    requests = [
        provider.build_request(_prompt(number), _JUDGE, _custom_id(number)) for number in range(n)
    ]
    sizes = [len(json.dumps(request, ensure_ascii=False).encode()) for request in requests]
    yield "size and split", len(requests)
    jobs = []
    for shard in split_shards(sizes, provider.limits):
        body = "\n".join(json.dumps(requests[i], ensure_ascii=False) for i in shard)
        path = folder / "plain.jsonl"
        path.write_text(body, encoding="utf-8")
        yield "build", f"{path.stat().st_size / 1e6:.0f} MB"
        uploaded = client.files.create(file=path, purpose="batch")
        yield "upload", uploaded.id
        jobs.append(
            client.batches.create(
                input_file_id=uploaded.id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
            ).id
        )
        yield "(emulator judges)", jobs[-1]
    replies = {}
    for job in jobs:
        _wait_until_ended(lambda job=job: client.batches.retrieve(job).status == "completed")
        yield "(emulator writes results)", job
        batch = client.batches.retrieve(job)
        rows = [
            json.loads(text)
            for text in client.files.content(batch.output_file_id).text.splitlines()
        ]
        replies.update({row["custom_id"]: row for row in rows})
        yield "download and read", f"{len(replies)} replies"


def _prompt(number: int) -> Prompt:
    first, second = divmod(number, N_ESSAYS)
    return render_prompt(
        _JUDGE.template,
        instructions="Describe a walk.",
        rubric="",
        text_a=_essay(first % N_ESSAYS),
        text_b=_essay(second),
        nonce=f"{number:016x}",
    )


def _essay(number: int) -> str:
    return (f"This is essay {number}, about a walk in the wood. " * 99)[:ESSAY_CHARACTERS]


def _custom_id(number: int) -> str:
    return custom_id(_KEY, f"0123456789-{number:07d}", 1)


def _wait_until_ended(has_ended: Callable[[], bool]) -> None:
    while not has_ended():
        time.sleep(0.2)


def _serve(folder: Path, port: int) -> subprocess.Popen[bytes]:
    program = (
        "from pathlib import Path; import uvicorn;"
        "from cj_pipeline.emulator import EmulatorConfig, create_app;"
        f"config = EmulatorConfig(state_path=Path({str(folder / 'emulator.sqlite')!r}));"
        f"uvicorn.run(create_app(config), port={port}, log_level='warning', lifespan='off')"
    )
    return subprocess.Popen([sys.executable, "-c", program])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    msg = f"The emulator does not answer on port {port}."
    raise TimeoutError(msg)


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    if len(sys.argv) > 2:
        measure(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
    else:
        main()
