"""The essays of a batch, taken in whole or not at all."""

from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from assets.automation.metadata import history_and_columns, table
from assets.automation.partitions import OWNERS, STORED, batches, errors_as_dagster_knows_them
from cj_pipeline.queries.batch_record import refuse_rejected
from cj_pipeline.steps.ingest import Ingested, ingest, stored_batch
from cj_pipeline.trials.runs import open_trial
from resources.runtime_resource import RuntimeResource


class BatchSource(dg.Config):
    """Where a batch comes from, and what is set by hand."""

    folder: str = Field(
        "",
        description="The batch folder; by default the folder of the partition's name in the inbox."
        " A batch that is in the store already needs none.",
    )
    trial: str = Field(
        "",
        description="A trial's name as `cj trial list` shows it; it brings its essays and settings,"
        " so folder and settings stay empty.",
    )
    settings: dict[str, Any] = Field(
        {},
        description="Keys of batch.yaml that win over the file's, for instance"
        " {max_pairwise_comparisons: 60, spend_cap_usd: 2.0}.",
    )


@dg.asset(
    partitions_def=batches, group_name="intake", kinds=STORED, owners=OWNERS, tags={"paid": "no"}
)
def essays(
    context: dg.AssetExecutionContext, config: BatchSource, engine: RuntimeResource
) -> dg.MaterializeResult[None]:
    """The texts placed on one scale together, anchors among them, as submitted."""
    connected = engine.open()
    with errors_as_dagster_knows_them():
        taken_in = _take_in(engine, context.partition_key, config)
    history, columns = history_and_columns(connected, context.partition_key, "essays")
    return dg.MaterializeResult(
        metadata={
            "dagster/partition_row_count": taken_in.n_essays,
            "dagster/column_schema": columns,
            "title": history.batch["title"],
            "about": history.settings["about"],
            "n_anchors": taken_in.n_anchors,
            "n_bytes": taken_in.n_bytes,
            "is_new": taken_in.is_new,
            "judges": ", ".join(judge["name"] for judge in history.judges),
            "is_simulated": history.is_simulated,
            "folder": dg.MetadataValue.path(str(history.batch["source_path"])),
            "files": table(
                [{**row, "left_out": "; ".join(row["notes"] or ())} for row in history.essays],
                ("essay_id", "is_anchor", "grade", "source_path", "n_bytes", "left_out"),
            ),
        }
    )


def _take_in(engine: RuntimeResource, batch_id: str, config: BatchSource) -> Ingested:
    connected = engine.open()
    if config.trial:
        if config.folder or config.settings:
            msg = (
                f"Batch '{batch_id}' was given a trial and a folder or settings: a trial brings "
                "both. Leave out `trial`, or leave out the others."
            )
            raise dg.Failure(msg, allow_retries=False)
        return open_trial(connected, config.trial, batch_id=batch_id)
    folder = Path(config.folder) if config.folder else connected.inbox / batch_id
    is_of_inbox = not config.folder or folder.parent == connected.inbox
    if is_of_inbox and not config.settings and not folder.exists():
        with connected.store.read() as db:
            refuse_rejected(db, batch_id)  # and keep the reasons that it was rejected for
            stored = stored_batch(db, batch_id)
        if stored is not None:
            return stored  # its folder has left the inbox, or was never there
    return ingest(connected, folder, explicit=config.settings, batch_id=batch_id)
