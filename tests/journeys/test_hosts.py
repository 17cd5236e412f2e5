"""Hosts with homes of their own over one PostgreSQL and one object store: any of them may die.

What was bought is read from the emulator's own books, not from ours.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.store.opening import open_store
from tests.support.batches import TEST_RUN, write_batch
from tests.support.hosts import STORES, Host, until
from tests.support.object_server import BUCKET, object_server
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


@pytest.fixture(params=["lake", "served"])
def installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Installation]:
    """A shared store, an object store and a provider, and no host yet."""
    with ExitStack() as running:
        store = running.enter_context(STORES[request.param](tmp_path))
        objects = running.enter_context(object_server())
        emulator = running.enter_context(served_emulator(tmp_path / "provider"))
        for name, value in objects.environment().items():
            monkeypatch.setenv(name, value)
        yield Installation(
            tmp_path,
            {
                **objects.environment(),
                **store,
                "CJ_FILES": f"s3://{BUCKET}/{tmp_path.name}",  # connections are kept by address
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
    assert waited < 60
    _require_whole(installation, names)


def test_a_host_that_returns_changes_nothing(installation: Installation) -> None:
    """It hung for longer than its lease lasts; what it was about to do, another has done."""
    names = ["one", "two"] if installation.is_quick else ["one"]
    installation.take_in(*names)
    leases = installation.client().store.leases

    first = installation.host("host-a")
    held = until(lambda: first.holds(leases), 60)[0].batch_id
    first.signal(signal.SIGSTOP)
    second = installation.host("host-b")
    until(lambda: [b for b in second.holds(leases) if b.batch_id == held], 90)
    first.signal(signal.SIGCONT)

    assert second.end(within_s=300) == 0, second.log.read_text()
    assert first.end(within_s=300) == 0, first.log.read_text()
    _require_whole(installation, names)


def _require_whole(installation: Installation, names: list[str]) -> None:
    """Every verdict was bought once, by the provider's books, and every report can be had."""
    client = installation.client()
    with client.store.read() as db:
        states = {r["batch_id"]: r["state"] for r in db.rows("SELECT batch_id, state FROM batches")}
        verdicts = db.one("SELECT count(*) AS n FROM comparisons WHERE winner_id IS NOT NULL")
        reports = db.rows("SELECT path, sha256 FROM batch_report")
    bought = books(installation.emulator)
    assert states == dict.fromkeys(names, "succeeded")
    assert verdicts == {"n": 6 * len(names)}
    assert (bought["paid_twice"], bought["totals"]["requests_paid"]) == ([], 6 * len(names))
    assert len(reports) == len(names)
    assert all(client.published.read(row["path"], row["sha256"]) for row in reports)
