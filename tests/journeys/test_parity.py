"""The figures that older systems give for the same batches, reached by the whole engine.

Judges are the emulator's deterministic mock profiles, reached through the official SDK.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cj_pipeline.emulator import change_settings
from cj_pipeline.emulator.config import EmulatorConfig
from cj_pipeline.runtime import Runtime
from tests.support.batches import open_engine, run_to_end, write_batch

GENERIC = {"judges": ["cj-generic-batch"], "score_stability_threshold": None}


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """A runtime over an empty home."""
    return open_engine(tmp_path / "home")


def outcome(runtime: Runtime, batch_id: str) -> dict[str, Any]:
    """Return the batch row, its counts, last decision and each essay's positions."""
    with runtime.store.read() as db:
        batch = db.one("SELECT * FROM batches WHERE batch_id = ?", [batch_id])
        decision = db.one(
            "SELECT * FROM wave_decisions WHERE batch_id = ? ORDER BY wave DESC LIMIT 1",
            [batch_id],
        )
        jobs = db.rows("SELECT * FROM provider_jobs WHERE batch_id = ?", [batch_id])
        positions = db.rows(
            "SELECT essay_id, n_shown_a, n_shown_b FROM essay_scores WHERE batch_id = ?"
            " AND wave = (SELECT max(wave) FROM essay_scores WHERE batch_id = ?)",
            [batch_id, batch_id],
        )
    assert batch is not None
    assert decision is not None
    return {
        "batch": batch,
        "decision": decision,
        "details": decision["details"],
        "jobs": jobs,
        "shown": [(row["n_shown_a"], row["n_shown_b"]) for row in positions],
    }


def skews(shown: list[tuple[int, int]]) -> list[float]:
    """Return |A-B|/(A+B) per essay."""
    return [abs(a - b) / (a + b) for a, b in shown]


def test_lower5_covers_ten_pairs_and_goes_over_them_three_times(
    runtime: Runtime, tmp_path: Path
) -> None:
    """A small net of five: 10 + 3 x 10 comparisons, every essay 8 times first and 8 second."""
    folder = write_batch(
        tmp_path / "lower5",
        n_students=5,
        settings={
            "judges": ["eng5-lower5-gpt51-low"],
            "min_resampling_net_size": 5,
            "max_resampling_passes_for_small_net": 3,
        },
    )

    out = outcome(runtime, run_to_end(runtime, folder))

    assert out["batch"]["state"] == "succeeded"
    assert out["batch"]["end_reason"] == "small_net_cap"
    assert (out["decision"]["submitted"], out["decision"]["completed"]) == (40, 40)
    assert out["details"]["failed_comparisons"] == 0
    assert out["details"]["max_possible_pairs"] == 10
    assert out["details"]["successful_pairs_count"] == 10
    assert out["details"]["unique_coverage_complete"] is True
    assert out["details"]["resampling_pass_count"] == 3
    assert out["shown"] == [(8, 8)] * 5


def test_a_regular_net_stays_within_288_and_its_skew_band(runtime: Runtime, tmp_path: Path) -> None:
    """24 essays: every pair once, twelve pairs again, nobody shown first much too often."""
    folder = write_batch(
        tmp_path / "regular",
        n_students=24,
        settings=GENERIC | {"max_pairwise_comparisons": 288},
    )

    out = outcome(runtime, run_to_end(runtime, folder))

    assert out["batch"]["end_reason"] == "budget_spent"
    assert out["decision"]["submitted"] == out["decision"]["completed"] == 288
    assert out["details"]["resampling_pass_count"] <= 1
    assert out["details"]["successful_pairs_count"] == 276
    assert max(skews(out["shown"])) <= 0.2


def test_both_orders_of_every_pair_leave_no_skew(runtime: Runtime, tmp_path: Path) -> None:
    """At 552 each of the 276 pairs was seen in each order."""
    folder = write_batch(
        tmp_path / "regular",
        n_students=24,
        settings=GENERIC | {"max_pairwise_comparisons": 552, "wave_size": 92},
    )

    out = outcome(runtime, run_to_end(runtime, folder))

    assert out["decision"]["completed"] == 552
    assert out["details"]["resampling_pass_count"] == 1
    assert set(skews(out["shown"])) == {0.0}


