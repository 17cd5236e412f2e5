"""Trials: the same batch each night, under each night's own name."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from assets.trial_schedules import TRIAL_TAG, nightly_trials
from cj_pipeline.definitions import defs
from cj_pipeline.steps import Engine
from resources.engine_resource import EngineResource
from tests.batch_folders import write_batch


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance in files: a schedule opens it anew by its reference."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


def night(instance: dg.DagsterInstance, day: int) -> list[dg.RunRequest]:
    """Return what the schedule asks for in one night of January."""
    context = dg.build_schedule_context(
        instance=instance,
        scheduled_execution_time=datetime(2026, 1, day, 2, tzinfo=UTC),
        resources={"engine": EngineResource()},
        repository_def=defs.get_repository_def(),
    )
    return list(nightly_trials.evaluate_tick(context).run_requests or [])


def test_each_night_opens_each_trial_as_a_batch_of_its_own(
    engine: Engine, instance: dg.DagsterInstance
) -> None:
    """What was judged before stays as it is, to be compared with."""
    folder = write_batch(engine.home / "trials" / "lower5", n_students=5, settings={})

    names = [[run.partition_key for run in night(instance, day)] for day in (5, 6)]

    assert names == [["trial-lower5-2026-01-05"], ["trial-lower5-2026-01-06"]]
    (run,) = night(instance, 5)
    assert run.run_config == {"ops": {"essays": {"config": {"folder": str(folder)}}}}
    assert run.tags[TRIAL_TAG] == "lower5"
    assert instance.has_dynamic_partition("batches", "trial-lower5-2026-01-06")


def test_without_trials_nothing_is_asked(engine: Engine, instance: dg.DagsterInstance) -> None:
    """A schedule turned on too early does no harm."""
    assert night(instance, 5) == []
