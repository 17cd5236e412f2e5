"""What an asset's page shows next to its figures: tables, column schemas, plots.

Plots are on the batch's live page and in its report, which the metadata links to.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

import dagster as dg

from assets.automation.partitions import errors_as_dagster_knows_them
from cj_pipeline.errors import StoreBusyError, UnknownBatchError
from cj_pipeline.progress.events import progress_of
from cj_pipeline.progress.follow import StoreWatcher, read_progress
from cj_pipeline.progress.text import describe_time_left, event_line
from cj_pipeline.queries.batch_record import refuse_rejected
from cj_pipeline.queries.history import BatchHistory, read_history
from cj_pipeline.queries.spending import spending_by_judge
from cj_pipeline.runtime import Runtime, public_url
from cj_pipeline.text import excerpt

MAX_ROWS = 100
"""Of a table on a page; the whole is in DuckDB."""

MAX_CELL = 200


def history_of(runtime: Runtime, batch_id: str) -> BatchHistory:
    """Return everything the store knows of a batch now."""
    with errors_as_dagster_knows_them(), runtime.store.read() as db:
        refuse_rejected(db, batch_id)
        return read_history(db, batch_id)


def links_to(runtime: Runtime, batch_id: str, *pages: str) -> dict[str, dg.UrlMetadataValue]:
    """Return links to a batch's pages at the service, where CJ_PUBLIC_URL says where that is.

    Plots are there and in the report: Dagster keeps whatever is in metadata several times.

    Args:
        runtime: The pipeline's connections.
        batch_id: The batch.
        pages: Of `live_page`, `report` and `artefact`.
    """
    address = public_url(runtime.environment)
    if address is None:
        return {}
    name = quote(batch_id, safe="")
    paths = {"live_page": f"batches/{name}"} | {
        kind: f"api/v1/batches/{name}/{kind}" for kind in ("report", "artefact")
    }
    return {
        page if page == "live_page" else f"{page}_page": dg.MetadataValue.url(
            f"{address}/{paths[page]}"
        )
        for page in pages
    }


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> dg.TableMetadataValue:
    """Return the first rows as a table with these columns."""
    return dg.MetadataValue.table(
        records=[
            dg.TableRecord({name: _cell(row[name]) for name in columns}) for row in rows[:MAX_ROWS]
        ],
        schema=dg.TableSchema(
            columns=[dg.TableColumn(name, _type(rows, name)) for name in columns]
        ),
    )


def history_and_columns(
    runtime: Runtime, batch_id: str, table_name: str
) -> tuple[BatchHistory, dg.TableSchemaMetadataValue]:
    """Return a batch's history, and a table's columns as DuckDB has them, in one read."""
    with errors_as_dagster_knows_them(), runtime.store.read() as db:
        refuse_rejected(db, batch_id)
        history = read_history(db, batch_id)
        rows = db.rows(
            "SELECT column_name, data_type, comment, is_nullable FROM duckdb_columns()"
            " WHERE table_name = ? AND database_name = current_database() ORDER BY column_index",
            [table_name],
        )
    columns = [
        dg.TableColumn(
            name=row["column_name"],
            type=row["data_type"],
            description=row["comment"],
            constraints=dg.TableColumnConstraints(nullable=row["is_nullable"]),
        )
        for row in rows
    ]
    return history, dg.MetadataValue.table_schema(dg.TableSchema(columns=columns))


COST_COLUMNS = (
    "judge",
    "n_jobs",
    "n_requests",
    "estimated_usd",
    "reserved_usd",
    "billed_usd",
    "possible_usd",
    "provider_usd",
    "difference_usd",
)


def costs_by_judge(history: BatchHistory) -> dg.TableMetadataValue:
    """Return estimated, reserved and billed side by side, one row a judge."""
    rows = [
        {"judge": history.judge_by_id[judge_id]["name"], **asdict(spent)}
        for judge_id, spent in spending_by_judge(history.jobs).items()
    ]
    return table(rows, COST_COLUMNS)


def _cell(value: Any) -> str | int | float | bool:
    if isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return round(value, 6)
    return "" if value is None else excerpt(str(value), MAX_CELL)


def _type(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    kinds = {type(row[name]) for row in rows if row[name] is not None}
    if kinds and kinds <= {int, float}:
        return "float" if float in kinds else "int"
    return "bool" if kinds == {bool} else "string"


POLL_EVERY_S = 1.0


@contextmanager
def progress_in_run_log(
    context: dg.AssetExecutionContext, runtime: Runtime, *, since_submission: bool = False
) -> Iterator[None]:
    """Report in the run's log what happens to the batch while a step works on it.

    Args:
        context: Of the step.
        runtime: The pipeline's connections.
        since_asked: Also report what happened since the wave was submitted: sensors see it first,
            and have no log that a person reads.
    """
    batch_id = context.partition_key
    reported = _last_event(runtime, batch_id, "asked" if since_submission else None)
    is_over = threading.Event()

    def report() -> None:
        nonlocal reported
        try:
            update = read_progress(runtime, batch_id, reported)
        except (StoreBusyError, UnknownBatchError):
            return
        for event in update.events:
            context.log.info(event_line(event))
            reported = event.sequence

    def report_until_over() -> None:
        watcher = StoreWatcher(runtime.store)
        while not is_over.wait(POLL_EVERY_S):
            if watcher.has_changed():
                report()

    thread = threading.Thread(target=report_until_over, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        report()


def progress_metadata(runtime: Runtime, batch_id: str) -> dict[str, float | int | str]:
    """Return how far a batch has come, for the page of an asset; what is unknown is left out."""
    with runtime.store.read() as db:
        progress = progress_of(db, batch_id, runtime.clock())
    known = {
        "comparisons_per_s": progress.comparisons_per_s,
        "projected_usd": progress.projected_usd,
        "outcome": progress.outcome.value if progress.outcome else None,
    }
    return {
        "share_done": progress.share_done,
        "n_completed": progress.n_done,
        "n_expected": progress.n_expected,
        "time_left": describe_time_left(progress),
        **{key: value for key, value in known.items() if value is not None},
    }


def _last_event(runtime: Runtime, batch_id: str, kind: str | None) -> int:
    with runtime.store.read() as db:
        row = db.one(
            "SELECT coalesce(max(sequence), 0) AS n FROM progress_events"
            " WHERE batch_id = $batch AND ($kind IS NULL OR kind = $kind)",
            {"batch": batch_id, "kind": kind},
        )
    return int(row["n"]) if row else 0
