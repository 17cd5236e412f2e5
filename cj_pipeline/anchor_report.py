"""What a report says of the anchors: their check against themselves, in sentences and per anchor.

The check itself is `anchors.AnchorCheck`, kept with each grading.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cj_pipeline.batch_history import BatchHistory
from cj_pipeline.pages import percent, signed


def anchor_sentences(history: BatchHistory) -> list[str]:
    """Return in sentences what the anchors say about themselves; none without a check."""
    check = history.grading["anchor_check"] if history.grading is not None else {}
    return list(_sentences(check)) if check else []


def anchor_fits(history: BatchHistory) -> dict[str, Mapping[str, Any]]:
    """Return each anchor's own part of the check under its id, infit and outfit among it."""
    check = history.grading["anchor_check"] if history.grading is not None else {}
    return {row["essay_id"]: row for row in check.get("anchors", ())}


def _sentences(check: Mapping[str, Any]) -> Iterator[str]:
    if check["exact"] is not None:
        yield (
            f"Graded by the others, {percent(check['exact'])} of {check['n_anchors']} anchors get"
            f" their known grade and {percent(check['within_one'])} are at most one step off; they"
            f" are off by {check['mean_absolute_error']:.1f} steps on average, and come out"
            f" {signed(check['bias'])} steps above their grades (0 is no bias)."
        )
    if check["kendall_tau"] is not None:
        limits = (
            f" (95 % interval {check['tau_lower']:.2f} to {check['tau_upper']:.2f})"
            if check["tau_lower"] is not None
            else ""
        )
        yield (
            f"Scores follow known grades with Kendall's tau {check['kendall_tau']:.2f}{limits}; 1"
            " is the same order."
        )
    if check["disagreement"] is not None:
        yield (
            "What the anchors' graders saw and what the judge saw differ by about"
            f" {check['disagreement']:.1f} steps; graders among themselves by about half a step."
        )
    if check["n_direct"]:
        yield (
            f"Of {check['n_direct']} verdicts between anchors of different grades,"
            f" {check['n_direct_inversions']} went to the one with the lower grade."
        )
    for row in check["inversions"]:
        if row["is_beyond_error"]:
            yield (
                f"{row['lower']} has the lower grade and yet scores {row['excess']:.2f} logits"
                f" above {row['higher']}, more than the errors of their scores explain: look at"
                " both."
            )
    if check["zero_win_anchors"]:
        names = ", ".join(check["zero_win_anchors"])
        yield f"Won nothing although others are graded lower: {names}."
