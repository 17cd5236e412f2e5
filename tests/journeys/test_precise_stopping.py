"""Stopping once a batch is precise enough, and looking ahead to it: through the whole engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cj_pipeline.outputs.report import render_history
from cj_pipeline.outputs.report_forecast import forecast_metadata
from cj_pipeline.queries.history import BatchHistory, read_history
from cj_pipeline.runtime import Runtime
from tests.support.batches import open_engine, run_to_end, write_batch


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """A runtime over an empty home."""
    return open_engine(tmp_path / "home")


def judged(runtime: Runtime, folder: Path, **settings: Any) -> BatchHistory:
    """Return what became of twelve students and nine anchors with known qualities."""
    qualities = {f"anchor-{k:03d}": 0.8 * (k - 5) for k in range(1, 10)}
    qualities |= {f"student-{k:03d}": 0.6 * (k - 6.5) for k in range(1, 13)}
    write_batch(
        folder,
        n_students=12,
        n_anchors=9,
        settings={
            "judges": ["quality"],
            "scale": "eng5_np_national_9_step",
            "score_stability_threshold": None,
            "max_pairwise_comparisons": 120,
            "wave_size": 60,
            "emulator_qualities": qualities,
            **settings,
        },
    )
    batch_id = run_to_end(runtime, folder)
    with runtime.store.read() as db:
        return read_history(db, batch_id)


@pytest.mark.parametrize(
    ("target", "value"),
    [
        ("misgrading", 0.99),
        ("gain_per_usd", 1e9),
    ],
)
def test_any_target_that_is_reached_ends_the_batch(
    runtime: Runtime, tmp_path: Path, target: str, value: float
) -> None:
    """What has been bought is enough, so nothing more is bought."""
    history = judged(runtime, tmp_path / "easy", precise={target: value})

    assert (history.batch["state"], history.batch["end_reason"]) == ("succeeded", "precise")
    assert len(history.comparisons) == 60


def test_a_reliability_has_to_last_for_two_waves(runtime: Runtime, tmp_path: Path) -> None:
    """Stopping at the first wave that looks good enough is stopping by luck."""
    history = judged(runtime, tmp_path / "lasting", precise={"reliability": 0.2}, wave_size=40)

    reached = [row.details["precision"]["reliability"] for row in history.decisions]
    assert min(reached) > 0.2
    assert [row.reason for row in history.decisions] == [None, "precise"]
    assert [row.details["forecast"]["waves"] for row in history.decisions] == [1, 0]
    assert len(history.comparisons) == 80


def test_a_target_out_of_reach_spends_the_budget(runtime: Runtime, tmp_path: Path) -> None:
    """And the report says how far off it was."""
    history = judged(runtime, tmp_path / "hard", precise={"misgrading": 1e-6})

    assert history.batch["end_reason"] == "budget_spent"
    assert "at which this batch ends" in render_history(history)


def test_every_wave_foresees_comparisons_waves_and_dollars(
    runtime: Runtime, tmp_path: Path
) -> None:
    """Kept with the decision, and the same in the report and on the page in the UI."""
    history = judged(runtime, tmp_path / "spring", precise={"reliability": 0.97})

    kept = [row.details["forecast"] for row in history.decisions if "outlook" in row.details]
    page, shown = render_history(history), forecast_metadata(history)
    assert len(kept) == 2
    for forecast in kept:
        assert forecast["lower"] <= forecast["total"] <= forecast["upper"]
        assert forecast["usd"] > 0
    assert shown["precise_means"] == "reliability at least 0.97"
    assert shown["forecast_comparisons"] == kept[-1]["total"]
    assert shown["forecast_usd"] == kept[-1]["usd"]
    assert shown["forecast"] in page
    assert shown["outlook"] in page
    with runtime.store.read() as db:
        rows = db.rows("SELECT total, usd FROM v_forecasts ORDER BY wave")
        gains = db.rows("SELECT expected_gain FROM v_comparisons WHERE role = 'informative'")
    assert [(row["total"], row["usd"]) for row in rows] == [(f["total"], f["usd"]) for f in kept]
    assert all(row["expected_gain"] > 0 for row in gains)


def test_a_batch_that_asks_for_nothing_is_told_how_far_off_its_ranks_are(
    runtime: Runtime, tmp_path: Path
) -> None:
    """The outlook needs no target; a forecast does."""
    shown = forecast_metadata(judged(runtime, tmp_path / "plain"))

    assert "ranks off" in shown["outlook"]
    assert "for a dollar" in shown["outlook"]
    assert "forecast" not in shown


@pytest.mark.parametrize(
    ("goal", "sentence"),
    [
        ("top(3)", "of those named as the 3 best may not be among them"),
        ("cut(50%)", "on the wrong side of the cut (the best 50\u00a0%)"),
        ("cut(5)", "on the wrong side of the cut (5 or better)"),
    ],
)
def test_one_cut_is_chosen_for_stopped_at_and_reported(
    runtime: Runtime, tmp_path: Path, goal: str, sentence: str
) -> None:
    """Whoever wants the three best need not buy the order of the others."""
    history = judged(runtime, tmp_path / "cut", goal=goal, precise={"misplaced": 0.5}, wave_size=30)

    assert history.batch["end_reason"] == "precise"
    assert 0 < history.last_details["precision"]["misplaced"] <= 0.5
    assert sentence in render_history(history)
    assert "at most 50\u00a0% expected to be misplaced" in render_history(history)


def test_a_second_wave_for_one_cut_is_for_that_cut(runtime: Runtime, tmp_path: Path) -> None:
    """Once there are scores, pairs say that they are about a boundary; what is left is foreseen."""
    history = judged(
        runtime,
        tmp_path / "second",
        goal="top(3)",
        precise={"misplaced": 1e-4},
        wave_size=30,
        max_pairwise_comparisons=60,
    )

    with runtime.store.read() as db:
        rows = db.rows("SELECT role, wave FROM comparison_pairs")
    assert {row["role"] for row in rows if row["wave"] == 2} == {"boundary"}
    assert history.decisions[0].details["forecast"]["total"] > 60
