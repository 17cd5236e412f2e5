"""Which essay a person means who types an id, or the name it was handed in under."""

from __future__ import annotations

from collections.abc import Sequence

from cj_pipeline.batch.essays import matching
from cj_pipeline.errors import UnknownEssayError
from cj_pipeline.store.session import Session


def essay_named(db: Session, batch_id: str, typed: str) -> str:
    """Return the id of the essay a person means; what is unknown comes back as it was typed.

    Raises:
        UnknownEssayError: If several essays of the batch bear that name; it lists their ids.
    """
    rows = db.rows("SELECT * FROM essays WHERE batch_id = ? ORDER BY position", [batch_id])
    known = [(row["essay_id"], row.get("given_id"), row.get("name")) for row in rows]
    shared = db.rows("SELECT * FROM shared_texts WHERE batch_id = ?", [batch_id])
    known += [(row["essay_id"], row["given_id"], row["name"]) for row in shared]
    found = matching(known, typed)
    if len(found) > 1:
        raise several_essays(batch_id, typed, found)
    return found[0] if found else typed


def several_essays(batch_id: str, typed: str, essay_ids: Sequence[str]) -> UnknownEssayError:
    """Return the error for a name that several essays bear."""
    return UnknownEssayError(
        f"Batch '{batch_id}' has {len(essay_ids)} essays by {typed!r}: say which, by its id:"
        f" {', '.join(essay_ids)}."
    )
