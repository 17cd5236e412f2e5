"""Every notebook runs from top to bottom on a store that holds batches."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from cj_pipeline.store.file_store import FileStore
from tests.support import ROOT
from tests.support.finished_batches import ARGUMENTS, SPRING, fill, insert_all, spring_rows

AGAIN = "spring-9-again"

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    store = FileStore(folder)
    with store.write() as db:
        fill(db)
        insert_all(db, spring_rows(AGAIN))
    store.publish()
    return folder


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.parametrize("batch_id", [SPRING, ARGUMENTS])
def test_a_notebook_runs_on_a_graded_and_on_an_ungraded_batch(
    home: Path, monkeypatch: pytest.MonkeyPatch, notebook: Path, batch_id: str
) -> None:
    """A notebook nobody ran since the last change is a notebook that fails."""
    monkeypatch.setenv("CJ_HOME", str(home))
    monkeypatch.setenv("CJ_BATCH", batch_id)
    monkeypatch.setenv("CJ_BATCHES", f"{batch_id},{AGAIN}")
    client = NotebookClient(
        nbformat.read(notebook, as_version=4), timeout=120, kernel_name="python3"
    )

    done = client.execute()

    assert all(cell.execution_count for cell in done.cells if cell.cell_type == "code")


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(notebook: Path) -> None:
    """Outputs hold students' work, and hide what a change changed."""
    cells = nbformat.read(notebook, as_version=4).cells

    assert all(not cell.outputs for cell in cells if cell.cell_type == "code")
