"""Scores on the scale that a batch sets, and students over linked batches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from statistics import mean, stdev
from typing import Any

import pytest

from cj_pipeline.intake.settings import resolve_settings
from cj_pipeline.store.file_store import FileStore
from cj_pipeline.store.session import Session

NOW = datetime(2026, 3, 2, tzinfo=UTC)
FIRST = {"anna": -1.0, "bert": 0.0, "cleo": 1.5, "anchor": 3.0}
LATER = {"anna": 0.5, "bert": -0.5, "dora": 0.0}
PLACED = {"anna": 1.5, "bert": 0.5, "dora": 4.0}


@pytest.fixture
def db() -> Iterator[Session]:
    """Two batches; the second is placed on the scale of the first."""
    store = FileStore.in_memory()
    with store.write() as session:
        _write(session, "first", FIRST, NOW)
        _write(session, "later", LATER, NOW + timedelta(days=90))
        key = {"batch_id": "later", "revision": 1}
        report = {"is_graded": False, "statement": "", "anchor_check": {}, "projected_at": NOW}
        session.insert("grading_reports", [key | report])
        session.insert(
            "linked_scores",
            [
                key
                | {"essay_id": essay, "scale_batch_id": "first", "score": score}
                | {"standard_error": 0.4}
                for essay, score in PLACED.items()
            ],
        )
        yield session


def _write(db: Session, batch_id: str, scores: dict[str, float], at: datetime) -> None:
    empty: dict[str, Any] = {}
    db.insert(
        "batches",
        [
            {
                "batch_id": batch_id, "title": "", "source_path": "", "content_sha256": "",
                "state": "succeeded", "settings": empty, "settings_origins": empty,
                "metadata": empty, "problems": [], "runner_mode": "execute",
                "correlation_id": "", "created_at": at, "updated_at": at,
            }
        ],
    )  # fmt: skip
    db.insert(
        "essays",
        [
            {
                "batch_id": batch_id, "essay_id": essay, "position": place, "name": essay.title(),
                "is_anchor": essay == "anchor", "text": "", "file_name": "", "source_path": "",
                "sha256": "", "n_bytes": 0,
            }
            for place, essay in enumerate(scores, start=1)
        ],
    )  # fmt: skip
    db.insert(
        "essay_scores",
        [
            {
                "batch_id": batch_id, "wave": 1, "essay_id": essay, "score": score,
                "standard_error": 0.2, "rank": 1, "n_comparisons": 4, "n_wins": 2, "n_losses": 2,
                "n_shown_a": 2, "n_shown_b": 2, "is_one_sided": False,
            }
            for essay, score in scores.items()
        ],
    )  # fmt: skip


def _scaled(
    db: Session, batch_id: str, setting: dict[str, float]
) -> dict[str, tuple[float, float]]:
    """Return each essay's scaled score and error, where the batch sets that scale."""
    db.execute(
        "UPDATE batches SET settings = ? WHERE batch_id = ?",
        [json.dumps({"scaled_scores": setting}), batch_id],
    )
    rows = db.rows("FROM v_scaled_scores WHERE batch_id = ?", [batch_id])
    return {row["essay_id"]: (row["scaled_score"], row["standard_error"]) for row in rows}


def test_a_range_has_the_batchs_scores_at_its_ends(db: Session) -> None:
    """Anchors included; errors are in the same units."""
    found = _scaled(db, "first", {"low": 0, "high": 100})

    assert found["anna"] == pytest.approx((0.0, 5.0))
    assert found["bert"] == pytest.approx((25.0, 5.0))
    assert found["anchor"] == pytest.approx((100.0, 5.0))


def test_a_mean_and_a_spread_are_the_students(db: Session) -> None:
    """Anchors are spread on purpose and do not count."""
    found = _scaled(db, "first", {"mean": 500, "spread": 100})

    students = [found[essay][0] for essay in ("anna", "bert", "cleo")]
    assert mean(students) == pytest.approx(500)
    assert stdev(students) == pytest.approx(100)
    assert found["bert"][1] == pytest.approx(0.2 * 100 / stdev([-1.0, 0.0, 1.5]))


def test_a_linked_batch_is_on_the_first_ones_scale(db: Session) -> None:
    """A score above the range is not cut off, and the link's error is in its error."""
    found = _scaled(db, "later", {"low": 0, "high": 100})

    assert found["bert"] == pytest.approx((37.5, 10.0))
    assert found["dora"] == pytest.approx((125.0, 10.0))


def test_without_the_setting_there_are_none(db: Session) -> None:
    """Nor where all scores are one, which makes no scale."""
    assert db.rows("FROM v_scaled_scores") == []
    db.execute("UPDATE essay_scores SET score = 1.0")
    assert _scaled(db, "first", {"low": 0, "high": 100}) == {}


def test_students_are_followed_over_linked_batches(db: Session) -> None:
    """By name, with the error of the change; who is new has none, and two of one name are left."""
    rows = db.rows("FROM v_student_progress WHERE batch_id = 'later' ORDER BY student")

    told = {row["student"]: (row["batch_before"], row["change"]) for row in rows}
    assert told == {"Anna": ("first", 2.5), "Bert": ("first", 0.5), "Dora": (None, None)}
    assert rows[0]["change_standard_error"] == pytest.approx((0.4**2 + 0.2**2) ** 0.5)
    db.execute("UPDATE essays SET name = 'Anna' WHERE essay_id = 'bert' AND batch_id = 'later'")
    rows = db.rows("SELECT student FROM v_student_progress WHERE batch_id = 'later'")
    assert rows == [{"student": "Dora"}]


@pytest.mark.parametrize(
    "given", [{"low": 0}, {"low": 0, "spread": 1}, {"low": 1, "high": 1}, {"mean": 1, "spread": 0}]
)
def test_half_a_scale_is_refused(given: dict[str, float]) -> None:
    """What is missing is named before anything is spent."""
    _, problems = resolve_settings({"scaled_scores": given})

    assert any("scaled_scores" in problem for problem in problems), problems
