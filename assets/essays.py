"""The essays of a batch, taken in whole or not at all."""

from pathlib import Path

import dagster as dg

from assets.asset_pages import history_and_columns, table
from assets.batch_partitions import OWNERS, STORED, batches, errors_as_dagster_knows_them
from cj_pipeline.steps import ingest
from resources.engine_resource import EngineResource


class BatchSource(dg.Config):
    """Where a batch comes from.

    Attributes:
        folder: The batch folder; by default the folder of the partition's name in the inbox.
    """

    folder: str = ""


@dg.asset(
    partitions_def=batches, group_name="intake", kinds=STORED, owners=OWNERS, tags={"paid": "no"}
)
def essays(
    context: dg.AssetExecutionContext, config: BatchSource, engine: EngineResource
) -> dg.MaterializeResult[None]:
    """The texts placed on one scale together, anchors among them, as handed in."""
    connected = engine.open()
    folder = Path(config.folder) if config.folder else connected.inbox / context.partition_key
    with errors_as_dagster_knows_them():
        taken_in = ingest(connected, folder, batch_id=context.partition_key)
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
            "folder": dg.MetadataValue.path(str(folder)),
            "files": table(
                history.essays, ("essay_id", "is_anchor", "grade", "source_path", "n_bytes")
            ),
        }
    )
