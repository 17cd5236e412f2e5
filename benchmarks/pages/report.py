"""How long a report takes and how large it is, by the number of essays.

    python -m benchmarks.pages.report [--essays 1008]

One batch of so many essays, a fiftieth of them anchors, 13 comparisons per essay, judged by draws
from Bradley-Terry. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import time

import numpy as np

from cj_pipeline.outputs.report import render_report
from cj_pipeline.store.file_store import FileStore
from tests.support.finished_batches import batch_rows, insert_all

GRADES = tuple("123456789")


def main() -> None:
    """Measure one size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--essays", type=int, default=1008)
    n_essays = parser.parse_args().essays
    qualities = {
        f"essay-{i:04d}": float(quality)
        for i, quality in enumerate(np.linspace(-3, 3, n_essays), start=1)
    }
    chosen = list(qualities)[:: max(1, n_essays // 20)]
    anchors = {name: GRADES[i * len(GRADES) // len(chosen)] for i, name in enumerate(chosen)}
    rows = batch_rows(
        "large",
        qualities=qualities,
        anchor_grades=anchors,
        configured={
            "scale": "eng5_np_national_9_step",
            "judges": ["quality"],
            "max_pairwise_comparisons": n_essays * 13 // 2,
        },
        n_comparisons=n_essays * 13 // 2,
        n_waves=2,
    )
    store = FileStore.in_memory()
    with store.write() as db:
        insert_all(db, rows)
    seconds, processor = [], []
    for _ in range(3):
        start, began = time.monotonic(), time.process_time()
        with store.read() as db:
            page = render_report(db, "large")
        seconds.append(time.monotonic() - start)
        processor.append(time.process_time() - began)
    print("| essays | comparisons | best of 3 | of processor time | page |")
    print("|---:|---:|---:|---:|---:|")
    print(
        f"| {n_essays:,} | {n_essays * 13 // 2:,} | {min(seconds):.1f} s"
        f" | {min(processor):.1f} s | {len(page.encode()) / 1e6:.1f} MB |"
    )
    print(f"\nLoad of the machine {os.getloadavg()[0]:.0f}.")


if __name__ == "__main__":
    main()
