"""What a batch costs and how long it takes, by mode: by this store's history, or as is usual."""

from __future__ import annotations

from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from cj_pipeline.intake.batch_folder import read_batch
from cj_pipeline.judging.judges import load_judge
from cj_pipeline.judging.pricing import EXPECTED_ANSWER_TOKENS
from cj_pipeline.judging.prompts import render_prompt
from cj_pipeline.operations.cost_estimate import (
    NOTHING_SEEN,
    ModeCost,
    cost_by_mode,
    time_range,
    usual_time,
)
from cj_pipeline.operations.preview import preview_batch
from cj_pipeline.provider_jobs.requests import RequestSpec
from cj_pipeline.queries.forecast_plan import PastCalls, past_calls
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.plan_wave import plan_wave
from tests.support.batches import open_engine, write_batch
from tests.support.finished_batches import SPRING, START, finished_batches

JUDGE = load_judge("openai-gpt-5-1-low")


def _costs(past: PastCalls = NOTHING_SEEN) -> dict[str, ModeCost]:
    """Return what 170 comparisons in 17 waves cost, by mode, with five calls in flight."""
    prompt = render_prompt(
        JUDGE.template, instructions="", rubric="", text_a="a " * 300, text_b="b " * 300, nonce="n"
    )
    asked = RequestSpec(
        batch_id="b", wave=1, comparison_id="c", attempt=1, judge_id=JUDGE.judge_id, prompt=prompt
    )
    costs = cost_by_mode(JUDGE, [asked], 170, 5, n_waves=17, past=past)
    return {cost.mode: cost for cost in costs}


def test_each_mode_says_how_long_it_takes() -> None:
    """Waves follow one another at a batch endpoint; live, calls in flight share the work."""
    costs = _costs()

    assert {mode: cost.time for mode, cost in costs.items()} == {
        "provider_batch_api": "8.5 to 51 hours",
        "serial_bundle": "5.7 to 42 minutes",
        "per_request": "1.1 to 8.5 minutes",
    }
    assert {cost.time_from for cost in costs.values()} == {"usual times"}


def test_what_the_store_has_seen_takes_the_place_of_usual_times() -> None:
    """And of the usual length of answers: reasoning makes the price, and is said to be in it."""
    seen = _costs(PastCalls((60.0, 120.0), 5, (1.0, 3.0), 40, EXPECTED_ANSWER_TOKENS + 200, 40))
    usual = _costs()

    batch, live = seen["provider_batch_api"], seen["per_request"]
    assert (batch.seconds, batch.time_from) == ((17 * 60, 17 * 120), "5 jobs of this store")
    assert (live.seconds, live.time_from) == ((34.0, 102.0), "40 calls of this store")
    reasoning = 170 * 200 * float(JUDGE.price.output) / 1e6
    assert live.expected_usd - usual["per_request"].expected_usd == pytest.approx(reasoning)
    assert live.tokens_each - usual["per_request"].tokens_each == 200
    assert live.reasoning_from == "with reasoning tokens: the mean of its 40 stored answers"
    assert usual["per_request"].reasoning_from.startswith("without reasoning tokens")


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [
        (28_800, 180_000, "8 to 50 hours"),
        (3_000, 7_200, "0.8 to 2 hours"),
        (34, 119, "34 to 119 seconds"),
        (360, 362, "about 6 minutes"),
    ],
)
def test_times_are_told_in_the_unit_that_matters(low: float, high: float, told: str) -> None:
    """Nobody plans a day by the second."""
    assert time_range(low, high) == told


def test_history_is_the_models_times_and_the_judges_own_tokens() -> None:
    """Another model's jobs, single calls among the jobs and failures say nothing."""
    with finished_batches() as db:
        (judge,) = db.rows(
            "SELECT judge_id, provider, model FROM judges WHERE batch_id = ?", [SPRING]
        )
        (job, *_) = db.rows("FROM provider_jobs WHERE batch_id = ? ORDER BY wave", [SPRING])
        db.execute("DELETE FROM provider_jobs")
        db.insert("provider_jobs", [_job(job, n, 100.0 + n) for n in range(5)])
        db.insert("provider_jobs", [_job(job, 6, 9e9) | {"batching_mode": "per_request"}])
        db.insert("provider_jobs", [_job(job, 7, 9e9) | {"model": "another"}])
        db.execute("UPDATE attempts SET tokens_completion = 300 WHERE outcome = 'succeeded'")
        db.execute("UPDATE attempts SET tokens_completion = 9999 WHERE outcome <> 'succeeded'")

        known = _Judge(**judge)
        found = past_calls(db, known)  # type: ignore[arg-type]
        stranger = past_calls(db, load_judge("openai-gpt-5-1-low"))

    assert found.job_s == pytest.approx((100.4, 103.6))
    assert (found.n_jobs, found.call_s, found.answer_tokens) == (5, None, 300.0)
    assert stranger == PastCalls()


