"""Grading again: what changes, what stays, and what is refused."""

from __future__ import annotations

import pytest

from cj_pipeline.errors import SettingsError
from cj_pipeline.operations.regrade import regrade
from cj_pipeline.runtime import Runtime
from tests.support.batches import open_engine, run_to_end, write_batch


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Runtime, str]:
    """An engine with one graded batch."""
    tmp_path = tmp_path_factory.mktemp("graded")
    runtime = open_engine(tmp_path / "home")
    qualities = {f"student-{n:03d}": n / 2 for n in range(1, 5)}
    qualities |= {f"anchor-{n:03d}": n / 2 - 2 for n in range(1, 10)}
    folder = write_batch(
        tmp_path / "graded",
        n_students=4,
        n_anchors=9,
        settings={
            "judges": ["quality"],
            "scale": "eng5_np_national_9_step",
            "all_at_once": True,
            "max_pairwise_comparisons": 78,
            "emulator_qualities": qualities,
        },
    )
    return runtime, run_to_end(runtime, folder)


def test_an_anchor_put_right_makes_a_new_revision_and_buys_nothing(
    graded: tuple[Runtime, str],
) -> None:
    """The earlier grading stays, with the anchors' grades it went by."""
    runtime, batch_id = graded
    with runtime.store.read() as db:
        before = db.rows("SELECT * FROM ledger ORDER BY ALL")
        first = db.rows("SELECT * FROM grade_projections WHERE revision = 1 ORDER BY ALL")

    projected = regrade(runtime, batch_id, anchor_grades={"anchor-009": "8"})

    with runtime.store.read() as db:
        reports = db.rows("SELECT revision, anchor_grades FROM grading_reports ORDER BY revision")
        assert db.rows("SELECT * FROM ledger ORDER BY ALL") == before
        assert db.rows("SELECT * FROM grade_projections WHERE revision = 1 ORDER BY ALL") == first
    assert projected.revision == reports[-1]["revision"]
    assert reports[0]["anchor_grades"]["anchor-009"] == "9"
    assert reports[-1]["anchor_grades"]["anchor-009"] == "8"


def test_everything_that_cannot_be_is_told_at_once(graded: tuple[Runtime, str]) -> None:
    """A student is no anchor, and a grade must be on the scale."""
    runtime, batch_id = graded

    with pytest.raises(SettingsError) as told:
        regrade(runtime, batch_id, anchor_grades={"student-001": "5", "anchor-001": "Z"})

    assert "student-001" in str(told.value)
    assert "'Z'" in str(told.value)


def test_another_scale_needs_anchors_that_are_on_it(graded: tuple[Runtime, str]) -> None:
    """Nine steps say nothing of B2."""
    runtime, batch_id = graded

    with pytest.raises(SettingsError, match="cefr does not know"):
        regrade(runtime, batch_id, scale="cefr")


def test_a_threshold_changed_afterwards_is_kept_with_the_grading(
    graded: tuple[Runtime, str],
) -> None:
    """By another threshold there may be no grades; the setting says who gave it."""
    runtime, batch_id = graded

    strict = regrade(runtime, batch_id, settings={"min_anchor_grades": 10})
    usual = regrade(runtime, batch_id, settings={"min_anchor_grades": 2})

    assert (strict.is_graded, usual.is_graded) == (False, True)
    with runtime.store.read() as db:
        terms = db.rows(
            "SELECT revision, CAST(terms->>'min_grades' AS INTEGER) AS least FROM grading_reports"
            " WHERE revision >= ? ORDER BY revision",
            [strict.revision],
        )
        origin = db.one("SELECT settings_origins->>'min_anchor_grades' AS said FROM batches")
    assert [row["least"] for row in terms] == [10, 2]
    assert origin == {"said": "explicit"}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"max_pairwise_comparisons": 9}, "nothing that grades are made by"),
        ({"max_extrapolated_share": 3}, "less than or equal to 1"),
        ({"use_priors": True}, "no published shares"),
        ({"link_to": ["nowhere"]}, "nowhere"),
    ],
)
def test_a_setting_that_cannot_be_is_told_and_nothing_changes(
    graded: tuple[Runtime, str], settings: dict[str, object], told: str
) -> None:
    """With what is wrong, and what there is instead."""
    runtime, batch_id = graded
    with runtime.store.read() as db:
        before = db.one("SELECT settings, settings_origins FROM batches")

    with pytest.raises(SettingsError, match=told):
        regrade(runtime, batch_id, settings=settings)

    with runtime.store.read() as db:
        assert db.one("SELECT settings, settings_origins FROM batches") == before
