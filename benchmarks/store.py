"""The store under many hands, under bulk, and under kills.

    python -m benchmarks.store hands [--mode embedded|served] [--transactions 200]
    python -m benchmarks.store bulk [--rows 1000000]
    python -m benchmarks.store kills [--rounds 50]

`hands`: 8 writer processes commit transactions of 500 rows while 2 readers look at the live store
and one notebook keeps its connection open throughout. `bulk`: as many comparisons and callbacks
as asked, through `Session.insert`, against plain DuckDB's `COPY` into tables without keys as the
limit. `kills`: 4 writers are killed at random moments, over and over; counts what was lost.
Prints Markdown tables.
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

from cj_pipeline.store import Store, open_published, open_store

N_WRITERS = 8
N_READERS = 2
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
    """Ask how a batch stands until told to stop; print each look's duration."""
    store = open_store(Path(home), os.environ)
    while not Path(stop_file).exists():
        start = time.monotonic()
        with store.read() as db:
            db.one("SELECT count(*), max(wave) FROM callbacks WHERE batch_id = 'writer-1'")
        print(time.monotonic() - start, flush=True)
        time.sleep(0.1)


def serve(home: str, address: str) -> None:
    """Serve until the input ends."""
    from cj_pipeline import served_store

    with served_store.serve(Path(home), TOKEN, port=int(address.rsplit(":", 1)[1])):
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
        Store(home).publish()
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
            looks = [float(s) for r in readers for s in r.communicate()[0].split()]
            failures = sum(p.returncode != 0 for p in (*writers, *readers))
        seen = notebook.execute("SELECT count(*) FROM callbacks").fetchone()
        store = Store(home)
        start = time.monotonic()
        store.publish()
        published_s = time.monotonic() - start
        with store.read() as db:
            row = db.one("SELECT count(*) AS n FROM callbacks")
        kept = row["n"] if row else 0
    expected = N_WRITERS * n_transactions * ROWS
    print(
        "| mode | rows/s | transactions/s | wait p50 | p95 | longest | failures | rows lost "
        "| reads | read p50 | p95 | notebook |"
    )
    print("|---|" + "---:|" * 11)
    print(
        f"| {mode} | {kept / elapsed:,.0f} | {len(waits) / elapsed:.1f} "
        f"| {np.median(waits):.2f} s | {np.quantile(waits, 0.95):.2f} s | {max(waits):.2f} s "
        f"| {failures} | {expected - kept} | {len(looks)} | {np.median(looks):.3f} s "
        f"| {np.quantile(looks, 0.95):.3f} s | {seen[0] if seen else '?'} rows throughout |"
    )
    print(f"\n{kept:,} rows in {elapsed:.0f} s; publishing them took {published_s:.2f} s.")


def bulk(n_rows: int) -> None:
    """Measure bulk writing against the limit."""
    chunk = 100_000
    print("| what | rows | rows/s | against COPY |")
    print("|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "home")
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


def _time_at_size(store: Store) -> None:
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
            Store(home).publish()
        with Store(home).read() as db:
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
    many.add_argument("--mode", choices=["embedded", "served"], default="embedded")
    many.add_argument("--transactions", type=int, default=200)
    what.add_parser("bulk").add_argument("--rows", type=int, default=1_000_000)
    what.add_parser("kills").add_argument("--rounds", type=int, default=50)
    chosen = parser.parse_args()
    if chosen.what == "hands":
        hands(chosen.mode, chosen.transactions)
    elif chosen.what == "bulk":
        bulk(chosen.rows)
    else:
        kills(chosen.rounds)


if __name__ == "__main__":
    main()
