"""A batch as data frames: whole, typed, and under stable names."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import polars as pl
import pytest

from cj_pipeline.errors import SettingsError, StoreError, UnknownBatchError
from cj_pipeline.queries.frames import (
    FRAME_NAMES,
    FrameName,
    arrow_table,
    export_parquet,
    pandas_frame,
    polars_frame,
)
from cj_pipeline.store.file_store import FileStore
from cj_pipeline.store.session import Session
from tests.support.finished_batches import ARGUMENTS, SPRING, fill

COLUMNS: dict[FrameName, str] = {
    "scores": "essay_id is_anchor anchor_grade rank score standard_error score_lower score_upper"
    " n_comparisons n_wins n_losses is_one_sided",
    "wave_scores": "wave essay_id score standard_error rank n_comparisons",
    "grades": "essay_id grade confidence expected_grade primary_anchor_id is_extrapolated scale",
    "probabilities": "essay_id is_anchor grade probability",
    "boundaries": "position below above boundary standard_error lower upper",
    "ranks": "essay_id rank rank_lower rank_upper student_rank student_rank_lower"
    " student_rank_upper p_above_next score_lower score_upper",
    "reliability": "reliability reliability_lower reliability_upper is_worth_a_figure",
    "near_boundary": "essay_id grade confidence second_grade boundary distance is_near",
    "gradings": "revision is_in_force scale n_students n_changed statement",
    "grade_history": "essay_id revision grade grade_before confidence",
    "linked_scores": "essay_id scale_batch_id score standard_error",
    "drifts": "essay_id earlier_score later_score drift standard_error is_drifted",
    "comparisons": "sequence wave judge essay_a essay_b status failure_reason winner winner_id"
    " loser_id confidence justification role tokens_prompt tokens_completion cost_usd started_at",
    "positions": "essay_id n_shown_a n_shown_b skew",
    "waves": "wave n_succeeded n_failed cost_usd decision reason max_score_change completed"
    " mean_standard_error empirical_bayes_reliability",
    "judges": "name provider model is_simulated n_succeeded n_failed share_first cost_usd",
    "costs": "wave judge n_requests billed_usd tokens_prompt tokens_cached tokens_completion",
}
"""The columns notebooks elsewhere may rely on; a frame may have more."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    store = FileStore(folder)
    with store.write() as db:
        fill(db)
        _link(db)
    store.publish()
    return folder


def _link(db: Session) -> None:
    """Write that the batch was linked to another, so that no frame is empty."""
    grading = {"batch_id": SPRING, "revision": 1, "essay_id": "anchor-01", "standard_error": 0.3}
    db.insert("linked_scores", [grading | {"scale_batch_id": "spring-8", "score": 0.5}])
    moved = {"earlier_score": 0.5, "later_score": 0.6, "drift": 0.1, "is_drifted": False}
    db.insert("anchor_drifts", [grading | moved | {"position": 1}])


@pytest.mark.parametrize("name", FRAME_NAMES)
def test_a_frames_columns_are_kept(home: Path, name: FrameName) -> None:
    """A renamed column breaks notebooks we never see."""
    assert set(COLUMNS[name].split()) <= set(pandas_frame(name, SPRING, home=home).columns)


@pytest.mark.parametrize("name", FRAME_NAMES)
def test_pandas_and_polars_see_the_same_rows(home: Path, name: FrameName) -> None:
    """Which library somebody likes must not matter."""
    one = pandas_frame(name, SPRING, home=home)
    other = polars_frame(name, SPRING, home=home)

    assert isinstance(one, pd.DataFrame)
    assert isinstance(other, pl.DataFrame)
    assert len(one) == other.height > 0
    assert one.columns.tolist() == other.columns


def test_scores_are_those_of_the_last_wave_best_first(home: Path) -> None:
    """Earlier waves are in `wave_scores`."""
    scores = pandas_frame("scores", SPRING, home=home)

    assert len(scores) == 14
    assert scores["score"].is_monotonic_decreasing
    assert scores["rank"].tolist() == list(range(1, 15))
    assert scores["score"].sum() == pytest.approx(0, abs=1e-9)


def test_the_probabilities_of_an_essay_add_up_to_one(home: Path) -> None:
    """Grades with a sign in their names (`C+`) included."""
    probabilities = pandas_frame("probabilities", SPRING, home=home)

    totals = probabilities.groupby("essay_id")["probability"].sum()

    assert len(totals) == 14
    assert totals.to_numpy() == pytest.approx(1.0)


def test_grades_of_one_essay_come_lowest_first(home: Path) -> None:
    """So that a heat map has F before A without knowing the scale."""
    probabilities = pandas_frame("probabilities", SPRING, home=home)

    first = probabilities.query("essay_id == 'pupil-01'")

    assert first["grade"].tolist() == ["F", "F+", "E-", "E+", "D-", "D+", "C-", "C+", "B", "A"]


def test_a_batch_without_grades_has_an_empty_frame_of_them(home: Path) -> None:
    """Empty with its columns, so that code written for a graded batch still runs."""
    grades = pandas_frame("grades", ARGUMENTS, home=home)

    assert grades.empty
    assert set(COLUMNS["grades"].split()) <= set(grades.columns)


def test_the_waves_cost_what_the_comparisons_cost(home: Path) -> None:
    """Two frames with two sums would both be doubted."""
    waves = pandas_frame("waves", SPRING, home=home)
    comparisons = pandas_frame("comparisons", SPRING, home=home)

    assert waves["cost_usd"].sum() == pytest.approx(comparisons["cost_usd"].sum())


def test_times_carry_their_zone(home: Path) -> None:
    """A time without one is read as local by somebody."""
    started = pandas_frame("comparisons", SPRING, home=home)["started_at"]

    assert str(started.dt.tz) == "UTC"


def test_an_unknown_batch_is_answered_with_those_there_are(home: Path) -> None:
    """The name is usually only misspelt."""
    with pytest.raises(UnknownBatchError, match=r"'spring-8'.*arguments, broken, spring-9"):
        arrow_table("scores", "spring-8", home=home)


def test_a_mistyped_frame_is_answered_with_the_one_meant(home: Path) -> None:
    """Rather than with a KeyError."""
    with pytest.raises(SettingsError, match="no frame 'score'; did you mean 'scores'"):
        pandas_frame("score", SPRING, home=home)  # type: ignore[arg-type]


def test_nothing_published_yet_is_said(tmp_path: Path) -> None:
    """The wrong folder is the commonest mistake."""
    with pytest.raises(StoreError, match="Nothing is published"):
        arrow_table("scores", SPRING, home=tmp_path)


def test_every_frame_can_be_taken_away_as_parquet(home: Path, tmp_path: Path) -> None:
    """For whoever has neither Python nor our store."""
    written = export_parquet(SPRING, tmp_path / "out", home=home)

    assert [path.stem for path in written] == list(FRAME_NAMES)
    assert pl.read_parquet(written[0]).height == 14


def test_frames_are_at_hand_without_knowing_where_they_live(home: Path) -> None:
    """`import cj_pipeline` is all a notebook begins with."""
    import cj_pipeline

    scores = cj_pipeline.pandas_frame("scores", SPRING, home=home)

    assert scores.equals(pandas_frame("scores", SPRING, home=home))
    assert cj_pipeline.polars_frame("scores", SPRING, home=home).height == len(scores)
