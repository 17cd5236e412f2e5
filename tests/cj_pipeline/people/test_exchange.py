"""Verdicts made elsewhere: what comes in, what is refused, and what is taken back."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from cj_pipeline.errors import SettingsError
from cj_pipeline.people.exchange import (
    exported_verdicts,
    import_verdicts,
    imports,
    withdraw_verdicts,
    write_verdicts,
)
from cj_pipeline.runtime import Runtime
from tests.support.batches import ManualClock, begin, open_engine, run_to_end
from tests.support.people import graded_folder

HEADER = "essay_a,essay_b,winner,judge,decided_at\n"
TWO = (
    HEADER
    + "student-001,student-002,student-002,Ms Miller,2026-01-04T10:00:00+01:00\n"
    + "student-003,student-001,tie,Ms Miller,2026-01-04T10:01:00+01:00\n"
)


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Runtime, str]:
    """A runtime with one graded batch."""
    tmp_path = tmp_path_factory.mktemp("graded")
    clock = ManualClock()
    runtime = open_engine(tmp_path / "home", clock=clock)
    batch_id = run_to_end(runtime, graded_folder(tmp_path / "graded"))
    clock.sleep(3600)
    return runtime, batch_id


def _file(folder: Path, text: str, name: str = "elsewhere.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def _counted(runtime: Runtime, batch_id: str) -> int:
    with runtime.store.read() as db:
        row = db.one("SELECT count(*) AS n FROM comparisons WHERE batch_id = ?", [batch_id])
    assert row is not None
    return int(row["n"])


def test_imported_verdicts_move_scores_in_a_new_grading_and_go_when_taken_back(
    graded: tuple[Runtime, str], tmp_path: Path
) -> None:
    """They are in the same model; nothing that was graded before is overwritten."""
    runtime, batch_id = graded
    runtime.clock.sleep(60)  # type: ignore[attr-defined]
    with runtime.store.read() as db:
        before = db.rows("FROM grade_projections WHERE batch_id = ? ORDER BY ALL", [batch_id])
        scores = db.rows("FROM essay_scores WHERE batch_id = ? ORDER BY ALL", [batch_id])

    done = import_verdicts(runtime, batch_id, _file(tmp_path, TWO))

    assert done.n_verdicts == 2
    assert done.judges == {"Ms Miller": 2}
    with runtime.store.read() as db:
        after = db.rows("FROM grade_projections WHERE batch_id = ? ORDER BY ALL", [batch_id])
        moved = db.rows("FROM essay_scores WHERE batch_id = ? ORDER BY ALL", [batch_id])
        sources = db.rows("SELECT DISTINCT source FROM v_human_verdicts")
    assert [row for row in after if row["revision"] < (done.revision or 0)] == before
    assert len(after) == len(before) + 17
    assert moved != scores
    assert sources == [{"source": "import"}]

    runtime.clock.sleep(60)  # type: ignore[attr-defined]
    assert withdraw_verdicts(runtime, batch_id, "elsewhere", by="Ms Head") == 2

    with runtime.store.read() as db:
        assert db.rows("FROM essay_scores WHERE batch_id = ? ORDER BY ALL", [batch_id]) == scores
        kept = db.rows("SELECT withdrawn_by FROM withdrawn_answers WHERE batch_id = ?", [batch_id])
        assert imports(db, batch_id) == []
    assert kept == [{"withdrawn_by": "Ms Head"}] * 2


def test_everything_wrong_is_reported_at_once_and_nothing_is_half_taken(
    graded: tuple[Runtime, str], tmp_path: Path
) -> None:
    """One round of fixing, not one per line."""
    runtime, batch_id = graded
    n_before = _counted(runtime, batch_id)
    wrong = (
        HEADER
        + "student-001,student-002,student-002,Ms Miller,\n"
        + "student-001,nobody,nobody,Ms Miller,\n"
        + "student-003,student-004,,Ms Miller,\n"
        + "student-003,student-004,student-005,Ms Miller,\n"
        + "student-002,student-001,student-001,Ms Miller,\n"
        + "student-006,student-006,tie,Ms Miller,soon\n"
    )

    with pytest.raises(SettingsError) as caught:
        import_verdicts(runtime, batch_id, _file(tmp_path, wrong))

    message = str(caught.value)
    assert "line 3: there is no essay 'nobody'" in message
    assert "line 4: winner is blank" in message
    assert "line 5: winner 'student-005' is neither student-003 nor student-004 nor tie" in message
    assert "line 6: Ms Miller judged student-002 and student-001 already in line 2" in message
    assert "line 7: decided_at: 'soon' is no time" in message
    assert "line 7: student-006 is compared with itself" in message
    assert _counted(runtime, batch_id) == n_before


def test_a_file_without_its_columns_or_with_others_is_refused(
    graded: tuple[Runtime, str], tmp_path: Path
) -> None:
    """A column left out in silence would be a verdict by nobody."""
    runtime, batch_id = graded

    with pytest.raises(SettingsError, match="no column judge") as caught:
        import_verdicts(
            runtime, batch_id, _file(tmp_path, "essay_a,essay_b,winner,grade\na,b,a,5\n")
        )

    assert "column 'grade' is not known" in str(caught.value)


def test_the_same_file_twice_changes_nothing_and_another_under_its_name_is_refused(
    graded: tuple[Runtime, str], tmp_path: Path
) -> None:
    """A repeat is found, whether whole or in part."""
    runtime, batch_id = graded
    file = _file(tmp_path, TWO, "term.csv")
    runtime.clock.sleep(60)  # type: ignore[attr-defined]
    assert import_verdicts(runtime, batch_id, file).is_new
    n = _counted(runtime, batch_id)

    assert not import_verdicts(runtime, batch_id, file).is_new
    with pytest.raises(SettingsError, match="already in import 'term'"):
        import_verdicts(runtime, batch_id, file, name="again")
    other = HEADER + "student-005,student-006,student-006,Mr Gray,\n"
    with pytest.raises(SettingsError, match="named 'term' with other verdicts"):
        import_verdicts(runtime, batch_id, _file(tmp_path, other, "term.csv"))

    assert _counted(runtime, batch_id) == n
    runtime.clock.sleep(60)  # type: ignore[attr-defined]
    withdraw_verdicts(runtime, batch_id, "term", by="test")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_export_is_the_inverse_of_import(
    graded: tuple[Runtime, str], tmp_path: Path, ending: str
) -> None:
    """What a batch exports, another one with the same essays takes and exports alike."""
    runtime, batch_id = graded
    file = tmp_path / f"out.{ending}"
    with runtime.store.read() as db:
        rows = exported_verdicts(db, batch_id)
    write_verdicts(rows, file)
    other = open_engine(tmp_path / "other")
    begin(other, graded_folder(tmp_path / "again"))

    import_verdicts(other, "again", file)

    with other.store.read() as db:
        back = exported_verdicts(db, "again", people_only=True)
    assert len(rows) >= 100
    assert back == rows


def test_essays_are_known_by_the_names_of_their_files(
    graded: tuple[Runtime, str], tmp_path: Path
) -> None:
    """Other tools know the files, not our ids."""
    runtime, batch_id = graded
    named = HEADER + "student-007.txt,Student 008,student-007.txt,Mr Gray,\n"
    runtime.clock.sleep(60)  # type: ignore[attr-defined]

    import_verdicts(runtime, batch_id, _file(tmp_path, named, "named.csv"))

    with runtime.store.read() as db:
        row = db.one("SELECT * FROM human_answers WHERE import_name = 'named'")
    assert row is not None
    assert (row["essay_a"], row["essay_b"], row["winner"]) == ("student-007", "student-008", "A")
    runtime.clock.sleep(60)  # type: ignore[attr-defined]
    withdraw_verdicts(runtime, batch_id, "named", by="test")


def test_nothing_to_take_back_is_said(graded: tuple[Runtime, str]) -> None:
    """With the names there are."""
    runtime, batch_id = graded

    with pytest.raises(SettingsError, match="no import 'nothing' that counts; it has none"):
        withdraw_verdicts(runtime, batch_id, "nothing", by="test")


def test_a_batch_under_way_takes_verdicts_and_goes_on(tmp_path: Path) -> None:
    """Models are asked what they would have been asked; its end counts both."""
    runtime = open_engine(tmp_path / "home")
    folder = graded_folder(tmp_path / "going", all_at_once=False, max_pairwise_comparisons=40)
    batch_id = begin(runtime, folder)
    import_verdicts(runtime, batch_id, _file(tmp_path, TWO))

    run_to_end(runtime, folder)

    with runtime.store.read() as db:
        rows = db.rows(
            "SELECT j.name, count(*) AS n FROM comparisons JOIN judges j USING (batch_id, judge_id)"
            " GROUP BY ALL ORDER BY ALL"
        )
        wins = db.one(
            "SELECT sum(n_wins) AS n FROM essay_scores WHERE wave ="
            " (SELECT max(wave) FROM essay_scores)"
        )
    assert rows == [{"name": "imported", "n": 2}, {"name": "quality", "n": 40}]
    assert wins == {"n": 42.0}


def test_a_csv_with_semicolons_is_read(graded: tuple[Runtime, str], tmp_path: Path) -> None:
    """Spreadsheets in much of Europe write them."""
    runtime, batch_id = graded
    text = "essay_a;essay_b;winner;judge\nstudent-001;student-008;student-008;Mr Gray\n"
    runtime.clock.sleep(60)  # type: ignore[attr-defined]

    assert import_verdicts(runtime, batch_id, _file(tmp_path, text, "semi.csv")).n_verdicts == 1

    runtime.clock.sleep(60)  # type: ignore[attr-defined]
    withdraw_verdicts(runtime, batch_id, "semi", by="test")


def test_what_is_written_is_a_table_people_can_open(
    graded: tuple[Runtime, str], tmp_path: Path
) -> None:
    """The order shown is the order of the columns."""
    runtime, batch_id = graded
    with runtime.store.read() as db:
        rows = exported_verdicts(db, batch_id)
    write_verdicts(rows, tmp_path / "out.csv")

    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        written = list(csv.DictReader(file))

    assert [row["essay_a"] for row in written] == [row["essay_a"] for row in rows]
    assert {row["judge"] for row in written} == {"quality"}
