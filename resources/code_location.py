"""The one code location, by one name, however Dagster is started.

What Dagster remembers of a schedule or a sensor (on or off, its cursor) it remembers by the
location's name. `dagster dev -m cj_pipeline.definitions` names the location after the module, so
homes from before know it by that; `carry_over` brings what they remember along.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from resources.dagster_internals import (
    SINGLETON_REPOSITORY_NAME,
    InstigatorState,
    LoadableTargetOrigin,
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
    copy,
)

LOCATION = "cj_pipeline"
MODULE = "cj_pipeline.definitions"
EARLIER_NAMES = ("cj_pipeline.definitions",)
WORKSPACE_FILE = "workspace.yaml"


def write_workspace(dagster_home: Path) -> Path:
    """Write the workspace that names the location, and return its file."""
    module = {"module_name": MODULE, "location_name": LOCATION}
    file = dagster_home / WORKSPACE_FILE
    file.write_text(yaml.safe_dump({"load_from": [{"python_module": module}]}, sort_keys=False))
    return file


@contextmanager
def runs_in_location(instance: dg.DagsterInstance) -> Iterator[None]:
    """Have runs that are executed in this process shown as runs of the location.

    Dagster records where a run's code is only as it launches the run itself; without it the run's
    row has no link to its job, and its page cannot start it again.
    """
    create = instance.create_run_for_job
    code = LoadableTargetOrigin(executable_path=sys.executable, module_name=MODULE)
    repository = RemoteRepositoryOrigin(
        ManagedGrpcPythonEnvCodeLocationOrigin(code, LOCATION), SINGLETON_REPOSITORY_NAME
    )

    def create_located(job_def: dg.JobDefinition, **more: Any) -> dg.DagsterRun:
        origin = RemoteJobOrigin(repository, job_def.name)
        return create(job_def, remote_job_origin=origin, **more)

    instance.create_run_for_job = create_located  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        del instance.create_run_for_job


def carry_over(instance: dg.DagsterInstance) -> int:
    """Bring along what was turned on or off, and every cursor, under a name from before.

    What has a state under the present name keeps that one.

    Returns:
        How many schedules and sensors were brought along.
    """
    states = instance.all_instigator_state()
    known = {state.selector_id for state in states}
    n_brought = 0
    for state in states:
        repository = state.origin.repository_origin
        location = repository.code_location_origin
        if location.location_name not in EARLIER_NAMES:
            continue
        renamed = InstigatorState(
            RemoteInstigatorOrigin(
                RemoteRepositoryOrigin(
                    copy(location, location_name=LOCATION), repository.repository_name
                ),
                state.instigator_name,
            ),
            state.instigator_type,
            state.status,
            state.instigator_data,
        )
        if renamed.selector_id not in known:
            instance.add_instigator_state(renamed)
            n_brought += 1
    return n_brought
