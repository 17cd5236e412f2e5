"""The ten questions of docs/analysts.md, asked as they stand there, against answers from rows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from cj_pipeline.queries.human_agreement import human_agreement
from cj_pipeline.store.session import Session
from tests.support import ROOT
from tests.support.finished_batches import SPRING, finished_batches

PAGE = (ROOT / "docs" / "analysts.md").read_text("utf-8")
NOW = datetime(2026, 3, 4, tzinfo=UTC)


def _questions() -> dict[str, str]:
    section = PAGE.partition("### Ten questions")[2].partition("\n## ")[0]
    return dict(re.findall(r"^([^\n`]+\?)[^\n]*\n\n```sql\n(.*?)```", section, flags=re.M | re.S))


QUESTIONS = _questions()


@pytest.fixture(scope="module")
def db() -> Iterator[Session]:
    """A graded batch that was regraded and linked, and in which people judged."""
    with finished_batches() as session:
        session.execute("UPDATE essays SET text = text || repeat(' more', position * 3 % 7)")
        _regrade(session)
        _link(session)
        _have_people_judge(session)
        yield session


def _regrade(db: Session) -> None:
    """Write a second grading in which one student has another grade."""
    for table in ("grading_reports", "grade_projections", "grade_boundaries"):
        rows = db.rows(f"FROM {table} WHERE batch_id = ? AND revision = 1", [SPRING])
        for row in rows:
            row["revision"] = 2
            if row.get("essay_id") == "pupil-01":
                row["grade"] = "A"
        db.insert(table, rows)


def _link(db: Session) -> None:
    key = {"batch_id": SPRING, "revision": 2}
    db.insert(
        "batch_links",
        [
            key
            | {"position": 1, "placed_batch_id": SPRING, "onto_batch_id": "spring-8"}
            | {"n_shared": 3, "n_tying": 2, "shift": 0.5, "shift_standard_error": 0.1}
            | {"statement": "linked", "linked_at": NOW}
        ],
    )
    db.insert(
        "linked_scores",
        [
            key
            | {"essay_id": essay, "scale_batch_id": "spring-8", "score": score}
            | {"standard_error": 0.3}
            for essay, score in (("pupil-01", 0.5), ("pupil-02", 1.5), ("anchor-01", 9.0))
        ],
    )
    db.insert(
        "anchor_drifts",
        [
            key
            | {"position": 1, "essay_id": essay, "earlier_score": 0.0, "later_score": 1.0}
            | {"drift": drift, "standard_error": 0.2, "is_drifted": drift > 0.5}
            for essay, drift in (("anchor-01", 0.1), ("anchor-02", 1.0))
        ],
    )


def _have_people_judge(db: Session) -> None:
    """Write what two people said of nine pairs, each shown the other way round to one of them."""
    pairs = db.rows(
        "SELECT essay_a, essay_b, any_value(comparison_id) AS comparison_id FROM comparisons"
        " WHERE batch_id = ? AND status = 'succeeded' GROUP BY ALL ORDER BY ALL LIMIT 9",
        [SPRING],
    )
    shown = [
        (person, pair, number, "AB"[(number + (person == "b")) % 3 == 0])
        for number, pair in enumerate(pairs)
        for person in ("a", "b")
        if person == "a" or number % 2
    ]
    db.insert(
        "human_answers",
        [
            {
                "answer_id": f"{person}{number}", "batch_id": SPRING, "number": place,
                "kind": "verdict", "source": "import", "import_name": "x", "assignment_id": None,
                "comparison_id": pair["comparison_id"], "judge_id": "h", "person": person,
                "essay_a": pair["essay_a" if person == "a" else "essay_b"],
                "essay_b": pair["essay_b" if person == "a" else "essay_a"],
                "winner": winner, "reason": None, "active_s": None, "elapsed_s": None,
                "replaces": None, "decided_at": NOW, "stored_at": NOW,
            }
            for place, (person, pair, number, winner) in enumerate(shown, start=1)
        ],
    )  # fmt: skip


def _ask(db: Session, question: str) -> list[dict[str, Any]]:
    (sql,) = [sql for asked, sql in QUESTIONS.items() if question in asked]
    return db.rows(sql.replace("'spring-9'", f"'{SPRING}'"))


def _table(db: Session, sql: str) -> list[dict[str, Any]]:
    return db.rows(sql, [SPRING])


def test_there_are_ten() -> None:
    """Each is asked below."""
    assert len(QUESTIONS) == 10


def test_how_sure_the_scale_is(db: Session) -> None:
    """The honest figure first."""
    (row,) = _ask(db, "How sure")
    (kept,) = _table(db, "SELECT statistics FROM scale_statistics WHERE batch_id = ?")

    honest = kept["statistics"]["student_reliability"]
    assert row == {
        "reliability": honest["value"],
        "reliability_lower": honest["lower"],
        "reliability_upper": honest["upper"],
        "is_worth_a_figure": honest["is_worth_a_figure"],
    }


def test_who_is_where(db: Session) -> None:
    """Students only, best first."""
    rows = _ask(db, "Who is where")

    assert [row["student_rank"] for row in rows] == list(range(1, 9))
    assert all(
        r["student_rank_lower"] <= r["student_rank"] <= r["student_rank_upper"] for r in rows
    )


def test_where_grades_begin(db: Session) -> None:
    """Those of the last grading alone."""
    rows = _ask(db, "Where do grades begin")

    kept = _table(db, "SELECT boundary FROM grade_boundaries WHERE batch_id = ? AND revision = 1")
    assert [row["boundary"] for row in rows] == sorted(row["boundary"] for row in kept)


def test_which_grades_could_be_the_next(db: Session) -> None:
    """The second grade is the one that is next most probable."""
    rows = _ask(db, "Which grades could")

    assert rows
    for row in rows:
        (kept,) = db.rows(
            "SELECT probabilities FROM grade_projections WHERE batch_id = ? AND revision = 2"
            " AND essay_id = ?",
            [SPRING, row["essay_id"]],
        )
        assert row["second_probability"] == sorted(kept["probabilities"].values())[-2]
        assert kept["probabilities"][row["second_grade"]] == row["second_probability"]


def test_which_gradings_there_were(db: Session) -> None:
    """And that the second changed one grade."""
    rows = _ask(db, "Which gradings")

    found = [(row["revision"], row["is_in_force"], row["n_changed"]) for row in rows]
    assert found == [(1, False, 0), (2, True, 1)]
    assert rows[0]["n_students"] == 8


def test_whose_grade_changed(db: Session) -> None:
    """From what to what."""
    (row,) = _ask(db, "Whose grade changed")

    (before,) = _table(
        db,
        "SELECT grade FROM grade_projections WHERE batch_id = ? AND revision = 1"
        " AND essay_id = 'pupil-01'",
    )
    assert row == {
        "essay_id": "pupil-01",
        "revision": 2,
        "grade_before": before["grade"],
        "grade": "A",
    }


def test_how_students_compare_with_an_earlier_batch(db: Session) -> None:
    """On the earlier one's scale, anchors left out."""
    assert _ask(db, "How do students compare") == [
        {"scale_batch_id": "spring-8", "mean_score": 1.0, "largest_error": 0.3}
    ]


