"""People among a batch's judges: what they are given, and what waits for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cj_pipeline.errors import BatchProblemsError
from cj_pipeline.people.verdicts import HumanVerdict, store_verdicts
from cj_pipeline.queries.batch_record import load_batch
from cj_pipeline.queries.overview import batch_overview, what_hinders
from cj_pipeline.queries.people import people_progress
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.advance import take_next_step
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.next_step import QUIET, NextStep, next_step
from tests.support.batches import ManualClock, begin, open_engine, run_to_end
from tests.support.people import graded_folder

BOTH = {"judges": ["quality", "people"]}


def _judge_all(runtime: Runtime, batch_id: str) -> int:
    """Have a person judge every open pair, and return how many there were."""
    with runtime.store.write() as db:
        tasks = db.rows(
            "SELECT * FROM v_judging_tasks WHERE batch_id = ? AND n_verdicts = 0", [batch_id]
        )
        db.insert(
            "judging_assignments",
            [
                {
                    "assignment_id": f"{batch_id}-{task['task_id']}",
                    "batch_id": batch_id,
                    "task_id": task["task_id"],
                    "link_id": "link",
                    "person": "anna",
                    "number": number,
                    "essay_a": task["essay_a"],
                    "essay_b": task["essay_b"],
                    "assigned_at": runtime.clock(),
                }
                for number, task in enumerate(tasks, start=1)
            ],
        )
        verdicts = [
            HumanVerdict(
                judge_id=task["judge_id"],
                person="anna",
                essay_a=task["essay_a"],
                essay_b=task["essay_b"],
                winner="A",
                decided_at=runtime.clock(),
                assignment_id=f"{batch_id}-{task['task_id']}",
                active_s=30.0,
            )
            for task in tasks
        ]
        store_verdicts(db, batch_id, verdicts, runtime.clock())
    return len(tasks)


def test_a_tenth_of_the_pairs_goes_to_people_part_drawn_part_chosen(tmp_path: Path) -> None:
    """With the probability of the part that was drawn, and no money for any of it."""
    runtime = open_engine(tmp_path / "home")

    batch_id = run_to_end(runtime, graded_folder(tmp_path / "both", **BOTH))

    with runtime.store.read() as db:
        tasks = db.rows("SELECT * FROM judging_tasks ORDER BY place")
        judged = db.rows("SELECT DISTINCT judge_id FROM comparisons")
        models = {frozenset((r["essay_a"], r["essay_b"])) for r in db.rows("FROM comparison_pairs")}
        progress = people_progress(db, load_batch(db, batch_id))
    assert len(tasks) == 10
    parts = {part: [t for t in tasks if t["part"] == part] for part in ("random", "targeted")}
    assert [t["probability"] for t in parts["random"]] == [0.05] * 5
    assert len(parts["targeted"]) >= 3
    assert all(t["expected_gain"] > 0 and t["probability"] is None for t in parts["targeted"])
    assert {frozenset((t["essay_a"], t["essay_b"])) for t in tasks} <= models
    assert len(judged) == 1
    assert (progress.n_tasks, progress.n_done, progress.minutes_left) == (10, 0, 10.0)


def test_models_are_asked_the_same_with_people_beside_them(tmp_path: Path) -> None:
    """Waves neither wait for people nor depend on them."""
    pairs = []
    for name, judges in (("alone", ["quality"]), ("beside", ["quality", "people"])):
        runtime = open_engine(tmp_path / name)
        settings = {"judges": judges, "all_at_once": False, "max_pairwise_comparisons": 32}
        run_to_end(runtime, graded_folder(tmp_path / "folders" / name / "same", **settings))
        with runtime.store.read() as db:
            pairs.append(
                db.rows("SELECT essay_a, essay_b, wave FROM comparison_pairs ORDER BY sequence")
            )

    assert pairs[0] == pairs[1]


def test_late_verdicts_are_scored_once_people_are_done_or_quiet(tmp_path: Path) -> None:
    """As a new grading; the one before stays."""
    clock = ManualClock()
    runtime = open_engine(tmp_path / "home", clock=clock)
    batch_id = run_to_end(runtime, graded_folder(tmp_path / "late", **BOTH))
    clock.sleep(60)
    with runtime.store.write() as db:
        task = db.rows("SELECT * FROM judging_tasks ORDER BY place LIMIT 1")[0]
        one = HumanVerdict(task["judge_id"], "anna", task["essay_a"], task["essay_b"], "B", clock())
        store_verdicts(db, batch_id, [one], clock())

    with runtime.store.read() as db:
        assert next_step(db, batch_id, clock()) is NextStep.NOTHING
    clock.sleep(QUIET.total_seconds())
    assert take_next_step(runtime, batch_id).step is NextStep.RESCORE
    assert take_next_step(runtime, batch_id).step is NextStep.NOTHING
    clock.sleep(60)
    assert _judge_all(runtime, batch_id) == 10
    assert take_next_step(runtime, batch_id).step is NextStep.RESCORE

    with runtime.store.read() as db:
        revisions = db.rows("SELECT revision FROM grading_reports ORDER BY revision")
        counted = db.one("SELECT sum(n_wins) AS n FROM essay_scores")
        progress = people_progress(db, load_batch(db, batch_id))
        states = db.rows("SELECT state, end_reason FROM batches")
    assert [row["revision"] for row in revisions] == [1, 2, 3]
    assert counted == {"n": 111.0}
    assert (progress.n_left, progress.is_measured, progress.seconds_used) == (0, True, 300.0)
    assert states == [{"state": "succeeded", "end_reason": "single_wave_complete"}]


def test_a_batch_that_waits_for_people_asks_for_no_wave_before_they_are_done(
    tmp_path: Path,
) -> None:
    """And says that it waits for them."""
    clock = ManualClock()
    runtime = open_engine(tmp_path / "home", clock=clock)
    settings = {**BOTH, "all_at_once": False, "max_pairwise_comparisons": 24, "wave_size": 12}
    people = {"wait": True, "share": 0.5}
    batch_id = begin(runtime, graded_folder(tmp_path / "waits", **settings, people=people))
    taken = take_next_step(runtime, batch_id)
    while not (taken.waited and "people" in taken.waits_for):
        clock.sleep(60)
        taken = take_next_step(runtime, batch_id)

    with runtime.store.read() as db:
        assert db.rows("FROM wave_decisions") == []
        (row,) = batch_overview(db, batch_id)
    assert taken.waits_for.startswith("people: ")
    assert row["waiting_for"] == "person"
    assert what_hinders(row) == (
        f"waits for a person: people have pairs of wave 1 to judge: `cj people show {batch_id}`"
    )
    _judge_all(runtime, batch_id)
    with runtime.store.read() as db:
        assert db.rows("FROM v_batch_waiting") == []
    assert take_next_step(runtime, batch_id).step is NextStep.DECIDE


def test_nobody_is_waited_for_while_models_judge_or_where_waves_go_on(tmp_path: Path) -> None:
    """At each step on the way a batch says that it waits for people just when it does."""
    clock = ManualClock()
    runtime = open_engine(tmp_path / "home", clock=clock)
    settings = {**BOTH, "all_at_once": False, "max_pairwise_comparisons": 24, "wave_size": 12}
    run_to_end(runtime, graded_folder(tmp_path / "goes-on", **settings))
    people = {"wait": True, "share": 0.5}
    waits = begin(runtime, graded_folder(tmp_path / "waits", **settings, people=people))
    seen = []
    while (taken := take_next_step(runtime, waits)).step is not NextStep.NOTHING:
        with runtime.store.read() as db:
            said = db.rows("SELECT batch_id, wave, n_owed FROM v_waits_for_people")
        if taken.waited and "people" in taken.waits_for:
            seen += [(row["batch_id"], row["wave"]) for row in said]
            # A second person's verdict on a pair is not waited for.
            assert 0 < said[0]["n_owed"] <= _judge_all(runtime, waits)
        elif taken.step is not NextStep.COLLECT:  # its last may be all that was out
            assert said == []
        clock.sleep(60)

    assert seen == [(waits, 1), (waits, 2)]
    with runtime.store.read() as db:
        assert db.rows("FROM batch_report WHERE batch_id = ?", [waits]) != []
        assert db.rows("FROM v_batch_waiting") == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"judges": ["people"]}, "people, who judge beside a model"),
        ({"people": {"share": 0.2}}, "no judge is `provider: human`"),
        (
            {"judges": ["quality", "people"], "judge_shares": {"quality": 1, "people": 0.5}},
            "their share is `people: {share: ...}`",
        ),
        (
            {"judges": ["quality", "recorded", "people"], "judge_shares": {"quality": 1}},
            "recorded has no share",
        ),
    ],
)
def test_what_people_cannot_be_asked_is_refused_before_anything_is_stored(
    tmp_path: Path, settings: dict[str, object], said: str
) -> None:
    """A share that is dropped in silence would be no share at all."""
    runtime = open_engine(tmp_path / "home")

    with pytest.raises(BatchProblemsError, match=r"people|recorded") as caught:
        ingest(runtime, graded_folder(tmp_path / "wrong", **settings))

    assert said in str(caught.value)


def test_shares_are_of_the_models(tmp_path: Path) -> None:
    """People among the judges need none."""
    runtime = open_engine(tmp_path / "home")
    settings = {
        "judges": ["quality", "quality-messages", "people"],
        "judge_shares": {"quality": 0.5, "quality-messages": 0.5},
    }

    ingest(runtime, graded_folder(tmp_path / "shared", **settings))

    with runtime.store.read() as db:
        record = load_batch(db, "shared")
    assert record.shares == (0.5, 0.5)
    assert [judge.name for judge in record.people] == ["people"]
