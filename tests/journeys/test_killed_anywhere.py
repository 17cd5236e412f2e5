"""A batch killed at every point where it writes or calls ends as if nothing had happened.

Each run is a process of its own, ended by SIGKILL before or after its n-th commit or request. Then
another process takes the batch to its end, and every third time is killed in turn. What was created
and paid at the provider is read from the emulator's own books, not from ours.

`make nightly` kills at every point, for each provider in each mode; otherwise at a sample of them.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest

from cj_pipeline.diagnostics import summary
from cj_pipeline.emulator import in_process_client
from cj_pipeline.emulator.app import Emulator
from cj_pipeline.emulator.config import EmulatorConfig
from cj_pipeline.outputs import report
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.advance import advance_to_end
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.store.file_store import FileStore, Transactions
from cj_pipeline.store.session import Session
from tests.journeys.test_missing_rows import FIRST, RESULTS
from tests.support.batches import finish, open_engine, write_batch
from tests.support.nightly import IS_NIGHTLY, many

# Imported before forking, so that not every process of hundreds imports them again.
HEAVY = (
    "anthropic",
    "cj_pipeline.emulator.apis.anthropic",
    "cj_pipeline.emulator.apis.gemini",
    "cj_pipeline.emulator.apis.openai",
    "cj_pipeline.providers.anthropic",
    "cj_pipeline.providers.gemini",
    "cj_pipeline.providers.openai",
    "google.genai",
    "jsonschema",
    "matplotlib.figure",
    "openai",
    "pandas",
    "pyarrow.dataset",
    "scipy.optimize",
    "scipy.stats",
    "xlsxwriter",
)
N_AT_ONCE = os.cpu_count() or 1
SETTINGS = {
    "score_stability_threshold": None,
    "wave_size": 3,
    "max_pairwise_comparisons": 6,
    "canary_requests": 0,
}
MODES = ("provider_batch_api", "per_request", "serial_bundle")
JUDGES = ("quality", "quality-messages", "quality-gemini")

EMULATOR_FILE = "emulator.yaml"

STEP = 1 if IS_NIGHTLY else 11
"""From one point that is tried to the next."""

MOST_CALLS_PAID_TWICE = 4
"""Single calls in flight at once: what was answered and not yet stored when the process died."""


class KilledAt:
    """Counts points on the way and ends the process, without a word, at the one it is given."""

    def __init__(self, point: int) -> None:
        self._left = point
        self._lock = threading.Lock()

    def pass_point(self) -> None:
        """Come to one point."""
        with self._lock:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


class MortalStore(FileStore):
    """A store whose every transaction has a point before it and one after its commit."""

    killer = KilledAt(0)

    @contextmanager
    def turn(self) -> Iterator[Transactions]:
        """Give transactions between two points each; at the second the file is still open."""
        with super().turn() as transaction:

            @contextmanager
            def mortal() -> Iterator[Session]:
                self.killer.pass_point()
                with transaction() as db:
                    yield db
                self.killer.pass_point()

            yield mortal


def make_calls_mortal(killer: KilledAt) -> None:
    """Put a point before each HTTP request arrives, and one after it was carried out.

    Whoever dies at the second has done it and never heard of it.
    """
    handle = Emulator.handle

    def mortal(emulator: Emulator, call: Any) -> Any:
        killer.pass_point()
        answer = handle(emulator, call)
        killer.pass_point()
        return answer

    Emulator.handle = mortal  # type: ignore[method-assign]


def later() -> datetime:
    """Return a time at which no list lags and no pause lasts any more."""
    return datetime.now(UTC) + timedelta(minutes=10)


class Hurried:
    """A clock that a pause moves on by minutes: for rows that are waited for, and never come."""

    def __init__(self, *, hours: float) -> None:
        self.ahead = timedelta(hours=hours)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def sleep(self, seconds: float) -> None:
        """Let that time pass, and some more."""
        self.ahead += timedelta(seconds=max(300, seconds))


def has_missing_rows(home: Path) -> bool:
    """Whether the home's provider does not send all that it counts as done."""
    return (home / EMULATOR_FILE).exists()


def to_the_end(runtime: Runtime, folder: Path) -> str:
    """Take a batch to its published end, however long it waits for rows."""
    batch_id = ingest(runtime, folder).batch_id
    if isinstance(runtime.clock, Hurried):
        for _ in advance_to_end(runtime, batch_id, pause_s=0.05, sleep=runtime.clock.sleep):
            pass
    else:
        finish(runtime, batch_id)
    return batch_id


def run_and_be_killed(home: Path, folder: Path, point: int, *, is_second: bool = False) -> None:
    """Take a batch to its end, unless that point comes first."""
    mortal = MortalStore(home)
    mortal.killer = KilledAt(point)
    make_calls_mortal(mortal.killer)
    plain = open_engine(home)
    clock = later if is_second else plain.clock
    if has_missing_rows(home):
        clock = Hurried(hours=6 if is_second else 0)
    runtime = Runtime(mortal, home, plain.environment, plain.run_environment, clock)
    to_the_end(runtime, folder)


