"""Batches that people judge in, and what their verdicts come to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.batches import write_batch

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
