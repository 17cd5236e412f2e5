"""How long a number of batches take with one worker, two, four; each with a home of its own.

    python -m benchmarks.hosts [--mode served|lake] [--batches 6] [--workers 1 2] [--essays 6]

The provider is the emulator over HTTP, which answers at once, so what is timed is ours. One worker
of two or more is killed once it holds a batch, and what was bought is read from the emulator's
books. About five minutes with the defaults on two cores.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.store.opening import open_store
from tests.support.batches import TEST_RUN, write_batch
from tests.support.hosts import STORES, Host, until
from tests.support.object_server import BUCKET, object_server
from tests.support.served_emulator import books, served_emulator


def main() -> None:
    """Time each number of workers, and print one line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", choices=sorted(STORES), default="served")
    parser.add_argument("--batches", type=int, default=6)
    parser.add_argument("--essays", type=int, default=6)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    given = parser.parse_args()
    print("| Workers | Killed | Seconds | Comparisons/s | Paid twice | Bought |")
    print("|---:|---:|---:|---:|---:|---:|")
    for n_workers in given.workers:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o711)
            print(_timed(Path(folder), given, n_workers), flush=True)


def _timed(folder: Path, given: argparse.Namespace, n_workers: int) -> str:
    with ExitStack() as running:
        objects = running.enter_context(object_server())
        os.environ.update(objects.environment())
        store = running.enter_context(STORES[given.mode](folder))
        emulator = running.enter_context(served_emulator(folder / "provider"))
        environment = {
            **objects.environment(),
            **store,
            "CJ_FILES": f"s3://{BUCKET}/cj",
            "CJ_EMULATOR_URL": emulator,
        }
        home = folder / "client"
        client = Runtime(open_store(home, environment), home, environment, TEST_RUN)
        settings = {
            "llm_batching_mode": "provider_batch_api",
            "score_stability_threshold": None,
            "max_pairwise_comparisons": 30,
            "wave_size": 15,
            "canary_requests": 0,
        }
        for n in range(given.batches):
            name = folder / "folders" / f"batch-{n}"
            ingest(client, write_batch(name, n_students=given.essays, settings=settings))
        begun = time.monotonic()
        hosts = []
        for n in range(n_workers):
            (folder / f"host-{n}").mkdir()
            hosts.append(Host(f"host-{n}", folder / f"host-{n}", environment))
        n_killed = 0
        if n_workers > 1:
            until(lambda: hosts[0].holds(client.store.leases), 120)
            hosts[0].signal(signal.SIGKILL)
            hosts[0].end(10)
            n_killed = 1
        for host in hosts[n_killed:]:
            if host.end(900) != 0:
                raise SystemExit(host.log.read_text())
        took = time.monotonic() - begun
        bought = books(emulator)
    n_paid = bought["totals"]["requests_paid"]
    twice = len(bought["paid_twice"])
    return f"| {n_workers} | {n_killed} | {took:.0f} | {n_paid / took:.1f} | {twice} | {n_paid} |"


if __name__ == "__main__":
    main()
