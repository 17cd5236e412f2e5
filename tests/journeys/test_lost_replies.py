"""A server commits and its reply is lost, over real sockets: there is one job, for every provider.

The same for processes that race: whoever comes first, the others find it done.
"""

from __future__ import annotations

import multiprocessing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from cj_pipeline.errors import TransientError
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.plan_wave import plan_wave
from cj_pipeline.steps.poll import poll
from cj_pipeline.steps.submit_wave import submit_wave
from tests.support.batches import finish_judging, open_engine, write_batch
from tests.support.served_emulator import books, served_emulator

OWN_SHAPES = ("quality-mistral", "quality-xai", "quality-openrouter")
JUDGES = ("quality", "quality-responses", "quality-messages", "quality-gemini", *OWN_SHAPES)
SETTINGS = {"all_at_once": True, "max_resampling_passes_for_regular_net": 0}
HANGS_S = 20
WAITS_S = 4

DROP = {"kind": "lost_reply"}
HANG = {"kind": "hang", "after_commit": True, "seconds": HANGS_S}


class HurriedClock:
    """A real clock that can be put forward, so that no test waits for a wait."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def hurry(self, **time: float) -> None:
        """Put it forward."""
        self.ahead += timedelta(**time)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up on a create after seconds instead of minutes."""
    short = httpx2.Timeout(WAITS_S)
    for name in ("openai", "anthropic", "mistral", "xai", "openrouter"):
        module = f"cj_pipeline.providers.{name}"
        monkeypatch.setattr(f"{module}.CREATE_TIMEOUT", short)
        monkeypatch.setattr(f"{module}.TRANSFER_TIMEOUT", short, raising=False)
    monkeypatch.setattr("cj_pipeline.providers.gemini._CREATE_S", WAITS_S)


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("how", [DROP, HANG], ids=["drop", "hang"])
@pytest.mark.parametrize(
    ("judge", "call"),
    [
        *((judge, "*batches.create") for judge in JUDGES),
        # The others send their requests with the create.
        ("quality", "*files.create"),
        ("quality-responses", "*files.create"),
        ("quality-mistral", "*files.create"),
        ("quality-xai", "*files.create"),
    ],
)
def test_a_committed_call_whose_reply_is_lost_is_made_once(
    judge: str, call: str, how: dict[str, Any], tmp_path: Path
) -> None:
    """The connection drops, or hangs until nobody waits any more; then it is looked for."""
    clock = HurriedClock()
    faults = [how | {"on": call, "at": [1]}]
    with served_emulator(tmp_path / "provider", faults=faults) as address:
        runtime = open_engine(tmp_path / "home", {"CJ_EMULATOR_URL": address}, clock=clock)
        folder = write_batch(
            tmp_path / "batch", n_students=4, settings={"judges": [judge], **SETTINGS}
        )
        batch_id = ingest(runtime, folder).batch_id
        plan_wave(runtime, batch_id)

        with pytest.raises(TransientError):
            submit_wave(runtime, batch_id)
        clock.hurry(minutes=5)
        finish_judging(runtime, batch_id)
        told = books(address)

    assert told["totals"]["jobs"] == 1
    assert told["totals"]["requests_paid"] == 6
    assert told["paid_twice"] == []
    assert sum(file["purpose"] == "batch" for file in told["files"]) <= 1
    assert _states(runtime) == {"settled"}


def _states(runtime: Runtime) -> set[str]:
    with runtime.store.read() as db:
        return {row["state"] for row in db.rows("SELECT state FROM v_provider_jobs")}


@pytest.mark.slow
@pytest.mark.parametrize("judge", ["quality", "quality-messages", "quality-gemini", *OWN_SHAPES])
def test_two_sensors_and_two_runs_that_race_make_one_job(judge: str, tmp_path: Path) -> None:
    """Four processes at once: two poll as the sensors do, two take every step as the runs do."""
    home = tmp_path / "home"
    folder = write_batch(tmp_path / "batch", n_students=4, settings={"judges": [judge], **SETTINGS})
    batch_id = ingest(open_engine(home), folder).batch_id
    # Not forked: other tests have started threads in this process, of which a child has no part.
    processes = multiprocessing.get_context("spawn")
    start = processes.Barrier(4)
    racers = [
        processes.Process(target=race, args=(role, home, batch_id, start))
        for role in ("sensor", "run", "sensor", "run")
    ]

    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(timeout=300)

    runtime = open_engine(home)
    with runtime.store.read() as db:
        batch = db.one("SELECT state FROM batches")
        n_jobs = db.one("SELECT count(*) AS n FROM provider_jobs")
    told = _embedded_books(runtime)
    assert [racer.exitcode for racer in racers] == [0, 0, 0, 0]
    assert (batch, n_jobs) == ({"state": "succeeded"}, {"n": 1})
    assert len(told["jobs"]) == 1
    assert told["paid_twice"] == []


def race(role: str, home: Path, batch_id: str, start: Any) -> None:
    """Do what a sensor or a run does, from the moment all are ready."""
    runtime = open_engine(home)
    start.wait(60)
    if role == "run":
        plan_wave(runtime, batch_id)
        finish_judging(runtime, batch_id)
        return
    for _ in range(20):
        poll(runtime)


def _embedded_books(runtime: Runtime) -> dict[str, Any]:
    from cj_pipeline.emulator import in_process_client
    from cj_pipeline.emulator.config import EmulatorConfig

    config = EmulatorConfig.from_environment(runtime.environment, runtime.home)
    told: dict[str, Any] = (
        in_process_client(config).get("http://emulator.invalid/emulator/audit").json()
    )
    return told
