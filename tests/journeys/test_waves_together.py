"""Waves between which nothing could stop a batch go out as one job, and come out as one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.automation.in_process import run_trial
from cj_pipeline.definitions import defs
from cj_pipeline.emulator import change_settings
from cj_pipeline.emulator.config import EmulatorConfig
from cj_pipeline.operations.cancel import cancel
from cj_pipeline.outputs.verification import verify_artefact
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.plan_wave import plan_wave
from cj_pipeline.trials.definitions import load_trial
from resources.runtime_resource import RuntimeResource
from tests.support.batches import begin, end, finish, open_engine, run_to_end, write_batch

LOWER5 = {
    "judges": ["eng5-lower5-gpt51-low"],
    "min_resampling_net_size": 5,
    "max_resampling_passes_for_small_net": 3,
}
COVERED = {
    "judges": ["quality"],
    "strategy": "coverage",
    "wave_size": 6,
    "max_pairwise_comparisons": 36,
    "score_stability_threshold": None,
}


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """A runtime over an empty home."""
    return open_engine(tmp_path / "home")


def folder(where: Path, n_students: int, settings: dict[str, Any]) -> Path:
    return write_batch(where / "batch", n_students=n_students, settings=settings)


def waves(runtime: Runtime) -> list[dict[str, Any]]:
    with runtime.store.read() as db:
        return db.rows("FROM wave_decisions ORDER BY wave")


def jobs(runtime: Runtime) -> list[dict[str, Any]]:
    with runtime.store.read() as db:
        return db.rows("FROM provider_jobs ORDER BY intended_at")


def verdicts(runtime: Runtime) -> dict[str, list[dict[str, Any]]]:
    """Return pairs, scores and decisions, without what they cost and when."""
    with runtime.store.read() as db:
        return {
            "pairs": db.rows(
                "SELECT wave, sequence, essay_a, essay_b, role, resampling_pass"
                " FROM comparison_pairs ORDER BY sequence"
            ),
            "scores": db.rows("FROM essay_scores ORDER BY wave, essay_id"),
            "decisions": db.rows(
                "SELECT wave, decision, reason, submitted, completed, failed, success_rate,"
                " max_score_change, completion_denominator, details->'bt_se_summary' AS errors,"
                " details->'successful_pairs_count' AS pairs, details->'resampling_pass_count' AS p"
                " FROM wave_decisions ORDER BY wave"
            ),
        }


@pytest.mark.parametrize(
    ("n_students", "settings", "n_jobs", "n_waves"),
    [
        (5, LOWER5, 1, 4),
        (2, {"judges": ["cj-generic-batch"]}, 1, 5),
        (9, COVERED, 1, 6),
        (9, COVERED | {"both_orders": True}, 1, 6),
        # The strategy goes by scores until every pair is planned: then all the rest is one job.
        (4, {"judges": ["quality"], "min_resampling_net_size": 4, "wave_size": 3}, 2, 10),
    ],
)
def test_together_they_come_out_as_one_by_one(
    tmp_path: Path, n_students: int, settings: dict[str, Any], n_jobs: int, n_waves: int
) -> None:
    """The same pairs in the same order, every wave's scores to the last bit, every decision."""
    told = {}
    for mode in ("provider_batch_api", "per_request"):
        runtime = open_engine(tmp_path / mode / "home")
        batch = folder(tmp_path / mode, n_students, settings | {"llm_batching_mode": mode})
        run_to_end(runtime, batch)
        told[mode] = verdicts(runtime)
        assert len(told[mode]["decisions"]) == n_waves
        assert len(jobs(runtime)) == (n_jobs if mode == "provider_batch_api" else n_waves)

    assert told["provider_batch_api"] == told["per_request"]


def test_lower5_is_one_job_of_forty_and_keeps_its_passes(runtime: Runtime, tmp_path: Path) -> None:
    """Each pass has its number and its decision, and the artefact can be recomputed."""
    batch_id = run_to_end(runtime, folder(tmp_path, 5, LOWER5))

    assert [(job["n_requests"], job["state"]) for job in jobs(runtime)] == [(40, "settled")]
    assert [(w["wave"], w["decision"], w["completed"]) for w in waves(runtime)] == [
        (1, "resample", 10),
        (2, "resample", 20),
        (3, "resample", 30),
        (4, "finalize_scoring", 40),
    ]
    artefact = runtime.published_folder / batch_id / "assessment_run.execute.json"
    assert verify_artefact(artefact) == []


