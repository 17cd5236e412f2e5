"""Trial runs at night: the same batch again and again, so that drift in a judge is seen.

A trial is a batch folder under `CJ_HOME/trials`. Each night opens it as a batch of its own, with
its own budget and spend cap; the sensors take it to its end like any other.
"""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from assets.batch_jobs import open_batch
from assets.batch_partitions import BATCHES
from cj_pipeline.naming import id_for
from resources.engine_resource import EngineResource

TRIAL_TAG = "cj/trial"


@dg.schedule(
    cron_schedule="0 2 * * *",
    job=open_batch,
    execution_timezone="UTC",
    # A trial may cost money, so a person turns this on.
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Opens every batch folder in CJ_HOME/trials as a batch of this night.",
)
def nightly_trials(
    context: dg.ScheduleEvaluationContext, engine: EngineResource
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Ask for one run per trial and night; the run key keeps a second tick from asking again."""
    folders = _trial_folders(engine.open().home / "trials")
    if not folders:
        yield dg.SkipReason("CJ_HOME/trials holds no batch folder")
    for folder in folders:
        name = id_for(
            f"trial-{folder.name}-{context.scheduled_execution_time:%Y-%m-%d}", prefix="trial"
        )
        context.instance.add_dynamic_partitions(BATCHES, [name])
        yield dg.RunRequest(
            run_key=name,
            partition_key=name,
            run_config={"ops": {"essays": {"config": {"folder": str(folder)}}}},
            tags={TRIAL_TAG: id_for(folder.name, prefix="trial")},
        )


def _trial_folders(trials: Path) -> list[Path]:
    if not trials.is_dir():
        return []
    return sorted(
        path for path in trials.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
