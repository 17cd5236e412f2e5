"""What the report says first: counts that hold, and one order of what to read."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from cj_pipeline.grading.grade_scales import GradeScale
from cj_pipeline.grading.projection import project_grades
from cj_pipeline.outputs.class_list import class_list_csv
from cj_pipeline.outputs.readings.first_screen import expected_grades, readings
from cj_pipeline.outputs.readings.reading_queue import moderation_queue
from cj_pipeline.outputs.report import render_history
from cj_pipeline.queries.history import BatchHistory, read_history
from tests.support.finished_batches import ARGUMENTS, SPRING, finished_batches

SCALE = GradeScale("five", "Five steps", grades=("E", "D", "C", "B", "A"))
EDGES = np.array([-1.8, -0.6, 0.6, 1.8])


@pytest.fixture(scope="module")
def histories() -> Iterator[dict[str, BatchHistory]]:
    with finished_batches() as db:
        yield {name: read_history(db, name) for name in (SPRING, ARGUMENTS)}


def test_the_expected_counts_hold(histories: dict[str, BatchHistory]) -> None:
    """Over many simulated classes as many grades are right, and within a step, as were expected."""
    rng = np.random.default_rng(24)
    said, found = np.zeros(2), np.zeros(2)
    n_graded = 0
    for _ in range(20):
        anchors = np.linspace(-2.4, 2.4, 10)
        truth = np.concatenate([anchors, rng.normal(0, 1.4, 25)])
        error = rng.uniform(0.3, 0.7)
        scores = truth + rng.normal(0, error, len(truth))
        ids = [f"e{i:02d}" for i in range(len(truth))]
        # The graders of anchors and students see an essay as the judge does, but for half a step.
        seen = truth + rng.normal(0, 0.6, len(truth))
        steps = np.searchsorted(EDGES, seen)
        known = {ids[i]: SCALE.grades[steps[i]] for i in range(10)}
        covariance = error**2 * np.eye(len(truth))
        projections = project_grades(SCALE, ids, scores, covariance, known)
        if not projections.is_graded:
            continue
        rows = tuple(
            {
                "essay_id": ids[i],
                "is_anchor": i < 10,
                "grade": projections.most_probable[i],
                "probabilities": dict(
                    zip(projections.grades, projections.probabilities[i].tolist(), strict=True)
                ),
            }
            for i in range(len(ids))
        )
        told = expected_grades(
            replace(
                histories[SPRING],
                projections=rows,
                grading={"is_graded": True},
                moderation=(),
            )
        )
        assert told is not None
        apart = np.abs(
            steps[10:] - [SCALE.grades.index(row["grade"]) for row in rows if not row["is_anchor"]]
        )
        said += told.exact, told.within_one
        found += (apart == 0).sum(), (apart <= 1).sum()
        n_graded += told.n

    assert n_graded >= 400
    assert np.abs(said - found).max() / n_graded < 0.08
    assert found[0] / n_graded < 0.8


def test_a_grade_that_a_person_set_is_not_among_the_expected(
    histories: dict[str, BatchHistory],
) -> None:
    """Its probability is not the machine's to tell."""
    history = histories[SPRING]
    essay_id = next(row["essay_id"] for row in history.projections if not row["is_anchor"])
    decided = replace(history, moderation=(_override(essay_id),))

    before, after = expected_grades(history), expected_grades(decided)

    assert before is not None
    assert after is not None
    assert (before.n, before.by_people) == (8, 0)
    assert (after.n, after.by_people) == (7, 1)
    assert after.exact < before.exact


def test_without_grades_nothing_is_expected(histories: dict[str, BatchHistory]) -> None:
    """Ranks are no grades."""
    assert expected_grades(histories[ARGUMENTS]) is None
    assert "expected to be exactly right" not in render_history(histories[ARGUMENTS])


def test_report_class_list_and_moderation_have_one_order(
    histories: dict[str, BatchHistory],
) -> None:
    """And one remark on each essay."""
    history = histories[SPRING]
    queue = [e for e in moderation_queue(history) if not e.is_anchor]
    to_read = readings(history)

    listed = list(csv.DictReader(io.StringIO(class_list_csv(history).decode("utf-8-sig"))))
    page = render_history(history)

    assert queue
    assert list(to_read.place) == [entry.essay_id for entry in queue]
    by_id = {row["essay_id"]: row for row in listed}
    for place, entry in enumerate(queue, start=1):
        row = by_id[entry.essay_id]
        assert int(row["read_first"]) == place
        assert row["remarks"] == "; ".join(to_read.remarks[entry.essay_id])
    first_screen = page[: page.index('<main id="main">')]
    shown = [first_screen.index(history.label(entry.essay_id)) for entry in queue]
    assert shown == sorted(shown)


def test_what_a_person_decided_need_not_be_read_again(
    histories: dict[str, BatchHistory],
) -> None:
    """It stays in the class list with what was decided."""
    history = histories[SPRING]
    first = readings(history).queue[0].essay_id
    decided = replace(
        history,
        moderation=(_override(first) | {"revision": history.grading["revision"]},),  # type: ignore[index]
    )

    found = readings(decided)

    assert first not in found.place
    assert first not in [entry.essay_id for entry in found.queue]
    assert found.remarks[first][0].startswith("grade set by Ms Head: read twice")


def _override(essay_id: str) -> dict[str, object]:
    return {
        "essay_id": essay_id,
        "kind": "override",
        "grade": "9",
        "reason": "read twice",
        "decided_by": "Ms Head",
        "revision": 1,
    }
