"""Whose pool a run takes from, and how urgent it is: the tags that `dagster.yaml` limits and sorts.

Sensors set them as they request a run. A run that a person or a backfill starts is given the same
by the coordinator here. The tags begin with `dagster/`, which the list of runs does not show
unless asked: a row there has the batch's name and nothing else.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from dagster import DagsterRun

from cj_pipeline.errors import CJError, SettingsError
from cj_pipeline.intake.settings import BatchSettings
from cj_pipeline.judging.judges import load_judge
from cj_pipeline.judging.provider_definitions import OWN_FOLDER, known_providers
from resources.dagster_internals import (
    QueuedRunCoordinator,
    SubmitRunContext,
)
from resources.runtime_resource import PARTITION_TAG, RuntimeResource

POOL_TAG = "dagster/cj-provider"
"""Followed by `-` and a provider's name it is what `dagster.yaml` limits: one pool a provider."""

MARK_TAG = "dagster/cj-mark"
"""The state of a batch that a run was requested in."""

PRIORITY_TAG = "dagster/priority"
_PRIORITY = {"low": -10, "normal": 0, "high": 10}
_HURRY = {"collect_wave": 2, "finish_batch": 2, "next_wave": 1}
"""Of a batch's runs, within its priority: what has ended is collected first."""

_MAX_SETTINGS_BYTES = 64 * 1024

_LOG = logging.getLogger(__name__)


def run_tags(job: str, providers: Sequence[str], priority: str) -> dict[str, str]:
    """Return a run's place in the queue, and the pools it takes from."""
    return {
        PRIORITY_TAG: str(_PRIORITY.get(priority, 0) + _HURRY.get(job, 0)),
        **{f"{POOL_TAG}-{_pool(provider)}": "yes" for provider in providers},
    }


def _pool(provider: str) -> str:
    """Return the pool of a provider: its own, or, of one that was defined here, a common one."""
    return provider if provider in known_providers() else "openai-compatible"


def settings_in(folder: Path) -> Mapping[str, Any]:
    """Return what a folder's `batch.yaml` says, unchecked; no judges where it cannot be read.

    Only a hint for the queue: what is wrong with the folder is reported by its run.
    """
    try:
        with (folder / "batch.yaml").open("rb") as file:
            given = yaml.safe_load(file.read(_MAX_SETTINGS_BYTES))
    except (OSError, yaml.YAMLError, ValueError, RecursionError):
        return {"judges": ()}
    return given if isinstance(given, dict) else {}


def announced(folder: Path) -> tuple[tuple[str, ...], str]:
    """Return the providers and the priority that a batch folder's settings announce."""
    given = settings_in(folder)
    try:
        judges = given.get("judges", BatchSettings().judges)
        own = folder.parent.parent / OWN_FOLDER
        found = {load_judge(str(name), folder / "judges", own).provider for name in judges}
        return tuple(sorted(found)), str(given.get("priority", "normal"))
    except (OSError, SettingsError, TypeError, ValueError):
        return (), "normal"


class ProviderPools(QueuedRunCoordinator):
    """The queue, in which a run started by hand or by a backfill has its batch's pools too."""

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        """Queue a run."""
        run = context.dagster_run
        if PARTITION_TAG in run.tags and not any(tag.startswith(POOL_TAG) for tag in run.tags):
            missing = {k: v for k, v in _tags_of(run).items() if k not in run.tags}
            if missing:
                self._instance.add_run_tags(run.run_id, missing)
        return super().submit_run(context)


def _tags_of(run: DagsterRun) -> dict[str, str]:
    """Return the tags that a sensor would have given a run; none where the store is not known."""
    if not (os.environ.get("CJ_HOME") or os.environ.get("CJ_STORE")):
        return {}
    try:
        runtime = RuntimeResource().open_for_tick()
        with runtime.store.read() as db:
            row = db.one(
                "SELECT list_sort(list(DISTINCT j.provider)) AS providers,"
                " any_value(b.settings->>'priority') AS priority"
                " FROM batches b JOIN judges j USING (batch_id) WHERE b.batch_id = ?",
                [run.tags[PARTITION_TAG]],
            )
    except CJError as error:
        _LOG.warning("The run %s takes from no provider's pool: %s", run.run_id, error)
        return {}
    if row is not None and row["providers"]:
        return run_tags(run.job_name, row["providers"], row["priority"] or "normal")
    config: Any = run.run_config
    source = config.get("ops", {}).get("essays", {}).get("config", {})
    folder = source.get("folder") or runtime.inbox / run.tags[PARTITION_TAG]
    return run_tags(run.job_name, *announced(Path(folder)))