def test_lower5_takes_two_runs_in_dagster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sends all, one collects, decides and publishes; by single calls it is one run a wave."""
    monkeypatch.setenv("CJ_HOME", str(tmp_path / "home"))
    runtime = RuntimeResource().open()
    with dg.DagsterInstance.ephemeral() as instance:
        together = run_trial(instance, defs, runtime.home, load_trial("lower5", runtime.home))
        apart = run_trial(instance, defs, runtime.home, load_trial("lower5-calls", runtime.home))

    assert [f.expectation for f in together.outcome.findings if not f.holds] == []
    assert [f.expectation for f in apart.outcome.findings if not f.holds] == []
    assert [run.job for run in together.runs] == ["open_batch", "collect_wave"]
    assert len(apart.runs) == 5


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"score_stability_threshold": 0.025}, "verdicts may be stable"),
        ({"precise": {"reliability": 0.99}}, "verdicts may be precise enough"),
        ({"llm_batching_mode": "per_request"}, "single calls"),
        ({"llm_batching_mode": "serial_bundle"}, "bundles"),
        ({"strategy": "adaptive"}, "pairs are chosen by scores"),
        ({"judge_choice": "by_worth", "judges": ["quality", "cj-generic-batch"]}, "judges are"),
        ({"people": {"wait": True}, "judges": ["quality", "people"]}, "people are waited for"),
    ],
)
def test_a_wave_that_could_be_the_last_goes_alone(
    runtime: Runtime, tmp_path: Path, settings: dict[str, Any], why: str
) -> None:
    """Nothing is bought that the verdicts before it might have spared."""
    begin(runtime, folder(tmp_path, 9, COVERED | settings))

    with runtime.store.read() as db:
        found = db.one("SELECT max(wave) AS wave FROM comparison_pairs")
    assert found == {"wave": 1}, why


def test_waves_that_the_cap_does_not_cover_at_once_go_one_by_one(
    runtime: Runtime, tmp_path: Path
) -> None:
    """What a wave is billed is far less than what is reserved for it: so the cap is enough."""
    other = open_engine(tmp_path / "other")
    run_to_end(other, folder(tmp_path / "free", 5, LOWER5))
    [job] = jobs(other)
    cap = job["billed_usd"] + job["reserved_usd"] / 3
    assert cap < job["reserved_usd"]

    run_to_end(runtime, folder(tmp_path, 5, LOWER5 | {"spend_cap_usd": cap}))

    assert [job["n_requests"] for job in jobs(runtime)] == [10, 10, 10, 10]
    assert waves(runtime)[-1]["reason"] == "small_net_cap"


def test_waves_that_a_ceiling_does_not_cover_at_once_go_one_by_one(
    runtime: Runtime, tmp_path: Path
) -> None:
    """The operator's ceiling is no reason to wait where the batch can go on below it."""
    other = open_engine(tmp_path / "other")
    run_to_end(other, folder(tmp_path / "free", 5, LOWER5))
    [job] = jobs(other)
    ceiling = job["billed_usd"] + job["reserved_usd"] / 3
    (runtime.home).mkdir()
    (runtime.home / "installation.yaml").write_text(f"ceilings: {{usd_per_batch: {ceiling}}}\n")

    run_to_end(runtime, folder(tmp_path, 5, LOWER5))

    assert [job["n_requests"] for job in jobs(runtime)] == [10, 10, 10, 10]


def test_pairs_that_failed_are_retried_before_any_pass_counts(
    runtime: Runtime, tmp_path: Path
) -> None:
    """A third of the answers holds no verdict; whatever is decided is decided after the retries."""
    make_invalid(runtime, 0.3)
    settings = LOWER5 | {"judges": ["quality"], "max_attempts": 5}
    batch_id = begin(runtime, folder(tmp_path, 5, settings))
    end(runtime, batch_id)
    make_invalid(runtime, 0.0)
    finish(runtime, batch_id)

    sent = jobs(runtime)
    assert sent[0]["n_requests"] == 40
    assert len(sent) > 1
    assert sum(job["n_requests"] for job in sent[1:]) < 40
    collected = max(job["collected_at"] for job in sent)
    found = waves(runtime)
    assert [w["decision"] for w in found] == ["resample"] * 3 + ["finalize_scoring"]
    assert all(w["decided_at"] >= collected for w in found)
    assert [w["completed"] + w["failed"] for w in found] == [10, 20, 30, 40]


def test_a_coverage_pair_that_fails_for_good_is_said_not_to_be_covered(
    runtime: Runtime, tmp_path: Path
) -> None:
    """The wave's decision is to request more, not to resample; nothing that was paid is lost."""
    make_invalid(runtime, 0.15)
    settings = LOWER5 | {"judges": ["quality"], "max_attempts": 1}
    run_to_end(runtime, folder(tmp_path, 5, settings))

    first, *_, last = waves(runtime)
    assert first["failed"] > 0
    assert first["decision"] == "request_more_comparisons"
    assert last["completed"] + last["failed"] == 40
    assert last["reason"] in {"small_net_cap", "low_success_rate"}


def test_a_batch_that_is_cancelled_has_a_decision_for_every_wave(
    runtime: Runtime, tmp_path: Path
) -> None:
    """The waves went on when they were sent; the last one has the end and its reason."""
    batch_id = begin(runtime, folder(tmp_path, 5, LOWER5))
    cancel(runtime, batch_id)
    finish(runtime, batch_id)

    found = waves(runtime)
    assert [w["wave"] for w in found] == [1, 2, 3, 4]
    assert [w["reason"] for w in found] == [None, None, None, "cancelled"]
    artefact = runtime.published_folder / batch_id / "assessment_run.execute.json"
    assert verify_artefact(artefact) == []


def test_planning_again_gives_all_that_is_sent_together(runtime: Runtime, tmp_path: Path) -> None:
    """A run that is repeated says what the first one said."""
    batch_id = begin(runtime, folder(tmp_path, 5, LOWER5))

    again = plan_wave(runtime, batch_id)

    assert (again.wave, again.is_new, len(again.comparisons)) == (1, False, 40)


def make_invalid(runtime: Runtime, rate: float) -> None:
    """Let the emulator's judge answer with something that is no verdict at that rate."""
    config = EmulatorConfig.from_environment(runtime.environment, runtime.home)
    change_settings(config, judges={"quality": {"invalid_rate": rate}})
