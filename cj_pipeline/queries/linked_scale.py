"""The batches a batch is linked to, read as one scale."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import structlog

from cj_pipeline.errors import UnknownBatchError, UnscalableBatchError
from cj_pipeline.queries.batch_record import BatchRecord, judged_pairs, load_batch
from cj_pipeline.queries.scale import fit_scale
from cj_pipeline.store.session import Session

if TYPE_CHECKING:
    from cj_pipeline.grading.linked_scale import LinkedBatch, LinkedScale
    from cj_pipeline.intake.batch_folder import Batch
    from cj_pipeline.scale.bradley_terry import Scale

log = structlog.get_logger()


def read_linked_scale(
    db: Session,
    record: BatchRecord,
    earlier: Sequence[str],
    scale: Scale | None,
    up_to: int | None = None,
) -> LinkedScale:
    """Return a batch among the batches whose scale it is to be on.

    Args:
        db: A read session.
        record: The batch.
        earlier: As its setting `link_to` names them; those they were linked to come before them.
        scale: The batch's own.
        up_to: The last wave of it whose verdicts count; None for all.

    Raises:
        UnscalableBatchError: If a link cannot be made; the reason names the batch.
    """
    from cj_pipeline.grading.linked_scale import chain_batches

    if scale is None:
        msg = f"the verdicts of '{record.batch_id}' do not join all its essays into one net"
        raise UnscalableBatchError(msg)
    before = [_earlier(db, name, record) for name in _expanded(db, earlier, record.batch_id)]
    return chain_batches([*before, _chained(db, record, scale, record.anchor_grades, up_to)])


def n_shared_anchors(db: Session, earlier: Sequence[str], batch: Batch) -> int:
    """Return how many anchors tie a batch that was read to earlier ones: the same text in both.

    Args:
        db: A read session.
        earlier: As its setting `link_to` names them; those they were linked to come before them.
        batch: As read from its folder.
    """
    rows = db.rows(
        "SELECT sha256(text) AS text, bool_or(is_anchor) AS is_anchor FROM essays"
        " WHERE batch_id IN (SELECT unnest(?)) GROUP BY ALL",
        [_expanded(db, earlier, batch.batch_id)],
    )
    theirs = {row["text"]: row["is_anchor"] for row in rows}
    own: dict[str, bool] = {}
    for essay in batch.essays:
        text = hashlib.sha256(essay.text.encode("utf-8")).hexdigest()
        own[text] = own.get(text, False) or essay.is_anchor
    return sum(text in theirs and (is_anchor or theirs[text]) for text, is_anchor in own.items())


def _expanded(db: Session, earlier: Sequence[str], batch_id: str) -> list[str]:
    """Return the earlier batches with those their own last gradings were linked to."""
    found: list[str] = []
    for name in earlier:
        rows = db.rows(
            "SELECT onto_batch_id, placed_batch_id FROM batch_links WHERE batch_id = $batch"
            " AND revision = (SELECT max(revision) FROM grading_reports WHERE batch_id = $batch)"
            " ORDER BY position",
            {"batch": name},
        )
        chain = [row["placed_batch_id"] for row in rows]
        chain = [rows[0]["onto_batch_id"], *chain] if rows else []
        found = list(dict.fromkeys([*found, *chain, name]))
    if batch_id in found:
        msg = f"'{batch_id}' would be linked to itself: {', '.join(found)}"
        raise UnscalableBatchError(msg)
    return found


def _earlier(db: Session, name: str, later: BatchRecord) -> LinkedBatch:
    try:
        record = load_batch(db, name)
    except UnknownBatchError:
        msg = f"no batch '{name}' is in the store"
        raise UnscalableBatchError(msg) from None
    if record.state != "succeeded":
        msg = f"batch '{name}' has not succeeded (it is {record.state})"
        raise UnscalableBatchError(msg)
    scale = fit_scale(db, record)
    if scale is None:
        msg = f"the verdicts of '{name}' do not join all its essays into one net"
        raise UnscalableBatchError(msg)
    # Grades on another scale say nothing here; its anchors tie the batches all the same.
    is_same_scale = _steps(record) == _steps(later)
    return _chained(db, record, scale, record.anchor_grades if is_same_scale else {})


def _steps(record: BatchRecord) -> tuple[str, ...] | None:
    terms = record.grading_terms
    return terms.scale.steps if terms is not None else None


def _chained(
    db: Session,
    record: BatchRecord,
    scale: Scale,
    anchor_grades: Mapping[str, str],
    up_to: int | None = None,
) -> LinkedBatch:
    from cj_pipeline.grading.linked_scale import LinkedBatch

    rows = db.rows(
        "SELECT essay_id, sha256(text) AS text FROM essays WHERE batch_id = ?", [record.batch_id]
    )
    return LinkedBatch(
        batch_id=record.batch_id,
        scored=scale,
        texts={row["essay_id"]: row["text"] for row in rows},
        anchor_ids=tuple(record.anchor_grades),
        anchor_grades=anchor_grades,
        judged=judged_pairs(db, record.batch_id, up_to),
    )


def linked_scale(
    db: Session, record: BatchRecord, scale: Scale, up_to: int | None = None
) -> LinkedScale | None:
    """Return the batch among those it is to be linked to; None where it is not, or not yet.

    Only verdicts up to that wave count; where it is None, all.
    """
    if not record.settings.link_to:
        return None
    try:
        return read_linked_scale(db, record, record.settings.link_to, scale, up_to)
    except UnscalableBatchError as error:
        log.info("not_linked_yet", batch_id=record.batch_id, reason=str(error))
        return None
