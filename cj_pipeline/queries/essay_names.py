"""Which essay a person means who types an id, or the name it was handed in under."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from cj_pipeline.batch.essays import label, matching
from cj_pipeline.errors import UnknownEssayError
from cj_pipeline.store.session import Session
from cj_pipeline.text import visible


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


def essay_labels(db: Session, batch_id: str) -> dict[str, str]:
    """Return what people call each essay of a batch; with its id where two are called the same."""
    rows = db.rows("SELECT * FROM essays WHERE batch_id = ?", [batch_id])
    rows += db.rows("SELECT * FROM shared_texts WHERE batch_id = ?", [batch_id])
    called = {row["essay_id"]: label(row["essay_id"], row["given_id"], row["name"]) for row in rows}
    times = Counter(called.values())
    return {
        essay_id: visible(name if times[name] == 1 else f"{name} ({essay_id})")
        for essay_id, name in called.items()
    }


def several_essays(batch_id: str, typed: str, essay_ids: Sequence[str]) -> UnknownEssayError:
    """Return the error for a name that several essays bear."""
    return UnknownEssayError(
        f"Batch '{batch_id}' has {len(essay_ids)} essays by {typed!r}: say which, by its id:"
        f" {', '.join(essay_ids)}."
    )
