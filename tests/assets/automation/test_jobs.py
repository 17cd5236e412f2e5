"""Batches taken through the real jobs, in a real instance, with the emulator as provider."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from assets.automation.in_process import QUIET, run_batch
from assets.automation.jobs import ALL_JOBS
from assets.automation.partitions import BATCHES
from assets.grade_projections import GradingRequest
from cj_pipeline.definitions import defs
from cj_pipeline.errors import BatchProblemsError
from cj_pipeline.operations.regrade import GRADED_BY
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.ingest import ingest
from resources.code_location import LOCATION
from resources.runtime_resource import RuntimeResource
from tests.support.batches import open_engine, run_to_end, write_batch

SERVICE = "https://essays.example.org"


@dataclass(frozen=True)
class Ended:
    """A batch that came to its end: where, and by which runs."""

    instance: dg.DagsterInstance
    runtime: Runtime
    folder: Path
    jobs: tuple[str, ...]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ended]:
    """One batch for all tests that only look at how it ended."""
    folder = batch_folder(tmp_path_factory.mktemp("ended"), judges=["quality"])
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        patch.setenv("CJ_HOME", str(folder.parent / "home"))
        patch.delenv("CJ_EMULATOR_URL", raising=False)
        patch.setenv("CJ_PUBLIC_URL", f"{SERVICE}/")
        runtime = RuntimeResource().open()
        jobs = job_names(instance, runtime, folder)
        yield Ended(instance, runtime, folder, tuple(jobs))


def batch_folder(tmp_path: Path, **settings: object) -> Path:
    """Return a folder of four students and no anchors."""
    mock = {"judges": ["cj-generic-batch"], "wave_size": 3, "max_pairwise_comparisons": 6}
    folder = write_batch(tmp_path / "spring-9", n_students=4, settings=mock | settings)
    text = next(iter(sorted((folder / "essays").iterdir())))
    page = f"<table><td>{html.escape(text.read_text())}</table>"
    text.rename(text.with_suffix(".html")).write_text(page)
    return folder


def job_names(
    instance: dg.DagsterInstance, runtime: Runtime, folder: Path, name: str = "spring-9"
) -> list[str]:
    """Take a batch to its end and return the jobs that were run."""
    return [run.job for run in run_batch(instance, defs, runtime, name, folder, pause_s=0.05)]


def latest(instance: dg.DagsterInstance, asset: str) -> dg.AssetMaterialization:
    """Return an asset's latest materialization."""
    event = instance.get_latest_materialization_event(dg.AssetKey(asset))
    assert event is not None
    assert event.asset_materialization is not None
    return event.asset_materialization


def test_a_batch_goes_from_folder_to_report_in_waves(ended: Ended) -> None:
    """One run opens it, and one a wave brings that home, decides and asks for the next."""
    assert ended.jobs == ("open_batch", "collect_wave", "collect_wave")
    with ended.runtime.store.read() as db:
        row = db.one("SELECT state, end_reason FROM batches")
    assert row == {"state": "succeeded", "end_reason": "budget_spent"}


def test_the_assets_give_the_rows_that_the_steps_give(ended: Ended, tmp_path: Path) -> None:
    """Two faces, one engine."""
    by_steps = open_engine(tmp_path / "other-home")
    run_to_end(by_steps, ended.folder)

    query = (
        "SELECT comparison_id, essay_a, essay_b, winner, custom_id, cost_usd FROM comparisons"
        " ORDER BY sequence"
    )
    with ended.runtime.store.read() as db, by_steps.store.read() as other:
        assert db.rows(query) == other.rows(query)


def test_grades_wait_for_the_end(
    instance: dg.DagsterInstance, runtime: Runtime, tmp_path: Path
) -> None:
    """What is shown after a first wave would change with the second."""
    runs = run_batch(instance, defs, runtime, "spring-9", batch_folder(tmp_path), pause_s=0.05)
    assert [next(runs).job, next(runs).job] == ["open_batch", "collect_wave"]

    assert instance.get_latest_materialization_event(dg.AssetKey("wave_decision")) is not None
    assert instance.get_latest_materialization_event(dg.AssetKey("grade_projections")) is None
    assert instance.get_latest_materialization_event(dg.AssetKey("batch_report")) is None


