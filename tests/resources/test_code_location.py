"""One code location by one name: what was turned on under another name stays on."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
    SensorInstigatorData,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from resources.code_location import LOCATION, carry_over, write_workspace
from tests.support import ROOT


def state(name: str, location: str, status: InstigatorStatus) -> InstigatorState:
    """Return what Dagster stores of a schedule, or of a sensor, of a location."""
    target = LoadableTargetOrigin(module_name="cj_pipeline.definitions")
    origin = RemoteInstigatorOrigin(
        RemoteRepositoryOrigin(
            ManagedGrpcPythonEnvCodeLocationOrigin(target, location), "__repository__"
        ),
        name,
    )
    if name.endswith("sensor"):
        return InstigatorState(
            origin, InstigatorType.SENSOR, status, SensorInstigatorData(cursor="seen")
        )
    data = ScheduleInstigatorData("0 2 * * *")
    return InstigatorState(origin, InstigatorType.SCHEDULE, status, data)


@pytest.fixture
def instance(tmp_path: Path) -> dg.DagsterInstance:
    """An instance that remembers a night of trials turned on under the module's name."""
    instance = dg.DagsterInstance.local_temp(str(tmp_path))
    for name in ("nightly_trials", "inbox_sensor"):
        instance.add_instigator_state(
            state(name, "cj_pipeline.definitions", InstigatorStatus.RUNNING)
        )
    return instance


def test_what_was_turned_on_stays_on_with_its_cursor(instance: dg.DagsterInstance) -> None:
    """A trial that silently stops running is found out by its absence, weeks later."""
    assert carry_over(instance) == 2

    found = {
        each.instigator_name: each
        for each in instance.all_instigator_state()
        if each.selector.location_name == LOCATION
    }
    assert found["nightly_trials"].status is InstigatorStatus.RUNNING
    cursor = found["inbox_sensor"].sensor_instigator_data
    assert cursor is not None
    assert cursor.cursor == "seen"


def test_a_choice_made_under_the_present_name_is_kept(instance: dg.DagsterInstance) -> None:
    """It is the newer one."""
    instance.add_instigator_state(state("nightly_trials", LOCATION, InstigatorStatus.STOPPED))

    carry_over(instance)
    again = carry_over(instance)

    (kept,) = [
        each
        for each in instance.all_instigator_state()
        if each.selector.location_name == LOCATION and each.instigator_name == "nightly_trials"
    ]
    assert kept.status is InstigatorStatus.STOPPED
    assert again == 0


def test_every_documented_way_of_starting_names_the_location_alike(tmp_path: Path) -> None:
    """Two names are two histories, two sets of cursors and two schedules."""
    workspaces = [
        yaml.safe_load(file.read_text())
        for file in (
            write_workspace(tmp_path),
            ROOT / "workspace.yaml",
            ROOT / "deploy" / "workspace.yaml",
        )
    ]
    values = yaml.safe_load((ROOT / "deploy" / "dagster-values.yaml").read_text())

    names = [
        target["location_name"]
        for workspace in workspaces
        for entry in workspace["load_from"]
        for target in entry.values()
    ]
    names += [each["name"] for each in values["dagsterWebserver"]["workspace"]["servers"]]
    assert set(names) == {LOCATION}
