"""What of Dagster is used that it does not call public, under one roof.

A release may move or change any of it, so `pyproject.toml` bounds Dagster's version to those that
this was tried with, and `make newest` tries the newest without that bound. Everything else here
imports from `dagster` alone, and from this module; a test holds the code to it.
"""

from dagster._core.definitions.repository_definition import SINGLETON_REPOSITORY_NAME
from dagster._core.event_api import PartitionKeyFilter
from dagster._core.instance.utils import RUNLESS_RUN_ID
from dagster._core.launcher.base import (
    CheckRunHealthResult,
    LaunchRunContext,
    RunLauncher,
    WorkerStatus,
)
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.run_coordinator import QueuedRunCoordinator, SubmitRunContext
from dagster._core.scheduler.instigation import InstigatorState
from dagster._core.storage.event_log import SqlEventLogStorage, SqliteEventLogStorage
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    AssetKeyTable,
    SqlEventLogStorageTable,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._grpc.types import ExecuteRunArgs
from dagster._record import copy
from dagster._serdes import ConfigurableClass, serialize_value
from dagster._serdes.config_class import ConfigurableClassData

__all__ = [
    "RUNLESS_RUN_ID",
    "SINGLETON_REPOSITORY_NAME",
    "AssetCheckExecutionsTable",
    "AssetKeyTable",
    "CheckRunHealthResult",
    "ConfigurableClass",
    "ConfigurableClassData",
    "ExecuteRunArgs",
    "InstigatorState",
    "LaunchRunContext",
    "LoadableTargetOrigin",
    "ManagedGrpcPythonEnvCodeLocationOrigin",
    "PartitionKeyFilter",
    "QueuedRunCoordinator",
    "RemoteInstigatorOrigin",
    "RemoteJobOrigin",
    "RemoteRepositoryOrigin",
    "RunLauncher",
    "SqlEventLogStorage",
    "SqlEventLogStorageTable",
    "SqliteEventLogStorage",
    "SubmitRunContext",
    "WorkerStatus",
    "copy",
    "execute_run",
    "serialize_value",
]


def execute_run(arguments: str) -> None:
    """Carry out a run in this process, as Dagster's command does that its launchers start."""
    from dagster._cli.api import execute_run_command

    execute_run_command.main(args=[arguments], standalone_mode=False)
