"""The store is kept small by a job that may run every night."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import duckdb
import pytest

from assets.automation.maintenance import nightly_upkeep, store_upkeep
from assets.automation.partitions import BATCHES
from cj_pipeline.operations import erase
from cj_pipeline.operations.erase import forget_batch
from cj_pipeline.runtime import Runtime
from resources.runtime_resource import RuntimeResource
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
        dying.setattr(erase, "_erase_rows", die)
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
