"""Everything a store holds on one person's essay, for whoever asks what is kept on them.

What people decided on it and said of it is part of that. The other essays of its comparisons are
other people's, and their ids often their names: of them it is told only which are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    "feedback": (
        "FROM feedback_edits WHERE batch_id = $batch AND essay_id = $essay ORDER BY number"
    ),
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
    "written_out": (
        "SELECT kind, written_at FROM exports WHERE batch_id = $batch"
        " AND coalesce(essay_id, $essay) = $essay ORDER BY written_at"
    ),
    "earlier_readings": f"FROM earlier_outcomes WHERE {_SHOWS_IT} ORDER BY replaced_at",
    "comparisons": f"FROM comparisons WHERE {_SHOWS_IT} ORDER BY sequence",
    "requests": f"FROM attempts WHERE {_SHOWS_IT} ORDER BY requested_at",
    "replies": (
        "FROM callbacks WHERE batch_id = $batch AND custom_id IN "  # noqa: S608 - constants
        f"(SELECT custom_id FROM attempts WHERE {_SHOWS_IT}) ORDER BY received_at"
    ),
}


_IDS = frozenset({"essay_id", "essay_a", "essay_b", "winner_id", "loser_id", "judged_id"})

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
    if archive.exists():
        record["replies"] += db.rows(_ARCHIVED, keys | {"archive": str(archive)})
    others = db.rows(
        "SELECT essay_id FROM essays WHERE batch_id = $batch AND NOT is_anchor"
        " AND essay_id <> $essay ORDER BY essay_id",
        keys,
    )
    aliases = {row["essay_id"]: f"another-{n}" for n, row in enumerate(others, start=1)}
    if shared is not None:
        aliases[keys["essay"]] = essay_id
    told: dict[str, list[dict[str, Any]]] = _told(record, aliases)
    same = essays_with_the_text(db, batch_id, essay_id)
    elsewhere = sorted({row["batch_id"] for row in same} - {batch_id})
    return told | {"same_text_in": [{"batch_id": each} for each in elsewhere]}


def _told(value: Any, aliases: Mapping[str, str]) -> Any:
    """Return a value with every id of an essay, wherever one stands, replaced by its alias."""
    if isinstance(value, list):
        return [_told(each, aliases) for each in value]
    if isinstance(value, dict):
        return {
            key: aliases.get(each, each) if key in _IDS else _told(each, aliases)
            for key, each in value.items()
        }
    return value
