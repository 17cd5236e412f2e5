"""A batch taken to its end in this process, through the same jobs the sensors start.

For the demo and for tests: the runs are real and stay in the instance, only no daemon is needed.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from assets.batch_jobs import JOB_FOR, open_batch
from assets.batch_partitions import BATCHES
from cj_pipeline.steps import Engine, NextStep, next_step, poll

QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}


@dataclass(frozen=True)
class JobRun:
    """One run on the way: which job, and how long it took."""

    job: str
    run_id: str
    seconds: float


def run_batch(
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    engine: Engine,
    batch_id: str,
    folder: Path | None = None,
    *,
    trial: str = "",
    emulator_url: str = "",
    pause_s: float = 0.5,
) -> Iterator[JobRun]:
    """Yield each run that takes a batch from its folder to its report.

    Args:
        instance: Where the runs are recorded.
        definitions: The code location; its engine must be `engine`, over the same home.
        engine: To see what the batch needs next, and to poll.
        batch_id: The partition, made if need be.
        folder: The batch folder.
        trial: The trial's name, if the batch is one of its runs.
        emulator_url: Where simulated judges are asked; by default as the environment says.
        pause_s: Between two polls.

    Raises:
        dagster.Failure: If a step fails for good.
    """
    instance.add_dynamic_partitions(BATCHES, [batch_id])
    source = {"trial": trial} if trial else {"folder": str(folder or engine.inbox / batch_id)}
    config = {"ops": {"essays": {"config": source}}}
    resource = {"home": str(engine.home), "emulator_url": emulator_url}
    connected = {"resources": {"engine": {"config": resource}}}
    yield _run(instance, definitions, open_batch.name, batch_id, config | connected)
    while True:
        with engine.store.read() as db:
            step = next_step(db, batch_id, engine.clock())
        if step is NextStep.NOTHING:
            return
        if step in JOB_FOR:
            yield _run(instance, definitions, JOB_FOR[step], batch_id, connected)
        elif batch_id not in poll(engine, batch_id=batch_id).batches_with_ended_jobs:
            time.sleep(pause_s)


def _run(
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    job: str,
    batch_id: str,
    config: Mapping[str, object],
) -> JobRun:
    started = time.monotonic()
    result = definitions.resolve_job_def(job).execute_in_process(
        run_config={**QUIET, **config}, instance=instance, partition_key=batch_id
    )
    return JobRun(job, result.run_id, time.monotonic() - started)
