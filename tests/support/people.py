"""Batches that people judge in, and what their verdicts come to."""

from __future__ import annotations

import json
import shutil
import tempfile
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from cj_pipeline.runtime import Runtime
from tests.support.batches import ManualClock, open_engine, run_to_end, write_batch

QUALITIES = {f"student-{n:03d}": n / 2 for n in range(1, 9)} | {
    f"anchor-{n:03d}": n / 2 - 1 for n in range(1, 10)
}


def graded_folder(folder: Path, **settings: Any) -> Path:
    """Write a batch of 8 students and 9 anchors that one wave grades, and return its folder."""
    return write_batch(
        folder,
        n_students=8,
        n_anchors=9,
        settings={
            "judges": ["quality"],
            "scale": "eng5_np_national_9_step",
            "all_at_once": True,
            "max_pairwise_comparisons": 100,
            "emulator_qualities": QUALITIES,
        }
        | settings,
    )


def graded_batch(home: Path, name: str = "graded", **settings: Any) -> tuple[Runtime, str]:
    """Return a runtime over a home with one graded batch, and the batch's name.

    A batch of the same settings is judged once a process; each test has a copy of its home.
    """
    made, batch_id, now = _judged_once(name, json.dumps(settings, sort_keys=True))
    shutil.copytree(made, home)
    clock = ManualClock()
    clock.now = now
    return open_engine(home, clock=clock), batch_id


@cache
def _judged_once(name: str, settings: str) -> tuple[Path, str, datetime]:
    folder = Path(tempfile.mkdtemp())
    clock = ManualClock()
    runtime = open_engine(folder / "home", clock=clock)
    batch_id = run_to_end(runtime, graded_folder(folder / name, **json.loads(settings)))
    return runtime.home, batch_id, clock.now
