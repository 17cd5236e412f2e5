"""A trial taken to its end in this process: real jobs, a real instance, the emulator over HTTP."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from assets.local_run import JobRun, run_batch
from cj_pipeline.emulator import EmulatorConfig
from cj_pipeline.emulator.serving import served
from cj_pipeline.steps import conclude_trial
from cj_pipeline.steps.trial_runs import TrialOutcome, trial_batch_id
from cj_pipeline.trials import TrialDefinition
from resources.engine_resource import EngineResource


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

    Simulated judges are asked over HTTP: at CJ_EMULATOR_URL, or of an emulator served for this
    trial with the settings of its definition. Other judges are asked at their providers, and cost
    what the definition's caps allow.
    """
    started = time.monotonic()
    with _emulator(home, trial) as address:
        engine = EngineResource(home=str(home), emulator_url=address).open()
        name = _free_name(instance, trial.name, engine.clock().timestamp())
        runs = tuple(
            run_batch(
                instance,
                definitions,
                engine,
                name,
                trial=trial.name,
                emulator_url=address,
                pause_s=0.1,
            )
        )
        outcome = conclude_trial(engine, name)
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
    # The settings are this server's alone: nothing is changed for whoever shares its state.
    settings = config.settings.model_validate(
        config.settings.model_dump() | {"latency_s": 0.0} | dict(trial.emulator)
    )
    with served(config.model_copy(update={"settings": settings})) as own:
        yield own


def _free_name(instance: dg.DagsterInstance, trial: str, now: float) -> str:
    from datetime import UTC, datetime

    from assets.batch_partitions import BATCHES

    base = trial_batch_id(trial, datetime.fromtimestamp(now, UTC))
    names = [base, *(f"{base}-{number}" for number in range(2, 100))]
    return next(name for name in names if not instance.has_dynamic_partition(BATCHES, name))
