"""The engine as Dagster's runs and ticks open it."""

from __future__ import annotations

import json
from pathlib import Path

import dagster as dg
import pytest
import structlog

from cj_pipeline.queries.batch_record import batch_correlation_id
from resources.runtime_resource import RuntimeResource


def test_a_process_opens_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening brings the schema up to date; a tick every two seconds must not."""
    monkeypatch.setenv("CJ_HOME", str(tmp_path))

    assert RuntimeResource().open() is RuntimeResource().open()


def test_another_home_is_another_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is configured wins over the environment."""
    monkeypatch.setenv("CJ_HOME", str(tmp_path / "one"))

    here, there = RuntimeResource().open(), RuntimeResource(home=str(tmp_path / "two")).open()

    assert (here.home.name, there.home.name) == ("one", "two")


def test_log_lines_of_a_run_name_its_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever looks for a batch in the logs finds its runs as well as its commands."""
    monkeypatch.setenv("CJ_HOME", str(tmp_path))

    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(["spring-9"]))
    def noisy(engine: RuntimeResource) -> None:
        structlog.get_logger().info("something_happened")

    structlog.reset_defaults()
    resources = {"engine": RuntimeResource()}
    result = dg.materialize([noisy], partition_key="spring-9", resources=resources)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()

    lines = [line for line in capsys.readouterr().err.splitlines() if "something_happened" in line]
    (line,) = map(json.loads, lines)
    assert line["batch_id"] == "spring-9"
    assert line["run_id"] == result.run_id
    assert line["correlation_id"] == batch_correlation_id("spring-9")
