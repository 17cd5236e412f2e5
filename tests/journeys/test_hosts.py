"""Hosts with homes of their own over one PostgreSQL and one object store: any of them may die.

What was bought is read from the emulator's own books, not from ours.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.store.opening import open_store
from tests.support.batches import TEST_RUN, write_batch
from tests.support.hosts import CJ, Host, until
from tests.support.object_server import BUCKET, object_server
from tests.support.postgres_server import free_port, postgres_server
from tests.support.served_emulator import books, served_emulator

pytestmark = [pytest.mark.slow, pytest.mark.postgres]

SETTINGS = {
    "judges": ["quality"],
    "llm_batching_mode": "provider_batch_api",
    "score_stability_threshold": None,
    "wave_size": 3,
    "max_pairwise_comparisons": 6,
    "canary_requests": 0,
}


@dataclass
class Installation:
    """What the hosts share, and a client of it that is none of them."""

    folder: Path
    environment: dict[str, str]
    emulator: str
    is_quick: bool

    def host(self, name: str) -> Host:
        """Start a worker on a host of this name."""
        home = self.folder / name
        home.mkdir(exist_ok=True, mode=0o700)
        return Host(name, home, self.environment)

    def client(self) -> Runtime:
        """Return a runtime on a machine that works on nothing."""
        home = self.folder / "client"
        return Runtime(open_store(home, self.environment), home, self.environment, TEST_RUN)

    def take_in(self, *names: str) -> None:
        """Take in batches of four essays, six comparisons in two waves."""
        client = self.client()
        for name in names:
            folder = write_batch(self.folder / "folders" / name, n_students=4, settings=SETTINGS)
            ingest(client, folder)


@contextmanager
def _lake(folder: Path) -> Iterator[dict[str, str]]:
    del folder  # the hosts share none
    with postgres_server() as port:
        yield {
            "CJ_STORE": f"ducklake:postgres:host=127.0.0.1 port={port} user=cj dbname=postgres",
            "CJ_STORE_DATA": f"s3://{BUCKET}/lake",
        }


@contextmanager
def _served(folder: Path) -> Iterator[dict[str, str]]:
    token, port = "a-token-for-tests-alone", free_port()
    command = [sys.executable, "-c", CJ, "store", "serve", "--port", str(port)]
    own = {"CJ_HOME": str(folder / "store"), "CJ_STORE_TOKEN": token}
    with subprocess.Popen(
        command, env={**os.environ, **own}, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        next(line for line in server.stdout if "CJ_STORE=" in line)
        yield {"CJ_STORE": f"quack:127.0.0.1:{port}", "CJ_STORE_TOKEN": token}
        server.terminate()


_STORES = {"lake": _lake, "served": _served}


@pytest.fixture(params=["lake", "served"])
def installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Installation]:
    """A shared store, an object store and a provider, and no host yet."""
    with ExitStack() as running:
        store = running.enter_context(_STORES[request.param](tmp_path))
        objects = running.enter_context(object_server())
        emulator = running.enter_context(served_emulator(tmp_path / "provider"))
        for name, value in objects.environment().items():
            monkeypatch.setenv(name, value)
        yield Installation(
            tmp_path,
            {
                **objects.environment(),
                **store,
                "CJ_FILES": f"s3://{BUCKET}/cj",
                "CJ_EMULATOR_URL": emulator,
            },
            emulator,
            is_quick=request.param == "served",
        )


def test_a_host_that_is_killed_is_replaced_within_a_minute(installation: Installation) -> None:
    """Nothing is paid twice, nothing is lost, and any machine gives out the reports."""
    names = ["one", "two"] if installation.is_quick else ["one"]
    installation.take_in(*names)
    leases = installation.client().store.leases

    first = installation.host("host-a")
    held = until(lambda: first.holds(leases), 60)[0].batch_id
    first.signal(signal.SIGKILL)
    killed_at = time.monotonic()
    second = installation.host("host-b")
    until(lambda: [b for b in second.holds(leases) if b.batch_id == held], 60)
    waited = time.monotonic() - killed_at

    assert second.end(within_s=300) == 0, second.log.read_text()
    client = installation.client()
    with client.store.read() as db:
        states = {r["batch_id"]: r["state"] for r in db.rows("SELECT batch_id, state FROM batches")}
        verdicts = db.one("SELECT count(*) AS n FROM comparisons WHERE winner_id IS NOT NULL")
        reports = db.rows("SELECT path, sha256 FROM batch_report")
    bought = books(installation.emulator)
    assert waited < 60
    assert states == dict.fromkeys(names, "succeeded")
    assert verdicts == {"n": 6 * len(names)}
    assert (bought["paid_twice"], bought["totals"]["requests_paid"]) == ([], 6 * len(names))
    assert len(reports) == len(names)
    assert all(client.published.read(row["path"], row["sha256"]) for row in reports)
