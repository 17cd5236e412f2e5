"""What keeps batches moving: one sensor for the inbox, one for what each batch needs next."""

import hashlib
import json
from pathlib import Path

import dagster as dg

from assets.batch_jobs import collect_wave, finish_batch, next_wave, open_batch
from assets.batch_partitions import batches
from cj_pipeline.naming import id_for
from cj_pipeline.steps import NextStep, next_steps, poll
from resources.engine_resource import EngineResource

POLL_AT_MOST_S = 20.0
"""A tick's share of the sixty seconds a sensor has."""

JOB_FOR = {
    NextStep.PLAN: next_wave,
    NextStep.SUBMIT: next_wave,
    NextStep.COLLECT: collect_wave,
    NextStep.DECIDE: finish_batch,
    NextStep.PROJECT: finish_batch,
    NextStep.PUBLISH: finish_batch,
}


@dg.sensor(
    jobs=[open_batch],
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Takes in every batch folder that has come to rest in the inbox.",
)
def inbox_sensor(context: dg.SensorEvaluationContext, engine: EngineResource) -> dg.SensorResult:
    """Ask for one run per folder and content, once the folder has stopped changing."""
    inbox = engine.open().inbox
    inbox.mkdir(parents=True, exist_ok=True)
    before = json.loads(context.cursor) if context.cursor else {}
    now = {
        folder.name: _fingerprint(folder) for folder in sorted(inbox.iterdir()) if _is_batch(folder)
    }
    at_rest = [name for name, print_ in now.items() if before.get(name) == print_]
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(
                run_key=f"open:{name}:{now[name]}",
                job_name=open_batch.name,
                partition_key=id_for(name, prefix="batch"),
                run_config=dg.RunConfig(ops={"essays": {"config": {"folder": str(inbox / name)}}}),
            )
            for name in at_rest
        ],
        dynamic_partitions_requests=[
            batches.build_add_request([id_for(n, prefix="batch") for n in at_rest])
        ]
        if at_rest
        else [],
        cursor=json.dumps(now),
    )


@dg.sensor(
    jobs=[next_wave, collect_wave, finish_batch],
    minimum_interval_seconds=2,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Polls open provider jobs and asks for the run each batch needs next.",
)
def batch_progress_sensor(
    context: dg.SensorEvaluationContext, engine: EngineResource
) -> dg.SensorResult:
    """One bounded look at the providers, then one run per batch that can move."""
    connected = engine.open()
    poll(connected, at_most_s=POLL_AT_MOST_S)
    with connected.store.read() as db:
        steps = next_steps(db)
    busy = _batches_with_runs(context.instance)
    known = set(context.instance.get_dynamic_partitions(batches.name or ""))
    ready = {name: JOB_FOR[step] for name, step in steps.items() if step in JOB_FOR}
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(job_name=job.name, partition_key=name)
            for name, job in ready.items()
            if name not in busy
        ],
        dynamic_partitions_requests=[
            batches.build_add_request([name for name in ready if name not in known])
        ]
        if any(name not in known for name in ready)
        else [],
    )


def _batches_with_runs(instance: dg.DagsterInstance) -> set[str]:
    """Return the batches that have a run queued or going: one run per batch at a time."""
    unfinished = dg.RunsFilter(
        statuses=[
            dg.DagsterRunStatus.QUEUED,
            dg.DagsterRunStatus.NOT_STARTED,
            dg.DagsterRunStatus.STARTING,
            dg.DagsterRunStatus.STARTED,
            dg.DagsterRunStatus.CANCELING,
        ]
    )
    return {run.tags.get("dagster/partition", "") for run in instance.get_runs(filters=unfinished)}


def _is_batch(folder: Path) -> bool:
    return folder.is_dir() and not folder.is_symlink() and not folder.name.startswith(".")


def _fingerprint(folder: Path) -> str:
    """Return what changes whenever a file of the folder does; nothing is read."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        stat = path.lstat()
        digest.update(f"{path.relative_to(folder)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]
