"""Grading again: what changes, what stays, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cj_pipeline.errors import BatchProblemsError, SettingsError
from cj_pipeline.operations.regrade import link, regrade, what_changed
from cj_pipeline.outputs.report import render_report
from cj_pipeline.outputs.verification import verify
from cj_pipeline.queries.history import BatchHistory, read_history
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.publish import publish_artefact
from tests.support.batches import open_engine, run_to_end, write_batch
from tests.support.finished_batches import ARGUMENTS, arguments_rows, insert_all, spring_rows


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


def test_a_grading_says_whose_grade_it_changed_and_by_what(graded: tuple[Runtime, str]) -> None:
    """A teacher who puts an anchor right wants to know whom that touches."""
    runtime, batch_id = graded

    projected = regrade(runtime, batch_id, anchor_grades={"anchor-001": "2", "anchor-002": "1"})

    with runtime.store.read() as db:
        found = what_changed(db, batch_id, projected.revision)
        other = {
            row["essay_id"]
            for row in db.rows(
                "SELECT essay_id FROM grade_projections WHERE NOT is_anchor AND revision >= ?"
                " GROUP BY essay_id HAVING count(DISTINCT coalesce(fine_grade, grade)) > 1",
                [projected.revision - 1],
            )
        }
    assert found.reasons == ("anchor anchor-001: 1 -> 2", "anchor anchor-002: 2 -> 1")
    assert {each.essay_id for each in found.changes} == other
    assert found.n_students == 4
    regrade(runtime, batch_id, anchor_grades={"anchor-001": "1", "anchor-002": "2"})


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


def test_another_scale_for_scores_takes_the_place_of_the_one_before(
    graded: tuple[Runtime, str],
) -> None:
    """A range that is replaced by a mean and a spread leaves no end of it behind."""
    runtime, batch_id = graded

    regrade(runtime, batch_id, settings={"scaled_scores": {"low": 0, "high": 100}})
    with runtime.store.read() as db:
        ranged = db.rows("SELECT scaled_score FROM v_scaled_scores ORDER BY ALL")
    regrade(runtime, batch_id, settings={"scaled_scores": {"mean": 500, "spread": 100}})
    with runtime.store.read() as db:
        (spread,) = db.rows(
            "SELECT avg(scaled_score) AS m FROM v_scaled_scores WHERE NOT is_anchor"
        )

    assert (ranged[0]["scaled_score"], ranged[-1]["scaled_score"]) == pytest.approx((0, 100))
    assert spread["m"] == pytest.approx(500)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"scaled_scores": {"low": 1}}, "low and high, or mean and spread"),
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


EARLIER, MIDDLE, LATER = "spring-8", "autumn-8", "spring-9"


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    """An engine with three batches that judged the same six anchors."""
    runtime = open_engine(tmp_path / "home")
    with runtime.store.write() as db:
        for batch_id in (EARLIER, MIDDLE, LATER):
            insert_all(db, spring_rows(batch_id))
        insert_all(db, arguments_rows())
    return runtime


def _history(runtime: Runtime, batch_id: str = LATER) -> BatchHistory:
    with runtime.store.read() as db:
        return read_history(db, batch_id)


def test_linked_scores_are_on_the_earlier_batchs_zero(runtime: Runtime) -> None:
    """What an anchor scores there and here is one number, up to what either tells of it."""
    link(runtime, LATER, [EARLIER])

    earlier, later = _history(runtime, EARLIER), _history(runtime)
    linked = {row["essay_id"]: row["score"] for row in later.linked_scores}
    assert {row["scale_batch_id"] for row in later.linked_scores} == {EARLIER}
    apart = [linked[anchor] - earlier.score_by_id[anchor] for anchor in later.anchor_grades]
    assert abs(sum(apart)) / len(apart) < 0.5
    assert linked.keys() == later.essay_by_id.keys()


def test_students_that_two_batches_call_alike_stay_apart(runtime: Runtime) -> None:
    """Only anchors are known again, by their texts; `pupil-01` is somebody else each year."""
    link(runtime, LATER, [EARLIER])

    shared = {row["essay_id"] for row in _history(runtime).drifts}
    assert shared == set(_history(runtime).anchor_grades)


def test_a_link_is_a_further_grading_and_keeps_the_earlier_one(runtime: Runtime) -> None:
    """With its drifts, so that both can be looked at later."""
    before = _history(runtime).projections

    projected = link(runtime, LATER, [EARLIER])
    link(runtime, LATER, [])

    with runtime.store.read() as db:
        rows = db.rows(
            "SELECT * FROM grade_projections WHERE revision = 1 AND batch_id = ?", [LATER]
        )
        drifts = db.rows("SELECT DISTINCT revision FROM anchor_drifts WHERE batch_id = ?", [LATER])
    assert projected.revision == 2
    assert {row["essay_id"]: row["grade"] for row in rows} == {
        row["essay_id"]: row["grade"] for row in before
    }
    assert [row["revision"] for row in drifts] == [2]
    assert not _history(runtime).links


def test_a_batch_linked_to_a_linked_one_is_on_the_first_ones_scale(runtime: Runtime) -> None:
    """A scale that is carried from year to year must not begin anew at each link."""
    link(runtime, MIDDLE, [EARLIER])
    link(runtime, LATER, [MIDDLE])

    links = _history(runtime).links
    assert [(row["onto_batch_id"], row["placed_batch_id"]) for row in links] == [
        (EARLIER, MIDDLE),
        (EARLIER, LATER),
    ]


@pytest.mark.parametrize(
    ("earlier", "words"),
    [
        ("nowhere", "no batch 'nowhere'"),
        (ARGUMENTS, "share 0 anchors"),
        (LATER, "linked to itself"),
    ],
)
def test_a_link_that_cannot_be_made_changes_nothing(
    runtime: Runtime, earlier: str, words: str
) -> None:
    """Neither the grades nor what the batch is said to be linked to."""
    with pytest.raises(SettingsError, match=words):
        link(runtime, LATER, [earlier])

    history = _history(runtime)
    assert history.settings["link_to"] == []
    assert history.grading is not None
    assert history.grading["revision"] == 1


def test_grading_again_says_when_its_link_is_gone(runtime: Runtime) -> None:
    """Its own anchors grade it then, and nobody can take that for the linked scale."""
    link(runtime, LATER, [EARLIER])
    with runtime.store.write() as db:
        db.execute("UPDATE batches SET state = 'cancelled' WHERE batch_id = ?", [EARLIER])

    projected = regrade(runtime, LATER)

    assert projected.is_graded
    assert "On its own scale, not on an earlier one" in projected.statement
    assert not _history(runtime).links


def test_the_report_shows_every_anchors_drift(runtime: Runtime) -> None:
    """Whoever relies on last year's scale has to see what it hangs on."""
    link(runtime, LATER, [EARLIER])

    with runtime.store.read() as db:
        page = render_report(db, LATER)

    assert f"On the scale of {EARLIER}" in page
    assert "How far each shared anchor moved" in page


def test_a_linked_artefact_is_worked_out_anew_with_its_chain(runtime: Runtime) -> None:
    """By the store, or by the earlier batch's artefact; without either it is said."""
    link(runtime, LATER, [EARLIER])

    path = publish_artefact(runtime, LATER).path

    alone = verify(path)
    assert alone.differences == ()
    assert any(EARLIER in note for note in alone.notes)
    with runtime.store.read() as db:
        assert verify(path, db=db).differences == ()

    earlier = publish_artefact(runtime, EARLIER).path
    beside = verify(path, earlier=[earlier])
    assert beside.differences == ()
    assert not any(EARLIER in note for note in beside.notes)


def test_a_batch_cannot_wait_for_one_that_is_not_there(runtime: Runtime, tmp_path: Path) -> None:
    """A typing error in batch.yaml is told before anything is spent."""
    folder = write_batch(tmp_path / "later", n_students=4, settings={"link_to": ["spring-99"]})

    with pytest.raises(BatchProblemsError, match="spring-99"):
        ingest(runtime, folder)
