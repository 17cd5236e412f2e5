"""A run that a person or a backfill starts takes from its batch's pools, as a sensor's does."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)

from assets.automation.pools import ProviderPools
from cj_pipeline.definitions import defs
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.ingest import ingest
from tests.support.batches import write_batch

SETTINGS = {"judges": ["cj-generic-batch"]}
ORIGIN = RemoteJobOrigin(
    RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("cj_pipeline"), "__repository__"),
    "collect_wave",
)
POOL = "dagster/cj-provider-emulator"


@pytest.fixture
def pools(instance: dg.DagsterInstance) -> ProviderPools:
    """The coordinator of this instance."""
    coordinator = ProviderPools()
    coordinator.register_instance(instance)
    return coordinator


def submitted(
    pools: ProviderPools, instance: dg.DagsterInstance, batch_id: str, **more: Any
) -> dict[str, str]:
    """Submit a run that somebody started, and return its tags."""
    tags = {"dagster/partition": batch_id} | more.pop("tags", {})
    run = instance.create_run_for_job(
        defs.resolve_job_def("collect_wave"), tags=tags, remote_job_origin=ORIGIN, **more
    )
    context: Any = SimpleNamespace(dagster_run=run, workspace=None)
    return dict(pools.submit_run(context).tags)


def test_a_batch_in_the_store_is_in_its_judges_pools(
    pools: ProviderPools, instance: dg.DagsterInstance, runtime: Runtime, tmp_path: Path
) -> None:
    """With its priority, as if the sensor had asked."""
    settings = SETTINGS | {"priority": "high"}
    ingest(runtime, write_batch(tmp_path / "spring-9", n_students=4, settings=settings))

    tags = submitted(pools, instance, "spring-9")

    assert (tags[POOL], tags["dagster/priority"]) == ("yes", "12")


def test_a_folder_announces_its_pools(
    pools: ProviderPools, instance: dg.DagsterInstance, runtime: Runtime
) -> None:
    """A person opens a batch that is in the inbox and not yet in the store."""
    write_batch(runtime.inbox / "autumn", n_students=4, settings=SETTINGS)

    assert submitted(pools, instance, "autumn")[POOL] == "yes"


def test_a_sensors_tags_stay(
    pools: ProviderPools, instance: dg.DagsterInstance, runtime: Runtime, tmp_path: Path
) -> None:
    """It has read the rows already."""
    ingest(runtime, write_batch(tmp_path / "spring-9", n_students=4, settings=SETTINGS))

    tags = submitted(
        pools, instance, "spring-9", tags={"dagster/cj-provider-x": "yes", "dagster/priority": "7"}
    )

    assert POOL not in tags
    assert tags["dagster/priority"] == "7"


def test_the_list_of_runs_shows_the_batchs_name_alone(
    pools: ProviderPools, instance: dg.DagsterInstance, runtime: Runtime, tmp_path: Path
) -> None:
    """Dagster shows tags of its own only when asked; with a panel there would be five."""
    ingest(runtime, write_batch(tmp_path / "spring-9", n_students=4, settings=SETTINGS))

    tags = submitted(pools, instance, "spring-9")

    assert all(tag.startswith("dagster/") for tag in tags)
