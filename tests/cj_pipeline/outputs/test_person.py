"""What is kept on one person, told in full and of nobody else."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from cj_pipeline.errors import UnknownBatchError, UnknownEssayError
from cj_pipeline.outputs.person import person_record
from cj_pipeline.store.file_store import FileStore
from cj_pipeline.store.maintenance import archive_callbacks, archive_of
from tests.support.finished_batches import SPRING, fill

PUPIL, OTHER = "pupil-03", "pupil-04"


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    """A store with finished batches."""
    store = FileStore(tmp_path / "home")
    with store.write() as db:
        fill(db)
    return store


def test_every_row_about_a_person_is_told(store: FileStore) -> None:
    """Text, scores of each wave, grade, verdicts and what judges answered."""
    with store.read() as db:
        record = person_record(db, SPRING, PUPIL, archive=archive_of(store.home, SPRING))
        other = db.one("SELECT text FROM essays WHERE essay_id = ?", [OTHER])

    assert [row["essay_id"] for row in record["essay"]] == [PUPIL]
    assert [row["wave"] for row in record["scores"]] == [1, 2, 3]
    assert len(record["comparisons"]) == len(record["requests"]) == 13
    assert all(PUPIL in (row["essay_a"], row["essay_b"]) for row in record["comparisons"])
    assert len(record["grades"]) == 1
    assert other is not None
    assert other["text"] not in str(record)


def test_archived_replies_are_told_too(store: FileStore) -> None:
    """They are kept, so they are part of the answer."""
    archive = archive_of(store.home, SPRING)
    with store.read() as db:
        before = person_record(db, SPRING, PUPIL, archive=archive)["replies"]
    archive_callbacks(store, ended_before=datetime.now(UTC))

    with store.read() as db:
        after = person_record(db, SPRING, PUPIL, archive=archive)["replies"]

    assert len(before) == 13
    assert [row["body"] for row in after] == [row["body"] for row in before]


def test_the_same_text_elsewhere_is_named(store: FileStore) -> None:
    """The person is in the other batch too, perhaps by another name."""
    with store.write() as db:
        db.execute("UPDATE essays SET text = 'the same' WHERE essay_id IN (?, 'text-1')", [PUPIL])

    with store.read() as db:
        record = person_record(db, SPRING, PUPIL, archive=archive_of(store.home, SPRING))

    assert record["same_text_in"] == [{"batch_id": "arguments", "essay_id": "text-1"}]


def test_who_is_not_there_is_told(store: FileStore) -> None:
    """An empty answer would say that nothing is kept."""
    with store.read() as db:
        with pytest.raises(UnknownBatchError):
            person_record(db, "autumn", PUPIL, archive=store.home)
        with pytest.raises(UnknownEssayError):
            person_record(db, SPRING, "nobody", archive=store.home)
