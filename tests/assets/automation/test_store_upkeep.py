"""The store is kept small by a job that may run every night."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import duckdb

from assets.automation.maintenance import store_upkeep
from cj_pipeline.runtime import Runtime
from resources.runtime_resource import RuntimeResource
from tests.support.finished_batches import SPRING, fill


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
