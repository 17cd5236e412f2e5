"""Dagster's own pages in a real browser: what a person sees of a batch that came out badly."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import httpx2
import pytest

from assets.automation.in_process import run_batch
from cj_pipeline.definitions import defs
from resources.local_instance import local_instance, prepare_dagster_home
from resources.runtime_resource import RuntimeResource
from tests.support import ROOT
from tests.support.batches import write_batch

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow

BATCH = "spring-9"
SERVICE = "https://essays.example.org"
NOT_MET = "cj_batch_waves >= 2"
SETTINGS = {
    "title": "Spring, year 9",
    "judges": ["quality"],
    "scale": "eng5_np_national_9_step",
    "all_at_once": True,
    "max_pairwise_comparisons": 78,
    "assertions": [NOT_MET],
    "emulator_qualities": {
        **{f"student-{n:03d}": n / 2 for n in range(1, 5)},
        **{f"anchor-{n:03d}": n / 2 - 2 for n in range(1, 10)},
    },
}
PATIENCE_MS = 180_000


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A webserver over a home in which one batch has ended, its own assertion not met."""
    home = tmp_path_factory.mktemp("served")
    folder = write_batch(home / BATCH, n_students=4, n_anchors=9, settings=SETTINGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CJ_HOME", str(home))
        patch.setenv("CJ_PUBLIC_URL", SERVICE)
        patch.delenv("CJ_EMULATOR_URL", raising=False)
        with local_instance(home) as instance:
            list(run_batch(instance, defs, RuntimeResource().open(), BATCH, folder, pause_s=0.05))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    dagster_home = prepare_dagster_home(home)
    with (home / "webserver.log").open("wb") as log:
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", "dagster_webserver", "--port", str(port)),
                *("--workspace", str(ROOT / "workspace.yaml")),
            ],
            cwd=ROOT,
            env={**os.environ, "CJ_HOME": str(home), "DAGSTER_HOME": str(dagster_home)},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # The code server it starts is ended by SIGINT, which it ignores if started so.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
        )
        try:
            wait_for(f"http://127.0.0.1:{port}")
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(server.pid, signal.SIGINT)
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)


def wait_for(address: str) -> None:
    """Return once the webserver answers."""
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while True:
        try:
            httpx2.get(f"{address}/server_info", timeout=5).raise_for_status()
        except (httpx2.TransportError, httpx2.HTTPStatusError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """A page of the system's browser, or of the one that `playwright install` fetched."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1500, "height": 1000})
        page.set_default_timeout(PATIENCE_MS)
        yield page
        browser.close()


def shows(page: Page, *texts: str | re.Pattern[str]) -> None:
    """Wait until the page shows each of these."""
    for text in texts:
        page.get_by_text(text).first.wait_for()


def kept(page: Page, name: str) -> None:
    """Keep a picture of the page where somebody wants to look at it."""
    if folder := os.environ.get("CJ_SCREENSHOTS"):
        page.wait_for_timeout(1500)
        page.screenshot(path=Path(folder) / f"{name}.png")


def test_the_asset_graph_shows_a_batchs_whole_life(address: str, page: Page) -> None:
    """From intake to outputs, and within a group each asset with its checks."""
    page.goto(f"{address}/asset-groups~*")

    shows(page, "intake", "judging", "scaling", "grading", "outputs")
    kept(page, "asset-graph")

    page.goto(f"{address}/locations/cj_pipeline/asset-groups/scaling/lineage")

    shows(page, "essay_scores", "wave_decision", re.compile("1 Failed|3 / 4 Passed"))
    kept(page, "asset-group")


def test_a_partitions_page_leads_to_the_report(address: str, page: Page) -> None:
    """Of the one batch that is asked for."""
    page.goto(f"{address}/assets/grade_projections?view=partitions&partition={BATCH}")

    shows(page, BATCH, "statement", "report_page")
    link = page.get_by_role("link", name=re.compile(r"batches.*report$")).first
    assert link.get_attribute("href") == f"{SERVICE}/api/v1/batches/{BATCH}/report"
    kept(page, "partition")


def test_a_failed_assertion_of_the_batchs_own_is_shown_with_its_figure(
    address: str, page: Page
) -> None:
    """In the words of `batch.yaml`, and what was found instead."""
    check = quote("own_assertions_hold")
    page.goto(f"{address}/assets/wave_decision?view=checks&checkDetail={check}")

    found = f"0 of 1 hold, so no grades leave; {NOT_MET}: it is 1"
    shows(page, "own_assertions_hold", "Failed", re.compile(re.escape(found)))
    kept(page, "failed-check")


def test_grading_again_is_preset_once_a_batch_is_chosen(address: str, page: Page) -> None:
    """A person chooses the batch, and need not know a key to have it graded again."""
    page.goto(f"{address}/locations/cj_pipeline/jobs/regrade_batch/playground")
    page.get_by_placeholder("Partition").fill(BATCH)
    page.get_by_placeholder("Partition").press("Enter")

    shows(page, re.compile("again: ?true"))
    kept(page, "launchpad")
