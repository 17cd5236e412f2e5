"""The engine as Dagster's runs and ticks open it."""

from __future__ import annotations

from pathlib import Path

import pytest

from resources.engine_resource import EngineResource


def test_a_process_opens_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening brings the schema up to date; a tick every two seconds must not."""
    monkeypatch.setenv("CJ_HOME", str(tmp_path))

    assert EngineResource().open() is EngineResource().open()


def test_another_home_is_another_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is configured wins over the environment."""
    monkeypatch.setenv("CJ_HOME", str(tmp_path / "one"))

    here, there = EngineResource().open(), EngineResource(home=str(tmp_path / "two")).open()

    assert (here.home.name, there.home.name) == ("one", "two")
