"""What other processes do to a store while a test looks on; run as `python -m`.

write HOME N       commit N transactions of ROWS rows each, print one line per commit
hold HOME          hold the write transaction until killed
read HOME SECONDS  look at the live store over and over, print the row counts seen
    fill HOME BYTES    commit until no file may grow beyond BYTES, print the commits and the error
    serve HOME TOKEN [READING]  serve the store until the input ends, print the address
"""

from __future__ import annotations

import os
import resource
import secrets
import socket
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cj_pipeline.errors import StoreError
from cj_pipeline.store import quack_store
from cj_pipeline.store.file_store import FileStore

ROWS = 50


def ledger_rows(writer: str, transaction: int) -> list[dict[str, Any]]:
    """Return one transaction's rows, whose keys say who wrote them and when."""
    return [
        {
            "batch_id": writer,
            "submission_key": f"{writer}-{transaction}-{row}",
            "judge_id": str(transaction),
            "kind": "reserved",
            "usd": 0.5,
            "entered_at": datetime.now(UTC),
        }
        for row in range(ROWS)
    ]


def write(home: str, n_transactions: str) -> None:
    store = FileStore(Path(home))
    for transaction in range(int(n_transactions)):
        with store.write() as db:
            db.insert("ledger", ledger_rows(f"writer-{os.getpid()}", transaction))
        print(transaction, flush=True)


def hold(home: str) -> None:
    with FileStore(Path(home)).write() as db:
        db.insert("ledger", ledger_rows("holder", 0))
        print("holding", flush=True)
        time.sleep(60)


def read(home: str, seconds: str) -> None:
    store = FileStore(Path(home))
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        with store.read() as db:
            row = db.one("SELECT count(*) AS n FROM ledger")
        print(row["n"] if row else None, flush=True)


def fill(home: str, n_bytes: str) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(n_bytes), int(n_bytes)))
    store = FileStore(Path(home))
    text = secrets.token_hex(50_000)
    for transaction in range(1000):
        try:
            with store.write() as db:
                db.insert(
                    "ledger", [row | {"judge_id": text} for row in ledger_rows("f", transaction)]
                )
        except StoreError as error:
            print(transaction, error, sep="\n", flush=True)
            return


def serve(home: str, token: str, reading_token: str | None = None) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with quack_store.serve(Path(home), token, port=port, reading_token=reading_token) as address:
        print(f"address {address}", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    {"write": write, "hold": hold, "read": read, "fill": fill, "serve": serve}[sys.argv[1]](
        *sys.argv[2:]
    )
