"""The analysts' views, over batches that have come to an end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cj_pipeline.store.session import Session
from tests.support.finished_batches import ARGUMENTS, BROKEN, SPRING, finished_batches


@pytest.fixture(scope="module")
def db() -> Iterator[Session]:
    """A look at three finished batches; the tests only read."""
    with finished_batches() as session:
        yield session


def test_every_view_says_what_it_shows(db: Session) -> None:
    """An analyst finds the way by the comments; a view without one is a riddle."""
    silent = db.rows(
        "SELECT view_name FROM duckdb_views() "
        "WHERE NOT internal AND (comment IS NULL OR NOT view_name LIKE 'v\\_%' ESCAPE '\\')"
    )

    assert silent == []


def test_every_column_of_every_view_says_what_it_is(db: Session) -> None:
    """Also after a view was made again: that takes its comments away."""
    silent = db.rows(
        "SELECT c.table_name, c.column_name FROM duckdb_columns() c"
        " JOIN duckdb_views() v ON v.view_name = c.table_name"
        " WHERE NOT v.internal AND coalesce(c.comment, '') = '' ORDER BY ALL"
    )

    assert silent == []


def test_a_batch_has_one_row_with_its_counts(db: Session) -> None:
    """Joins over essays, pairs and comparisons must not multiply one another."""
    row = db.one("FROM v_batches WHERE batch_id = ?", [SPRING])

    assert row is not None
    assert (row["n_essays"], row["n_anchors"], row["n_waves"]) == (14, 6, 3)
    assert (row["n_succeeded"], row["n_failed"]) == (90, 1)
    assert row["is_simulated"]


def test_a_failed_batch_shows_why_it_ended(db: Session) -> None:
    """The reason is the first thing asked about a failure."""
    row = db.one("FROM v_batches WHERE batch_id = ?", [BROKEN])

    assert row is not None
    assert (row["state"], row["end_reason"]) == ("failed", "low_success_rate")


def test_scores_are_those_of_the_latest_wave(db: Session) -> None:
    """Earlier waves stay in the table; the view shows where an essay stands now."""
    rows = db.rows("FROM v_scores WHERE batch_id = ?", [SPRING])

    assert len(rows) == 14
    assert {row["wave"] for row in rows} == {3}


def test_grades_are_the_students(db: Session) -> None:
    """Anchors had their grades beforehand."""
    rows = db.rows("FROM v_grades WHERE batch_id = ?", [SPRING])

    assert len(rows) == 8
    assert all(row["score"] is not None for row in rows)


def test_a_batch_without_anchors_has_no_grades(db: Session) -> None:
    """Scores and ranks only: nothing may look like a grade."""
    assert db.rows("FROM v_grades WHERE batch_id = ?", [ARGUMENTS]) == []


def test_an_essays_grade_probabilities_sum_to_one(db: Session) -> None:
    """Unnested from JSON, none may be lost on the way, whatever signs a grade's name has."""
    rows = db.rows(
        "SELECT essay_id, sum(probability) AS total, bool_or(grade = 'C+') AS has_plus "
        "FROM v_grade_probabilities WHERE batch_id = ? GROUP BY essay_id",
        [SPRING],
    )

    assert [row["total"] for row in rows] == pytest.approx([1.0] * len(rows))
    assert all(row["has_plus"] for row in rows)


def test_each_ended_comparison_has_one_row(db: Session) -> None:
    """Two essays and a judge are joined on; none may drop or double a comparison."""
    shown = db.one("SELECT count(*) AS n, count(judge) AS named FROM v_comparisons")
    kept = db.one("SELECT count(*) AS n FROM comparisons")

    assert shown == {"n": kept["n"] if kept else None, "named": kept["n"] if kept else None}


def test_positions_count_both_sides_of_every_pair(db: Session) -> None:
    """Each comparison shows one essay first and one second."""
    row = db.one(
        "SELECT sum(n_shown_a)::INT AS a, sum(n_shown_b)::INT AS b, max(skew) <= 1 AS in_range "
        "FROM v_positions WHERE batch_id = ?",
        [SPRING],
    )

    assert row == {"a": 91, "b": 91, "in_range": True}


def test_waves_add_up_to_the_batch(db: Session) -> None:
    """What the waves cost is what the batch cost."""
    row = db.one(
        "SELECT sum(w.cost_usd) AS waves, any_value(b.cost_usd) AS batch FROM v_waves w "
        "JOIN v_batches b USING (batch_id) WHERE batch_id = ?",
        [SPRING],
    )

    assert row is not None
    assert row["waves"] == pytest.approx(row["batch"])


def test_a_judges_share_of_first_wins_leaves_ties_out(db: Session) -> None:
    """A tie says nothing about position."""
    row = db.one("SELECT share_first, share_tied FROM v_judges WHERE batch_id = ?", [SPRING])

    assert row is not None
    assert 0 < row["share_first"] < 1
    assert row["share_tied"] == pytest.approx(1 / 90)


def test_costs_have_one_row_per_provider_job(db: Session) -> None:
    """Tokens are summed over a job's attempts."""
    jobs = db.one("SELECT count(*) AS n FROM provider_jobs")
    costs = db.one("SELECT count(*) AS n FROM v_costs")

    assert jobs == costs
