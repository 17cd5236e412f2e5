"""The Dagster instance of one home: `CJ_HOME/dagster`, persistent, configured by `dagster.yaml`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

CONFIGURATION = Path(__file__).parents[1] / "dagster.yaml"


def prepare_dagster_home(home: Path) -> Path:
    """Return the folder to use as DAGSTER_HOME, with a `dagster.yaml` in it.

    One that is there already is left alone: it may have been changed by hand.
    """
    folder = home / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / CONFIGURATION.name).exists():
        shutil.copyfile(CONFIGURATION, folder / CONFIGURATION.name)
    return folder


@contextmanager
def local_instance(home: Path) -> Iterator[dg.DagsterInstance]:
    """Open the instance that `cj ui` serves, so that what runs in it is shown there."""
    with dg.DagsterInstance.from_config(str(prepare_dagster_home(home))) as instance:
        yield instance
