"""New stores as copies of one that was migrated for real, once per process.

Thirty migrations take a quarter of a second of processor time, and two dozen waits for a disk.
Tests of the store itself take the real way: see `tests/cj_pipeline/store/conftest.py`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cj_pipeline.store.file_store import FileStore, connect_file

_migrated_file = FileStore._make_current
_migrated_in_memory = FileStore.in_memory


@contextmanager
def copies_of_a_template(folder: Path) -> Iterator[None]:
    """Have every new store of this process copied from one in `folder`, which is made when asked.

    An encrypted store, and one that another process makes, is migrated as ever; so is one of a
    forked process where there is no template yet, which two of them would write at once.
    """
    template, owner = FileStore(folder), os.getpid()

    def has_template() -> bool:
        return template.path.exists() or os.getpid() == owner

    def template_path() -> Path:
        if not template.path.exists():
            _migrated_file(template)
        return template.path

    def make_current(store: FileStore, deadline: float | None = None) -> None:
        if store.key is None and not store.path.exists() and has_template():
            source = template_path()
            with store.held():
                if not store.path.exists():
                    unfinished = store.path.with_suffix(".copied")
                    shutil.copyfile(source, unfinished)
                    unfinished.chmod(0o600)
                    unfinished.replace(store.path)
                    store._is_current = True
        _migrated_file(store, deadline)

    def in_memory() -> FileStore:
        if not has_template():
            return _migrated_in_memory()
        store = FileStore(Path(":memory:"))
        store._memory = connect_file(Path(":memory:"), read_only=False)
        store._memory.execute(f"ATTACH '{template_path()}' AS template (READ_ONLY)")
        store._memory.execute("COPY FROM DATABASE template TO memory")
        store._memory.execute("DETACH template")
        return store

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FileStore, "_make_current", make_current)
        patch.setattr(FileStore, "in_memory", in_memory)
        yield


@contextmanager
def migrated_for_real() -> Iterator[None]:
    """Have new stores migrated from nothing, as they are outside tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FileStore, "_make_current", _migrated_file)
        patch.setattr(FileStore, "in_memory", _migrated_in_memory)
        yield
