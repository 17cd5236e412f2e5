"""What is kept on one person, told in full and of nobody else."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cj_pipeline.errors import UnknownBatchError, UnknownEssayError
from cj_pipeline.outputs import person
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
    assert set(re.findall(r"pupil-\d\d", str(record))) == {PUPIL}
    assert "anchor-01" in str(record)


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

    assert record["same_text_in"] == [{"batch_id": "arguments"}]


def test_who_is_not_there_is_told(store: FileStore) -> None:
    """An empty answer would say that nothing is kept."""
    with store.read() as db:
        with pytest.raises(UnknownBatchError):
            person_record(db, "autumn", PUPIL, archive=store.home)
        with pytest.raises(UnknownEssayError):
            person_record(db, SPRING, "nobody", archive=store.home)


TOLD_OTHERWISE = {
    "comparison_pairs": "with the comparisons",
    "judging_tasks": "a plan",
    "judging_assignments": "a plan",
    "erasures": "what is being removed",
}


def test_every_table_about_an_essay_is_told(store: FileStore) -> None:
    """A new table about essays is part of the answer, or it says here why not."""
    with store.read() as db:
        about = db.rows(
            "SELECT DISTINCT table_name FROM duckdb_columns() JOIN duckdb_tables() USING"
            " (database_name, schema_name, table_name)"
            " WHERE column_name IN ('essay_id', 'essay_a', 'judged_id')"
        )
    asked = " ".join(person._PARTS.values())

    missing = {row["table_name"] for row in about if f"FROM {row['table_name']} " not in asked}
    assert missing == set(TOLD_OTHERWISE)


def test_one_of_several_who_handed_in_the_same_text_is_told_of_their_own(store: FileStore) -> None:
    """It was judged once, under the other's id; whose that is, is not told."""
    row = {"batch_id": SPRING, "essay_id": "pupil-99", "judged_id": PUPIL, "given_id": "Bo"}
    more = {"file_name": "bo.txt", "source_path": "essays/bo.txt", "attributes": "{}"}
    with store.write() as db:
        db.execute(
            "UPDATE essays SET given_id = 'Anna', text = 'A walk.' WHERE essay_id = ?", [PUPIL]
        )
        db.insert("shared_texts", [row | more])

    with store.read() as db:
        record = person_record(db, SPRING, "pupil-99", archive=archive_of(store.home, SPRING))

    assert [(row["given_id"], bool(row["text"])) for row in record["essay"]] == [("Bo", True)]
    assert len(record["scores"]) == 3
    assert "Anna" not in str(record)
    assert set(re.findall(r"pupil-\d\d", str(record))) == {"pupil-99"}
