"""Single calls: how near to the bound, how much per call, what a kill costs, how limits hold.

    python benchmarks/live_calls.py            everything, in a few minutes
    python benchmarks/live_calls.py targets    3 and 10 judges x 50 comparisons at 200 ms
    python benchmarks/live_calls.py many [N]   N (10,000) calls at concurrency 64: time, memory
    python benchmarks/live_calls.py limiter    4 processes under one limit, every window looked at
    python benchmarks/live_calls.py faults     3 calls in 10 failing, and an outage of 5 seconds
    python benchmarks/live_calls.py peers      next to a plain asyncio + tenacity loop and
                                               inspect_ai, also killed half-way and started again

The server is a stub in a process of its own that speaks chat completions, waits, and counts how
often it was sent each prompt: the emulator's own work would be measured otherwise. `targets` runs
against the emulator as well, through three SDKs. inspect_ai is found in this environment, or in
the one whose interpreter INSPECT_PYTHON names.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import math
import multiprocessing
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

LATENCY_S = 0.2
VERDICT = json.dumps({"winner": "A", "confidence": 3, "justification": "It reads better."})


def main() -> None:
    """Run what was requested."""
    what, *rest = sys.argv[1:] or ["all"]
    if what == "stub":
        asyncio.run(serve_stub(int(rest[0])))
        return
    if what in _PARTS:
        _PARTS[what](*rest)
        return
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    targets()
    many()
    limiter()
    faults()
    peers()


# ---------------------------------------------------------------- the stub


class Stub:
    """Chat completions after a wait; settings and counts over HTTP as well."""

    def __init__(self) -> None:
        self.latency_s = LATENCY_S
        self.fault_share = 0.0
        self.down_until = 0.0
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.draws = random.Random(7)  # noqa: S311 -- which calls fail

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection, one after the other."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.split("\r\n")
                headers = {
                    k.lower(): v for k, _, v in (line.partition(": ") for line in lines if line)
                }
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                status, answer = await self.answer(first.split()[1], body)
                writer.write(
                    f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n"
                    f"content-length: {len(answer)}\r\n\r\n".encode()
                    + answer
                )
                await writer.drain()
        writer.close()

    async def answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Return status and body for one request."""
        if path == "/settings":
            for name, value in json.loads(body).items():
                setattr(self, name, value)
            self.asked.clear()
            self.answered.clear()
            return 200, b"{}"
        if path == "/counts":
            counts = {
                "asked": sum(self.asked.values()),
                "answered": sum(self.answered.values()),
                "distinct": len(self.answered),
                "answered_again": sum(n - 1 for n in self.answered.values()),
            }
            return 200, json.dumps(counts).encode()
        sent = json.loads(body)
        if "messages" not in sent:
            return 404, b'{"error": {"message": "only chat completions here"}}'
        prompt = hashlib.sha256(json.dumps([sent["model"], sent["messages"]]).encode()).hexdigest()
        self.asked[prompt] += 1
        if time.time() < self.down_until or self.draws.random() < self.fault_share:
            return 503, b'{"error": {"message": "out of order", "type": "server_error"}}'
        await asyncio.sleep(self.latency_s)
        self.answered[prompt] += 1
        return 200, json.dumps(
            {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "created": 1,
                "model": sent["model"],
                "choices": [
                    {
                        "index": 0,
                        "finish_reason": "stop",
                        "message": {"role": "assistant", "content": VERDICT},
                    }
                ],
                "usage": {"prompt_tokens": 900, "completion_tokens": 30, "total_tokens": 930},
            }
        ).encode()


async def serve_stub(port: int) -> None:
    """Serve until killed."""
    stub = Stub()
    server = await asyncio.start_server(stub.connection, "127.0.0.1", port, limit=1 << 22)
    async with server:
        await server.serve_forever()


@contextlib.contextmanager
def stub() -> Iterator[str]:
    """Run a stub; give its address."""
    port = _free_port()
    process = subprocess.Popen([sys.executable, __file__, "stub", str(port)])
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(port)
        yield address
    finally:
        process.terminate()
        process.wait()


