"""A store's earlier gradings as what the next one takes, and fixed with it."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cj_pipeline.operations.regrade import regrade
from cj_pipeline.outputs.artefact import artefact_checksum
from cj_pipeline.outputs.verification import verify_artefact
from cj_pipeline.queries.batch_record import load_batch
from cj_pipeline.queries.disagreement import expected_disagreement
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.publish import publish
from tests.support.batches import ManualClock, open_engine, run_to_end
from tests.support.people import graded_folder


class _UndoError(Exception):
    """Raised to have a transaction undone."""


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    """A store with batches `first`, `second` with anchors of its own, and `third` with those again.

    Tests leave it as it was, but for a further grading of the first.
    """
    folder = tmp_path_factory.mktemp("history")
    clock = ManualClock()
    runtime = open_engine(folder / "home", clock=clock)
    for name in ("first", "second", "third"):
        batch = graded_folder(folder / name)
        anchors = batch / "anchors.csv"
        if name != "first":
            anchors.write_text(anchors.read_text().replace("This is what", "Here is what"))
        run_to_end(runtime, batch)
        clock.sleep(60)
    return runtime


def _kept(runtime: Runtime, batch_id: str) -> list[dict[str, Any]]:
    with runtime.store.read() as db:
        return [
            row["disagreement"]
            for row in db.rows(
                "SELECT disagreement FROM grading_reports WHERE batch_id = ? ORDER BY revision",
                [batch_id],
            )
        ]


def test_a_second_batch_learns_from_the_first(runtime: Runtime) -> None:
    """Its grading names what it was learnt from; report, view and artefact say it."""
    first, second = _kept(runtime, "first")[0], _kept(runtime, "second")[0]

    assert first["expected"]["learnt_from"] == []
    (learnt,) = second["expected"]["learnt_from"]
    assert (learnt["batch_id"], learnt["revision"], learnt["share"]) == ("first", 1, 1.0)
    assert learnt["exemplars"] == first["found"]["exemplars"]
    assert second["expected"]["prior"]["log_sd"] < first["expected"]["prior"]["log_sd"]
    folder = runtime.published_folder / "second"
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert "Earlier batches by these judges with the same template, rubric and scale: 1." in report
    assert "The known grades had a log score of" in report
    assert verify_artefact(folder / "assessment_run.execute.json") == []
    with runtime.store.read() as db:
        rows = db.rows("SELECT * FROM v_disagreements WHERE revision = 1 ORDER BY batch_id")
    assert [row["n_learnt_from"] for row in rows] == [0, 1, 1]
    assert len({row["judged_by"] for row in rows}) == 1
    for row in rows:
        assert row["found_lower"] < row["found"] < row["found_upper"]
        assert row["log_score"] < 0
        assert 0 < row["log_score_chance"] <= 1


def test_the_same_anchors_teach_nothing_again(runtime: Runtime) -> None:
    """What the second batch's show is in the third batch's own anchors already."""
    learnt = _kept(runtime, "third")[0]["expected"]["learnt_from"]

    assert [each["batch_id"] for each in learnt] == ["first"]


def test_another_scale_is_another_history(runtime: Runtime) -> None:
    """Steps of one scale say nothing of those of another."""
    with suppress(_UndoError), runtime.store.write() as db:
        db.execute(
            "UPDATE grading_reports SET disagreement = json_merge_patch(disagreement,"
            ' \'{"expected": {"judged_by": "another"}}\') WHERE batch_id = \'first\''
        )
        db.execute("UPDATE grading_reports SET is_graded = FALSE WHERE batch_id = 'second'")
        found = expected_disagreement(db, load_batch(db, "second"))
        raise _UndoError

    assert found is not None
    assert found.learnt_from == ()


def test_gradings_of_earlier_versions_are_repeated_as_they_were(runtime: Runtime) -> None:
    """They took the usual and kept nothing of it."""
    with suppress(_UndoError), runtime.store.write() as db:
        db.execute("UPDATE grading_reports SET disagreement = NULL WHERE batch_id = 'second'")
        found = expected_disagreement(db, load_batch(db, "second"))
        raise _UndoError

    assert found is not None
    assert found.if_learnt is None


def test_an_altered_history_is_found(runtime: Runtime, tmp_path: Path) -> None:
    """What was expected has to follow from the gradings listed, and the grades from it."""
    folder = shutil.copytree(runtime.published_folder / "second", tmp_path / "second")
    path = folder / "assessment_run.execute.json"
    document = json.loads(path.read_text())
    expected = document["grading"]["disagreement"]["expected"]
    expected["learnt_from"][0]["exemplars"]["pull"] += 5.0
    document["validation"]["artefact_checksum"] = artefact_checksum(document)
    path.write_text(json.dumps(document))

    found = " ".join(verify_artefact(path))

    assert "grading.disagreement.expected.prior" in found


def test_grading_again_takes_what_the_first_grading_took(runtime: Runtime) -> None:
    """Only what a person changed is other than before, whatever was learnt in between."""
    regrade(runtime, "first", settings={"max_extrapolated_share": 0.9})

    before, after = _kept(runtime, "first")
    assert after["expected"] == before["expected"]
    publish(runtime, "first")
    artefact = runtime.published_folder / "first" / "assessment_run.execute.json"
    assert verify_artefact(artefact) == []
