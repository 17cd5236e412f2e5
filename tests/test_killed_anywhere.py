"""A batch killed at every point where it writes or calls ends as if nothing had happened.

Each run is a process of its own, ended by SIGKILL at its n-th commit or call, before or after it;
another process then takes the batch to its end. What was created and paid at the provider is read
from the emulator's own books, not from ours.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cj_pipeline.emulator import EmulatorConfig, in_process_client
from cj_pipeline.steps import Engine, ingest
from cj_pipeline.steps.engine import Engine as EngineClass
from cj_pipeline.store import Store
from tests.batch_folders import finish, open_engine, write_batch

# Imported before forking, so that not every process of hundreds imports them again.
HEAVY = ("openai", "anthropic", "google.genai", "scipy.optimize", "matplotlib.figure", "jsonschema")
CALLS = ("upload", "create", "find", "poll", "collect", "single", "discard", "cancel")
SETTINGS = {"score_stability_threshold": None, "wave_size": 3, "max_pairwise_comparisons": 6}


class KilledAt:
    """Counts points on the way and ends the process, without a word, at the one it is given."""

    def __init__(self, point: int) -> None:
        self.left = point

    def pass_point(self) -> None:
        """Come to one point."""
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


class MortalProvider:
    """A provider whose every call has a point before it and one after."""

    def __init__(self, inner: Any, killer: KilledAt) -> None:
        self._inner, self._killer = inner, killer

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._inner, name)
        if name == "live":
            return lambda http: MortalLiveProvider(attribute(http), self._killer)
        if name not in CALLS:
            return attribute

        def call(*args: Any, **kwargs: Any) -> Any:
            self._killer.pass_point()
            answer = attribute(*args, **kwargs)
            answer = list(answer) if name == "collect" else answer
            self._killer.pass_point()
            return answer

        return call


class MortalLiveProvider:
    """Single calls, many at once, with a point before each and one after."""

    def __init__(self, inner: Any, killer: KilledAt) -> None:
        self._inner, self._killer = inner, killer

    async def single(self, request: Any, *, timeout_s: float) -> str:
        """Send a request between two points."""
        self._killer.pass_point()
        answer: str = await self._inner.single(request, timeout_s=timeout_s)
        self._killer.pass_point()
        return answer


class MortalStore(Store):
    """A store whose every transaction has a point before it and one after its commit."""

    killer = KilledAt(0)

    @contextmanager
    def write(self) -> Iterator[Any]:
        """Give a transaction between two points."""
        self.killer.pass_point()
        with super().write() as db:
            yield db
        self.killer.pass_point()


class MortalEngine(EngineClass):
    """An engine whose providers may die in the middle of a call."""

    def provider(self, judge: Any) -> Any:
        """Return the provider a judge is reached through, with points around its calls."""
        store = self.store
        assert isinstance(store, MortalStore)
        return MortalProvider(super().provider(judge), store.killer)


def run_and_be_killed(home: Path, folder: Path, point: int) -> None:
    """Take a batch to its end, unless that point comes first."""
    store = MortalStore(home)
    store.killer = KilledAt(point)
    plain = open_engine(home)
    engine = MortalEngine(store, home, plain.environment, plain.run_environment)
    finish(engine, ingest(engine, folder).batch_id)


def end_and_tell(home: Path, folder: Path, told: Path) -> None:
    """Take a batch to its end and write down what it came to, here and at the provider."""
    engine = open_engine(home)
    batch_id = ingest(engine, folder).batch_id
    finish(engine, batch_id)
    told.write_text(json.dumps(what_came_of_it(engine, batch_id)))


def what_came_of_it(engine: Engine, batch_id: str) -> dict[str, Any]:
    """Return scores, jobs and money, ours beside the provider's."""
    with engine.store.read() as db:
        batch = db.one("SELECT state, end_reason FROM batches WHERE batch_id = ?", [batch_id])
        scores = db.rows(
            "SELECT wave, essay_id, round(score, 9) AS score FROM essay_scores ORDER BY ALL"
        )
        jobs = db.rows("SELECT provider_job_id, state, billed_usd FROM provider_jobs")
        attempts = db.rows("SELECT outcome, count(*) AS n FROM attempts GROUP BY ALL ORDER BY ALL")
    config = EmulatorConfig.from_environment(engine.environment, engine.home)
    books = in_process_client(config).get("http://emulator.invalid/emulator/audit").json()
    return {
        "batch": batch,
        "scores": scores,
        "n_jobs": len(jobs),
        "job_states": sorted({job["state"] for job in jobs}),
        "billed_usd": round(sum(job["billed_usd"] for job in jobs), 9),
        "attempts": attempts,
        "paid_twice": books["paid_twice"],
        "n_provider_jobs": len(books["jobs"]),
    }


def in_a_process(target: Any, *args: Any) -> int | None:
    """Run a function in a process of its own and return its exit code."""
    process = multiprocessing.get_context("fork").Process(target=target, args=args)
    process.start()
    process.join()
    return process.exitcode


@pytest.mark.slow
def test_a_provider_batch_may_be_killed_at_every_point(tmp_path: Path) -> None:
    """Jobs at the provider are those intended, rows are paid once, scores are the same."""
    assert kill_everywhere(tmp_path, "quality", "provider_batch_api") > 40


@pytest.mark.slow
@pytest.mark.parametrize("judge", ["quality-messages", "quality-gemini"])
def test_other_providers_batches_may_be_killed_too(tmp_path: Path, judge: str) -> None:
    """The same of every fifth point, where the provider keeps no name of ours on a job."""
    assert kill_everywhere(tmp_path, judge, "provider_batch_api", every=5) > 8


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["per_request", "serial_bundle"])
def test_single_calls_may_be_killed_at_any_point(tmp_path: Path, mode: str) -> None:
    """Scores are the same; what may be paid twice is at most the calls in flight at the kill."""
    assert kill_everywhere(tmp_path, "quality", mode, every=5) > 6


def kill_everywhere(tmp_path: Path, judge: str, mode: str, every: int = 1) -> int:
    """Kill a batch at its points in turn, compare what came of it, and return how many."""
    for module in HEAVY:
        importlib.import_module(module)
    folder = write_batch(
        tmp_path / "batch",
        n_students=4,
        settings=SETTINGS | {"judges": [judge], "llm_batching_mode": mode},
    )
    told = tmp_path / "told.json"
    assert in_a_process(end_and_tell, tmp_path / "undisturbed", folder, told) == 0
    undisturbed = json.loads(told.read_text())
    assert undisturbed["n_provider_jobs"] == (
        undisturbed["n_jobs"] if mode == "provider_batch_api" else 0
    )

    point, killed = 1, 0
    while in_a_process(run_and_be_killed, tmp_path / f"home-{point}", folder, point) != 0:
        killed += 1
        told.unlink(missing_ok=True)
        assert in_a_process(end_and_tell, tmp_path / f"home-{point}", folder, told) == 0
        outcome = json.loads(told.read_text())
        if mode != "provider_batch_api":
            assert len(outcome["paid_twice"]) <= 4
            outcome["paid_twice"] = undisturbed["paid_twice"]
        assert outcome == undisturbed, f"killed at point {point}"
        point += every
    return killed