def test_before_the_first_answer_a_batch_takes_what_its_plan_says_and_the_store_has_seen(
    tmp_path: Path,
) -> None:
    """One figure in `cj plan`, `cj status` and `cj watch`, of the model that takes longest."""
    runtime = open_engine(tmp_path / "home", {"OPENAI_API_KEY": "never-used"})
    given = {"judges": ["quality", "openai-gpt-5-1-low"], "max_pairwise_comparisons": 12}
    folder = write_batch(tmp_path / "batch", n_students=4, settings=given | {"wave_size": 4})
    planned = preview_batch(runtime, read_batch(folder))
    batch_id = ingest(runtime, folder).batch_id
    plan_wave(runtime, batch_id)

    with finished_batches() as db:
        (job, *_) = db.rows("FROM provider_jobs WHERE batch_id = ? ORDER BY wave", [SPRING])
    with runtime.store.write() as db:
        assert usual_time(db, batch_id) == dict(planned.facts())["time at most"]
        slow = {"provider": JUDGE.provider, "model": JUDGE.model, "batch_id": batch_id}
        db.insert("provider_jobs", [_job(job, n, 40_000.0) | slow for n in range(3)])
        assert usual_time(db, batch_id) == "about 33 hours (3 jobs of this store)"


def test_passes_that_are_sent_together_take_the_time_of_one_job(tmp_path: Path) -> None:
    """In `cj status` as in `cj plan`."""
    runtime = open_engine(tmp_path / "home")
    given = {"judges": ["quality"], "score_stability_threshold": None}
    folder = write_batch(tmp_path / "batch", n_students=3, settings=given)
    told = dict(preview_batch(runtime, read_batch(folder)).facts())
    batch_id = ingest(runtime, folder).batch_id
    plan_wave(runtime, batch_id)

    with runtime.store.read() as db:
        assert usual_time(db, batch_id) == told["time at most"] == "0.5 to 3 hours (usual times)"


class _Judge:
    def __init__(self, judge_id: str, provider: str, model: str) -> None:
        self.judge_id, self.provider, self.model = judge_id, provider, model


def _job(job: dict[str, Any], number: int, seconds: float) -> dict[str, Any]:
    return job | {
        "submission_key": f"key-{number}",
        "batching_mode": "provider_batch_api",
        "submitted_at": START,
        "ended_at": START + timedelta(seconds=min(seconds, 1e6)),
    }


def test_a_plan_of_a_judge_that_answers_at_once_is_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs are timed in whole seconds, so one may have taken none."""
    monkeypatch.setattr("cj_pipeline.operations.cost_estimate.JOB_S", (0.0, 0.0))
    folder = write_batch(tmp_path / "batch", n_students=4, settings={"judges": ["quality"]})

    facts = dict(preview_batch(open_engine(tmp_path / "home"), read_batch(folder)).facts(1.0))

    assert str(facts["within 1 h"]).startswith("as it is")


def test_a_plan_says_what_to_set_to_be_in_time_and_that_is_in_time(tmp_path: Path) -> None:
    """Fewer and larger waves where some fit, single calls where not even one job surely does."""
    runtime = open_engine(tmp_path / "home")
    given = {"judges": ["quality"], "max_pairwise_comparisons": 40, "wave_size": 4}
    numbers = count()

    def told(hours: float, **more: object) -> str:
        folder = write_batch(tmp_path / f"b{next(numbers)}", n_students=12, settings=more)
        facts = dict(preview_batch(runtime, read_batch(folder)).facts(hours))
        return str(facts[f"within {hours:g} h"])

    assert told(100, **given) == "as it is: at most about 30 hours"
    assert told(20, **given) == "set waves: 6"
    assert told(4, **given) == ("set waves: 1: up to a third more comparisons to the same ranks")
    assert told(2, **given).startswith("set llm_batching_mode: per_request: ")
    assert told(2, **given).endswith("at 2.0 times the price")
    assert told(0.01, **given) == "not surely: it may take about 30 hours"
    without = {key: value for key, value in given.items() if key != "wave_size"}
    assert told(20, **without, waves=6) == "as it is: at most about 18 hours"
    live = told(2, **given, llm_batching_mode="per_request")
    assert live.startswith("as it is: ")
