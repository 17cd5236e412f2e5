"""An answer says what is wrong, and nothing about the machine it is wrong on."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cj_pipeline.errors import BatchProblemsError, StoreBusyError, StoreError
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.ingest import ingest
from tests.support.batches import open_engine
from tests.support.served_runtime import asking


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """An empty home."""
    return open_engine(tmp_path / "home")


@pytest.mark.parametrize(("error", "status"), [(StoreError, 500), (StoreBusyError, 503)])
def test_no_answer_names_a_folder_of_the_server(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, error: type[Exception], status: int
) -> None:
    """Where the home is, and whose it is, helps nobody but an intruder."""
    folders = [runtime.home, Path.home(), Path(sys.prefix), Path(tempfile.gettempdir())]

    @contextmanager
    def fails() -> Iterator[Any]:
        raise error(" and ".join(f"{folder}/cj.duckdb is broken" for folder in folders))
        yield

    with asking(runtime) as client:
        monkeypatch.setattr(runtime.store, "read", fails)
        replies = [client.get(path) for path in ("/api/v1/batches", "/healthz")]
        scraped = client.get("/metrics")

    assert scraped.status_code == (200 if error is StoreBusyError else 500)  # it says who holds it
    assert not [folder for folder in folders if str(folder) in scraped.text]
    for reply in replies:
        assert reply.status_code == status
        assert "cj.duckdb is broken" in reply.json()["detail"]
        assert not [folder for folder in folders if str(folder) in reply.text]


def test_a_rejected_batch_is_shown_without_the_folders_of_its_problems(runtime: Runtime) -> None:
    """Problems are stored as ingestion wrote them, with whole paths in some."""
    with pytest.raises(BatchProblemsError):
        ingest(runtime, runtime.inbox / "mini")

    with asking(runtime) as client:
        replies = [client.get(path) for path in ("/api/v1/batches", "/api/v1/batches/mini")]

    for reply in replies:
        assert reply.status_code == 200
        assert "there is no folder" in reply.text
        assert str(runtime.home) not in reply.text
