"""What is observed of the jobs at the providers: an observation for each change of a job's state.

Never one for a look that finds a job as it was. What was observed last is in the sensor's cursor:
without it, jobs that are not done are observed again once. The asset is `provider_job_states`.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import dagster as dg

from cj_pipeline.queries.job_states import KnownStates
from cj_pipeline.text import excerpt

JOB_STATES = dg.AssetKey("provider_job_states")

_SHOWN = ("provider", "model", "batching_mode", "provider_job_id", "state", "provider_status")
_COUNTED = ("n_requests", "n_completed", "n_failed")


def observation(row: Mapping[str, Any]) -> dg.AssetObservation:
    """Return what is observed of a job, for its batch's partition."""
    words = {name: excerpt(str(row[name]), 100) for name in _SHOWN if row[name] is not None}
    waits = {"waiting_for": row["waiting_for"]} if row["waiting_for"] else {}
    counts = {name: int(row[name]) for name in _COUNTED if row[name] is not None}
    return dg.AssetObservation(
        JOB_STATES,
        description=f"{row['submission_key'][:16]} is {row['state']}",
        partition=row["batch_id"],
        metadata={"submission_key": row["submission_key"], **words, **waits, **counts},
    )


def observations(rows: Sequence[Mapping[str, Any]]) -> list[dg.AssetObservation]:
    """Return an observation for each job that changed."""
    return [observation(row) for row in rows]


def read_cursor(cursor: str | None) -> KnownStates:
    """Return what a cursor says was observed; nothing where there is none, or another's."""
    try:
        said = json.loads(cursor or "")
        since = None if said["since"] is None else datetime.fromisoformat(said["since"])
        return KnownStates(since, {str(key): str(state) for key, state in said["states"].items()})
    except (ValueError, TypeError, KeyError, AttributeError):
        return KnownStates()


def cursor_of(known: KnownStates) -> str:
    """Return what is observed now as a cursor."""
    since = None if known.since is None else known.since.isoformat()
    return json.dumps({"since": since, "states": dict(known.states)})
