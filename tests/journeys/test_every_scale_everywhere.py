"""Whatever the grade scale, built in or a batch's own, it comes out of every output alike."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from cj_pipeline.grading.grade_scales import GradeScale, load_scale
from cj_pipeline.operations.regrade import regrade
from cj_pipeline.outputs.feedback import all_feedback
from cj_pipeline.outputs.language import percent
from cj_pipeline.outputs.side_by_side import render_side_by_side
from cj_pipeline.outputs.verification import verify_artefact
from cj_pipeline.queries.frames import export_parquet, pandas_frame
from cj_pipeline.queries.history import BatchHistory, read_history
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.publish import publish
from tests.support.batches import open_engine, run_to_end, write_batch

pytestmark = pytest.mark.slow

N_STUDENTS, N_ANCHORS = 5, 10
HOUSE = """
name: house
title: Our <house> scale
grades: [poor, fair, good, best]
below: none
priors: {none: 0.05, poor: 0.2, fair: 0.4, good: 0.3, best: 0.05}
minus: [good]
plus: [fair, good]
"""
SCALES = (
    "swedish_8_anchor",
    "eng5_np_legacy_9_step",
    "eng5_np_national_9_step",
    "cefr",
    "pass_fail",
    "house",
)


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Runtime, str]:
    """An engine with one batch that was judged on a scale of its own."""
    tmp_path = tmp_path_factory.mktemp("scales")
    runtime = open_engine(tmp_path / "home")
    qualities = {f"student-{n:03d}": 1.5 * n - 4 for n in range(1, N_STUDENTS + 1)}
    qualities |= {f"anchor-{n:03d}": 0.9 * n - 4.5 for n in range(1, N_ANCHORS + 1)}
    folder = write_batch(
        tmp_path / "scales",
        n_students=N_STUDENTS,
        n_anchors=N_ANCHORS,
        settings={
            "judges": ["quality"],
            "scale": "house",
            "all_at_once": True,
            "max_pairwise_comparisons": 105,
            "emulator_qualities": qualities,
        },
    )
    grades = _anchor_grades(load_scale("house", HOUSE))
    table = (folder / "anchors.csv").read_text().splitlines()
    mended = [
        f"{line.rpartition(',')[0]},{grade}"
        for line, grade in zip(table[1:], grades.values(), strict=True)
    ]
    (folder / "anchors.csv").write_text("\n".join([table[0], *mended]) + "\n")
    (folder / "scale.yaml").write_text(HOUSE)
    return runtime, run_to_end(runtime, folder)


def _anchor_grades(scale: GradeScale) -> dict[str, str]:
    """Return grades that rise with the anchors' qualities, over the whole scale."""
    steps = scale.grades
    return {
        f"anchor-{n:03d}": steps[(n - 1) * len(steps) // N_ANCHORS] for n in range(1, N_ANCHORS + 1)
    }


@pytest.fixture(scope="module", params=SCALES)
def published(
    judged: tuple[Runtime, str], request: pytest.FixtureRequest
) -> tuple[Runtime, BatchHistory, GradeScale]:
    """The batch published anew on one scale."""
    runtime, batch_id = judged
    scale = load_scale(request.param, HOUSE)
    regrade(runtime, batch_id, scale=scale.name, anchor_grades=_anchor_grades(scale))
    publish(runtime, batch_id)
    with runtime.store.read() as db:
        history = read_history(db, batch_id)
    assert history.is_graded, history.grading
    return runtime, history, scale


def _folder(runtime: Runtime, history: BatchHistory) -> Path:
    return runtime.published_folder / history.batch_id


def _written(history: BatchHistory) -> dict[str, str]:
    return {
        row["essay_id"]: row["fine_grade"] for row in history.projections if not row["is_anchor"]
    }


def test_the_store_keeps_each_grade_with_its_scale(
    published: tuple[Runtime, BatchHistory, GradeScale],
) -> None:
    """A grading stays readable when the scale's file has long changed."""
    _, history, scale = published
    assert history.grading is not None

    definition = history.grading["scale_definition"]

    assert (definition["name"], definition["title"]) == (scale.name, scale.title)
    assert tuple(definition["grades"]) == scale.grades
    assert all(tuple(row["probabilities"]) == scale.steps for row in history.projections)
    assert all(row["grade"] in scale.steps for row in history.projections)


def test_the_artefact_bears_the_scale_and_can_be_worked_out_anew(
    published: tuple[Runtime, BatchHistory, GradeScale],
) -> None:
    """From the file alone, a scale of the batch's own included."""
    runtime, history, scale = published
    path = _folder(runtime, history) / "assessment_run.execute.json"

    document = json.loads(path.read_text())

    told = {row["essay_id"]: row["fine_grade"] for row in document["grade_projections"]}
    assert {key: told[key] for key in _written(history)} == _written(history)
    assert {row["grade_scale"] for row in document["grade_projections"]} == {scale.name}
    assert document["grading"]["scale"]["title"] == scale.title
    assert verify_artefact(path) == []


def test_the_report_names_the_scale_and_every_students_grade(
    published: tuple[Runtime, BatchHistory, GradeScale],
) -> None:
    """With minus and plus, and markup in a title shown as text."""
    runtime, history, scale = published

    page = (_folder(runtime, history) / "report.html").read_text()

    assert scale.title.replace("<", "&lt;").replace(">", "&gt;") in page
    assert all(f'<td class="grade">{grade}</td>' in page for grade in _written(history).values())


def test_the_class_list_has_every_grade_with_its_minus_or_plus(
    published: tuple[Runtime, BatchHistory, GradeScale],
) -> None:
    """It is what teachers carry on with."""
    runtime, history, _ = published

    content = (_folder(runtime, history) / "class_list.csv").read_text(encoding="utf-8-sig")

    rows = {row["essay_id"]: row for row in csv.DictReader(io.StringIO(content))}
    assert {key: row["fine_grade"] for key, row in rows.items()} == _written(history)


def test_feedback_tells_each_student_the_grade(
    published: tuple[Runtime, BatchHistory, GradeScale],
) -> None:
    """As written, with the probable ones beside it."""
    _, history, _ = published

    told = {each.essay_id: each for each in all_feedback(history)}

    assert {key: told[key].grade for key in _written(history)} == _written(history)
    assert all(told[key].likely for key in _written(history))


def test_the_comparison_of_batches_counts_the_grades(
    published: tuple[Runtime, BatchHistory, GradeScale],
) -> None:
    """Batches on different scales are often compared."""
    _, history, scale = published

    page = render_side_by_side([history, history])

    assert scale.name in page
    assert f"{percent(1)} of the students have the same grade" in page


def test_the_export_has_grades_probabilities_and_boundaries(
    published: tuple[Runtime, BatchHistory, GradeScale], tmp_path: Path
) -> None:
    """Analysts see what the report shows."""
    runtime, history, scale = published

    export_parquet(history.batch_id, tmp_path, home=runtime.home)
    grades = pandas_frame("grades", history.batch_id, home=runtime.home)
    boundaries = pandas_frame("boundaries", history.batch_id, home=runtime.home)

    assert dict(zip(grades["essay_id"], grades["fine_grade"], strict=True)) == _written(history)
    assert len(boundaries) == len(scale.steps) - 1
    assert (boundaries["lower"] < boundaries["boundary"]).all()
    assert (boundaries["boundary"] < boundaries["upper"]).all()


def test_grading_on_other_scales_kept_the_first_grading_whole(
    judged: tuple[Runtime, str],
) -> None:
    """History is what a complaint is answered from."""
    runtime, batch_id = judged
    regrade(runtime, batch_id, own_scale=HOUSE.replace("Our", "Their").encode())

    with runtime.store.read() as db:
        reports = db.rows("SELECT * FROM grading_reports ORDER BY revision")

    titles = [row["scale_definition"]["title"] for row in (reports[0], reports[-1])]
    assert titles == ["Our <house> scale", "Their <house> scale"]