def be_killed_again(home: Path, folder: Path, point: int) -> None:
    """Take up a batch that was killed, and be killed too."""
    run_and_be_killed(home, folder, point, is_second=True)


def end_and_tell(home: Path, folder: Path, told: Path) -> None:
    """Take a batch to its end and write down what it came to, here and at the provider."""
    clock: Callable[[], datetime] = lambda: later() + timedelta(minutes=10)  # noqa: E731
    if has_missing_rows(home):
        clock = Hurried(hours=12)
    runtime = open_engine(home, clock=clock)
    batch_id = to_the_end(runtime, folder)
    told.write_text(json.dumps(what_came_of_it(runtime, batch_id)))


def what_came_of_it(runtime: Runtime, batch_id: str) -> dict[str, Any]:
    """Return scores, jobs and money, ours beside the provider's."""
    with runtime.store.read() as db:
        batch = db.one("SELECT state, end_reason FROM batches WHERE batch_id = ?", [batch_id])
        scores = db.rows(
            "SELECT wave, essay_id, round(score, 9) AS score FROM essay_scores ORDER BY ALL"
        )
        decisions = db.rows("SELECT decision FROM wave_decisions ORDER BY batch_id, wave")
        jobs = db.rows("SELECT provider_job_id, state, billed_usd FROM provider_jobs")
        attempts = db.rows("SELECT outcome, count(*) AS n FROM attempts GROUP BY ALL ORDER BY ALL")
        n_duplicates = db.one("SELECT count(*) AS n FROM duplicate_jobs")
        in_doubt = db.one("SELECT coalesce(sum(usd), 0) AS usd FROM ledger WHERE kind = 'possible'")
    config = EmulatorConfig.from_environment(runtime.environment, runtime.home)
    books = in_process_client(config).get("http://emulator.invalid/emulator/audit").json()
    return {
        "batch": batch,
        "scores": scores,
        "decisions": [row["decision"] for row in decisions],
        "n_jobs": len(jobs),
        "n_duplicates": n_duplicates,
        "job_states": sorted({job["state"] for job in jobs}),
        "billed_usd": round(sum(job["billed_usd"] for job in jobs), 9),
        "attempts": attempts,
        "paid_twice": books["paid_twice"],
        "in_doubt_usd": in_doubt["usd"] if in_doubt else 0,
        "n_provider_jobs": len(books["jobs"]),
    }


def in_a_process(target: Any, *args: Any) -> int | None:
    """Run a function in a process of its own and return its exit code."""
    process = multiprocessing.get_context("fork").Process(target=target, args=args)
    process.start()
    process.join()
    return process.exitcode


