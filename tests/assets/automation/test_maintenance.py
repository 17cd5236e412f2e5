"""The store is kept small by a job that may run every night."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest

from assets.automation import maintenance
from assets.automation.in_process import QUIET, run_batch
from assets.automation.job_states import JOB_STATES
from assets.automation.maintenance import forget_partition, nightly_upkeep, store_upkeep
from assets.automation.partitions import BATCHES
from cj_pipeline.definitions import defs
from cj_pipeline.operations.personal_data import erase
from cj_pipeline.operations.personal_data.erase import forget_batch
from cj_pipeline.runtime import Runtime
from resources.local_instance import local_instance
from resources.runtime_resource import RuntimeResource
from tests.support.batches import write_batch
from tests.support.finished_batches import ARGUMENTS, BROKEN, SPRING, fill


def _run(instance: dg.DagsterInstance, **config: object) -> dg.ExecuteInProcessResult:
    return store_upkeep.execute_in_process(
        instance=instance,
        resources={"engine": RuntimeResource()},
        run_config={"ops": {"keep_store_small": {"config": config}}},
    )


def _n_callbacks(runtime: Runtime) -> int:
    with runtime.store.read() as db:
        row = db.one("SELECT count(*) AS n FROM callbacks WHERE batch_id = ?", [SPRING])
    return int(row["n"]) if row else 0


def test_old_callbacks_move_out_and_every_run_may_be_repeated(
    instance: dg.DagsterInstance, runtime: Runtime, home: Path
) -> None:
    """What was paid for is never dropped: it is in the archive before it leaves the store."""
    with runtime.store.write() as db:
        fill(db)
    before = _n_callbacks(runtime)

    assert before > 0
    assert _run(instance, keep_in_store_days=1e5).success
    assert _n_callbacks(runtime) == before
    assert _run(instance, keep_in_store_days=0).success
    assert _run(instance, keep_in_store_days=0).success
    assert _n_callbacks(runtime) == 0
    archived = duckdb.read_parquet(str(home / "callbacks" / f"{SPRING}.parquet"))
    assert len(archived.fetchall()) == before


def test_archives_go_only_when_their_time_is_over(
    instance: dg.DagsterInstance, runtime: Runtime, home: Path
) -> None:
    """Keeping them for ever is the default; a retention has to be asked for."""
    with runtime.store.write() as db:
        fill(db)
    _run(instance, keep_in_store_days=0, backup_folder=str(home / "backups"))
    archive = home / "callbacks" / f"{SPRING}.parquet"

    _run(instance, keep_archives_days=1)
    assert archive.exists()
    _run(instance, keep_archives_days=0)
    assert not archive.exists()
    assert list((home / "backups").glob("cj-*.duckdb"))


def test_what_is_due_goes_and_what_was_begun_is_finished(
    instance: dg.DagsterInstance,
    runtime: Runtime,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody has to remember: the day a batch names, and a command that died, are enough."""
    with runtime.store.write() as db:
        fill(db)
        db.execute(
            'UPDATE batches SET settings = json_merge_patch(settings, \'{"retention": '
            '"2020-01-01"}\') WHERE batch_id = ?',
            [ARGUMENTS],
        )
    instance.add_dynamic_partitions(BATCHES, [SPRING, ARGUMENTS, BROKEN])

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(erase, "erase_rows", die)
        with pytest.raises(KeyboardInterrupt):
            forget_batch(runtime.store, SPRING, now=runtime.clock())

    assert _run(instance).success

    with runtime.store.read() as db:
        assert db.rows("SELECT batch_id FROM batches") == [{"batch_id": BROKEN}]
    assert instance.get_dynamic_partitions(BATCHES) == [BROKEN]


def test_a_batch_that_names_no_day_is_kept_as_long_as_the_installation_says(
    instance: dg.DagsterInstance, runtime: Runtime, home: Path
) -> None:
    """The batches of the tests ended in the spring of 2026, and are years old by this clock."""
    with runtime.store.write() as db:
        fill(db)
        db.execute("UPDATE batches SET ended_at = ended_at - INTERVAL 1000 DAY")
    assert _run(instance).success
    with runtime.store.read() as db:
        assert db.one("SELECT count(*) AS n FROM batches") == {"n": 3}

    (home / "installation.yaml").write_text("retention_days: 900\n")

    assert _run(instance).success
    with runtime.store.read() as db:
        assert db.one("SELECT count(*) AS n FROM batches") == {"n": 0}


