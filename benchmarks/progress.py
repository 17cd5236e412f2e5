"""How soon a landing is noticed: from the commit that holds it to its watchers.

    python benchmarks/progress.py [--comparisons 200] [--others 0]

One process judges a batch by single calls and notes when each transaction with an event was
committed. Another serves it: a WebSocket client and a follower (`cj watch`) note when each event
reaches them. With `--others`, further processes write to the same store all the while.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
import uvicorn
import yaml

from cj_pipeline.progress.events import record_progress
from cj_pipeline.progress.follow import follow
from cj_pipeline.queries.batch_record import load_batch
from cj_pipeline.runtime import Runtime
from cj_pipeline.service.app import create_app
from cj_pipeline.service.auth import Access
from cj_pipeline.steps.advance import take_next_step
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.store.file_store import FileStore
from cj_pipeline.store.session import Session
from resources.runtime import describe_run

REQUIRED_MS = 500.0


class TimedStore(FileStore):
    """A store that notes when the transaction that reported an event was committed."""

    committed: dict[int, float]

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Give a transaction, and note the events that it reported once it is committed."""
        with super().write() as db:
            yield db
            row = db.one("SELECT coalesce(max(sequence), 0) AS n FROM progress_events")
        now = time.time()
        for sequence in range(1, (row["n"] if row else 0) + 1):
            self.committed.setdefault(sequence, now)


def runtime_over(home: Path, store: FileStore) -> Runtime:
    """Return a runtime with an emulator of its own."""
    return Runtime(store, home, {}, describe_run(Path(__file__).parent))


def write_folder(folder: Path, n_comparisons: int) -> None:
    """Write a batch that is judged by that many single calls, in one wave."""
    (folder / "essays").mkdir(parents=True)
    for number in range(40):
        text = f"Essay number {number} says what its writer has learned. " * 10
        (folder / "essays" / f"essay-{number:02d}.txt").write_text(text)
    (folder / "instructions.md").write_text("Describe something you have learned.\n")
    settings = {
        "judges": ["quality"],
        "llm_batching_mode": "per_request",
        "all_at_once": True,
        "profile_set": {"checkpoint_every": 4},
        "max_pairwise_comparisons": n_comparisons,
    }
    (folder / "batch.yaml").write_text(yaml.safe_dump(settings))


def judge(home: Path, folder: Path, reported: Path) -> None:
    """Take the batch to its end, in a process of its own."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    store = TimedStore(home)
    store.committed = {}
    runtime = runtime_over(home, store)
    batch_id = ingest(runtime, folder).batch_id
    while True:
        with store.read() as db:
            if load_batch(db, batch_id).has_ended:
                break
        take_next_step(runtime, batch_id)
    reported.write_text(json.dumps(store.committed))


def write_meanwhile(home: Path, ended: Any) -> None:
    """Write to the same store, as another batch's runs do."""
    store = FileStore(home)
    while not ended.is_set():
        with store.write() as db:
            db.execute("UPDATE writer_turn SET n_taken = n_taken + 1")
        time.sleep(0.5)


async def hear(address: str, seen: dict[int, float]) -> None:
    """Listen to the batch over a WebSocket until it has ended."""
    from websockets.asyncio.client import connect

    async with connect(f"{address}/api/v1/batches/batch/events") as connection:
        async for message in connection:
            content = json.loads(message)
            if content["type"] == "event":
                seen.setdefault(content["sequence"], time.time())


def watch(runtime: Runtime, seen: dict[int, float]) -> None:
    """Follow the batch as `cj watch` does, until it has ended."""
    while True:
        with runtime.store.read() as db:
            if db.one("SELECT 1 AS one FROM batches"):
                break
        time.sleep(0.01)
    for update in follow(runtime, "batch"):
        for event in update.events:
            seen.setdefault(event.sequence, time.time())


@contextmanager
def served(runtime: Runtime) -> Iterator[str]:
    """Serve a runtime in a thread; give the address of its WebSockets."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(runtime, Access(None)), log_level="error"))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"ws://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()


def show(name: str, seen: Mapping[int, float], committed: Mapping[int, float]) -> None:
    """Print the percentiles of one way to watch."""
    # What was reported before a client could connect is no measure of landings.
    late = sorted(1000 * (seen[n] - at) for n, at in committed.items() if n in seen and n > 2)
    missed = len(committed) - len(set(seen) & set(committed))

    def at(share: float) -> float:
        return late[min(len(late) - 1, int(share * len(late)))]

    print(
        f"| {name} | {len(late)} | {missed} | {at(0.5):.0f} | {at(0.95):.0f} | {at(0.99):.0f} |"
        f" {late[-1]:.0f} | {sum(ms < REQUIRED_MS for ms in late) / len(late):.1%} |"
    )


def cost_of_noting(home: Path) -> float:
    """Return the milliseconds one call adds to a transaction, at the batch's full size."""
    runtime = runtime_over(home, FileStore(home))
    with runtime.store.write() as db:
        db.execute("DELETE FROM progress_events WHERE kind = 'ended'")
        db.execute("UPDATE batches SET state = 'running', end_reason = NULL")
        started = time.perf_counter()
        for _ in range(20):
            record_progress(db, "batch", runtime.clock())
        return 1000 * (time.perf_counter() - started) / 20


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--comparisons", type=int, default=200)
    parser.add_argument("--others", type=int, default=0)
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        home, reported = Path(folder) / "home", Path(folder) / "told.json"
        write_folder(home / "inbox" / "batch", given.comparisons)
        watching = runtime_over(home, FileStore(home))
        ended = context.Event()
        others = [
            context.Process(target=write_meanwhile, args=(home, ended)) for _ in range(given.others)
        ]
        heard: dict[int, float] = {}
        followed: dict[int, float] = {}
        with served(watching) as address:
            judging = context.Process(target=judge, args=(home, home / "inbox" / "batch", reported))
            follower = threading.Thread(target=watch, args=(watching, followed))
            for process in (*others, judging):
                process.start()
            follower.start()
            asyncio.run(hear(address, heard))
            follower.join()
            judging.join()
        ended.set()
        for process in others:
            process.join()
        committed = {int(n): at for n, at in json.loads(reported.read_text()).items()}
        load = os.getloadavg()[0]
        print(f"{given.comparisons} comparisons, {given.others} other writers, load {load:.1f}")
        print("| seen by | events | missed | p50 ms | p95 | p99 | longest | under 500 ms |")
        print("|---|---:|---:|---:|---:|---:|---:|---:|")
        show("WebSocket", heard, committed)
        show("`cj watch`", followed, committed)
        print(f"Noting progress adds {cost_of_noting(home):.1f} ms to a transaction.")


if __name__ == "__main__":
    main()
