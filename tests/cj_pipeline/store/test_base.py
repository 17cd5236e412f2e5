"""Stores that are no file here name none, and refuse what only a file can do."""

from __future__ import annotations

from pathlib import Path

import pytest

from cj_pipeline.errors import StoreError
from cj_pipeline.store.file_store import FileStore, own_file
from cj_pipeline.store.opening import open_store

ELSEWHERE = [
    {"CJ_STORE": "quack:store.example:9494", "CJ_STORE_TOKEN": "a-token-of-tests"},
    {"CJ_STORE": "ducklake:postgres:host=db.example", "CJ_STORE_DATA": "s3://bucket/data"},
]


@pytest.mark.parametrize("environment", ELSEWHERE)
def test_a_store_elsewhere_names_no_file_that_is_not_there(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    """A page that shows the path of a published copy sends its readers there."""
    store = open_store(tmp_path, environment)

    assert store.published_path is None
    assert not isinstance(store, FileStore)
    assert not hasattr(store, "path")


@pytest.mark.parametrize("environment", ELSEWHERE)
def test_what_needs_the_file_is_refused_with_where_the_store_is(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    """Backups are made where the file is; nothing is begun here."""
    store = open_store(tmp_path, environment)

    with pytest.raises(StoreError, match=f"the store is {store.where}: .* on that machine"):
        own_file(store)


def test_the_file_in_the_home_is_its_own(tmp_path: Path) -> None:
    """The usual store can be backed up, restored and compacted."""
    store = open_store(tmp_path, {})

    assert own_file(store) is store
    assert store.published_path == tmp_path / "published" / "cj.duckdb"