def test_every_asset_is_materialized_for_the_batchs_partition(ended: Ended) -> None:
    """The partition's row in the UI is complete; only a trial has an outcome beside it."""
    graph = defs.resolve_asset_graph()
    keys = graph.get_all_asset_keys() - graph.external_asset_keys

    partitions = {key: ended.instance.get_materialized_partitions(key) for key in keys}

    assert partitions.pop(dg.AssetKey("trial_outcome")) == set()
    assert len(partitions) == 10
    assert set(map(frozenset, partitions.values())) == {frozenset({"spring-9"})}


def test_pages_show_counts_cost_tables_and_links(ended: Ended) -> None:
    """What a person wants to see is on the page, not in a log."""
    scores = latest(ended.instance, "essay_scores").metadata
    graded = latest(ended.instance, "grade_projections").metadata
    comparisons = latest(ended.instance, "comparisons").metadata
    files = latest(ended.instance, "essays").metadata["files"]

    assert isinstance(files, dg.TableMetadataValue)
    assert "1 table taken as lines of text" in [file.data["left_out"] for file in files.records]
    assert graded["report_page"].value == f"{SERVICE}/api/v1/batches/spring-9/report"
    assert graded["live_page"].value == f"{SERVICE}/batches/spring-9"
    assert isinstance(scores["ranking"], dg.TableMetadataValue)
    assert len(scores["ranking"].records) == 4
    assert comparisons["n_verdicts"].value == 6
    assert isinstance(comparisons["cost_usd_so_far"].value, float)
    schema = comparisons["dagster/column_schema"].value
    assert isinstance(schema, dg.TableSchema)
    assert "justification" in [column.name for column in schema.columns]


def test_what_is_kept_of_a_run_holds_no_pictures(ended: Ended) -> None:
    """Dagster keeps metadata several times over: plots are in the report."""
    for run in ended.instance.get_runs():
        for entry in ended.instance.all_logs(run.run_id):
            assert "base64," not in dg.serialize_value(entry)


def test_runs_are_those_of_the_location(ended: Ended) -> None:
    """Else a run of the demo has no link to its job, and nobody can start it again."""
    for run in ended.instance.get_runs():
        assert run.remote_job_origin is not None
        repository = run.remote_job_origin.repository_origin
        assert repository.code_location_origin.location_name == LOCATION


def test_a_batch_that_has_ended_can_be_materialized_again_as_a_whole(
    ended: Ended, instance: dg.DagsterInstance
) -> None:
    """A person presses the button on any partition; its folder has left the inbox by then."""
    with ended.runtime.store.read() as db:
        before = db.rows("SELECT * FROM provider_jobs ORDER BY submission_key")

    instance.add_dynamic_partitions(BATCHES, ["spring-9"])
    again = defs.resolve_implicit_global_asset_job_def().execute_in_process(
        run_config=QUIET, instance=instance, partition_key="spring-9"
    )

    assert again.success
    with ended.runtime.store.read() as db:
        assert db.rows("SELECT * FROM provider_jobs ORDER BY submission_key") == before


def test_a_folder_that_has_left_the_inbox_is_no_fault_of_a_run_that_is_repeated(
    instance: dg.DagsterInstance, runtime: Runtime, tmp_path: Path
) -> None:
    """The sensor moves it once it was opened; a run that died is started again by Dagster."""
    ingest(runtime, batch_folder(tmp_path))
    instance.add_dynamic_partitions(BATCHES, ["spring-9"])
    folder = {"folder": str(runtime.inbox / "spring-9")}

    again = defs.resolve_job_def("open_batch").execute_in_process(
        run_config={**QUIET, "ops": {"essays": {"config": folder}}},
        instance=instance,
        partition_key="spring-9",
    )

    assert again.success


