"""Removing people's data for good."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from cj_pipeline.errors import UnknownBatchError
from cj_pipeline.operations.erase import forget_batch, forget_essay
from cj_pipeline.store.file_store import FileStore
from cj_pipeline.store.maintenance import check_store
from tests.support.finished_batches import ARGUMENTS, SPRING, fill

NOW = datetime(2026, 3, 3, 12, 0, tzinfo=UTC)
PUPIL = "pupil-03"
WORDS = "A sentence that only this pupil would write, twenty-three violet umbrellas."


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    """A published store in which one pupil's words also came back in a judge's reply."""
    store = FileStore(tmp_path / "home")
    with store.write() as db:
        fill(db)
        db.execute(
            "UPDATE essays SET text = ? WHERE batch_id = ? AND essay_id = ?", [WORDS, SPRING, PUPIL]
        )
        db.execute(
            "UPDATE comparisons SET justification = ? WHERE ? IN (essay_a, essay_b)", [WORDS, PUPIL]
        )
    export = store.home / "batches" / SPRING
    export.mkdir(parents=True)
    (export / "report.html").write_text(WORDS)
    store.publish()
    store.publish()
    return store


def _files_with(home: Path, words: str) -> list[Path]:
    return [p for p in home.rglob("*") if p.is_file() and words.encode() in p.read_bytes()]


def test_the_words_are_in_the_files_beforehand(store: FileStore) -> None:
    """Otherwise the tests below would prove nothing."""
    assert len(_files_with(store.home, WORDS)) >= 3


def test_a_forgotten_batch_is_nowhere_in_the_folder(store: FileStore) -> None:
    """Deleted rows linger in free blocks and older copies unless they are rewritten."""
    forgotten = forget_batch(store, SPRING, now=NOW)

    assert forgotten.n_rows > 91
    assert _files_with(store.home, WORDS) == []
    assert _files_with(store.home, PUPIL) == []


def test_other_batches_stay_whole(store: FileStore) -> None:
    """Forgetting one class must not cost another its grades."""
    with store.read() as db:
        before = db.rows("FROM v_scores WHERE batch_id = ? ORDER BY ALL", [ARGUMENTS])

    forget_batch(store, SPRING, now=NOW)

    with store.read() as db:
        assert db.rows("FROM v_scores WHERE batch_id = ? ORDER BY ALL", [ARGUMENTS]) == before
    assert check_store(store).problems == ()


def test_an_audit_line_stays(store: FileStore) -> None:
    """It says that something was removed, and nothing of what it was."""
    forget_batch(store, SPRING, now=NOW)

    with store.read() as db:
        row = db.one("SELECT batch_id, forgotten_at, essay_alias FROM forgotten")
    assert row == {"batch_id": SPRING, "forgotten_at": NOW, "essay_alias": None}


def test_a_forgotten_essay_leaves_neither_words_nor_name(store: FileStore) -> None:
    """Essay ids come from file names, and those are often people's names."""
    forgotten = forget_essay(store, SPRING, PUPIL, now=NOW)

    assert forgotten.essay_alias is not None
    assert _files_with(store.home, WORDS) == []
    with store.read() as db:
        for table in ("essays", "comparison_pairs", "comparisons", "essay_scores", "batches"):
            found = db.rows(f"FROM {table} t WHERE contains(t::VARCHAR, ?)", [PUPIL])
            assert found == [], table


def test_the_scale_survives_a_forgotten_essay(store: FileStore) -> None:
    """The verdicts carry everybody else's scores."""
    with store.read() as db:
        before = db.rows("SELECT score FROM v_scores WHERE batch_id = ? ORDER BY 1", [SPRING])

    forget_essay(store, SPRING, PUPIL, now=NOW)

    with store.read() as db:
        after = db.rows("SELECT score FROM v_scores WHERE batch_id = ? ORDER BY 1", [SPRING])
    assert after == before
    assert check_store(store).problems == ()


def test_what_is_not_there_cannot_be_forgotten(store: FileStore) -> None:
    """A mistyped name must not look like a removal."""
    with pytest.raises(UnknownBatchError, match="nothing was removed"):
        forget_batch(store, "sprong-9", now=NOW)
    with pytest.raises(UnknownBatchError, match="nothing was removed"):
        forget_essay(store, SPRING, "nobody", now=NOW)
