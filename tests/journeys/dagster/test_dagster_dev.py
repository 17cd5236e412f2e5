"""The daemon, unattended: what is dropped into the inbox comes out scored."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from typer.testing import CliRunner

from assets.automation.sensors import ALL_SENSORS
from cj_pipeline import open_published
from cj_pipeline.cli import app
from cj_pipeline.errors import StoreError
from tests.support import ROOT
from tests.support.batches import open_engine
from tests.support.dagster_dev import dagster_dev, query, wait_for
from tests.support.served_runtime import MINI, asking


def published_rows(home: Path, sql: str) -> list[tuple[Any, ...]]:
    """Return what analysts see now; nothing before anything is published."""
    try:
        with open_published(home) as connection:
            return connection.sql(sql).fetchall()
    except (duckdb.CatalogException, StoreError):
        return []


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """`dagster dev` over an empty home: webserver, daemon and code server."""
    home = tmp_path_factory.mktemp("served")
    with dagster_dev(home) as port:
        yield home, port


@pytest.mark.slow
def test_a_folder_dropped_into_the_inbox_comes_out_scored(served: tuple[Path, int]) -> None:
    """Nobody touches anything in between."""
    home, _ = served
    dropped = time.monotonic()
    (home / "inbox").mkdir(exist_ok=True)
    shutil.copytree(ROOT / "examples" / "lower5", home / "inbox" / ".lower5")
    (home / "inbox" / ".lower5").rename(home / "inbox" / "lower5")

    wait_for(lambda: published_rows(home, "SELECT 1 FROM batch_report"))

    print(f"from the inbox to the report: {time.monotonic() - dropped:.1f} s")
    assert published_rows(home, "SELECT state, end_reason FROM batches") == [
        ("succeeded", "small_net_cap")
    ]
    assert published_rows(
        home, "SELECT count(*) FROM essay_scores WHERE wave = (SELECT max(wave) FROM essay_scores)"
    ) == [(5,)]


@pytest.mark.slow
def test_a_batch_handed_in_over_http_is_judged_by_dagster(served: tuple[Path, int]) -> None:
    """The service only puts it into the inbox; afterwards API, CLI and Dagster say the same."""
    home, port = served

    with asking(open_engine(home)) as client:
        reply = client.post("/api/v1/batches", json=MINI)
        assert reply.json()["state"] == "queued"
        wait_for(lambda: client.get("/api/v1/batches/mini").json()["has_report"])
        shown = client.get("/api/v1/batches/mini").json()
        said = CliRunner().invoke(
            app, ["watch", "mini", "--timeout", "0"], env={"CJ_HOME": str(home)}
        )

    assert (shown["state"], shown["progress"]["outcome"]) == ("succeeded", "success")
    assert said.exit_code == 0
    runs = """{ runsOrError(filter: {tags: [{key: "dagster/partition", value: "mini"}]}) {
        ... on Runs { results { jobName status } } } }"""

    def ended_well() -> list[str]:
        found = query(port, runs).get("runsOrError", {}).get("results", [])
        is_over = {run["status"] for run in found} == {"SUCCESS"}
        return [run["jobName"] for run in found] if is_over else []

    # The last run's checks go on for a moment after the report is written.
    assert "open_batch" in wait_for(ended_well)


@pytest.mark.slow
def test_a_folder_with_problems_is_rejected_and_taken_in_once_mended(
    served: tuple[Path, int],
) -> None:
    """The failed run names every problem; mending the folder is all there is to do."""
    home, port = served
    folder = home / "inbox" / "mended"
    shutil.copytree(ROOT / "examples" / "lower5", home / "inbox" / ".mended")
    settings = (home / "inbox" / ".mended" / "batch.yaml").read_text()
    (home / "inbox" / ".mended" / "batch.yaml").write_text(settings + "wave_sise: 3\n")
    (home / "inbox" / ".mended").rename(folder)
    failed = "{ runsOrError(filter: {statuses: [FAILURE]}) { ... on Runs { results { id } } } }"
    wait_for(lambda: query(port, failed).get("runsOrError", {}).get("results"))

    (folder / "batch.yaml").write_text(settings)

    wait_for(lambda: published_rows(home, "SELECT 1 FROM batch_report WHERE batch_id = 'mended'"))


@pytest.mark.slow
def test_the_sensors_run_without_anybody_turning_them_on(served: tuple[Path, int]) -> None:
    """And their ticks do not fail."""
    _, port = served
    text = """{ sensorsOrError(repositorySelector: {
        repositoryName: "__repository__", repositoryLocationName: "cj_pipeline"}) {
        ... on Sensors { results { name sensorState { status ticks(limit: 5) { status } } } } } }"""

    sensors = wait_for(lambda: query(port, text).get("sensorsOrError", {}).get("results"))

    states = {sensor["name"]: sensor["sensorState"] for sensor in sensors}
    assert set(states) == {sensor.name for sensor in ALL_SENSORS}
    assert {state["status"] for state in states.values()} == {"RUNNING"}
    ticks = {tick["status"] for state in states.values() for tick in state["ticks"]}
    assert "FAILURE" not in ticks