@pytest.mark.parametrize(
    "job", ["everything", *(job.name for job in ALL_JOBS if job.name != "open_batch")]
)
def test_a_job_on_a_rejected_batch_says_that_it_was_rejected_and_why(
    job: str, instance: dg.DagsterInstance, runtime: Runtime, tmp_path: Path
) -> None:
    """Before anything else, and with the reasons it was rejected for."""
    with pytest.raises(BatchProblemsError):
        ingest(runtime, batch_folder(tmp_path, judges=["nobody"]))
    instance.add_dynamic_partitions(BATCHES, ["spring-9"])
    definition = (
        defs.resolve_implicit_global_asset_job_def()
        if job == "everything"
        else defs.resolve_job_def(job)
    )

    result = definition.execute_in_process(
        run_config=QUIET, instance=instance, partition_key="spring-9", raise_on_error=False
    )

    # What is read first is the cause: steps that were left out for it come after.
    failure = next(
        event
        for event in result.all_events
        if event.is_failure or "Dependencies" in str(event.message)
    )
    assert failure.event_type_value == "STEP_FAILURE"
    assert failure.step_failure_data.error is not None
    assert "rejected at intake" in failure.step_failure_data.error.message
    assert "Unknown judge 'nobody'" in failure.step_failure_data.error.message
    assert not [e for e in result.all_events if e.event_type_value == "ASSET_MATERIALIZATION"]


def test_every_check_passes_on_a_sound_batch(ended: Ended) -> None:
    """All of them were evaluated for the partition, and none that blocks failed."""
    of_trials = dg.AssetKey("trial_outcome")
    checks = defs.resolve_asset_graph().asset_check_keys
    keys = [key for key in checks if key.asset_key != of_trials]

    found = ended.instance.event_log_storage.get_latest_asset_check_execution_by_key(list(keys))

    assert set(found) == set(keys)
    evaluations = [
        record.event.dagster_event.asset_check_evaluation_data
        for record in found.values()
        if record.event is not None and record.event.dagster_event is not None
    ]
    assert len(evaluations) == len(keys)
    assert {e.partition for e in evaluations} == {"spring-9"}
    assert [e.check_name for e in evaluations if not e.passed and e.blocking] == []


def test_a_batchs_own_assertions_are_checked_at_its_end(
    instance: dg.DagsterInstance, runtime: Runtime, tmp_path: Path
) -> None:
    """What fails is an error with its figure; the batch is published, and without grades."""
    folder = batch_folder(
        tmp_path,
        assertions=[
            'cj_llm_requests_total{batching_mode="provider_batch_api"} >= 1',
            "cj_batch_waves > 5",
        ],
    )

    job_names(instance, runtime, folder)

    key = dg.AssetCheckKey(dg.AssetKey("wave_decision"), "own_assertions_hold")
    events = own_checks(instance, key)
    assert [event.passed for event in events] == [True, False]
    assert "judged at the end" in (events[0].description or "")
    assert events[1].severity is dg.AssetCheckSeverity.ERROR
    assert events[1].metadata["cj_batch_waves > 5"].value == 2
    graded = latest(instance, "grade_projections").metadata
    assert graded["is_graded"].value is False
    assert "cj_batch_waves > 5" in str(graded["statement"].value)
    report = latest(instance, "batch_report").metadata
    assert report["state"].value == "succeeded"
    assert "cj_batch_waves > 5" in str(report["grading"].value)
    assert Path(str(report["artefact"].value)).exists()


def own_checks(
    instance: dg.DagsterInstance, key: dg.AssetCheckKey
) -> list[dg.AssetCheckEvaluation]:
    """Return how a check was evaluated, oldest first."""
    records = instance.event_log_storage.get_asset_check_execution_history(key, limit=10)
    return [
        record.event.dagster_event.asset_check_evaluation_data
        for record in reversed(records)
        if record.event is not None and record.event.dagster_event is not None
    ]


def test_a_failed_blocking_check_keeps_requests_from_leaving(
    instance: dg.DagsterInstance, runtime: Runtime, tmp_path: Path
) -> None:
    """More comparisons than the budget allows are planned, and not one is asked."""
    instance.add_dynamic_partitions(BATCHES, ["spring-9"])
    config = {"ops": {"essays": {"config": {"folder": str(batch_folder(tmp_path))}}}}
    planned = dg.AssetSelection.assets("essays", "comparison_pairs").without_checks()
    plan_only = dg.define_asset_job("plan_only", selection=planned)
    dg.Definitions.merge(defs, dg.Definitions(jobs=[plan_only])).resolve_job_def(
        "plan_only"
    ).execute_in_process(
        run_config={**QUIET, **config}, instance=instance, partition_key="spring-9"
    )
    with runtime.store.write() as db:
        db.execute(
            "UPDATE batches SET settings = json_merge_patch(settings, ?)",
            ['{"max_pairwise_comparisons": 1}'],
        )

    result = defs.resolve_job_def("next_wave").execute_in_process(
        run_config=QUIET, instance=instance, partition_key="spring-9", raise_on_error=False
    )

    assert not result.success
    with runtime.store.read() as db:
        assert db.rows("SELECT * FROM provider_jobs") == []


