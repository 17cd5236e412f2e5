"""A batch taken to its end in this process, through the same jobs the sensors start.

For the demo and for tests: the runs are real and stay in the instance, only no daemon is needed.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from assets.automation.jobs import JOB_FOR, open_batch
from assets.automation.partitions import BATCHES
from cj_pipeline.emulator.config import EmulatorConfig
from cj_pipeline.emulator.serving import served
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.next_step import NextStep, next_step
from cj_pipeline.steps.poll import poll
from cj_pipeline.trials.definitions import TrialDefinition
from cj_pipeline.trials.runs import TrialOutcome, conclude_trial, trial_batch_id
from resources.code_location import runs_in_location
from resources.runtime_resource import RuntimeResource

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
    runtime: Runtime,
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
        definitions: The code location; its resource `engine` must be open over the same home.
        runtime: To read what the batch needs next, and to poll.
        batch_id: The partition, made if need be.
        folder: The batch folder.
        trial: The trial's name, if the batch is one of its runs.
        emulator_url: Where simulated judges are called; by default as the environment sets it.
        pause_s: Between two polls.

    Raises:
        dagster.Failure: If a step fails for good.
    """
    instance.add_dynamic_partitions(BATCHES, [batch_id])
    source = {"trial": trial} if trial else {"folder": str(folder or runtime.inbox / batch_id)}
    config = {"ops": {"essays": {"config": source}}}
    resource = {"home": str(runtime.home), "emulator_url": emulator_url}
    connected = {"resources": {"engine": {"config": resource}}}
    yield _run(instance, definitions, open_batch.name, batch_id, config | connected)
    while True:
        with runtime.store.read() as db:
            step = next_step(db, batch_id, runtime.clock())
        if step is NextStep.NOTHING:
            return
        if step in JOB_FOR:
            yield _run(instance, definitions, JOB_FOR[step], batch_id, connected)
        elif batch_id not in poll(runtime, batch_id=batch_id).batches_with_ended_jobs:
            time.sleep(pause_s)


def _run(
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    job: str,
    batch_id: str,
    config: Mapping[str, object],
) -> JobRun:
    started = time.monotonic()
    with runs_in_location(instance):
        result = definitions.resolve_job_def(job).execute_in_process(
            run_config={**QUIET, **config}, instance=instance, partition_key=batch_id
        )
    return JobRun(job, result.run_id, time.monotonic() - started)


@dataclass(frozen=True)
class TrialRun:
    """A trial that was run: what came out, by which runs, in how many seconds."""

    outcome: TrialOutcome
    runs: tuple[JobRun, ...]
    seconds: float


def run_trial(
    instance: dg.DagsterInstance, definitions: dg.Definitions, home: Path, trial: TrialDefinition
) -> TrialRun:
    """Run a trial through Dagster's jobs and return what came out.

    Simulated judges are called over HTTP: at CJ_EMULATOR_URL, or at an emulator served for this
    trial with the settings of its definition. Other judges are called at their providers, and cost
    what the definition's caps allow.
    """
    started = time.monotonic()
    with _emulator(home, trial) as address:
        runtime = RuntimeResource(home=str(home), emulator_url=address).open()
        name = _free_name(instance, trial.name, runtime.clock().timestamp())
        runs = tuple(
            run_batch(
                instance,
                definitions,
                runtime,
                name,
                trial=trial.name,
                emulator_url=address,
                pause_s=0.1,
            )
        )
        outcome = conclude_trial(runtime, name)
    if outcome is None:
        msg = f"The batch '{name}' of the trial '{trial.name}' did not end."
        raise dg.DagsterInvariantViolationError(msg)
    return TrialRun(outcome, runs, time.monotonic() - started)


@contextmanager
def _emulator(home: Path, trial: TrialDefinition) -> Iterator[str]:
    address = os.environ.get("CJ_EMULATOR_URL", "").strip()
    if address and not trial.emulator:
        yield address
        return
    config = EmulatorConfig.from_environment(os.environ, home)
    # The settings are this server's alone: nothing is changed for others that share its state.
    settings = config.settings.model_validate(
        config.settings.model_dump() | {"latency_s": 0.0} | dict(trial.emulator)
    )
    with served(config.model_copy(update={"settings": settings})) as own:
        yield own


def _free_name(instance: dg.DagsterInstance, trial: str, now: float) -> str:
    from datetime import UTC, datetime

    from assets.automation.partitions import BATCHES

    base = trial_batch_id(trial, datetime.fromtimestamp(now, UTC))
    names = [base, *(f"{base}-{number}" for number in range(2, 100))]
    return next(name for name in names if not instance.has_dynamic_partition(BATCHES, name))
