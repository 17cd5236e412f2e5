"""Whether two stored texts are one, asked in SQL; `text.same_words` asks it of two strings.

A copy that was saved with other line ends, with more spaces or with characters that nobody sees is
the same text, though its bytes and its checksum differ.
"""

from __future__ import annotations

from typing import Any

from cj_pipeline.store.session import Session
from cj_pipeline.text import UNSEEN_RANGES

_UNSEEN = "".join(rf"\x{{{first:x}}}-\x{{{last:x}}}" for first, last in UNSEEN_RANGES)
# What Python's `str.split` takes for space.
_SPACE = r"\s\x{0b}\x{1c}-\x{1f}\x{85}\p{Z}"


def same_words_sql(column: str) -> str:
    """Return the SQL for what copies of a text share, of a column named by our own code."""
    seen = f"regexp_replace({column}, '[{_UNSEEN}]', '', 'g')"
    return f"trim(regexp_replace(nfc_normalize({seen}), '[{_SPACE}]+', ' ', 'g'))"


def essays_with_the_text(db: Session, batch_id: str, essay_id: str | None) -> list[dict[str, Any]]:
    """Return `batch_id` and `essay_id` of all other essays whose text an essay has as well.

    Args:
        db: A look at the store.
        batch_id: The batch.
        essay_id: One of its essays; None: any of them, and then only other batches are searched.
    """
    return db.rows(
        f"""
        WITH own AS (
            SELECT DISTINCT {same_words_sql("text")} AS words FROM essays
            WHERE batch_id = $batch AND ($essay IS NULL OR essay_id = $essay) AND text <> ''
        )
        SELECT DISTINCT o.batch_id, o.essay_id FROM essays o
        JOIN own ON own.words = {same_words_sql("o.text")}
        WHERE own.words <> '' AND (
            o.batch_id <> $batch OR ($essay IS NOT NULL AND o.essay_id <> $essay)
        )
        ORDER BY ALL
        """,  # noqa: S608 - the columns are named here
        {"batch": batch_id, "essay": essay_id},
    )
