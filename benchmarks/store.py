"""The store under many hands, under bulk, and under kills.

    python -m benchmarks.store hands [--mode embedded|served|lake] [--transactions 200]
    python -m benchmarks.store bulk [--rows 1000000]
    python -m benchmarks.store growth [--callbacks 10000000]
    python -m benchmarks.store kills [--rounds 50]

`hands`: 8 writer processes commit transactions of 500 rows while 2 readers read the live store
and one notebook keeps its connection open throughout. `bulk`: as many comparisons and callbacks
as requested, through `Session.insert`, against plain DuckDB's `COPY` into tables without keys as
limit. `growth`: a thousand batches, a comparison for ten callbacks, and what the hot path costs at
a hundredth, a tenth and all of it. `kills`: 4 writers are killed at random moments, over and over;
counts what was lost.
Prints Markdown tables. The lake needs PostgreSQL's programs.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cj_pipeline.store.file_store import FileStore
from cj_pipeline.store.opening import open_published, open_store
from tests.support.postgres_server import postgres_server

N_WRITERS = 8
ROWS = 500
TOKEN = "benchmark-token-only"  # noqa: S105 - guards nothing


def callbacks(writer: str, transaction: int, n_rows: int = ROWS) -> pa.Table:
    """Return raw replies as a wave brings them; 0.4 kB each."""
    key = f"{writer}-{transaction}"
    body = '{"winner": "A", "confidence": 4, "justification": "' + "because " * 40 + '"}'
    return pa.table(
        {
            "batch_id": pa.array([writer] * n_rows),
            "wave": pa.array(np.full(n_rows, transaction, dtype=np.int32)),
            "submission_key": pa.array([key] * n_rows),
            "source": pa.array(["output"] * n_rows),
            "line": pa.array(np.arange(n_rows, dtype=np.int32)),
            "custom_id": pa.array([f"{key}-{i}" for i in range(n_rows)]),
            "kind": pa.array(["matched"] * n_rows),
            "body": pa.array([body] * n_rows),
            "received_at": pa.array([datetime.now(UTC)] * n_rows),
        }
    )


def comparisons(n_rows: int) -> pa.Table:
    """Return ended comparisons of batches of a thousand each."""
    numbers = np.arange(n_rows)
    now = pa.array([datetime.now(UTC)] * n_rows)
    ids = pa.array([f"{i // 1000:010x}-{i % 1000:07d}" for i in range(n_rows)])
    sides = (numbers * 7919) % 50
    text = pa.array(["because it argues from the source"] * n_rows)
    return pa.table(
        {
            "comparison_id": ids,
            "batch_id": pa.array([f"batch-{i // 1000}" for i in range(n_rows)]),
            "wave": pa.array((numbers % 1000 // 100 + 1).astype(np.int32)),
            "sequence": pa.array((numbers % 1000 + 1).astype(np.int32)),
            "judge_id": pa.array(["quality-000000000000"] * n_rows),
            "essay_a": pa.array([f"essay-{i}" for i in sides]),
            "essay_b": pa.array([f"essay-{i}" for i in (sides + 1) % 50]),
            "status": pa.array(["succeeded"] * n_rows),
            "winner": pa.array(np.where(numbers % 2, "A", "B")),
            "justification": text,
            "n_attempts": pa.array(np.ones(n_rows, dtype=np.int32)),
            "custom_id": ids,
            "prompt_sha256": pa.array(["0" * 64] * n_rows),
            "tokens_prompt": pa.array(np.full(n_rows, 1000)),
            "tokens_completion": pa.array(np.full(n_rows, 30)),
            "cost_usd": pa.array(np.full(n_rows, 0.001)),
            "started_at": now,
            "completed_at": now,
        }
    )


def write(home: str, n_transactions: str) -> None:
    """Commit transactions; print each one's duration, waiting included."""
    store = open_store(Path(home), os.environ)
    writer = f"writer-{os.getpid()}"
    for transaction in range(int(n_transactions)):
        rows = callbacks(writer, transaction)
        start = time.monotonic()
        with store.write() as db:
            db.insert("callbacks", rows)
        print(time.monotonic() - start, flush=True)


def read(home: str, stop_file: str) -> None:
    """Read a batch's progress until stopped; print each read's duration."""
    store = open_store(Path(home), os.environ)
    while not Path(stop_file).exists():
        start = time.monotonic()
        with store.read() as db:
            db.one("SELECT count(*), max(wave) FROM callbacks WHERE batch_id = 'writer-1'")
        print(time.monotonic() - start, flush=True)
        time.sleep(0.1)


