"""A batch taken to its end in this process, through the same jobs the sensors start.

For the demo and for tests: the runs are real and stay in the instance, only no daemon is needed.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from assets.automation.jobs import JOB_FOR, open_batch
from assets.automation.partitions import BATCHES
from assets.automation.runner_sequence import RunnerSequence, SequenceStep
from cj_pipeline.emulator.config import EmulatorConfig
from cj_pipeline.emulator.serving import served
from cj_pipeline.errors import FinalError, TrialError, TrialStoppedError
from cj_pipeline.operations.cancel import cancel
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.advance import advance_to_end
from cj_pipeline.steps.next_step import NextStep, next_step
from cj_pipeline.steps.poll import poll
from cj_pipeline.trials.definitions import TrialDefinition
from cj_pipeline.trials.runs import (
    TrialOutcome,
    conclude_trial,
    interrupted_runs,
    is_alive,
    register_run,
    this_process,
    trial_batch_id,
)
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
    stopping: threading.Event | None = None,
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
        stopping: Once it is set, no further run is begun.

    Raises:
        dagster.Failure: If a step fails for good.
        TrialStoppedError: If it was told to stop before the end.
    """
    instance.add_dynamic_partitions(BATCHES, [batch_id])
    source = {"trial": trial} if trial else {"folder": str(folder or runtime.inbox / batch_id)}
    config = {"ops": {"essays": {"config": source}}}
    resource = {"home": str(runtime.home), "emulator_url": emulator_url}
    connected = {"resources": {"engine": {"config": resource}}}
    yield _run(instance, definitions, open_batch.name, batch_id, config | connected)
    while True:
        if stopping is not None and stopping.is_set():
            msg = f"Stopped at the batch '{batch_id}', of which nothing is lost."
            raise TrialStoppedError(msg)
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
    """A trial that was run: what came out, by which runs or steps, in how many seconds."""

    outcome: TrialOutcome
    runs: tuple[JobRun, ...]
    seconds: float
    steps: tuple[SequenceStep, ...] = ()

    @property
    def is_met(self) -> bool:
        """Whether every expectation holds, and every step of a sequence."""
        return self.outcome.is_met and all(step.holds for step in self.steps)


def run_trial(
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    home: Path,
    trial: TrialDefinition,
    *,
    batch_id: str | None = None,
    stopping: threading.Event | None = None,
    on_note: Callable[[str], None] = lambda _: None,
) -> TrialRun:
    """Run a trial through Dagster's jobs and return what came out.

    Simulated judges are called over HTTP: at CJ_EMULATOR_URL, or at an emulator served for this
    trial with the settings of its definition. Other judges are called at their providers, and cost
    what the definition's caps allow.

    A run that this command began before and that was stopped or killed goes on; one of another
    definition is ended.

    Args:
        instance: Where the runs are recorded.
        definitions: The code location.
        home: The store's folder.
        trial: The trial.
        batch_id: What a new run's batch is called; by default the trial's name and the time.
        stopping: Once it is set, the run stops between two steps.
        on_note: Told what became of a run that was interrupted.

    Raises:
        TrialError: If it cannot be run.
        TrialStoppedError: If it was told to stop.
    """
    started = time.monotonic()
    with _emulator(home, trial) as address:
        runtime = RuntimeResource(home=str(home), emulator_url=address).open()
        name = _interrupted(runtime, instance, trial, on_note) if batch_id is None else None
        if name is None:
            name = batch_id or _free_name(instance, trial.name, runtime.clock().timestamp())
        register_run(runtime, trial, name, this_process())
        runs: tuple[JobRun, ...] = ()
        steps: tuple[SequenceStep, ...] = ()
        try:
            if trial.sequence == "runner":
                steps = _as_its_runner_does(runtime, trial, name, stopping)
            else:
                runs = tuple(
                    run_batch(
                        instance,
                        definitions,
                        runtime,
                        name,
                        trial=trial.name,
                        emulator_url=address,
                        pause_s=0.1,
                        stopping=stopping,
                    )
                )
        except (dg.DagsterError, dg.Failure, FinalError) as error:
            msg = f"The trial '{trial.name}' could not be run: {_cause(error)}"
            raise TrialError(msg) from error
        outcome = conclude_trial(runtime, name)
    if outcome is None:
        msg = f"The batch '{name}' of the trial '{trial.name}' did not end."
        raise TrialError(msg)
    return TrialRun(outcome, runs, time.monotonic() - started, steps)


def _as_its_runner_does(
    runtime: Runtime, trial: TrialDefinition, batch_id: str, stopping: threading.Event | None
) -> tuple[SequenceStep, ...]:
    sequence = RunnerSequence(
        runtime, trial.batch_folder(runtime.home), batch_id, trial.explicit_settings, stopping
    )
    steps = tuple(sequence.run())
    if failed := [step for step in steps if step.name == "preflight" and not step.holds]:
        msg = f"preflight: {failed[0].found}"
        raise TrialError(msg)
    return steps


def _cause(error: BaseException) -> str:
    """Return what a step said was wrong, without Dagster's words around it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(getattr(error, "description", None) or error)


def _interrupted(
    runtime: Runtime,
    instance: dg.DagsterInstance,
    trial: TrialDefinition,
    on_note: Callable[[str], None],
) -> str | None:
    """Return the batch of an earlier run of this trial that is to go on; end those of others."""
    with runtime.store.read() as db:
        found = interrupted_runs(db, trial.name)
    goes_on = None
    for run in found:
        if is_alive(run.started_by):
            continue
        end_unfinished_runs(instance, run.batch_id)
        if run.fingerprint == trial.fingerprint and goes_on is None:
            on_note(f"The run '{run.batch_id}' was interrupted: it goes on.")
            goes_on = run.batch_id
        else:
            on_note(
                f"The run '{run.batch_id}' was interrupted, and its trial is another now: it is"
                " ended."
            )
            cancel(runtime, run.batch_id)
            for step in advance_to_end(runtime, run.batch_id):
                if step.waited:
                    break
    return goes_on


def end_unfinished_runs(instance: dg.DagsterInstance, batch_id: str) -> None:
    """Mark the runs of a batch as cancelled whose process is gone."""
    open_runs = instance.get_runs(
        filters=dg.RunsFilter(
            tags={"dagster/partition": batch_id},
            statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING],
        )
    )
    for run in open_runs:
        instance.report_run_canceled(run)


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
