"""A batch placed on the scale of earlier ones: what is read for it, kept of it, and undone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import structlog

from cj_pipeline.errors import SettingsError, UnknownBatchError, UnscalableBatchError
from cj_pipeline.steps.engine import Engine
from cj_pipeline.steps.fit import fit_scale
from cj_pipeline.steps.records import BatchRecord, judged_pairs, load_batch
from cj_pipeline.store import Session

if TYPE_CHECKING:
    from cj_pipeline.batch_chain import Chain, ChainedBatch
    from cj_pipeline.bradley_terry import Scale
    from cj_pipeline.steps.project import Projected

log = structlog.get_logger()


def link(engine: Engine, batch_id: str, earlier: Sequence[str]) -> Projected:
    """Place an ended batch on the scale of earlier ones and grade it anew there.

    Nothing is asked or paid, and earlier gradings stay. What people see changes with `publish`.

    Args:
        engine: The pipeline's connections.
        batch_id: The batch.
        earlier: The batches to place it after, earliest first; none to take it off again.

    Raises:
        SettingsError: If the batch goes on, or a link cannot be made; nothing is changed then.
    """
    from cj_pipeline.steps.project import project

    with engine.store.write() as db:
        record = load_batch(db, batch_id)
        if not record.has_ended:
            msg = f"Batch '{batch_id}' has not ended: wait for its end, then link it."
            raise SettingsError(msg)
        if earlier:
            try:
                read_chain(db, record, tuple(earlier), fit_scale(db, record))
            except UnscalableBatchError as error:
                msg = f"Batch '{batch_id}' was not linked: {error}"
                raise SettingsError(msg) from error
        db.execute(
            "UPDATE batches SET settings = json_merge_patch(settings, ?),"
            " settings_origins = json_merge_patch(settings_origins, ?) WHERE batch_id = ?",
            [json.dumps({"link_to": list(earlier)}), json.dumps({"link_to": "explicit"}), batch_id],
        )
    projected = project(engine, batch_id, again=True)
    log.info("batch_linked", batch_id=batch_id, link_to=earlier, revision=projected.revision)
    return projected


def read_chain(
    db: Session, record: BatchRecord, earlier: Sequence[str], scale: Scale | None
) -> Chain:
    """Return a batch amid the batches whose scale it is to be on.

    Args:
        db: A look at the store.
        record: The batch.
        earlier: As its setting `link_to` names them; those they were linked to come before them.
        scale: The batch's own.

    Raises:
        UnscalableBatchError: If a link cannot be made; the reason names the batch.
    """
    from cj_pipeline.batch_chain import chain_batches

    if scale is None:
        msg = f"the verdicts of '{record.batch_id}' do not join all its essays into one net"
        raise UnscalableBatchError(msg)
    before = [_earlier(db, name, record) for name in _expanded(db, earlier, record.batch_id)]
    return chain_batches([*before, _chained(db, record, scale, record.anchor_grades)])


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


def _earlier(db: Session, name: str, later: BatchRecord) -> ChainedBatch:
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
    db: Session, record: BatchRecord, scale: Scale, anchor_grades: Mapping[str, str]
) -> ChainedBatch:
    from cj_pipeline.batch_chain import ChainedBatch

    rows = db.rows(
        "SELECT essay_id, sha256(text) AS text FROM essays WHERE batch_id = ?", [record.batch_id]
    )
    return ChainedBatch(
        batch_id=record.batch_id,
        scored=scale,
        texts={row["essay_id"]: row["text"] for row in rows},
        anchor_ids=tuple(record.anchor_grades),
        anchor_grades=anchor_grades,
        judged=judged_pairs(db, record.batch_id),
    )


def link_rows(
    chain: Chain, essay_ids: Sequence[str], grading: Mapping[str, Any], linked_at: datetime
) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of `batch_links`, `anchor_drifts` and `linked_scores` for a grading.

    Args:
        chain: The batch amid the others.
        essay_ids: The batch's own.
        grading: The `batch_id` and the `revision`.
        linked_at: When.
    """
    place = {essay: i for i, essay in enumerate(chain.essay_ids)}
    return {
        "batch_links": [
            {
                **grading,
                "position": position,
                "placed_batch_id": link.placed,
                "onto_batch_id": link.onto[0],
                "n_shared": len(link.result.drifts),
                "n_tying": sum(not drift.is_drifted for drift in link.result.drifts),
                "shift": link.result.shift,
                "shift_standard_error": link.result.shift_standard_error,
                "unit_ratio": link.result.unit_ratio,
                "unit_ratio_error": link.result.unit_ratio_error,
                "statement": link.result.statement,
                "linked_at": linked_at,
            }
            for position, link in enumerate(chain.links, start=1)
        ],
        "anchor_drifts": [
            {
                **grading,
                "position": position,
                "essay_id": drift.essay_id,
                "earlier_score": drift.earlier,
                "later_score": drift.later,
                "drift": drift.drift,
                "standard_error": drift.standard_error,
                "is_drifted": drift.is_drifted,
            }
            for position, link in enumerate(chain.links, start=1)
            for drift in link.result.drifts
        ],
        "linked_scores": [
            {
                **grading,
                "essay_id": essay,
                "scale_batch_id": chain.links[0].onto[0],
                "score": float(chain.scores[place[essay]] + chain.shift),
                "standard_error": float(chain.standard_errors[place[essay]]),
            }
            for essay in essay_ids
        ],
    }
