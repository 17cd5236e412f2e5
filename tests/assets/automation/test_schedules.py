"""Trials by themselves: the same batch each night, under each night's own name."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from assets.automation.schedules import TRIAL_TAG, nightly_trials, trial_schedules
from cj_pipeline.definitions import defs
from cj_pipeline.runtime import Runtime
from resources.runtime_resource import RuntimeResource
from tests.support.batches import write_batch


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance in files: a schedule opens it anew by its reference."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


def night(
    instance: dg.DagsterInstance,
    day: int,
    schedule: dg.ScheduleDefinition = nightly_trials,
) -> list[dg.RunRequest]:
    """Return what a schedule asks for in one night of January."""
    with dg.build_schedule_context(
        instance=instance,
        scheduled_execution_time=datetime(2026, 1, day, 2, tzinfo=UTC),
        resources={"engine": RuntimeResource()},
        repository_def=defs.get_repository_def(),
    ) as context:
        return list(schedule.evaluate_tick(context).run_requests or [])


def define(runtime: Runtime, name: str, text: str) -> None:
    """Write a definition of the user's."""
    (runtime.home / "trials").mkdir(parents=True, exist_ok=True)
    (runtime.home / "trials" / f"{name}.yaml").write_text(text)


def test_each_night_opens_each_trial_as_a_batch_of_its_own(
    runtime: Runtime, instance: dg.DagsterInstance
) -> None:
    """What was judged before stays as it is, to be compared with."""
    write_batch(runtime.home / "trials" / "lower5", n_students=5, settings={})

    names = [[run.partition_key for run in night(instance, day)] for day in (5, 6)]

    assert names == [["trial-lower5-2026-01-05-0200z"], ["trial-lower5-2026-01-06-0200z"]]
    (run,) = night(instance, 5)
    assert run.run_config == {"ops": {"essays": {"config": {"trial": "lower5"}}}}
    assert run.tags[TRIAL_TAG] == "lower5"
    assert instance.has_dynamic_partition("batches", "trial-lower5-2026-01-06-0200z")


def test_a_tick_that_is_repeated_asks_under_the_same_key(
    runtime: Runtime, instance: dg.DagsterInstance
) -> None:
    """So Dagster starts one run, whatever became of the daemon."""
    define(runtime, "nightly", "based_on: lower5\n")

    keys = {night(instance, 5)[0].run_key for _ in range(2)}

    assert keys == {"trial-nightly-2026-01-05-0200z"}


def test_a_trial_with_its_own_schedule_runs_by_that_one_alone(
    runtime: Runtime, instance: dg.DagsterInstance
) -> None:
    """Cron and time zone are its own, and the night does not open it a second time."""
    define(
        runtime,
        "hourly",
        "based_on: mini\nschedule: {cron: '0 * * * *', timezone: Europe/Stockholm}\n",
    )

    _, own = trial_schedules(runtime.home)

    assert (own.name, own.cron_schedule, own.execution_timezone) == (
        "trial_hourly",
        "0 * * * *",
        "Europe/Stockholm",
    )
    assert night(instance, 5) == []
    (run,) = night(instance, 5, own)
    assert run.run_config == {"ops": {"essays": {"config": {"trial": "hourly"}}}}


def test_a_definition_that_is_wrong_holds_no_other_up(
    runtime: Runtime, instance: dg.DagsterInstance
) -> None:
    """And the code location loads all the same."""
    define(runtime, "wrong", "made_up: {students: 0}\n")
    define(runtime, "right", "based_on: mini\n")

    assert len(trial_schedules(runtime.home)) == 1
    assert [run.tags[TRIAL_TAG] for run in night(instance, 5)] == ["right"]


def test_schedules_are_off_until_a_person_turns_them_on(runtime: Runtime) -> None:
    """A trial may cost money."""
    define(runtime, "hourly", "based_on: mini\nschedule: {cron: '0 * * * *'}\n")

    states = {schedule.default_status for schedule in trial_schedules(runtime.home)}

    assert states == {dg.DefaultScheduleStatus.STOPPED}


def test_without_trials_nothing_is_asked(runtime: Runtime, instance: dg.DagsterInstance) -> None:
    """A schedule turned on too early does no harm."""
    assert night(instance, 5) == []


def test_no_definition_stops_the_code_location(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    """A cron that is no time, two names that become one, a file nobody may read: each is told."""
    define(runtime, "sound", "folder: x\nschedule: {cron: '0 3 * * *'}\n")
    define(runtime, "no-time", "folder: x\nschedule: {cron: '99 99 * * *'}\n")
    define(runtime, "no-day", "folder: x\nschedule: {cron: '0 0 31 4,6 *'}\n")
    define(runtime, "deep", "[" * 5_000)
    define(runtime, "no-date", "about: 2026-02-30\n")
    define(runtime, "one-name", "folder: x\nschedule: {}\n")
    define(runtime, "one_name", "folder: x\nschedule: {}\n")
    write_batch(runtime.home / "trials" / "Twice!", n_students=3, settings={})
    write_batch(runtime.home / "trials" / "twice", n_students=3, settings={})
    (runtime.home / "trials" / "broken.yaml").mkdir()

    names = {schedule.name for schedule in trial_schedules(runtime.home)}

    assert names == {"nightly_trials", "trial_sound", "trial_one_name"}
    for words in (
        *("'no-time'", "'one_name' has no schedule", "Twice!/", "'broken'"),
        *(
            "'0 0 31 4,6 *' names no day that ever comes",
            "'deep' is no YAML",
            "'no-date' is no YAML",
        ),
    ):
        assert words in caplog.text, words
