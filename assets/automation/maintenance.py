"""Keeping Dagster's own history small: runs whose place newer ones have taken go after a time.

Dagster purges the ticks of sensors and schedules by itself (`retention` in `dagster.yaml`), but
keeps every run's events for ever. With a run go its materializations; so whatever an asset's page,
a partition's status or a check still rests upon is kept, however old.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import dagster as dg
import sqlalchemy as sa
from dagster import DagsterEventType as Event
from dagster import DagsterRunStatus as Status
from pydantic import Field, ValidationError

from assets.automation.partitions import BATCHES, errors_as_dagster_knows_them
from cj_pipeline.installation import read_installation
from cj_pipeline.operations.personal_data.erase import finish_erasures, forget_what_is_due
from cj_pipeline.provider_jobs.leftovers import delete_leftovers
from cj_pipeline.steps.next_step import next_steps
from cj_pipeline.store.file_store import FileStore
from cj_pipeline.store.maintenance import archive_callbacks, backup_store, delete_archives
from resources.dagster_internals import (
    RUNLESS_RUN_ID,
    AssetCheckExecutionsTable,
    AssetKeyTable,
    PartitionKeyFilter,
    SqlEventLogStorage,
    SqlEventLogStorageTable,
    SqliteEventLogStorage,
    serialize_value,
)
from resources.runtime_resource import PARTITION_TAG, RuntimeResource

KEEP_RUNS_DAYS = 90.0
"""Where nobody says otherwise: for ever would be a file and several rows for each run there was."""

_PAGE = 1_000

MAX_RUNS_A_NIGHT = 5_000
"""So that a night's upkeep ends; the next night goes on."""

GONE_AFTER = timedelta(days=1)
"""Somebody who comes in the morning still finds why a batch was rejected."""

_FINISHED = [Status.SUCCESS, Status.FAILURE, Status.CANCELED]
_TOLD = {
    Event.ASSET_MATERIALIZATION_PLANNED,
    Event.ASSET_MATERIALIZATION,
    Event.ASSET_CHECK_EVALUATION,
}


class History(dg.Config):
    """How long runs are kept whose place newer ones have taken."""

    keep_runs_days: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="Older finished runs are deleted, unless their batch goes on or something of"
        " theirs is still the newest of its kind. None: as CJ_KEEP_RUNS_DAYS says, which the"
        f" schedule goes by; where it says nothing, {KEEP_RUNS_DAYS:g} days.",
    )


@dg.op
def keep_history_small(
    context: dg.OpExecutionContext, config: History, engine: RuntimeResource
) -> None:
    """Delete runs that nothing rests upon any more; doing it twice changes nothing."""
    opened = engine.open()
    days = _days(config, opened.environment)
    with opened.store.read() as db:
        going_on = set(next_steps(db, opened.clock()))
    ended_before = opened.clock() - timedelta(days=days)
    superseded = list(
        islice(superseded_runs(context.instance, ended_before, going_on), MAX_RUNS_A_NIGHT)
    )
    for run_id in superseded:
        delete_run(context.instance, run_id)
    if isinstance(events := context.instance.event_log_storage, SqlEventLogStorage):
        # Dagster's times have no zone: they are UTC.
        recorded_at = SqlEventLogStorageTable.c.timestamp
        _delete_events_without_run(events, recorded_at < ended_before.replace(tzinfo=None))
    context.log.info(f"{len(superseded)} runs deleted whose place newer ones have taken.")


@dg.op
def keep_partitions_true(context: dg.OpExecutionContext, engine: RuntimeResource) -> None:
    """Delete partitions of rejected and forgotten batches, with their history."""
    opened = engine.open()
    before = opened.clock() - GONE_AFTER
    with opened.store.read() as db:
        rows = db.rows("SELECT batch_id, state, updated_at FROM batches")
    kept = {
        row["batch_id"] for row in rows if row["state"] != "rejected" or row["updated_at"] > before
    }
    gone = list(partitions_of_nothing(context.instance, kept, before))[:MAX_RUNS_A_NIGHT]
    for batch_id in gone:
        forget_partition(context.instance, batch_id, keep_name=False, rewrite=batch_id == gone[-1])
    context.log.info(f"{len(gone)} partitions deleted whose batches were rejected or forgotten.")


def partitions_of_nothing(
    instance: dg.DagsterInstance, kept: set[str], last_run_before: datetime
) -> Iterator[str]:
    """Yield the partitions without a batch, whose runs were all over long ago.

    One without any run is kept: somebody has only just added it.

    Args:
        instance: Where they are.
        kept: The batches that keep theirs.
        last_run_before: When the newest run of a partition ended at the latest.
    """
    for batch_id in instance.get_dynamic_partitions(BATCHES):
        if batch_id in kept:
            continue
        with_it = dg.RunsFilter(tags={PARTITION_TAG: batch_id})
        newest = instance.get_run_records(with_it, limit=1)
        if (
            newest
            and newest[0].dagster_run.status in _FINISHED
            and newest[0].update_timestamp.replace(tzinfo=UTC) < last_run_before
        ):
            yield batch_id