def kill_and_recover(folder: Path, homes: Path, point: int) -> dict[str, Any] | None:
    """Kill a batch at a point, every third time once more, and return what it comes to then.

    Returns:
        What came of it, and how often it was killed; None if it ended before that point.
    """
    home, told = homes / f"home-{point}", homes / f"told-{point}.json"
    misbehave(homes, home)
    code = in_a_process(run_and_be_killed, home, folder, point)
    if code == 0:
        return None
    assert code == -signal.SIGKILL, f"point {point}"
    n_kills = 1
    if point % 3 == 0:
        again = in_a_process(be_killed_again, home, folder, 1 + point // STEP % 11)
        assert again in {0, -signal.SIGKILL}, f"point {point}"
        n_kills += again != 0
    assert in_a_process(end_and_tell, home, folder, told) == 0, f"point {point}"
    return {"point": point, "n_kills": n_kills, "came": json.loads(told.read_text())}


def misbehave(homes: Path, home: Path) -> None:
    """Let the provider of a home do what that of all homes does."""
    if (homes / EMULATOR_FILE).exists():
        home.mkdir(exist_ok=True)
        shutil.copy(homes / EMULATOR_FILE, home / EMULATOR_FILE)


def killed_everywhere(
    folder: Path, homes: Path, first: int, step: int = STEP
) -> Iterator[dict[str, Any]]:
    """Yield what comes of a batch for each point it is killed at, until there are no more."""
    points = count(first, step)
    with ProcessPoolExecutor(N_AT_ONCE, multiprocessing.get_context("fork")) as pool:
        while True:
            asked = list(islice(points, N_AT_ONCE))
            n = len(asked)
            for came in pool.map(kill_and_recover, [folder] * n, [homes] * n, asked):
                if came is None:
                    return
                yield came


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("judge", JUDGES)
def test_a_batch_may_be_killed_at_every_point(
    tmp_path: Path, judge: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs at the provider are those intended, rows are paid once, scores are the same.

    Of single calls, those in flight at the kill may have been paid for and lost.
    """
    for module in HEAVY:
        importlib.import_module(module)
    # Drawing, and fitting a hundred halves, take half of the time and write nothing of their own.
    monkeypatch.setattr(report, "render_history", lambda *_, **_given: "<p>drawn elsewhere</p>")
    monkeypatch.setattr(summary, "_SPLIT_WORK", 0)
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

    # Where only a sample is tried, each provider and mode tries other points.
    first = 1 if IS_NIGHTLY else 2 + len(MODES) * JUDGES.index(judge) + MODES.index(mode)
    n_points, n_kills = 0, 0
    for killed in killed_everywhere(folder, tmp_path, first):
        n_points += 1
        n_kills += killed["n_kills"]
        outcome = killed["came"]
        if mode != "provider_batch_api":
            assert len(outcome["paid_twice"]) <= MOST_CALLS_PAID_TWICE * killed["n_kills"]
            # What was answered to a process that was no more is in doubt: nobody has the answer.
            assert outcome["in_doubt_usd"] > 0 or not outcome["paid_twice"]
            for name in ("paid_twice", "in_doubt_usd"):
                outcome[name] = undisturbed[name]
        assert outcome == undisturbed, f"killed at point {killed['point']}"
    print(f"{judge}, {mode}: killed at {n_points} points, {n_kills} kills")
    assert n_points >= 2


@pytest.mark.slow
@pytest.mark.parametrize("is_short", [False, True])
def test_a_kill_while_waves_are_together_loses_no_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_short: bool
) -> None:
    """Three essays and four passes over them are one job; its file comes whole, or cut at first.

    Wherever the process dies, each pass has its scores and its decision, and nothing is paid twice.
    """
    for module in HEAVY:
        importlib.import_module(module)
    monkeypatch.setattr(report, "render_history", lambda *_, **_given: "<p>drawn elsewhere</p>")
    monkeypatch.setattr(summary, "_SPLIT_WORK", 0)
    if is_short:
        faults = [{"kind": "short_body", "on": RESULTS["quality"], "at": FIRST["quality"]}]
        said = {"settings": {"faults": faults, "in_order": True}}
        (tmp_path / EMULATOR_FILE).write_text(json.dumps(said))
    settings = {"judges": ["quality"], "canary_requests": 0, "stall_after_s": 400_000}
    folder = write_batch(tmp_path / "batch", n_students=3, settings=settings)
    told = tmp_path / "told.json"
    misbehave(tmp_path, tmp_path / "undisturbed")
    assert in_a_process(end_and_tell, tmp_path / "undisturbed", folder, told) == 0
    undisturbed = json.loads(told.read_text())
    assert undisturbed["decisions"] == ["resample"] * 4 + ["finalize_scoring"]
    assert undisturbed["n_provider_jobs"] == 1

    n_points = 0
    for killed in killed_everywhere(folder, tmp_path, 1 if IS_NIGHTLY else 3 + 4 * is_short):
        n_points += 1
        assert killed["came"] == undisturbed, f"killed at point {killed['point']}"
    print(f"waves together: killed at {n_points} points")
    assert n_points >= 2


@pytest.mark.slow
@pytest.mark.parametrize("judge", JUDGES)
def test_a_kill_while_rows_are_missing_buys_nothing_again(
    tmp_path: Path, judge: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file comes cut at first, and one row never comes that is counted as done.

    Wherever the process dies, the row is in doubt once, no pair is bought again, and the rest is
    as if nothing had happened.
    """
    for module in HEAVY:
        importlib.import_module(module)
    monkeypatch.setattr(report, "render_history", lambda *_, **_given: "<p>drawn elsewhere</p>")
    monkeypatch.setattr(summary, "_SPLIT_WORK", 0)
    faults = [
        {"kind": "missing", "at": [1], "counted_as": "completed"},
        {"kind": "short_body", "on": RESULTS[judge], "at": FIRST[judge]},
    ]
    said = {"faults": faults, "in_order": True}
    (tmp_path / EMULATOR_FILE).write_text(json.dumps({"settings": said}))
    waits = {"incomplete_after_s": 3600, "stall_after_s": 400_000, "judges": [judge]}
    folder = write_batch(tmp_path / "batch", n_students=4, settings=SETTINGS | waits)
    told = tmp_path / "told.json"
    misbehave(tmp_path, tmp_path / "undisturbed")
    assert in_a_process(end_and_tell, tmp_path / "undisturbed", folder, told) == 0
    undisturbed = json.loads(told.read_text())
    assert undisturbed["in_doubt_usd"] > 0
    assert undisturbed["batch"] == {"state": "failed", "end_reason": "stalled"}

    n_points = 0
    for killed in killed_everywhere(folder, tmp_path, many(5, 1), many(43, 1)):
        n_points += 1
        assert killed["came"] == undisturbed, f"killed at point {killed['point']}"
    print(f"{judge}, rows missing: killed at {n_points} points")
    assert n_points >= 2
