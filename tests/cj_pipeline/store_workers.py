"""What other processes do to a store while a test looks on; run as `python -m`.

write HOME N       commit N transactions of ROWS rows each, print one line per commit
hold HOME          hold the write transaction until killed
read HOME SECONDS  look at the live store over and over, print the row counts seen
"""

from __future__ import annotations

import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cj_pipeline.store import Store

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
    store = Store(Path(home))
    for transaction in range(int(n_transactions)):
        with store.write() as db:
            db.insert("ledger", ledger_rows(f"writer-{os.getpid()}", transaction))
        print(transaction, flush=True)


def hold(home: str) -> None:
    with Store(Path(home)).write() as db:
        db.insert("ledger", ledger_rows("holder", 0))
        print("holding", flush=True)
        time.sleep(60)


def read(home: str, seconds: str) -> None:
    store = Store(Path(home))
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        with store.read() as db:
            row = db.one("SELECT count(*) AS n FROM ledger")
        print(row["n"] if row else None, flush=True)


if __name__ == "__main__":
    {"write": write, "hold": hold, "read": read}[sys.argv[1]](*sys.argv[2:])