def test_upkeep_is_on_unless_somebody_turns_it_off() -> None:
    """A day that nobody keeps is no retention."""
    assert nightly_upkeep.default_status is dg.DefaultScheduleStatus.RUNNING


SETTINGS = {
    "judges": ["quality"],
    "scale": "eng5_np_national_9_step",
    "wave_size": 10,
    "max_pairwise_comparisons": 30,
    "score_stability_threshold": None,
}
BATCH = "spring-9"


@pytest.fixture
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    """The instance that `cj ui` serves, with its files."""
    with local_instance(home) as instance:
        yield instance


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A batch of three waves."""
    return write_batch(tmp_path / BATCH, n_students=4, n_anchors=4, settings=SETTINGS)


def keep_small(instance: dg.DagsterInstance, days: float | None) -> None:
    """Run the upkeep as its schedule would."""
    config = {} if days is None else {"keep_runs_days": days}
    ops = {"keep_history_small": {"config": config}}
    store_upkeep.execute_in_process(
        instance=instance, resources={"engine": RuntimeResource()}, run_config={"ops": ops}
    )


def runs_of(instance: dg.DagsterInstance) -> list[str]:
    """Return the batch's runs, by their ids."""
    filters = dg.RunsFilter(tags={"dagster/partition": BATCH})
    return sorted(run.run_id for run in instance.get_runs(filters))


def shown(instance: dg.DagsterInstance) -> dict[str, Any]:
    """Return what pages show: which partitions are made, and the newest of each asset and check."""
    graph = defs.resolve_asset_graph()
    found: dict[str, Any] = {}
    for key in graph.get_all_asset_keys():
        found[f"{key} partitions"] = instance.get_materialized_partitions(key)
        newest = instance.get_latest_materialization_event(key)
        if newest is not None and newest.asset_materialization is not None:
            found[f"{key} newest"] = (newest.timestamp, newest.asset_materialization.metadata)
        planned = instance.get_latest_planned_materialization_info(key, BATCH)
        found[f"{key} planned"] = planned and planned.run_id
    for check in graph.asset_check_keys:
        record = instance.get_latest_asset_check_evaluation_record(check)
        found[str(check)] = record and (record.run_id, record.status)
    return found


@pytest.mark.slow
def test_runs_that_newer_ones_replaced_go_and_pages_show_the_same(
    instance: dg.DagsterInstance, runtime: Runtime, home: Path, folder: Path
) -> None:
    """Of three waves, the last says all that the pages say."""
    made = [run.run_id for run in run_batch(instance, defs, runtime, BATCH, folder, pause_s=0.05)]
    before = shown(instance)
    assert runs_of(instance) == sorted(made)

    keep_small(instance, days=0)

    left = runs_of(instance)
    assert len(left) < len(made)
    assert {made[0], made[-1]} <= set(left)
    assert shown(instance) == before
    gone = set(made) - set(left)
    files = [path.name for path in (home / "dagster").rglob("*")]
    assert not [name for name in files if any(run_id in name for run_id in gone)]

    keep_small(instance, days=0)
    assert runs_of(instance) == left
    again = defs.resolve_job_def("regrade_batch").execute_in_process(
        run_config=QUIET, instance=instance, partition_key=BATCH
    )
    assert again.success


@pytest.mark.slow
def test_runs_are_kept_while_they_are_young(
    instance: dg.DagsterInstance, runtime: Runtime, folder: Path
) -> None:
    """Ninety days where nobody says otherwise."""
    list(run_batch(instance, defs, runtime, BATCH, folder, pause_s=0.05))
    made = runs_of(instance)

    keep_small(instance, days=None)
    keep_small(instance, days=1)

    assert runs_of(instance) == made