def test_a_folder_with_problems_fails_for_good_and_names_them(
    instance: dg.DagsterInstance, runtime: Runtime, tmp_path: Path
) -> None:
    """The run's page shows all of them; trying again would not help."""
    folder = batch_folder(tmp_path, judges=["nobody"], wave_sise=3)

    with pytest.raises(dg.Failure, match="wave_sise") as caught:
        job_names(instance, runtime, folder)

    assert caught.value.allow_retries is False
    with runtime.store.read() as db:
        row = db.one("SELECT state, problems FROM batches")
    assert row is not None
    assert row["state"] == "rejected"


def test_grading_again_buys_nothing(ended: Ended) -> None:
    """A further revision stands beside the first; not one comparison more is asked."""
    with ended.runtime.store.read() as db:
        before = db.rows("SELECT * FROM attempts ORDER BY custom_id")
    again = {"again": True, "scaled_scores": {"low": 0.0, "high": 100.0}}
    config = {"ops": {"grade_projections": {"config": again}}}

    defs.resolve_job_def("finish_batch").execute_in_process(
        run_config={**QUIET, **config}, instance=ended.instance, partition_key="spring-9"
    )

    with ended.runtime.store.read() as db:
        assert db.rows("SELECT * FROM attempts ORDER BY custom_id") == before
        revisions = db.rows("SELECT revision FROM grading_reports ORDER BY revision")
        scaled = db.rows("SELECT scaled_score FROM v_scaled_scores WHERE batch_id = 'spring-9'")
    assert [row["revision"] for row in revisions] == [1, 2]
    assert {0.0, 100.0} <= {round(row["scaled_score"], 6) for row in scaled}


def test_every_setting_that_grades_are_made_by_can_be_given_to_dagster() -> None:
    """By the name that it has in `batch.yaml`."""
    assert set(GRADED_BY) <= set(GradingRequest.model_fields)


def test_progress_is_told_in_the_runs_log_and_on_the_pages(ended: Ended) -> None:
    """A person who looks at a run sees the batch move, each event once."""
    lines = [
        entry.user_message
        for record in ended.instance.get_run_records()
        for entry in ended.instance.all_logs(record.dagster_run.run_id)
    ]
    with ended.runtime.store.read() as db:
        events = db.rows("SELECT sequence FROM progress_events WHERE kind <> 'opened'")

    told = sorted(int(line.split()[1][1:]) for line in lines if "  wave " in line)

    assert told == sorted(event["sequence"] for event in events)
    page = latest(ended.instance, "wave_decision").metadata
    assert (page["share_done"].value, page["outcome"].value) == (1.0, "success")
    pages = ended.instance.fetch_materializations(dg.AssetKey("provider_jobs"), limit=9).records
    last, first = (page.asset_materialization for page in pages)
    assert last is not None
    assert first is not None
    assert first.metadata["time_left"].value == "not known yet"
    assert re.match(r"\d+ \w+ \(\d+ \w+ to ", str(last.metadata["time_left"].value))


def test_a_person_may_cancel_a_batch(
    instance: dg.DagsterInstance, runtime: Runtime, tmp_path: Path
) -> None:
    """What was paid for comes home, nothing more is asked, and the reason is kept."""
    runs = run_batch(instance, defs, runtime, "spring-9", batch_folder(tmp_path), pause_s=0.05)
    assert next(runs).job == "open_batch"
    defs.resolve_job_def("cancel_batch").execute_in_process(
        run_config=QUIET, instance=instance, partition_key="spring-9"
    )

    rest = [run.job for run in runs]

    assert "next_wave" not in rest
    with runtime.store.read() as db:
        row = db.one("SELECT state, end_reason FROM batches")
    assert row == {"state": "cancelled", "end_reason": "cancelled"}
