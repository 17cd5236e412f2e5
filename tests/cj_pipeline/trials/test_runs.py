"""Runs of a trial: opened as batches of their own, held against the runs before them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from cj_pipeline.emulator import change_settings
from cj_pipeline.emulator.config import EmulatorConfig
from cj_pipeline.metrics.readings import render_metrics
from cj_pipeline.runtime import Runtime
from cj_pipeline.trials.runs import (
    TrialOutcome,
    conclude_trial,
    open_trial,
    trial_batch_id,
    trial_history,
)
from tests.support.batches import end, open_engine

WATCHED = """
made_up: {students: 6, qualities: [-2.0, 2.0]}
settings:
  judges: [quality]
  max_pairwise_comparisons: 60
  wave_size: 60
  all_at_once: false
  strategy: coverage
  score_stability_threshold: null
drift: {duration_ratio: null}
expect: [state == succeeded, completed >= 15]
"""


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """An engine whose home has one trial: six essays that a judge tells apart well."""
    (tmp_path / "home" / "trials").mkdir(parents=True)
    (tmp_path / "home" / "trials" / "watched.yaml").write_text(WATCHED)
    return open_engine(tmp_path / "home")


def run(runtime: Runtime, batch_id: str, *, day: int = 5, trial: str = "watched") -> TrialOutcome:
    """Run a trial to its conclusion."""
    due = datetime(2026, 1, day, 2, tzinfo=UTC)
    open_trial(runtime, trial, batch_id=batch_id, due_at=due)
    end(runtime, batch_id)
    outcome = conclude_trial(runtime, batch_id)
    assert outcome is not None
    return outcome


def test_a_run_is_held_against_what_was_expected(runtime: Runtime) -> None:
    """And kept: whoever looks later sees the same."""
    outcome = run(runtime, "watched-1")

    assert outcome.is_met
    assert [finding.expectation for finding in outcome.findings] == [
        "state == succeeded",
        "completed >= 15",
    ]
    with runtime.store.read() as db:
        (kept,) = trial_history(db, "watched")
    assert kept["is_met"] is True
    assert kept["figures"]["completed"] == outcome.figures["completed"]


def test_the_first_run_has_nothing_to_be_compared_with(runtime: Runtime) -> None:
    """Drift begins with the second."""
    assert run(runtime, "watched-1").drift is None


def verdicts(runtime: Runtime, batch_id: str) -> list[tuple[str, ...]]:
    """Return what came of each attempt at each comparison of a batch, in its order."""
    with runtime.store.read() as db:
        rows = db.rows(
            "SELECT p.essay_a, p.essay_b, a.attempt, a.outcome, c.winner, c.confidence"
            " FROM comparison_pairs p JOIN attempts a USING (comparison_id)"
            " JOIN comparisons c USING (comparison_id)"
            " WHERE p.batch_id = ? ORDER BY p.sequence, a.attempt",
            [batch_id],
        )
    return [tuple(map(str, row.values())) for row in rows]


def test_what_comes_out_depends_on_no_name_and_no_time(runtime: Runtime) -> None:
    """The same trial draws the same verdicts every night, so an expectation never fails by luck."""
    definition = WATCHED.replace("60", "28").replace("students: 6", "students: 8")
    (runtime.home / "trials" / "noisy.yaml").write_text(definition)
    config = EmulatorConfig.from_environment(runtime.environment, runtime.home)
    change_settings(config, judges={"quality": {"invalid_rate": 0.3}})

    run(runtime, "noisy-monday", day=5, trial="noisy")
    run(runtime, "noisy-tuesday", day=6, trial="noisy")

    monday = verdicts(runtime, "noisy-monday")
    assert {outcome for _, _, _, outcome, _, _ in monday} == {"succeeded", "invalid_output"}
    assert verdicts(runtime, "noisy-tuesday") == monday


def test_the_same_judge_has_not_drifted(runtime: Runtime) -> None:
    """Another seed of the emulator is another draw of the same judge."""
    run(runtime, "watched-1", day=5)
    (runtime.home / "emulator.yaml").write_text("seed: 1\n")

    drift = run(runtime, "watched-2", day=6).drift

    assert drift is not None
    assert drift.compared_with == "watched-1"
    assert drift.n_shared == 6
    assert drift.drifted == ()
    assert drift.agreement is not None
    assert 0.6 < drift.agreement < 1


def test_a_judge_that_no_longer_reads_is_seen(runtime: Runtime) -> None:
    """Whatever is shown first now wins: scores draw together, verdicts agree like coins."""
    run(runtime, "watched-1", day=5)
    config = EmulatorConfig.from_environment(runtime.environment, runtime.home)
    change_settings(config, judges={"quality": {"discrimination": 0.0, "position_bias": 9.0}})

    drift = run(runtime, "watched-2", day=6).drift

    assert drift is not None
    assert drift.agreement == 0.5
    assert [told.split()[0] for told in drift.drifted] == ["spread_ratio"]
    counted = 'cj_trial_drifted_runs_total{trial="watched"} 1.0'
    assert counted in render_metrics(runtime.store)


def test_a_judge_that_has_turned_around_is_seen(runtime: Runtime) -> None:
    """The weakest essays now win: scores change beyond their errors."""
    definition = runtime.home / "trials" / "watched.yaml"
    # Of six essays judged ten times each no change can be told from noise, not even this one.
    many = WATCHED.replace("students: 6", "students: 16").replace(": 60", ": 360")
    definition.write_text(many)
    run(runtime, "watched-1", day=5)
    definition.write_text(many.replace("[-2.0, 2.0]", "[2.0, -2.0]"))
    open_trial(runtime, "watched", batch_id="watched-2")
    with runtime.store.write() as db:
        db.execute("UPDATE trial_runs SET fingerprint = (SELECT min(fingerprint) FROM trial_runs)")
    end(runtime, "watched-2")

    outcome = conclude_trial(runtime, "watched-2")

    assert outcome is not None
    assert outcome.drift is not None
    assert outcome.drift.essays_beyond_noise
    assert outcome.drift.rank_correlation is not None
    assert outcome.drift.rank_correlation < 0
    assert any(told.startswith("essays_beyond_noise") for told in outcome.drift.drifted)


def test_a_run_is_compared_with_the_one_before_it_and_not_with_later_ones(runtime: Runtime) -> None:
    """Concluding an old run again tells what it told then."""
    for day in (5, 6, 7):
        run(runtime, f"watched-{day}", day=day)

    again = conclude_trial(runtime, "watched-6")

    assert again is not None
    assert again.drift is not None
    assert again.drift.compared_with == "watched-5"


def test_a_changed_definition_begins_anew(runtime: Runtime) -> None:
    """What differs by intention is no drift."""
    run(runtime, "watched-1", day=5)
    (runtime.home / "trials" / "watched.yaml").write_text(
        WATCHED.replace("max_pairwise_comparisons: 60", "max_pairwise_comparisons: 30")
    )

    assert run(runtime, "watched-2", day=6).drift is None


def test_a_run_keeps_the_expectations_it_was_opened_with(runtime: Runtime) -> None:
    """A definition that is mended while a run is under way counts from the next."""
    open_trial(runtime, "watched", batch_id="watched-1")
    (runtime.home / "trials" / "watched.yaml").write_text(
        WATCHED.replace("state == succeeded", "state == failed")
    )
    end(runtime, "watched-1")

    outcome = conclude_trial(runtime, "watched-1")

    assert outcome is not None
    assert outcome.is_met


def test_what_does_not_come_out_is_told_with_what_did(runtime: Runtime) -> None:
    """The figure is the first thing anybody asks for."""
    (runtime.home / "trials" / "watched.yaml").write_text(
        WATCHED.replace("completed >= 15", "completed == 7")
    )

    outcome = run(runtime, "watched-1")

    assert not outcome.is_met
    (wrong,) = [finding for finding in outcome.findings if not finding.holds]
    assert wrong.expectation == "completed == 7"
    assert wrong.found == outcome.figures["completed"]


def test_a_trial_under_way_is_not_concluded(runtime: Runtime) -> None:
    """Nor is a batch that is none."""
    open_trial(runtime, "watched", batch_id="watched-1")

    assert conclude_trial(runtime, "watched-1") is None
    assert conclude_trial(runtime, "another-batch") is None


def test_opening_a_run_twice_changes_nothing(runtime: Runtime) -> None:
    """A tick may be repeated, and a run may be killed."""
    first = open_trial(runtime, "watched", batch_id="watched-1")
    second = open_trial(runtime, "watched", batch_id="watched-1")

    assert (first.is_new, second.is_new) == (True, False)
    with runtime.store.read() as db:
        assert len(trial_history(db, "watched")) == 1


def test_each_minute_has_a_batch_of_its_own() -> None:
    """The name sorts by time and is one that every system takes."""
    at = datetime(2026, 1, 5, 2, 30, tzinfo=UTC)

    assert trial_batch_id("lower5", at) == "trial-lower5-2026-01-05-0230z"


def test_the_hour_that_comes_twice_in_autumn_has_two_batches() -> None:
    """An hourly trial would lose a run of the night in which clocks are set back."""
    stockholm = ZoneInfo("Europe/Stockholm")
    first = datetime(2026, 10, 25, 2, 30, tzinfo=stockholm)
    second = datetime(2026, 10, 25, 2, 30, tzinfo=stockholm, fold=1)

    names = [trial_batch_id("lower5", at) for at in (first, second)]

    assert names == ["trial-lower5-2026-10-25-0030z", "trial-lower5-2026-10-25-0130z"]