def test_the_schedule_goes_by_the_environment(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts the job without config; the job's own config wins, and nonsense is named."""
    for _ in range(2):
        keep_small(instance, days=None)
    assert instance.get_runs_count() == 2

    monkeypatch.setenv("CJ_KEEP_RUNS_DAYS", "0")
    keep_small(instance, days=10)
    assert instance.get_runs_count() == 3
    keep_small(instance, days=None)
    assert instance.get_runs_count() == 1

    for nonsense in ("a month", "-1", "nan"):
        monkeypatch.setenv("CJ_KEEP_RUNS_DAYS", nonsense)
        with pytest.raises(dg.Failure, match="CJ_KEEP_RUNS_DAYS"):
            keep_small(instance, days=None)


@pytest.mark.slow
def test_no_run_of_a_batch_that_goes_on_is_deleted(
    instance: dg.DagsterInstance, runtime: Runtime, folder: Path
) -> None:
    """How often a step has been tried is told by its runs."""
    runs = run_batch(instance, defs, runtime, BATCH, folder, pause_s=0.05)
    made = [next(runs).run_id for _ in range(3)]  # the third wave is asked

    keep_small(instance, days=0)

    assert runs_of(instance) == sorted(made)


def test_the_last_failure_of_a_rejected_batch_stays(
    instance: dg.DagsterInstance, runtime: Runtime, folder: Path
) -> None:
    """Its partition is red, and the run says why; the tries before it say nothing more."""
    (folder / "batch.yaml").write_text("judges: [nobody]\n")
    made = []
    for _ in range(3):
        with pytest.raises(dg.Failure):
            made += [run.run_id for run in run_batch(instance, defs, runtime, BATCH, folder)]

    newest_first = [run.run_id for run in instance.get_runs()]
    keep_small(instance, days=0)

    assert runs_of(instance) == newest_first[:1]


@pytest.mark.parametrize(("days", "n_left"), [(0, 0), (1, 1)])
def test_observations_go_when_runs_of_their_age_do(
    instance: dg.DagsterInstance, runtime: Runtime, days: float, n_left: int
) -> None:
    """No run has them, so no run takes them along; every job leaves half a dozen."""
    with runtime.store.read():
        pass
    instance.report_runless_asset_event(dg.AssetObservation(JOB_STATES, partition=BATCH))

    keep_small(instance, days=days)

    assert len(instance.fetch_observations(JOB_STATES, limit=9).records) == n_left


def test_partitions_of_rejected_and_forgotten_batches_go_with_their_history(
    instance: dg.DagsterInstance, runtime: Runtime, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a day; a batch in the store keeps its own, and one that somebody just added stays."""
    (folder / "batch.yaml").write_text("judges: [nobody]\n")
    instance.add_dynamic_partitions("batches", [BATCH, "forgotten", "new"])
    for name in (BATCH, "forgotten"):
        defs.resolve_job_def("open_batch").execute_in_process(
            run_config={**QUIET, "ops": {"essays": {"config": {"folder": str(folder)}}}},
            instance=instance,
            partition_key=name,
            raise_on_error=False,
        )
    with runtime.store.write() as db:
        db.execute("DELETE FROM batches WHERE batch_id = 'forgotten'")

    keep_small(instance, days=None)
    assert set(instance.get_dynamic_partitions("batches")) == {BATCH, "forgotten", "new"}
    monkeypatch.setattr(maintenance, "GONE_AFTER", timedelta(0))
    keep_small(instance, days=None)

    assert instance.get_dynamic_partitions("batches") == ["new"]
    assert runs_of(instance) == []


@pytest.mark.slow
def test_dagster_keeps_nothing_of_a_batch_that_was_forgotten(
    home: Path, runtime: Runtime, tmp_path: Path
) -> None:
    """No event, no result of a check and no newest event of an asset; another batch's stay."""
    settings = {"judges": ["quality"], "max_resampling_passes_for_small_net": 0}
    with local_instance(home) as instance:
        for name in ("other-9", BATCH):
            folder = write_batch(tmp_path / name, n_students=3, settings=settings)
            for _ in run_batch(instance, defs, runtime, name, folder, pause_s=0.1):
                pass
            instance.report_runless_asset_event(dg.AssetObservation(JOB_STATES, partition=name))
        before = _files_that_name(home / "dagster", BATCH)

        forget_partition(instance, BATCH, keep_name=False)

        others = dg.RunsFilter(tags={"dagster/partition": "other-9"})
        n_others = len(instance.get_run_records(others))
        newest = instance.get_latest_materialization_event(dg.AssetKey("essay_scores"))
        observed = instance.fetch_observations(JOB_STATES, limit=9).records

    assert before
    assert _files_that_name(home / "dagster", BATCH) == []
    assert n_others > 0
    assert [record.partition_key for record in observed] == ["other-9"]
    assert newest is not None
    assert newest.asset_materialization is not None
    assert newest.asset_materialization.partition == "other-9"


def _files_that_name(folder: Path, name: str) -> list[Path]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path for path in files if name.encode() in path.read_bytes()]
