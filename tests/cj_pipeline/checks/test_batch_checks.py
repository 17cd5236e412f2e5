"""Nothing leaves as a grade that a check has failed which no grade may leave without."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cj_pipeline.checks.batch_checks import check_batch, refuse_unsound_grades
from cj_pipeline.checks.standard_checks import CHECKS
from cj_pipeline.cli import app
from cj_pipeline.errors import FailedCheckError, SettingsError
from cj_pipeline.operations.regrade import regrade
from cj_pipeline.queries.history import read_history
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.project import project
from cj_pipeline.steps.publish import publish
from cj_pipeline.store.file_store import FileStore
from tests.support.batches import TEST_RUN
from tests.support.finished_batches import BROKEN, SPRING, fill

NOT_MET = 'cj_batch_reliability{estimate="empirical_bayes"} >= 0.99'


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """A runtime over three ended batches, of which `spring-9` can be graded."""
    store = FileStore.in_memory()
    with store.write() as db:
        fill(db)
        db.execute("DELETE FROM grade_projections")
        db.execute("DELETE FROM grade_boundaries")
        db.execute("DELETE FROM grading_reports")
        db.execute("UPDATE attempts SET outcome = 'succeeded' WHERE outcome IS NULL")
    return Runtime(store, tmp_path, {}, TEST_RUN)


def asserts(*lines: str) -> Callable[[Runtime], None]:
    """Return what has `spring-9` assert something of its own."""

    def change(runtime: Runtime) -> None:
        settings = {"assertions": [_parts(line) for line in lines]}
        with runtime.store.write() as db:
            db.execute(
                "UPDATE batches SET settings = json_merge_patch(settings, ?) WHERE batch_id = ?",
                [json.dumps(settings), SPRING],
            )

    return change


def _parts(line: str) -> dict[str, object]:
    from cj_pipeline.metrics.assertions import OwnAssertion

    return OwnAssertion.read(line).model_dump(mode="json")


def sql(statement: str) -> Callable[[Runtime], None]:
    """Return what changes rows behind everybody's back."""

    def change(runtime: Runtime) -> None:
        with runtime.store.write() as db:
            db.execute(statement)

    return change


def grades(runtime: Runtime) -> int:
    """Return how many grades there are in the store."""
    with runtime.store.read() as db:
        row = db.one("SELECT count(*) AS n FROM grade_projections")
    return row["n"] if row else 0


def test_a_sound_batch_is_graded(runtime: Runtime) -> None:
    """The checks below would mean nothing if it were not."""
    assert project(runtime, SPRING).is_graded
    assert grades(runtime) == 14


@pytest.mark.parametrize(
    ("fault", "claim"),
    [
        (
            sql("UPDATE comparison_pairs SET essay_b = essay_a WHERE sequence = 1"),
            "pairs_are_sound",
        ),
        (
            sql(
                "UPDATE batches SET settings ="
                """ json_merge_patch(settings, '{"max_pairwise_comparisons": 9}')"""
            ),
            "budget_is_kept",
        ),
        (
            sql(
                "UPDATE batches SET settings ="
                """ json_merge_patch(settings, '{"spend_cap_usd": 0.01}')"""
            ),
            "spend_is_within_cap",
        ),
        (
            sql(
                "DELETE FROM attempts WHERE comparison_id IN"
                " (SELECT comparison_id FROM comparisons WHERE sequence = 2)"
            ),
            "requests_are_recorded",
        ),
        (sql("UPDATE batches SET metadata = '{}'"), "mode_is_recorded"),
        (sql("UPDATE provider_jobs SET n_requests = n_requests + 1"), "rows_add_up"),
        (sql("UPDATE essay_scores SET standard_error = 0"), "scores_are_sound"),
        (
            sql("UPDATE wave_decisions SET completion_denominator = 5"),
            "callbacks_are_within_denominator",
        ),
        (
            sql("UPDATE comparisons SET status = 'failed' WHERE sequence < 40"),
            "success_is_earned",
        ),
        (asserts(NOT_MET), "cj_batch_reliability"),
    ],
)
def test_no_grade_leaves_past_a_failed_check(
    runtime: Runtime, fault: Callable[[Runtime], None], claim: str
) -> None:
    """The statement says what failed; scores and report leave without grades."""
    fault(runtime)

    projected = project(runtime, SPRING)

    assert not projected.is_graded
    assert claim in projected.statement
    assert grades(runtime) == 0


