"""Everything a store holds on one person's essay, for whoever asks what is kept on them.

What people decided on it and said of it is part of that. The other essays of its comparisons are
other people's: of them only the ids are told.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cj_pipeline.errors import UnknownBatchError, UnknownEssayError
from cj_pipeline.queries.same_texts import essays_with_the_text
from cj_pipeline.store.session import Session

_SHOWS_IT = """batch_id = $batch AND comparison_id IN (
    SELECT comparison_id FROM comparison_pairs
    WHERE batch_id = $batch AND $essay IN (essay_a, essay_b)
)"""

_PARTS = {
    "essay": "FROM essays WHERE batch_id = $batch AND essay_id = $essay",
    "scores": "FROM essay_scores WHERE batch_id = $batch AND essay_id = $essay ORDER BY wave",
    "ranks": "FROM essay_ranks WHERE batch_id = $batch AND essay_id = $essay",
    "linked_scores": "FROM linked_scores WHERE batch_id = $batch AND essay_id = $essay",
    "grades": (
        "FROM grade_projections WHERE batch_id = $batch AND essay_id = $essay ORDER BY revision"
    ),
    "anchor_drifts": "FROM anchor_drifts WHERE batch_id = $batch AND essay_id = $essay",
    "decisions": (
        "FROM moderation_decisions WHERE batch_id = $batch AND essay_id = $essay ORDER BY number"
    ),
    "appeals": "FROM appeals WHERE batch_id = $batch AND essay_id = $essay ORDER BY number",
    "sampled_for_moderation": (
        "FROM moderation_sample_essays WHERE batch_id = $batch AND essay_id = $essay"
    ),
    "grades_of_moderation": "FROM sampled_grades WHERE batch_id = $batch AND essay_id = $essay",
    "same_text_judged_once": (
        "FROM shared_texts WHERE batch_id = $batch AND $essay IN (essay_id, judged_id)"
    ),
    # Who among the people gave a verdict is another person's matter.
    "verdicts_of_people": (
        "SELECT * EXCLUDE (person) FROM human_answers"
        " WHERE batch_id = $batch AND $essay IN (essay_a, essay_b) ORDER BY number"
    ),
    "earlier_readings": f"FROM earlier_outcomes WHERE {_SHOWS_IT} ORDER BY replaced_at",
    "comparisons": f"FROM comparisons WHERE {_SHOWS_IT} ORDER BY sequence",
    "requests": f"FROM attempts WHERE {_SHOWS_IT} ORDER BY requested_at",
    "replies": (
        "FROM callbacks WHERE batch_id = $batch AND custom_id IN "  # noqa: S608 - constants
        f"(SELECT custom_id FROM attempts WHERE {_SHOWS_IT}) ORDER BY received_at"
    ),
}


_ARCHIVED = (
    "SELECT * FROM read_parquet($archive) WHERE custom_id IN "  # noqa: S608 - constants
    f"(SELECT custom_id FROM attempts WHERE {_SHOWS_IT}) ORDER BY received_at"
)


def person_record(
    db: Session, batch_id: str, essay_id: str, *, archive: Path
) -> dict[str, list[dict[str, Any]]]:
    """Return every row that is about one essay, by what it is.

    Args:
        db: A look at the store.
        batch_id: The batch.
        essay_id: One of its essays.
        archive: Where the batch's raw replies lie once they are archived; it may not be there.

    Raises:
        UnknownBatchError: If there is no such batch.
        UnknownEssayError: If it has no such essay.
    """
    keys = {"batch": batch_id, "essay": essay_id}
    if db.one("SELECT 1 AS found FROM batches WHERE batch_id = ?", [batch_id]) is None:
        msg = f"No batch '{batch_id}' is in the store."
        raise UnknownBatchError(msg)
    shared = db.one("FROM shared_texts WHERE batch_id = $batch AND essay_id = $essay", keys)
    if shared is not None:  # the same words as another's, which were judged for both
        keys["essay"] = shared["judged_id"]
    if db.one(_PARTS["essay"], keys) is None:
        msg = f"Batch '{batch_id}' has no essay '{essay_id}'."
        raise UnknownEssayError(msg)
    record: dict[str, list[dict[str, Any]]] = {
        what: db.rows(query, keys) for what, query in _PARTS.items()
    }
    if shared is not None:
        record["essay"] = [shared | {"text": row["text"]} for row in record["essay"]]
    record["same_text_in"] = essays_with_the_text(db, batch_id, essay_id)
    if archive.exists():
        record["replies"] += db.rows(_ARCHIVED, keys | {"archive": str(archive)})
    return record