def serve(home: str, address: str) -> None:
    """Serve until the input ends."""
    from cj_pipeline.store import quack_store

    with quack_store.serve(Path(home), TOKEN, port=int(address.rsplit(":", 1)[1])):
        print("serving", flush=True)
        sys.stdin.read()


def _start(*arguments: object, environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.store", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


@contextmanager
def _mode(mode: str, home: Path) -> Iterator[dict[str, str]]:
    """Yield what the environment of the hands has to say in a mode."""
    if mode == "embedded":
        yield {"CJ_STORE": ""}
        return
    if mode == "lake":
        with postgres_server() as port:
            catalog = f"host=127.0.0.1 port={port} user=cj dbname=postgres"
            lake = {
                "CJ_STORE": f"ducklake:postgres:{catalog}",
                "CJ_STORE_DATA": str(home.with_name("lake")),
            }
            with open_store(home, lake).write():
                pass  # the schema, before anybody counts the time
            yield lake
        return
    address = "quack:127.0.0.1:19595"
    server = _start("serve", home, address, environment={"CJ_STORE": ""})
    assert server.stdout is not None
    server.stdout.readline()
    try:
        yield {"CJ_STORE": address, "CJ_STORE_TOKEN": TOKEN}
    finally:
        server.communicate("")


def hands(mode: str, n_transactions: int) -> None:
    """Measure writers and readers together."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        FileStore(home).publish()
        notebook = open_published(home)
        stop = Path(folder) / "stop"
        with _mode(mode, home) as environment:
            readers = [_start("read", home, stop, environment=environment) for _ in range(2)]
            start = time.monotonic()
            writers = [
                _start("write", home, n_transactions, environment=environment)
                for _ in range(N_WRITERS)
            ]
            waits = [float(s) for w in writers for s in w.communicate()[0].split()]
            elapsed = time.monotonic() - start
            stop.touch()
            reads = [float(s) for r in readers for s in r.communicate()[0].split()]
            failures = sum(p.returncode != 0 for p in (*writers, *readers))
            with open_store(home, environment).read() as db:
                row = db.one("SELECT count(*) AS n FROM callbacks")
            kept = row["n"] if row else 0
        seen = notebook.execute("SELECT count(*) FROM callbacks").fetchone()
    expected = N_WRITERS * n_transactions * ROWS
    print(
        "| mode | rows/s | transactions/s | wait p50 | p95 | longest | failures | rows lost "
        "| reads | read p50 | p95 | notebook |"
    )
    print("|---|" + "---:|" * 11)
    print(
        f"| {mode} | {kept / elapsed:,.0f} | {len(waits) / elapsed:.1f} "
        f"| {np.median(waits):.2f} s | {np.quantile(waits, 0.95):.2f} s | {max(waits):.2f} s "
        f"| {failures} | {expected - kept} | {len(reads)} | {np.median(reads):.3f} s "
        f"| {np.quantile(reads, 0.95):.3f} s | {seen[0] if seen else '?'} rows throughout |"
    )
    load = os.getloadavg()[1]
    print(f"\n{kept:,} rows in {elapsed:.0f} s; load of the machine {load:.0f}.")


def bulk(n_rows: int) -> None:
    """Measure bulk writing against the limit."""
    chunk = 100_000
    print("| what | rows | rows/s | against COPY |")
    print("|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        store = FileStore(Path(folder) / "home")
        with store.write():
            pass
        for table, rows in (
            ("comparisons", comparisons(n_rows)),
            ("callbacks", callbacks("bulk", 0, n_rows)),
        ):
            parquet = Path(folder) / f"{table}.parquet"
            pq.write_table(rows, parquet)
            limit = _plain_copy(Path(folder) / f"{table}.duckdb", parquet)
            start = time.monotonic()
            for first in range(0, n_rows, chunk):
                with store.write() as db:
                    db.insert(table, rows.slice(first, chunk))
            rate = n_rows / (time.monotonic() - start)
            print(f"| {table} | {n_rows:,} | {rate:,.0f} | {rate / limit:.0%} of {limit:,.0f} |")
        _time_at_size(store)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\nPeak memory {peak:,.0f} MB, the rows to be written included.")


def _plain_copy(database: Path, parquet: Path) -> float:
    with duckdb.connect(str(database)) as connection:
        connection.execute(f"CREATE TABLE t AS FROM '{parquet}' LIMIT 0")
        start = time.monotonic()
        connection.execute(f"COPY t FROM '{parquet}'")
        row = connection.execute("SELECT count(*) FROM t").fetchone()
        connection.execute("CHECKPOINT")
        return float(row[0] if row else 0) / (time.monotonic() - start)


def _time_at_size(store: FileStore) -> None:
    """Print what the hot path costs once the store is large."""
    start = time.monotonic()
    store.publish()
    store_bytes = store.path.stat().st_size
    print(
        f"| first publication, {store_bytes / 1e6:,.0f} MB | | {time.monotonic() - start:.2f} s | |"
    )
    durations: dict[str, list[float]] = {"write 500 rows": [], "publish": [], "query a batch": []}
    for transaction in range(1, 11):
        start = time.monotonic()
        with store.write() as db:
            db.insert("callbacks", callbacks("after", transaction))
        durations["write 500 rows"].append(time.monotonic() - start)
        start = time.monotonic()
        store.publish()
        durations["publish"].append(time.monotonic() - start)
        start = time.monotonic()
        with store.read() as db:
            db.rows(
                "SELECT status, count(*), sum(cost_usd) FROM comparisons "
                "WHERE batch_id = 'batch-7' GROUP BY status"
            )
        durations["query a batch"].append(time.monotonic() - start)
    for what, seconds in durations.items():
        print(f"| then: {what}, median of 10 | | {np.median(seconds):.3f} s | |")


def growth(n_callbacks: int) -> None:
    """Measure the hot path as a store grows."""
    rng = random.Random(1)  # noqa: S311
    words = [f"{a}{b}" for a in ("clear", "weak", "apt", "vague") for b in ("er", "ly", "", "ness")]
    texts = [" ".join(rng.choices(words, k=40)) for _ in range(20_000)]
    chunk = min(100_000, n_callbacks // 100)
    print("| callbacks | comparisons | batches | file | rows/s so far | what | median of 5 |")
    print("|---:|---:|---:|---:|---:|---|---:|")
    with tempfile.TemporaryDirectory(prefix="growth") as folder:
        store = FileStore(Path(folder) / "home")
        elapsed = 0.0
        for first in range(0, n_callbacks, chunk):
            rows = _grown_callbacks(first, chunk, texts, per_batch=max(1, n_callbacks // 1000))
            ended = _shifted(comparisons(chunk // 10), first // 10)
            start = time.monotonic()
            with store.write() as db:
                db.insert("callbacks", rows)
                db.insert("comparisons", ended)
                db.insert("provider_jobs", _grown_jobs(first, chunk))
            elapsed += time.monotonic() - start
            if (first + chunk) * 100 // n_callbacks in {1, 10, 100} and (
                (first + chunk) * 100 % n_callbacks == 0
            ):
                _print_growth(store, first + chunk, (first + chunk) / elapsed)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\nPeak memory {peak:,.0f} MB; load of the machine {os.getloadavg()[1]:.0f}.")


def _grown_callbacks(first: int, n_rows: int, texts: list[str], per_batch: int) -> pa.Table:
    numbers = range(first, first + n_rows)
    bodies = [
        f'{{"id": "{i:012d}", "winner": "{"AB"[i % 2]}", "confidence": {i % 5 + 1},'
        f' "justification": "{texts[i * 7919 % len(texts)]}"}}'
        for i in numbers
    ]
    rows = callbacks("grown", 0, n_rows)
    batches = pa.array([f"batch-{i // per_batch}" for i in numbers])
    keys = pa.array([f"grown-{i // 500:08d}" for i in numbers])
    for name, column in (
        ("batch_id", batches),
        ("submission_key", keys),
        ("line", pa.array([i % 500 for i in numbers], pa.int32())),
        ("custom_id", pa.array([f"grown-{i:012d}" for i in numbers])),
        ("body", pa.array(bodies)),
    ):
        rows = rows.set_column(rows.column_names.index(name), name, column)
    return rows


def _shifted(rows: pa.Table, by: int) -> pa.Table:
    """Return comparisons that come after `by` others."""
    ids = pa.array([f"grown-{by + i:012d}" for i in range(rows.num_rows)])
    batches = pa.array([f"batch-{(by + i) // 1000}" for i in range(rows.num_rows)])
    for name, column in (("comparison_id", ids), ("custom_id", ids), ("batch_id", batches)):
        rows = rows.set_column(rows.column_names.index(name), name, column)
    return rows


def _grown_jobs(first: int, n_callbacks: int) -> list[dict[str, object]]:
    now = datetime.now(UTC)
    return [
        {
            "submission_key": f"grown-{key:08d}",
            "batch_id": f"batch-{key // 20}",
            "wave": 1,
            "judge_id": "quality-000000000000",
            "batching_mode": "provider_batch_api",
            "provider": "emulator",
            "model": "quality",
            "account": "none",
            "state": "settled",
            "n_requests": 500,
            "n_bytes": 500_000,
            "reserved_usd": 1.0,
            "intended_at": now,
        }
        for key in range(first // 500, (first + n_callbacks) // 500)
    ]


def _print_growth(store: FileStore, n_callbacks: int, rate: float) -> None:
    """Print what a step, a poll and a read cost now."""
    store.publish()
    durations: dict[str, list[float]] = {
        "write 500 callbacks": [],
        "publish them": [],
        "find the jobs to poll": [],
        "count a batch's verdicts": [],
        "read a wave's callbacks": [],
    }

    def timed(what: str, start: float) -> float:
        durations[what].append(time.monotonic() - start)
        return time.monotonic()

    for turn in range(5):
        now = time.monotonic()
        with store.write() as db:
            db.insert("callbacks", callbacks(f"new-{n_callbacks}", turn))
        now = timed("write 500 callbacks", now)
        store.publish()
        now = timed("publish them", now)
        with store.read() as db:
            db.rows("FROM provider_jobs WHERE state IN ('submitted', 'running')")
        now = timed("find the jobs to poll", now)
        with store.read() as db:
            db.rows(
                "SELECT winner, count(*) FROM comparisons WHERE batch_id = ? GROUP BY 1",
                ["batch-7"],
            )
        now = timed("count a batch's verdicts", now)
        with store.read() as db:
            db.rows("SELECT body FROM callbacks WHERE submission_key = 'grown-00000007'")
        timed("read a wave's callbacks", now)
    with store.read() as db:
        counts = db.one(
            "SELECT (SELECT count(*) FROM comparisons) AS n,"
            " (SELECT count(DISTINCT batch_id) FROM callbacks) AS batches"
        )
    assert counts is not None
    size = store.path.stat().st_size / 1e6
    head = f"| {n_callbacks:,} | {counts['n']:,} | {counts['batches']:,} "
    head += f"| {size:,.0f} MB | {rate:,.0f}"
    for what, seconds in durations.items():
        print(f"{head} | {what} | {np.median(seconds):.3f} s |", flush=True)
        head = "| | | | |"


def kills(n_rounds: int) -> None:
    """Kill writers at random moments and count what was lost."""
    reported = 0
    rng = random.Random(1)  # noqa: S311
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        for _ in range(n_rounds):
            writers = [_start("write", home, 1000, environment={"CJ_STORE": ""}) for _ in range(4)]
            for writer in writers:
                assert writer.stdout is not None
                writer.stdout.readline()
            time.sleep(rng.uniform(0, 0.3))
            for writer in writers:
                writer.send_signal(signal.SIGKILL)
            reported += sum(1 + len(writer.communicate()[0].split()) for writer in writers)
            FileStore(home).publish()
        with FileStore(home).read() as db:
            found = db.rows("SELECT submission_key, count(*) AS n FROM callbacks GROUP BY ALL")
    torn = sum(row["n"] != ROWS for row in found)
    print("| kills | commits reported | transactions found | lost | torn |")
    print("|---:|---:|---:|---:|---:|")
    print(
        f"| {4 * n_rounds} | {reported} | {len(found)} | {max(0, reported - len(found))} | {torn} |"
    )


def main() -> None:
    """Run one of the benchmarks, or one of their hands."""
    hand = {"write": write, "read": read, "serve": serve}.get(sys.argv[1] if sys.argv[1:] else "")
    if hand is not None:
        hand(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_subparsers(dest="what", required=True)
    many = what.add_parser("hands")
    many.add_argument("--mode", choices=["embedded", "served", "lake"], default="embedded")
    many.add_argument("--transactions", type=int, default=200)
    what.add_parser("bulk").add_argument("--rows", type=int, default=1_000_000)
    what.add_parser("growth").add_argument("--callbacks", type=int, default=10_000_000)
    what.add_parser("kills").add_argument("--rounds", type=int, default=50)
    chosen = parser.parse_args()
    if chosen.what == "hands":
        hands(chosen.mode, chosen.transactions)
    elif chosen.what == "bulk":
        bulk(chosen.rows)
    elif chosen.what == "growth":
        growth(chosen.callbacks)
    else:
        kills(chosen.rounds)


if __name__ == "__main__":
    main()