def _days(config: History, environment: Mapping[str, str]) -> float:
    """Return how long runs are kept."""
    said = environment.get("CJ_KEEP_RUNS_DAYS", "").strip()
    if config.keep_runs_days is not None:
        return config.keep_runs_days
    try:
        read = History(keep_runs_days=said or KEEP_RUNS_DAYS)  # type: ignore[arg-type]
        return KEEP_RUNS_DAYS if read.keep_runs_days is None else read.keep_runs_days
    except ValidationError:
        msg = f"CJ_KEEP_RUNS_DAYS is {said!r}: write a number of days, or leave it out."
        raise dg.Failure(msg, allow_retries=False) from None


def superseded_runs(
    instance: dg.DagsterInstance, ended_before: datetime, going_on: set[str]
) -> Iterator[str]:
    """Yield the finished runs that nothing rests upon any more.

    Kept are the newest run of each job and batch, and each that planned, made or checked something
    that no newer run has planned, made or checked again.

    Args:
        instance: Where they are.
        ended_before: When they ended at the latest.
        going_on: Batches that are not at their end: how often a step was tried is told by runs.
    """
    seen: set[tuple[str, str]] = set()
    for record in _newest_first(instance):
        run, ended = record.dagster_run, record.end_time or record.update_timestamp.timestamp()
        batch_id = run.tags.get(PARTITION_TAG, "")
        is_newest = (run.job_name, batch_id) not in seen
        seen.add((run.job_name, batch_id))
        if is_newest or run.status not in _FINISHED or batch_id in going_on:
            continue
        if datetime.fromtimestamp(ended, UTC) < ended_before and not _is_rested_upon(
            instance, run.run_id
        ):
            yield run.run_id


def _newest_first(instance: dg.DagsterInstance) -> Iterator[dg.RunRecord]:
    """Yield every run, a page at a time: a year's are too many to hold."""
    cursor: str | None = None
    while page := instance.get_run_records(limit=_PAGE, cursor=cursor):
        yield from page
        cursor = page[-1].dagster_run.run_id


def delete_run(instance: dg.DagsterInstance, run_id: str) -> None:
    """Delete a run, its events and its logs."""
    instance.delete_run(run_id)
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    events = instance.event_log_storage
    if isinstance(events, SqliteEventLogStorage):
        # Each run has a file of its own there, and deleting its rows leaves it as large as it was.
        file = Path(events.path_for_shard(run_id))
        for each in (file, *(file.with_name(f"{file.name}{end}") for end in ("-wal", "-shm"))):
            each.unlink(missing_ok=True)


def forget_partition(
    instance: dg.DagsterInstance, batch_id: str, *, keep_name: bool, rewrite: bool = True
) -> int:
    """Delete every run of a batch, and its partition unless that stays; return how many runs.

    Where the instance keeps SQLite files they are written anew: what was deleted lingers in them.

    Args:
        instance: Where they are.
        batch_id: The batch.
        keep_name: Whether the partition stays.
        rewrite: False where more is about to be deleted: once is enough, and takes long.
    """
    with_it = dg.RunsFilter(tags={PARTITION_TAG: batch_id})
    runs = [record.dagster_run.run_id for record in instance.get_run_records(with_it)]
    for run_id in runs:
        delete_run(instance, run_id)
    _forget_what_outlasts_runs(instance, batch_id, runs)
    if not keep_name and batch_id in instance.get_dynamic_partitions(BATCHES):
        instance.delete_dynamic_partition(BATCHES, batch_id)
    if rewrite and isinstance(instance.event_log_storage, SqliteEventLogStorage):
        for file in sorted(Path(instance.root_directory).rglob("*.db")):
            with closing(sqlite3.connect(file, timeout=30, isolation_level=None)) as db:
                db.execute("VACUUM")
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return len(runs)


def _forget_what_outlasts_runs(
    instance: dg.DagsterInstance, batch_id: str, run_ids: Sequence[str]
) -> None:
    """Delete what Dagster keeps of a batch beside its runs: results of checks, newest events.

    A run that is deleted leaves both. Each asset's newest event becomes that of another batch.
    """
    events = instance.event_log_storage
    if not isinstance(events, SqlEventLogStorage):
        return
    checks, assets = AssetCheckExecutionsTable, AssetKeyTable
    with events.index_connection() as db:
        db.execute(
            checks.delete().where(
                sa.or_(checks.c.partition == batch_id, checks.c.run_id.in_(run_ids))
            )
        )
        newest = {
            row.asset_key: row.last_materialization or ""
            for row in db.execute(sa.select(assets.c.asset_key, assets.c.last_materialization))
        }
    _delete_events_without_run(events, SqlEventLogStorageTable.c.partition == batch_id)
    for asset_key, event in newest.items():
        values: dict[str, str | None] = {"cached_status_data": None}
        if any(run_id in event for run_id in run_ids):
            key = dg.AssetKey.from_db_string(asset_key)
            others = instance.fetch_materializations(key, limit=1).records if key else []
            values["last_materialization"] = serialize_value(others[0]) if others else None
        with events.index_connection() as db:
            db.execute(assets.update().where(assets.c.asset_key == asset_key).values(**values))


