"""Appeals, agreement over a batch, and the record of human oversight."""

from __future__ import annotations

from pathlib import Path

import pytest

from cj_pipeline.errors import SettingsError, UnknownEssayError
from cj_pipeline.people.appeals import appeals, rejudge
from cj_pipeline.people.moderation import Decision, decide_grades, release_grades
from cj_pipeline.people.oversight import oversight_record
from cj_pipeline.queries.batch_record import load_batch
from cj_pipeline.queries.human_agreement import human_agreement
from cj_pipeline.queries.joint_scale import validity_of
from cj_pipeline.steps.advance import take_next_step
from cj_pipeline.steps.next_step import NextStep
from tests.cj_pipeline.people.test_assignments import _desk, _judge, _links
from tests.support.batches import ManualClock, open_engine, run_to_end
from tests.support.people import graded_folder


def test_an_appeal_goes_to_people_without_a_part_in_it_and_ends_in_words(tmp_path: Path) -> None:
    """And the record tells who, what and why, whatever a name or a reason holds."""
    clock = ManualClock()
    runtime = open_engine(tmp_path / "home", clock=clock)
    folder = graded_folder(
        tmp_path / "both",
        judges=["quality", "people"],
        people={"share": 0.3, "repeat_every": 0},
        release="needs_sign_off",
    )
    batch_id = run_to_end(runtime, folder)
    clock.sleep(60)
    anna, ben = _links(runtime, batch_id, "anna", "ben")
    while _desk(runtime, anna).held:
        _judge(runtime, anna, 1)
    assert take_next_step(runtime, batch_id).step is NextStep.RESCORE
    clock.sleep(60)
    decide_grades(
        runtime, batch_id, [Decision("student-002", "override", "Ms <b>Head</b>", "off *it*", "3")]
    )
    release_grades(runtime, batch_id, by="Ms Head", queue=["student-002"])
    clock.sleep(60)

    made = rejudge(runtime, batch_id, "student-003", by="a parent", reason="too low")

    assert made.n_pairs == 4
    assert made.outcome == "open: 0 of 4 new pairs are judged"
    with pytest.raises(SettingsError, match="before them already"):
        rejudge(runtime, batch_id, "student-003", by="a parent", reason="again")
    with pytest.raises(UnknownEssayError, match="no student's essay 'anchor-001'"):
        rejudge(runtime, batch_id, "anchor-001", by="a parent", reason="why")
    assert _desk(runtime, anna).held == ()
    while _desk(runtime, ben).held:
        _judge(runtime, ben, 1)
    assert take_next_step(runtime, batch_id).step is NextStep.RESCORE
    with runtime.store.read() as db:
        (appeal,) = appeals(db, batch_id)
        found, differing = human_agreement(db, [batch_id])
        validities = validity_of(db, load_batch(db, batch_id))
        record = oversight_record(db, batch_id, contact="head@school.example")
        texts = db.rows("SELECT text FROM essays")
        graded = db.rows(
            "SELECT revision, essay_id, grade FROM grade_projections"
            " WHERE NOT is_anchor AND essay_id <> 'student-003'"
        )
        (document,) = db.rows("SELECT sha256 FROM documents WHERE kind = 'instructions'")
    assert appeal.n_judged == 4
    assert appeal.outcome.startswith(("upheld", "changed from"))
    # The first grading knew no person's verdict, the second anna's; ben's make the third.
    before, after = (
        {row["essay_id"]: row["grade"] for row in graded if row["revision"] == n} for n in (2, 3)
    )
    assert len(before) == 7
    assert appeal.n_others_changed == sum(before[each] != after[each] for each in before)
    with runtime.store.write() as db:
        db.execute(
            "UPDATE grade_projections SET grade = 'another' WHERE revision = 3"
            " AND essay_id IN ('student-001', 'student-003', 'anchor-001')"
        )
        (moved,) = appeals(db, batch_id)
    unmoved = before["student-001"] == after["student-001"]
    assert moved.n_others_changed == appeal.n_others_changed + unmoved > 0
    assert moved.outcome.endswith(f"verdicts; {moved.n_others_changed} other grades changed")
    model = next(each for each in found if each.judge == "quality")
    assert model.drawn.n >= 10
    assert model.all_pairs.n >= model.drawn.n
    assert model.all_pairs.n - model.all_pairs.n_agree == len(differing)
    assert [each.apart for each in differing] == sorted((d.apart for d in differing), reverse=True)
    (both,) = validities
    joint = both.joint
    assert both.judge == "quality"
    agrees, students = both.checks
    assert (agrees.of, students.of) == ("the model's winner", "the student, not the anchor")
    assert agrees.powered.n == model.drawn.n
    assert agrees.powered.lower <= model.drawn.share <= agrees.powered.upper
    assert students.powered.n_all < agrees.powered.n_all
    # Anchors and students are judged alike here, by people and by the model.
    assert not any(each.is_at_odds for each in both.checks)
    assert 0 <= joint.validity_lower <= joint.validity <= joint.validity_upper <= 1
    for said in (
        "head@school.example",
        "model quality",
        "2 persons gave",
        "override of student-002",
        "Ms \\<b\\>Head\\</b\\>",
        "released by Ms Head, 1 of 1 in the queue looked at",
        f"student-003, asked by a parent: too low. Then graded {appeal.grade_before};",
        appeal.outcome,
        "It answered as ",
        f"instructions: SHA-256 `{document['sha256']}`",
        "Reliability among students: there are too few for a figure",
        "of what people see, by ",
        "changed since release",
    ):
        assert said in record, said
    assert "anna" not in record
    assert not any(row["text"] in record for row in texts)