@pytest.mark.parametrize(
    "spoil",
    [
        lambda row: row | {"probabilities": {"A": 0.4, "B": 0.4}},
        lambda row: row | {"probabilities": {"A": 1.4, "B": -0.4}},
    ],
)
def test_unsound_grades_are_not_kept(runtime: Runtime, spoil) -> None:
    """The grades themselves are checked before they are written, not after."""
    project(runtime, SPRING)
    with runtime.store.read() as db:
        history = read_history(db, SPRING)

    refuse_unsound_grades(history)
    with pytest.raises(FailedCheckError, match="probabilities_are_real"):
        refuse_unsound_grades(
            replace(history, projections=tuple(spoil(dict(r)) for r in history.projections))
        )


def test_a_fault_in_grading_leaves_the_store_as_it_was(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Grades that are refused are in no table, no view and no published copy."""
    # The package has a function of the module's name.
    module = sys.modules[project.__module__]
    rows = module.grading_rows

    def without_one(*args):
        tables = rows(*args)
        return tables | {"grade_projections": tables["grade_projections"][1:]}

    monkeypatch.setattr(module, "grading_rows", without_one)

    with pytest.raises(FailedCheckError, match="every_essay_is_graded_or_none"):
        project(runtime, SPRING)

    with runtime.store.read() as db:
        assert db.rows("SELECT * FROM grading_reports") == []
    assert grades(runtime) == 0


def test_an_assertion_that_only_warns_lets_grades_leave(runtime: Runtime) -> None:
    """A person should look; nobody has to wait for that."""
    asserts(NOT_MET)(runtime)
    with runtime.store.write() as db:
        db.execute("UPDATE batches SET settings = replace(settings::VARCHAR, 'error', 'warning')")

    assert project(runtime, SPRING).is_graded


def test_a_person_may_waive_an_assertion_and_the_grading_says_so(runtime: Runtime) -> None:
    """Their own words, given again; what holds of every batch cannot be waived."""
    asserts(NOT_MET)(runtime)
    project(runtime, SPRING)

    with pytest.raises(SettingsError, match="not one of its own assertions"):
        regrade(runtime, SPRING, despite=["rows_add_up"])
    projected = regrade(runtime, SPRING, despite=[NOT_MET])

    assert projected.is_graded
    assert projected.revision == 2
    assert NOT_MET in projected.statement


def test_a_batch_without_grades_is_published_with_the_reason(runtime: Runtime) -> None:
    """Whoever has to decide what to do needs the report."""
    asserts(NOT_MET)(runtime)
    project(runtime, SPRING)

    published = publish(runtime, SPRING)

    document = json.loads(published.artefact.path.read_text())
    assert document["grade_projections"] == []
    assert NOT_MET in document["grading"]["statement"]
    assert "cj_batch_reliability" in published.report.path.read_text()


def test_every_claim_is_found_with_its_figures(runtime: Runtime) -> None:
    """What Dagster checks one by one, `cj assert` tells at once, the batch's own among them."""
    asserts(NOT_MET, "cj_batch_waves == 3")(runtime)

    with runtime.store.read() as db:
        checked = check_batch(db, SPRING, runtime.clock())
        broken = check_batch(db, BROKEN, runtime.clock())

    by_name = {each.name: each for each in checked}
    assert len(checked) == sum(map(len, CHECKS.values())) + 2
    assert by_name["cj_batch_waves == 3"].finding.holds
    assert not by_name[NOT_MET].finding.holds
    assert not {each.name: each for each in broken}["batch_goes_well"].finding.holds


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with the three batches."""
    store = FileStore(tmp_path)
    with store.write() as db:
        fill(db)
    monkeypatch.setenv("CJ_HOME", str(tmp_path))
    return tmp_path


def test_the_command_tells_each_figure_and_fails_with_what_fails(home: Path) -> None:
    """For scripts and nightly trials."""
    cj = CliRunner()

    holds = cj.invoke(app, ["assert", SPRING, "cj_batch_waves == 3"])
    fails = cj.invoke(app, ["assert", SPRING, "cj_batch_waves == 3", "cj_batch_waves > 3"])
    unread = cj.invoke(app, ["assert", SPRING, "cj_batch_wave > 3", "cj_batch_waves => 3"])
    unknown = cj.invoke(app, ["assert", "summer", "cj_batch_waves > 3"])

    assert (holds.exit_code, fails.exit_code) == (0, 1)
    assert "it is 3" in holds.output
    assert "FAILS" in fails.output
    assert unread.exit_code == 1
    assert "cj_batch_waves" in unread.output
    assert "is no assertion" in unread.output
    assert unknown.exit_code == 1


def test_the_command_alone_tells_every_claim(home: Path) -> None:
    """Warnings are told and do not fail it."""
    asserted = CliRunner().invoke(app, ["assert", SPRING])

    assert asserted.exit_code == 0
    assert "rows_add_up" in asserted.output
    assert "warns" in asserted.output
