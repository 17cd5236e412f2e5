"""Keeping the store small while nobody watches: old raw callbacks go into Parquet, and later away.

The functions are `cj_pipeline.store_care`; `cj store archive` does the same from a terminal.
"""

from datetime import timedelta
from pathlib import Path

import dagster as dg
from pydantic import Field

from assets.batch_partitions import errors_as_dagster_knows_them
from assets.run_history import keep_history_small
from cj_pipeline.store import Store
from cj_pipeline.store_care import archive_callbacks, backup_store, delete_archives
from resources.engine_resource import EngineResource


class Upkeep(dg.Config):
    """How long raw callbacks are kept, and where."""

    keep_in_store_days: float = Field(
        30.0, ge=0, description="After a batch's end its raw callbacks move into Parquet."
    )
    keep_archives_days: float | None = Field(
        None, ge=0, description="Archives older than this are deleted; none: they are kept."
    )
    backup_folder: str | None = Field(
        None, description="Where to write a verified backup first; none: no backup."
    )


@dg.op
def keep_store_small(
    context: dg.OpExecutionContext, config: Upkeep, engine: EngineResource
) -> None:
    """Back up, archive and delete what is old; doing it twice changes nothing."""
    opened = engine.open()
    store, now = opened.store, opened.clock()
    if not isinstance(store, Store):
        msg = "A served store or a lake is looked after where its server or catalog is."
        raise dg.Failure(msg, allow_retries=False)
    with errors_as_dagster_knows_them():
        if config.backup_folder is not None:
            backup = Path(config.backup_folder) / f"cj-{now:%Y%m%dT%H%M%S}.duckdb"
            context.log.info(f"Backed up into {backup_store(store, backup).name}.")
        moved = archive_callbacks(
            store, ended_before=now - timedelta(days=config.keep_in_store_days)
        )
        gone = (
            delete_archives(store, written_before=now - timedelta(days=config.keep_archives_days))
            if config.keep_archives_days is not None
            else ()
        )
    context.log.info(f"{len(moved)} batches archived, {len(gone)} archives deleted.")


@dg.job(
    description="Move old batches' raw callbacks out of the store, backed up first if asked; delete"
    " runs whose place newer ones have taken, if asked."
)
def store_upkeep() -> None:
    """Two steps: see `keep_store_small` and `keep_history_small`."""
    keep_store_small()
    keep_history_small()


nightly_upkeep = dg.ScheduleDefinition(
    name="nightly_upkeep",
    job=store_upkeep,
    cron_schedule="30 3 * * *",
    execution_timezone="UTC",
    # It deletes what is asked of it, so a person turns it on.
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Moves raw callbacks of batches that ended 30 days ago into Parquet.",
)