def configure(address: str, **settings: float) -> None:
    """Change the stub's settings and restart the counts."""
    _fetch(f"{address}/settings", {"fault_share": 0.0, "down_until": 0.0, **settings})


def counts(address: str) -> dict[str, int]:
    """Return what the stub was sent and has answered."""
    found: dict[str, int] = _fetch(f"{address}/counts")
    return found


# ---------------------------------------------------------------- batches


def write_folder(
    folder: Path, address: str, n: int, n_judges: int, *, concurrency: int, **more: Any
) -> Path:
    """Write a batch whose one wave requests n comparisons of each of its judges."""
    n_essays = next(k for k in range(3, 400) if k * (k - 1) // 2 >= n)
    (folder / "essays").mkdir(parents=True)
    (folder / "judges").mkdir()
    for number in range(n_essays):
        text = f"Essay {number}. " + "What I have learned about learning is this. " * 40
        (folder / "essays" / f"essay-{number:03d}.txt").write_text(text)
    names = [f"stub-{number}" for number in range(n_judges)]
    for name in names:
        judge = {
            "name": name,
            "provider": "openai-compatible",
            "model": name,
            "base_url": f"{address}/v1",
            "price": {
                "input": 1, "output": 2, "source": "made up", "as_of": "2026-01-01",
            },
        }  # fmt: skip
        (folder / "judges" / f"{name}.yaml").write_text(yaml.safe_dump(judge))
    (folder / "instructions.md").write_text("Describe something you have learned.\n")
    settings = {
        "judges": names,
        "llm_batching_mode": "per_request",
        "strategy": "coverage",
        "wave_size": n,
        "max_pairwise_comparisons": n * n_judges,
        "judge_shares": dict.fromkeys(names, 1.0),
        "canary_requests": 0,
        "profile_set": {"concurrency": concurrency, "checkpoint_every": 100},
    }
    (folder / "batch.yaml").write_text(yaml.safe_dump(settings | more))
    return folder


def planned(home: Path, folder: Path, environment: Mapping[str, str] | None = None) -> Any:
    """Ingest a batch and plan its wave; return the runtime and the batch's name."""
    from cj_pipeline.logs import configure_logs
    from cj_pipeline.steps.ingest import ingest
    from cj_pipeline.steps.plan_wave import plan_wave
    from resources.runtime import open_runtime

    configure_logs(level="ERROR")
    # The stub is reached at an address of this machine, which a folder may not choose unasked.
    own = {"CJ_HOME": str(home), "CJ_BATCH_JUDGES": "allow"}
    runtime = open_runtime(own | dict(environment or {}))
    batch_id = ingest(runtime, folder).batch_id
    plan_wave(runtime, batch_id)
    return runtime, batch_id


def submitted(home: Path, folder: Path, environment: Mapping[str, str] | None = None) -> Any:
    """Ask a batch's wave; return how long the step and its calls took, in seconds."""
    from cj_pipeline.steps.submit_wave import submit_wave

    runtime, batch_id = planned(home, folder, environment)
    begun = time.perf_counter()
    submit_wave(runtime, batch_id)
    step_s = time.perf_counter() - begun
    return runtime, step_s, *_span(runtime)


def _span(runtime: Any) -> tuple[float, int]:
    """Return the time from the first call being ready to the last answer, and their number."""
    with runtime.store.read() as db:
        row = db.one(
            "SELECT epoch(max(answered_at)) - epoch(min(queued_at)) AS s, count(*) AS n"
            " FROM live_calls WHERE outcome = 'answered'"
        )
    return float(row["s"]), int(row["n"])


# ---------------------------------------------------------------- parts


def targets() -> None:
    """3 and 10 judges x 50 comparisons at 200 ms, and the bound of their concurrency."""
    bound_s = math.ceil(50 / 4) * LATENCY_S

    def row(*shown: Any) -> None:
        server, n_judges, n, calls_s, step_s = shown
        print(
            f"| {server} | {n_judges} | {n} | {bound_s:.2f} | {calls_s:.2f} |"
            f" {calls_s / bound_s - 1:.0%} | {step_s:.2f} |"
        )

    print("\ntargets x 50 calls at 200 ms, concurrency 4 per judge")
    print("| server | judges | calls | bound s | calls s | above bound | whole step s |")
    print("|---|---|---|---|---|---|---|")
    for n_judges in (3, 10):
        with tempfile.TemporaryDirectory() as tmp:
            row("none: the dispatcher alone", n_judges, *_dispatcher_alone(Path(tmp), n_judges))
    with tempfile.TemporaryDirectory() as tmp, stub() as address:
        for n_judges in (3, 10):
            place = Path(tmp) / str(n_judges)
            folder = write_folder(place / "batch", address, 50, n_judges, concurrency=4)
            _, step_s, calls_s, n = submitted(place / "home", folder)
            row("stub", n_judges, n, calls_s, step_s)
        place = Path(tmp) / "emulator"
        folder = write_folder(place / "batch", address, 50, 3, concurrency=4)
        text = yaml.safe_load((folder / "batch.yaml").read_text())
        text["judges"] = ["quality", "quality-messages", "quality-gemini"]
        text["judge_shares"] = dict.fromkeys(text["judges"], 1.0)
        (folder / "batch.yaml").write_text(yaml.safe_dump(text))
        settings = {"CJ_EMULATOR_SETTINGS": json.dumps({"call_latency_s": LATENCY_S})}
        _, step_s, calls_s, n = submitted(place / "home", folder, settings)
        row("emulator, 3 SDKs", 3, n, calls_s, step_s)


def _dispatcher_alone(home: Path, n_judges: int) -> tuple[int, float, float]:
    """Return calls made, seconds and seconds, with judges that only wait: no SDK, no store."""
    from cj_pipeline.live.dispatcher import (
        CallOutcome,
        CallTarget,
        DispatchHooks,
        PendingCall,
        make_calls,
        run_blocking,
    )
    from cj_pipeline.live.profiles import Profile
    from cj_pipeline.live.rate_limiter import Bucket, RateLimiter

    answers: list[CallOutcome] = []

    async def single(_: Mapping[str, Any], __: float) -> str:
        await asyncio.sleep(LATENCY_S)
        return VERDICT

    judges = [
        CallTarget(
            name=f"judge-{judge}",
            batch_id="batch",
            level=1,
            bucket=Bucket(f"account/{judge}"),
            profile=Profile(concurrency=4),
            calls=iter([PendingCall("job", n, f"{judge}-{n}", dict, 10, 0.0) for n in range(50)]),
            single=single,
        )
        for judge in range(n_judges)
    ]
    around = DispatchHooks(
        open_limiter=lambda: RateLimiter(home / "live.sqlite"),
        journal=answers.append,
        checkpoint=lambda _: True,
    )
    begun = time.perf_counter()
    run_blocking(lambda: make_calls(judges, around))
    seconds = time.perf_counter() - begun
    return (
        len(answers),
        max(a.answered_at for a in answers) - min(a.queued_at for a in answers),
        seconds,
    )


def many(n_calls: str = "10000") -> None:
    """Many calls at concurrency 64: time, processor time per call, memory above idle."""
    n = int(n_calls)
    print(f"\n{n} calls at 200 ms, concurrency 64")
    with tempfile.TemporaryDirectory() as tmp, stub() as address:
        folder = write_folder(Path(tmp) / "batch", address, n, 1, concurrency=64)
        _in_a_process(_many, Path(tmp) / "home", folder, n)
        print(f"at the server: {counts(address)}")


def _many(home: Path, folder: Path, n: int) -> None:
    from cj_pipeline.steps.submit_wave import submit_wave

    runtime, batch_id = planned(home, folder)
    runtime.provider(_judges(runtime, batch_id)[0])  # the SDK's import is not a call's
    idle, used = _peak_mib(), time.process_time()
    begun = time.perf_counter()
    submit_wave(runtime, batch_id)
    step_s, used = time.perf_counter() - begun, time.process_time() - used
    calls_s, answered = _span(runtime)
    bound = math.ceil(n / 64) * LATENCY_S
    print("| calls | bound s | calls s | per s | CPU ms each | peak MiB above idle | step s |")
    print("|---|---|---|---|---|---|---|")
    print(
        f"| {answered} | {bound:.1f} | {calls_s:.1f} | {n / calls_s:.0f} |"
        f" {1000 * used / n:.2f} | {_peak_mib() - idle:.0f} | {step_s:.1f} |"
    )


def _judges(runtime: Any, batch_id: str) -> Any:
    from cj_pipeline.queries.batch_record import load_batch

    with runtime.store.read() as db:
        return load_batch(db, batch_id).judges


def limiter() -> None:
    """Four processes that want more than they may have: every window, and how full it is."""
    print("\n4 processes, 40 calls at once each, one limit")
    print("| limit | seconds | sent | most in any window | of the limit, when saturated |")
    print("|---|---|---|---|---|")
    for most, window in ((50, 1.0), (60, 5.0), (300, 5.0)):
        seconds = 6 * window + 2
        with tempfile.TemporaryDirectory() as tmp:
            queue: Any = multiprocessing.Queue()
            workers = [
                multiprocessing.Process(
                    target=_saturate, args=(Path(tmp), most, window, seconds, queue)
                )
                for _ in range(4)
            ]
            for worker in workers:
                worker.start()
            sent = sorted(at for _ in workers for at in queue.get())
            for worker in workers:
                worker.join()
        fullest, first = 0, 0
        for last, at in enumerate(sent):
            while at - sent[first] >= window:
                first += 1
            fullest = max(fullest, last - first + 1)
        begun = sent[0]
        whole = int((sent[-1] - begun) // window)
        in_whole = sum(at < begun + whole * window for at in sent)
        share = in_whole / (most * whole)
        print(f"| {most} per {window:g} s | {seconds:g} | {len(sent)} | {fullest} | {share:.1%} |")


def _saturate(home: Path, most: int, window: float, seconds: float, queue: Any) -> None:
    from cj_pipeline.live.dispatcher import (
        CallTarget,
        DispatchHooks,
        PendingCall,
        make_calls,
        run_blocking,
    )
    from cj_pipeline.live.profiles import Profile
    from cj_pipeline.live.rate_limiter import Bucket, Rate, RateLimiter

    sent: list[float] = []
    until = time.time() + seconds

    async def single(_: Mapping[str, Any], __: float) -> str:
        sent.append(time.time())
        await asyncio.sleep(0.01)
        return "answer"

    def calls() -> Iterator[PendingCall]:
        number = 0
        while time.time() < until:
            number += 1
            yield PendingCall("job", number, str(number), dict, 10, 0.0)

    target = CallTarget(
        name="judge",
        batch_id=f"batch-{os.getpid()}",
        level=1,
        bucket=Bucket("account/model", (Rate("calls", most, window),)),
        profile=Profile(concurrency=40, wait_timeout_seconds=seconds),
        calls=calls(),
        single=single,
    )
    around = DispatchHooks(
        open_limiter=lambda: RateLimiter(home / "live.sqlite"),
        journal=lambda _: None,
        checkpoint=lambda _: time.time() < until,
    )
    run_blocking(lambda: make_calls([target], around))
    queue.put(sent)


def faults() -> None:
    """Three calls in ten failing, and an outage: every comparison judged, and at what price."""
    print("\n400 calls, concurrency 16, 50 ms")
    print("| | answered | tries | seconds | breaker |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as tmp, stub() as address:
        for name, settings in (
            ("no faults", {}),
            ("30 % of the calls answered 503", {"fault_share": 0.3}),
            ("down for the first 5 s", {"down_until": 5.0}),
        ):
            place = Path(tmp) / name.replace(" ", "-").replace("%", "")
            folder = write_folder(place / "batch", address, 400, 1, concurrency=16)
            runtime, batch_id = planned(place / "home", folder)
            given = {k: v + (time.time() if k == "down_until" else 0) for k, v in settings.items()}
            configure(address, latency_s=0.05, **given)
            seconds = _until_all_answered(runtime, batch_id)
            with runtime.store.read() as db:
                row = db.one("SELECT count(*) AS n FROM live_calls WHERE outcome = 'answered'")
                tripped = db.one("SELECT state, n_trips FROM circuit_breakers")
            shown = "never opened" if tripped is None else f"opened, now {tripped['state']}"
            asked = counts(address)["asked"]
            print(f"| {name} | {row['n']} | {asked} | {seconds:.1f} | {shown} |")


def _until_all_answered(runtime: Any, batch_id: str) -> float:
    from cj_pipeline.errors import TransientError
    from cj_pipeline.steps.submit_wave import submit_wave

    begun = time.perf_counter()
    while True:
        try:
            submit_wave(runtime, batch_id)
        except TransientError:
            time.sleep(0.5)
        with runtime.store.read() as db:
            open_jobs = db.one("SELECT count(*) AS n FROM provider_jobs WHERE state <> 'ended'")
        if not open_jobs["n"]:
            return time.perf_counter() - begun


def peers(n_calls: str = "600") -> None:
    """The same calls through this dispatcher, a plain loop and inspect_ai; and killed half-way."""
    n = int(n_calls)
    concurrency = 16
    bound = math.ceil(n / concurrency) * LATENCY_S
    print(f"\n{n} calls at 200 ms, concurrency {concurrency}; bound {bound:.1f} s")
    print(
        "| | seconds | above bound | CPU ms per call | after a kill: answered | lost | bought"
        " again |"
    )
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as tmp, stub() as address:
        folder = write_folder(Path(tmp) / "batch", address, n, 1, concurrency=concurrency)
        requests = Path(tmp) / "requests.jsonl"
        runtime, batch_id = planned(Path(tmp) / "home", folder)
        _write_requests(runtime, batch_id, requests)
        ways: dict[str, list[str]] = {
            "cj_pipeline": [sys.executable, __file__, "_ours", str(folder)],
            "asyncio + tenacity": [sys.executable, __file__, "_plain", str(requests), address],
        }
        inspect = os.environ.get("INSPECT_PYTHON", sys.executable)
        probe = [inspect, "-c", "import inspect_ai"]
        found = subprocess.run(probe, check=False, capture_output=True)
        if found.returncode == 0:
            ways["inspect_ai"] = [inspect, __file__, "_inspect", str(requests), address]
        for name, command in ways.items():
            whole = Path(tmp) / f"whole-{name.replace(' ', '')}"
            configure(address, latency_s=LATENCY_S)
            done = subprocess.run(
                [*command, str(whole)], check=True, capture_output=True, text=True
            )
            seconds, cpu_s = map(float, done.stdout.split()[-2:])
            killed = Path(tmp) / f"killed-{name.replace(' ', '')}"
            configure(address, latency_s=LATENCY_S)
            process = subprocess.Popen([*command, str(killed)], stdout=subprocess.DEVNULL)
            while counts(address)["answered"] < n // 2:
                time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
            process.wait()
            # A peer that cannot take up what was killed shows in what it lost.
            subprocess.run([*command, str(killed)], check=False, capture_output=True)
            after = counts(address)
            print(
                f"| {name} | {seconds:.1f} | {seconds / bound - 1:.0%} | {1000 * cpu_s / n:.1f} |"
                f" {after['distinct']} | {n - after['distinct']} | {after['answered_again']} |"
            )


def _write_requests(runtime: Any, batch_id: str, path: Path) -> None:
    """Write a batch's requests for tools that do not know batches."""
    from cj_pipeline.provider_jobs.requests import load_texts, prompt_for
    from cj_pipeline.queries.batch_record import load_batch

    with runtime.store.read() as db:
        record = load_batch(db, batch_id)
        texts = load_texts(db, batch_id)
        pairs = db.rows("SELECT * FROM comparison_pairs ORDER BY sequence")
    judge = record.judges[0]
    provider = runtime.provider(judge)
    with path.open("w") as file:
        for pair in pairs:
            prompt = prompt_for(record, judge, texts, pair)
            request = provider.build_request(prompt, judge, pair["comparison_id"])
            file.write(json.dumps(request) + "\n")


def _ours(folder: str, home: str) -> None:
    """Ask the wave, or what is left of it; print seconds and processor seconds."""
    from cj_pipeline.steps.submit_wave import submit_wave

    runtime, batch_id = planned(Path(home), Path(folder))
    runtime.provider(_judges(runtime, batch_id)[0])
    begun, used = time.perf_counter(), time.process_time()
    submit_wave(runtime, batch_id)
    print(time.perf_counter() - begun, time.process_time() - used)


def _plain(requests: str, address: str, out: str) -> None:
    """The loop everybody writes first: a semaphore, tenacity, one line per answer."""
    import openai
    from tenacity import retry, stop_after_attempt, wait_random_exponential

    rows = [json.loads(line) for line in Path(requests).read_text().splitlines()]
    kept = Path(out)
    done = set()
    if kept.exists():
        for line in kept.read_text().splitlines():
            with contextlib.suppress(ValueError):
                done.add(json.loads(line)["custom_id"])

    async def run() -> None:
        client = openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        gate = asyncio.Semaphore(16)

        @retry(stop=stop_after_attempt(6), wait=wait_random_exponential(0.5, 30))
        async def request(body: dict[str, Any]) -> str:
            answer = await client.chat.completions.create(**body)
            return str(answer.choices[0].message.content)

        async def one(row: dict[str, Any]) -> None:
            async with gate:
                text = await request(row["body"])
            with kept.open("a") as file:
                file.write(json.dumps({"custom_id": row["custom_id"], "text": text}) + "\n")

        await asyncio.gather(*(one(row) for row in rows if row["custom_id"] not in done))

    begun, used = time.perf_counter(), time.process_time()
    asyncio.run(run())
    print(time.perf_counter() - begun, time.process_time() - used)


def _inspect(requests: str, address: str, out: str) -> None:
    """An evaluation of inspect_ai with one sample per comparison; a killed one is retried."""
    import inspect_ai
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.log import list_eval_logs
    from inspect_ai.model import ChatMessageSystem, ChatMessageUser, GenerateConfig

    os.environ["OPENAI_API_KEY"] = "none"
    rows = [json.loads(line) for line in Path(requests).read_text().splitlines()]
    samples = []
    for row in rows:
        system, user = row["body"]["messages"]
        texts = [ChatMessageSystem(content=system["content"])]
        samples.append(
            Sample(id=row["custom_id"], input=[*texts, ChatMessageUser(content=user["content"])])
        )
    config = GenerateConfig(max_connections=16, max_retries=6, max_tokens=1024)
    begun, used = time.perf_counter(), time.process_time()
    common: dict[str, Any] = {"log_dir": out, "display": "none"}
    logs = list_eval_logs(out) if Path(out).exists() else []
    if logs:
        inspect_ai.eval_retry(logs[0], **common)
    else:
        model = f"openai/{rows[0]['body']['model']}"
        inspect_ai.eval(
            inspect_ai.Task(dataset=MemoryDataset(samples), config=config),
            model=model,
            model_base_url=f"{address}/v1",
            model_args={"responses_api": False},
            max_samples=64,
            **common,
        )
    print(time.perf_counter() - begun, time.process_time() - used)


# ---------------------------------------------------------------- helpers


def _in_a_process(target: Callable[..., None], *args: Any) -> None:
    process = multiprocessing.get_context("spawn").Process(target=target, args=args)
    process.start()
    process.join()
    assert process.exitcode == 0


def _fetch(url: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data=data)) as answer:  # noqa: S310
        return json.loads(answer.read())


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _wait_for(port: int) -> None:
    for _ in range(600):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    msg = f"nothing came up on port {port}"
    raise RuntimeError(msg)


_PARTS: Mapping[str, Callable[..., None]] = {
    "targets": targets,
    "many": many,
    "limiter": limiter,
    "faults": faults,
    "peers": peers,
    "_ours": _ours,
    "_plain": _plain,
    "_inspect": _inspect,
}

if __name__ == "__main__":
    main()
