"""Scheduled trial runs: the same batch again and again, so that drift in a judge is noticed.

A trial is a definition in `CJ_HOME/trials` (`cj_pipeline.trials`). Each tick opens it as a batch of
its own, with its own budget and spend cap; the sensors take it to its end like any other.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import dagster as dg

from assets.automation.jobs import open_batch
from assets.automation.partitions import BATCHES
from cj_pipeline.errors import SettingsError
from cj_pipeline.store.opening import default_home
from cj_pipeline.trials.definitions import (
    NIGHTLY,
    TrialDefinition,
    load_trial,
    own_trial_names,
    same_trial_names,
)
from cj_pipeline.trials.runs import trial_batch_id
from resources.runtime_resource import RuntimeResource

TRIAL_TAG = "cj/trial"

_LOG = logging.getLogger(__name__)


@dg.schedule(
    cron_schedule=NIGHTLY,
    job=open_batch,
    execution_timezone="UTC",
    # A trial may cost money, so a person turns this on.
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Opens every trial in CJ_HOME/trials that has no schedule of its own.",
)
def nightly_trials(
    context: dg.ScheduleEvaluationContext, engine: RuntimeResource
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Ask for one run per trial and night; the run key keeps a second tick from asking again."""
    home = engine.open().home
    definitions, problems = _definitions(home)
    for problem in [*problems, *_own_schedules(definitions)[1]]:
        context.log.error(problem)
    due = [each for each in definitions if each.schedule is None]
    if not due:
        yield dg.SkipReason(" ".join(["CJ_HOME/trials holds no trial for the night.", *problems]))
    yield from _requests(context.instance, due, context.scheduled_execution_time)


def trial_schedules(home: Path) -> list[dg.ScheduleDefinition]:
    """Return the nightly schedule, and one for each of the user's trials that has its own.

    A file that is wrong stops no other: it is logged here and reported by every nightly tick.
    """
    definitions, problems = _definitions(home)
    schedules, unusable = _own_schedules(definitions)
    for problem in [*problems, *unusable]:
        _LOG.warning(problem)
    return [nightly_trials, *schedules]


def _own_schedules(
    definitions: Sequence[TrialDefinition],
) -> tuple[list[dg.ScheduleDefinition], list[str]]:
    """Return the schedules of trials that have one, and why others cannot have theirs."""
    schedules: dict[str, dg.ScheduleDefinition] = {}
    problems = []
    for trial in definitions:
        if trial.schedule is None:
            continue
        name = _schedule_name(trial)
        if name in schedules:
            problems.append(
                f"The trial '{trial.name}' has no schedule: another trial's is called {name} too,"
                " since '-' and '_' are the same there. Rename one of them."
            )
            continue
        try:
            schedules[name] = _schedule_of(trial)
        except dg.DagsterInvalidDefinitionError as error:
            problems.append(f"The trial '{trial.name}' has no schedule: {error}")
    return list(schedules.values()), problems


def _schedule_name(trial: TrialDefinition) -> str:
    return f"trial_{trial.name.replace('-', '_')}"


def trials_home() -> Path:
    """Return the home whose trials have schedules in this code location."""
    return default_home(os.environ).resolve()


def _schedule_of(trial: TrialDefinition) -> dg.ScheduleDefinition:
    schedule = trial.schedule
    if schedule is None:
        msg = f"The trial '{trial.name}' has no schedule of its own."
        raise ValueError(msg)

    @dg.schedule(
        name=_schedule_name(trial),
        cron_schedule=schedule.cron,
        job=open_batch,
        execution_timezone=schedule.timezone,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description=trial.about or f"Opens the trial '{trial.name}' as a batch of its own.",
        tags={TRIAL_TAG: trial.name},
    )
    def one_trial(
        context: dg.ScheduleEvaluationContext, engine: RuntimeResource
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        try:
            # As it is now: only cron and time zone are as they were when this was loaded.
            now = load_trial(trial.name, engine.open().home)
        except SettingsError as error:
            yield dg.SkipReason(str(error))
            return
        yield from _requests(context.instance, [now], context.scheduled_execution_time)

    return one_trial


def _requests(
    instance: dg.DagsterInstance, trials: Sequence[TrialDefinition], due_at: datetime
) -> Iterator[dg.RunRequest]:
    for trial in trials:
        name = trial_batch_id(trial.name, due_at)
        instance.add_dynamic_partitions(BATCHES, [name])
        yield dg.RunRequest(
            run_key=name,
            partition_key=name,
            run_config={"ops": {"essays": {"config": {"trial": trial.name}}}},
            # People's batches go first; the trial's later runs have its settings' priority.
            tags={TRIAL_TAG: trial.name, "dagster/priority": "-10"},
        )


def _definitions(home: Path) -> tuple[list[TrialDefinition], list[str]]:
    definitions, problems = [], []
    for name in own_trial_names(home):
        try:
            definitions.append(load_trial(name, home))
        except SettingsError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(f"The trial '{name}' cannot be read: {error.strerror}.")
    return definitions, problems + same_trial_names(home)