def _delete_events_without_run(events: SqlEventLogStorage, which: "sa.ColumnElement[bool]") -> None:
    """Delete observations that no run made; with SQLite they are in two files."""
    without_run = SqlEventLogStorageTable.delete().where(
        SqlEventLogStorageTable.c.run_id == RUNLESS_RUN_ID, which
    )
    for connection in (events.index_connection(), events.run_connection(RUNLESS_RUN_ID)):
        with connection as db:
            db.execute(without_run)


def _is_rested_upon(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether anything a run planned, made or checked is the newest of its kind."""
    records = instance.get_records_for_run(run_id, of_type=_TOLD).records
    events = [record.event_log_entry.dagster_event for record in records]
    return any(event is not None and _newest(instance, event) == run_id for event in events)


def _newest(instance: dg.DagsterInstance, event: dg.DagsterEvent) -> str | None:
    """Return the run whose event of this kind is the newest for its asset or check and batch."""
    if event.event_type is Event.ASSET_CHECK_EVALUATION:
        check = event.asset_check_evaluation_data
        key = check.asset_check_key
        latest = instance.event_log_storage.get_latest_asset_check_execution_by_key(
            [key], partition_filter=PartitionKeyFilter(key=check.partition)
        )
        return latest[key].run_id if key in latest else None
    if event.asset_key is None:
        return None
    if event.event_type is Event.ASSET_MATERIALIZATION_PLANNED:
        planned = instance.get_latest_planned_materialization_info(event.asset_key, event.partition)
        return planned.run_id if planned else None
    partitions = None if event.partition is None else [event.partition]
    made = instance.fetch_materializations(
        dg.AssetRecordsFilter(event.asset_key, asset_partitions=partitions), limit=1
    ).records
    return made[0].run_id if made else None


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
    context: dg.OpExecutionContext, config: Upkeep, engine: RuntimeResource
) -> None:
    """Finish erasures, forget what is due, back up, archive; doing it twice changes nothing."""
    opened = engine.open()
    store, now = opened.store, opened.clock()
    with errors_as_dagster_knows_them():
        n_deleted = delete_leftovers(opened, due_only=False)
    context.log.info(f"{n_deleted} files and jobs that nothing needs were deleted at providers.")
    if not isinstance(store, FileStore):
        context.log.info("A served store or a lake is looked after where its server or catalog is.")
        return

    def forget_here(batch_id: str, is_whole: bool) -> int:
        n_shared = opened.published.forget(batch_id)
        return n_shared + forget_partition(context.instance, batch_id, keep_name=not is_whole)

    with errors_as_dagster_knows_them():
        retention_days = read_installation(opened.home).retention_days
        finished = finish_erasures(store, now=now, beyond=forget_here)
        due = forget_what_is_due(store, now=now, retention_days=retention_days, beyond=forget_here)
        if config.backup_folder is not None:
            backup = Path(config.backup_folder) / f"cj-{now:%Y%m%dT%H%M%S}.duckdb"
            context.log.info(f"Backed up into {backup_store(store, backup, now=now).name}.")
        moved = archive_callbacks(
            store, ended_before=now - timedelta(days=config.keep_in_store_days)
        )
        gone = (
            delete_archives(store, written_before=now - timedelta(days=config.keep_archives_days))
            if config.keep_archives_days is not None
            else ()
        )
    left = {path for each in (*finished, *due) for path in (*map(str, each.backups), *each.exports)}
    if left:
        context.log.warning(f"Outside the home, and yours to delete: {'; '.join(sorted(left))}")
    context.log.info(
        f"{len(finished)} erasures finished, {len(due)} batches forgotten whose time was over,"
        f" {len(moved)} batches archived, {len(gone)} archives deleted."
    )


@dg.job(
    description="Finish erasures and forget what is due; move old batches' raw callbacks out of the"
    " store, backed up first if asked; delete runs whose place newer ones have taken, if asked."
)
def store_upkeep() -> None:
    """Three steps: see `keep_store_small`, `keep_partitions_true` and `keep_history_small`."""
    keep_store_small()
    keep_partitions_true()
    keep_history_small()


nightly_upkeep = dg.ScheduleDefinition(
    name="nightly_upkeep",
    job=store_upkeep,
    cron_schedule="30 3 * * *",
    execution_timezone="UTC",
    # A batch that is to be gone by a day must not wait for somebody to turn this on.
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Finishes erasures, forgets batches whose retention is over, moves raw callbacks"
    " of batches that ended 30 days ago into Parquet.",
)