def test_which_anchors_drifted(db: Session) -> None:
    """Against which batch."""
    (row,) = _ask(db, "Which anchors")

    assert (row["essay_id"], row["onto_batch_id"], row["drift"]) == ("anchor-02", "spring-8", 1.0)


def test_how_often_people_and_models_agree(db: Session) -> None:
    """As `cj people agreement` has it, for the model and for people with each other."""
    rows = {row["judge"]: row for row in _ask(db, "How often do people")}
    found, _ = human_agreement(db, [SPRING])

    told = {
        each.judge: (each.all_pairs.n, each.all_pairs.share, each.all_pairs.kappa) for each in found
    }
    assert rows["people"]["n_pairs"] == 4
    assert set(rows) == set(told)
    for judge, (n, share, kappa) in told.items():
        assert rows[judge]["n_pairs"] == n
        assert rows[judge]["agreement"] == pytest.approx(share)
        assert rows[judge]["kappa"] == pytest.approx(kappa)


def test_whether_longer_texts_are_placed_higher(db: Session) -> None:
    """Words counted as Python counts them."""
    (row,) = _ask(db, "Are longer texts")

    kept = _table(
        db,
        "SELECT e.text, s.score FROM essays e JOIN v_scores s USING (batch_id, essay_id)"
        " WHERE batch_id = ? AND NOT e.is_anchor",
    )
    expected = np.corrcoef([len(e["text"].split()) for e in kept], [e["score"] for e in kept])[0, 1]
    assert row["n_essays"] == 8
    assert row["correlation"] == pytest.approx(expected)