def test_a_provider_batch_asks_once_up_to_its_cap(runtime: Runtime, tmp_path: Path) -> None:
    """24 essays, cap 60, all at once: one wave, scored once, and the mode is on record."""
    folder = write_batch(
        tmp_path / "provider-batch",
        n_students=24,
        settings=GENERIC
        | {
            "max_pairwise_comparisons": 60,
            "all_at_once": True,
            "llm_batching_mode": "per_request",
            "llm_batching_mode_override": "provider_batch_api",
        },
    )

    out = outcome(runtime, run_to_end(runtime, folder))

    assert out["batch"]["end_reason"] == "single_wave_complete"
    assert out["decision"]["wave"] == 1
    assert out["decision"]["completed"] == 60
    assert out["batch"]["metadata"]["llm_batching_mode"] == "provider_batch_api"
    assert out["batch"]["metadata"]["llm_batching_mode_override"] == "provider_batch_api"
    assert {job["batching_mode"] for job in out["jobs"]} == {"provider_batch_api"}
    assert [job["state"] for job in out["jobs"]] == ["settled"]
    assert out["jobs"][0]["outcome"] == "completed"


def test_two_essays_are_enough(runtime: Runtime, tmp_path: Path) -> None:
    """The smallest batch: one pair, asked once and in each of four passes."""
    folder = write_batch(tmp_path / "two", n_students=2, settings=GENERIC)

    out = outcome(runtime, run_to_end(runtime, folder))

    assert out["batch"]["end_reason"] == "small_net_cap"
    assert out["decision"]["completed"] == 5


@pytest.mark.parametrize(("strategy", "least", "most"), [("coverage", 10, 10), ("adaptive", 4, 20)])
def test_a_large_batch_ends_at_a_realistic_budget(
    runtime: Runtime, tmp_path: Path, strategy: str, least: int, most: int
) -> None:
    """120 essays at ten comparisons each: one net, and nobody is left out.

    Coverage asks all alike. The adaptive strategy asks more where more is to be learned.
    """
    folder = write_batch(
        tmp_path / "large",
        n_students=120,
        settings=GENERIC
        | {
            "max_pairwise_comparisons": 600,
            "wave_size": 200,
            "judges": ["quality"],
            "strategy": strategy,
        },
    )

    out = outcome(runtime, run_to_end(runtime, folder))

    assert out["batch"]["end_reason"] == "budget_spent"
    assert out["decision"]["completed"] == 600
    assert len(out["shown"]) == 120
    asked = [a + b for a, b in out["shown"]]
    assert sum(asked) == 1200
    assert min(asked) >= least
    assert max(asked) <= most
    assert max(skews(out["shown"])) <= 0.2


def test_a_batch_half_of_whose_callbacks_fail_is_never_complete(
    runtime: Runtime, tmp_path: Path
) -> None:
    """Half of the judges' answers are unusable, and asking again does not help."""
    folder = write_batch(
        tmp_path / "failing",
        n_students=8,
        settings={"judges": ["quality"], "max_attempts": 1, "max_pairwise_comparisons": 28},
    )
    make_half_of_the_answers_invalid(runtime)

    out = outcome(runtime, run_to_end(runtime, folder))

    assert out["batch"]["state"] == "failed"
    assert out["batch"]["end_reason"] == "low_success_rate"
    assert out["decision"]["failed"] >= 0.2 * out["decision"]["submitted"]
    assert out["decision"]["completed"] + out["decision"]["failed"] == 28


def make_half_of_the_answers_invalid(runtime: Runtime) -> None:
    """Tell the emulator's judge to answer with something that is no verdict half of the time."""
    config = EmulatorConfig.from_environment(runtime.environment, runtime.home)
    change_settings(config, judges={"quality": {"invalid_rate": 0.5}})
