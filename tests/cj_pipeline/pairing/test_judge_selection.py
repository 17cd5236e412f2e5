"""Which judge gives most information per USD."""

from __future__ import annotations

import numpy as np
import pytest

from cj_pipeline.pairing.judge_selection import JudgeFigures, judges_by_worth

CLOSE = np.array([-0.3, 0.0, 0.4])


def test_half_the_discrimination_tells_a_quarter_on_close_pairs() -> None:
    """Information goes with the square of how well a judge tells essays apart."""
    sharp = JudgeFigures("sharp", 0.01)
    dull = JudgeFigures("dull", 0.01, discrimination=0.5)

    best, worst = judges_by_worth([dull, sharp], np.zeros(1))

    assert (best.judge_id, worst.judge_id) == ("sharp", "dull")
    assert worst.information == pytest.approx(best.information / 4)


def test_a_cheap_judge_comes_first_when_it_is_cheap_enough() -> None:
    """What counts is information per dollar."""
    dear = JudgeFigures("dear", 0.02)
    cheap = JudgeFigures("cheap", 0.001, discrimination=0.6, position_effect=0.4)

    order = [each.judge_id for each in judges_by_worth([dear, cheap], CLOSE)]

    assert order == ["cheap", "dear"]


@pytest.mark.parametrize(
    "worse", [JudgeFigures("x", 1, position_effect=1.0), JudgeFigures("x", 1, success_rate=0.5)]
)
def test_bias_and_failures_cost_information(worse: JudgeFigures) -> None:
    """A verdict decided by the place, or none at all, says nothing about the essays."""
    best, worst = judges_by_worth([worse, JudgeFigures("fair", 1)], CLOSE)

    assert best.judge_id == "fair"
    assert worst.information < best.information
