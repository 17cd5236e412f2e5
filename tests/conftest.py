"""What holds for every test: where its files go, and how it comes by a store."""

from __future__ import annotations

import gc
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from cj_pipeline.store import file_store
from tests.support import ROOT
from tests.support.template_store import copies_of_a_template

MEMORY = Path("/dev/shm")  # noqa: S108 - a folder in memory, where the machine has one
ROOM_BYTES = 4 << 30
"""Far more than the tests hold at one time; a container often has 64 MB."""


JOURNEYS = (
    "journeys",
    "notebooks",
    "examples",
    "assets/automation/test_in_process.py",
    "cj_pipeline/trials/test_runs.py",
)
"""What spans modules from end to end; `make test-all`."""

BATCHES = (
    "assets",
    "resources",
    *(
        f"cj_pipeline/{package}"
        for package in ("checks", "commands", "operations", "outputs", "people", "planning")
    ),
    *(f"cj_pipeline/{package}" for package in ("progress", "provider_jobs", "service")),
    *(f"cj_pipeline/{package}" for package in ("steps", "trials")),
)
"""What has a batch judged, or runs Dagster; `make test`."""


PICTURES = ("cj_pipeline/outputs", *JOURNEYS)
"""Where the report's pictures are looked at; elsewhere they are built and not drawn."""


# A forked child has objects of threads that it does not have: to collect one may wait for ever.
os.register_at_fork(after_in_child=gc.freeze)

# The same examples each time, however slow the machine is; new ones are drawn at night.
settings.register_profile("always", derandomize=True, deadline=None)
settings.register_profile("nightly", deadline=None, print_blob=True)
settings.load_profile("nightly" if os.environ.get("CJ_TESTS") == "nightly" else "always")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shuffle", type=int, metavar="SEED", help="run tests in random order")
    parser.addoption(
        "--on-disk",
        action="store_true",
        help="keep temporary files on disk, even where there is room for them in memory",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Put temporary files in memory where there is room: a third of the time went to fsync."""
    if config.getoption("--on-disk") or not os.access(MEMORY, os.W_OK):
        return
    if shutil.disk_usage(MEMORY).free >= ROOM_BYTES:
        os.environ["PYTEST_DEBUG_TEMPROOT"] = tempfile.tempdir = str(MEMORY)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests by where they are, and put them in the order that was asked for."""
    for item in items:
        place = item.path.relative_to(ROOT / "tests").as_posix()
        if place.startswith(JOURNEYS):
            item.add_marker(pytest.mark.journey)
        elif place.startswith(BATCHES):
            item.add_marker(pytest.mark.batch)
    seed = config.getoption("--shuffle")
    if seed is not None:
        random.Random(seed).shuffle(items)  # noqa: S311 - an order, not a secret
    else:
        # Whole batches first: the last test to end should be a short one.
        items.sort(
            key=lambda item: not {"journey", "batch"} & {m.name for m in item.iter_markers()}
        )


@pytest.fixture(scope="session", autouse=True)
def temporary_files() -> Iterator[None]:
    """What the code under test puts among the machine's temporary files ends with the session."""
    folder = tempfile.mkdtemp(prefix="cj-")
    Path(folder).chmod(0o711)  # PostgreSQL runs as another user, in a folder of its own below
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def one_thread_a_store() -> Iterator[None]:
    """Tests' tables are too small to be shared out, and idle threads take a fifth of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(file_store.DUCKDB_CONFIG, "threads", 1)
        yield


@pytest.fixture(autouse=True)
def undrawn_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the time of a small batch went to drawing what no test there looks at."""
    place = request.path.relative_to(ROOT / "tests").as_posix()
    if place.startswith(BATCHES) and not place.startswith(PICTURES):
        monkeypatch.setattr("cj_pipeline.outputs.plots.svg", lambda _figure: b"<svg/>")


@pytest.fixture(scope="session", autouse=True)
def copied_stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A new store is a copy of one that was migrated once."""
    with copies_of_a_template(tmp_path_factory.mktemp("template")):
        yield
