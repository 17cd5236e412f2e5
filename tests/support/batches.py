"""Batch folders and engines for tests: small, made up on the spot, with nothing shared."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from cj_pipeline.queries.batch_record import load_batch
from cj_pipeline.runtime import RunEnvironment, Runtime
from cj_pipeline.steps.advance import advance_to_end, take_next_step
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.plan_wave import plan_wave
from cj_pipeline.steps.submit_wave import submit_wave
from cj_pipeline.store.file_store import FileStore

TEST_RUN = RunEnvironment(git_sha="0000000", runner_version="test", python="3", os="test")
NINE_STEPS = tuple(str(step) for step in range(1, 10))


def write_batch(
    folder: Path, *, n_students: int, n_anchors: int = 0, settings: Mapping[str, Any]
) -> Path:
    """Write a batch folder of made-up essays, anchors graded up the nine steps, and return it."""
    essays, anchors = folder / "essays", folder / "anchors"
    essays.mkdir(parents=True)
    for number in range(1, n_students + 1):
        (essays / f"student-{number:03d}.txt").write_text(_text("student", number))
    if n_anchors:
        anchors.mkdir()
        rows = ["essay_id,text,grade"]
        for number in range(1, n_anchors + 1):
            grade = NINE_STEPS[(number - 1) * 9 // n_anchors]
            rows.append(f'anchor-{number:03d},"{_text("anchor", number)}",{grade}')
        anchors.rmdir()
        (folder / "anchors.csv").write_text("\n".join(rows) + "\n")
    (folder / "instructions.md").write_text("Describe something you have learned.\n")
    (folder / "batch.yaml").write_text(yaml.safe_dump(dict(settings)))
    return folder


def _text(kind: str, number: int) -> str:
    return f"This is what {kind} number {number} has to say about learning. " * (1 + number % 4)


class ManualClock:
    """A clock that moves only when told, and a sleep that moves it."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)


def open_engine(home: Path, environment: Mapping[str, str] | None = None, **more: Any) -> Runtime:
    """Return an engine over a fresh home, as a person at a terminal has it."""
    return Runtime(
        FileStore(home), home, dict(environment or {}), TEST_RUN, **({"is_attended": True} | more)
    )


def begin(runtime: Runtime, folder: Path) -> str:
    """Take a batch folder in, ask its first wave, and return the batch's name."""
    batch_id = ingest(runtime, folder).batch_id
    plan_wave(runtime, batch_id)
    submit_wave(runtime, batch_id)
    return batch_id


def end(runtime: Runtime, batch_id: str) -> None:
    """Take a batch to its end, a step at a time; its report is not written."""
    while True:
        with runtime.store.read() as db:
            if load_batch(db, batch_id).has_ended:
                return
        take_next_step(runtime, batch_id)


def run_to_end(runtime: Runtime, folder: Path, **settings: Any) -> str:
    """Take a batch folder to its published end and return the batch's name."""
    batch_id = ingest(runtime, folder, explicit=settings).batch_id
    finish(runtime, batch_id)
    return batch_id


def finish_judging(runtime: Runtime, batch_id: str) -> None:
    """Take a batch that is in the store to its last decision; nothing is drawn or published."""
    for _ in advance_to_end(runtime, batch_id, pause_s=0.05):
        with runtime.store.read() as db:
            batch = db.one("SELECT state FROM batches WHERE batch_id = ?", [batch_id])
        if batch != {"state": "running"}:
            return


def finish(runtime: Runtime, batch_id: str) -> None:
    """Take a batch that is in the store to its published end."""
    for _ in advance_to_end(runtime, batch_id, pause_s=0.05):
        pass
