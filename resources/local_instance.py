"""The Dagster instance of one home: `CJ_HOME/dagster`, persistent, configured by `dagster.yaml`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

CONFIGURATION = Path(__file__).parents[1] / "dagster.yaml"

_RENAMED = {
    "key: cj/provider-": "key: dagster/cj-provider-",
    "  module: dagster.core.run_coordinator\n  class: QueuedRunCoordinator\n": (
        "  module: assets.automation.pools\n  class: ProviderPools\n"
    ),
}
"""What a `dagster.yaml` from before calls otherwise: its pools would limit nothing any more."""


def prepare_dagster_home(home: Path) -> Path:
    """Return the folder to use as DAGSTER_HOME, with a `dagster.yaml` in it.

    One that is there already keeps what was changed by hand; only names from before are renewed.
    """
    folder = home / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / CONFIGURATION.name
    if not file.exists():
        shutil.copyfile(CONFIGURATION, file)
        return folder
    found = renewed = file.read_text(encoding="utf-8")
    for before, now in _RENAMED.items():
        renewed = renewed.replace(before, now)
    if renewed != found:
        file.write_text(renewed, encoding="utf-8")
    return folder


@contextmanager
def local_instance(home: Path) -> Iterator[dg.DagsterInstance]:
    """Open the instance that `cj ui` serves, so that what runs in it is shown there."""
    with dg.DagsterInstance.from_config(str(prepare_dagster_home(home))) as instance:
        yield instance
