"""A home, its engine and a Dagster instance, all made up on the spot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from assets.automation import sensors
from cj_pipeline.runtime import Runtime
from resources.runtime_resource import RuntimeResource


@pytest.fixture(autouse=True)
def one_look_a_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tick that finds nothing to do ends at once; those that watch say so."""
    monkeypatch.setattr(sensors, "WATCH_FOR_S", 0.0)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, which is this process's CJ_HOME."""
    home = tmp_path / "home"
    monkeypatch.setenv("CJ_HOME", str(home))
    monkeypatch.delenv("CJ_EMULATOR_URL", raising=False)
    return home


@pytest.fixture
def runtime(home: Path) -> Runtime:
    """The engine that assets and sensors of this process open."""
    return RuntimeResource().open()


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """A Dagster instance that ends with the test."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance
