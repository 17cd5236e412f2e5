"""Copies of a text are found in the store however they were saved or marked."""

from __future__ import annotations

import duckdb
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cj_pipeline.queries.same_texts import essays_with_the_text, same_words_sql
from cj_pipeline.text import UNSEEN_RANGES, same_words
from tests.support.finished_batches import ARGUMENTS, SPRING, finished_batches

_EDGES = "".join(chr(code) for pair in UNSEEN_RANGES for code in pair if code)
_SPACES = " \t\n\x0b\x1c\x85\xa0\u2003\u2028\u3000"


@given(text=st.text(alphabet="ae\u0301é" + _EDGES + _SPACES, max_size=20))
@example(_EDGES)
@example(f"a{_SPACES}b")
def test_sql_and_python_find_the_same_copies(text: str) -> None:
    """One is asked of a folder and the other of the store."""
    with duckdb.connect() as connection:
        shared = same_words_sql("t")
        row = connection.execute(f"SELECT {shared} FROM (SELECT ? AS t)", [text]).fetchone()  # noqa: S608

    assert row == (same_words(text),)


@pytest.mark.parametrize(
    "copied",
    ["{}\r\n", "\ufeff{}", "\u200b{}\u2060", "{}\U000e0041\U000e0042", " {} "],
    ids=["line end", "mark", "zero width", "tags", "spaces"],
)
def test_a_copy_in_another_batch_is_found(copied: str) -> None:
    """Its bytes differ, so its checksum does."""
    with finished_batches() as db:
        text = db.one("SELECT text FROM essays WHERE essay_id = 'pupil-03'")
        assert text is not None
        db.execute(
            "UPDATE essays SET text = ? WHERE batch_id = ? AND essay_id = 'text-1'",
            [copied.format(text["text"]), ARGUMENTS],
        )

        found = essays_with_the_text(db, SPRING, "pupil-03")

    assert {"batch_id": ARGUMENTS, "essay_id": "text-1"} in found
