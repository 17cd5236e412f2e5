"""Several judges: each one's scale, the joint one, and what each changes."""

from __future__ import annotations

import numpy as np
import pytest

from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.diagnostics.panel import Panel, fit_panel

IDS = [f"e{i:02d}" for i in range(12)]
TRUTH = np.linspace(-1.5, 1.5, 12)


def _judge(judge_id: str, n: int, seed: int, truth: np.ndarray = TRUTH) -> list[JudgedPair]:
    rng = np.random.default_rng(seed)
    judged = []
    for _ in range(n):
        a, b = rng.choice(12, 2, replace=False)
        wins = rng.random() < 1 / (1 + np.exp(truth[b] - truth[a]))
        judged.append(JudgedPair(IDS[a], IDS[b], "A" if wins else "B", judge_id))
    return judged


@pytest.fixture(scope="module")
def panel() -> Panel:
    """Two judges alike, one who sees everything the other way round, one with two verdicts."""
    return fit_panel(
        IDS,
        [
            *_judge("one", 500, 1),
            *_judge("two", 500, 2),
            *_judge("contrary", 300, 3, -TRUTH),
            *_judge("passing", 2, 4),
        ],
    )


def test_judges_alike_agree_with_the_others(panel: Panel) -> None:
    """Their own scale follows that of the rest."""
    assert (panel.judges["one"].agreement or 0) > 0.8


def test_a_contrary_judge_shows_in_agreement(panel: Panel) -> None:
    """The lowest of all, and below zero."""
    assert (panel.judges["contrary"].agreement or 0) < -0.8


def test_leaving_a_judge_out_shows_what_the_judge_moved(panel: Panel) -> None:
    """Two verdicts move next to nothing, five hundred a good deal."""
    passing, one = panel.judges["passing"], panel.judges["one"]

    assert (passing.largest_score_change or 9) < 0.2 < (one.largest_score_change or 0)


def test_a_judge_without_a_scale_is_said_to_have_none(panel: Panel) -> None:
    """Two verdicts leave the graph in parts; the reason is kept."""
    assert panel.judges["passing"].scale is None
    assert "parts" in panel.judges["passing"].why_not


def test_the_joint_scale_has_every_judges_effects(panel: Panel) -> None:
    """Each judge's discrimination, and position effects where the verdicts identify them."""
    assert set(panel.joint.discriminations) == {"one", "two", "contrary", "passing"}
    assert set(panel.joint.position_effects) == {"one", "two", "contrary"}


def test_a_judge_to_whom_all_essays_are_alike_has_no_agreement() -> None:
    """Nothing but ties: a correlation with a constant is not defined."""
    undecided = [JudgedPair(a, b, "tie", "undecided") for a in IDS for b in IDS if a < b]

    panel = fit_panel(IDS, [*_judge("one", 500, 1), *undecided])

    assert panel.judges["undecided"].agreement is None
