"""What earlier batches know of a batch's essays, for choosing pairs and for knowing when to stop.

A batch with `link_to` is placed on an earlier one's scale at its end (`link`). Its pairs are
chosen with that in mind from the first wave on: anchors both have judged are known already, so
each comparison is to tell of an essay that is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from cj_pipeline.errors import UnknownBatchError, UnscalableBatchError
from cj_pipeline.pairing.net import Net
from cj_pipeline.steps.fit import fit_scale
from cj_pipeline.steps.link import read_chain
from cj_pipeline.steps.records import BatchRecord, load_batch
from cj_pipeline.store import Session

if TYPE_CHECKING:
    from cj_pipeline.batch_chain import Chain
    from cj_pipeline.bradley_terry import Scale

log = structlog.get_logger()

_WRITTEN_OUT_UP_TO = 1_500
"""Essays, known and new, whose covariance is written out for it; larger batches choose as ever."""


def amid_earlier(db: Session, record: BatchRecord, net: Net, scale: Scale | None) -> Net:
    """Return the net with what earlier batches know of its essays; as it was where they know none.

    Args:
        db: A look at the store.
        record: The batch.
        net: With its own scores where it has a scale.
        scale: The batch's own; None before its verdicts give one.
    """
    if not record.settings.link_to or net.n_essays > _WRITTEN_OUT_UP_TO:
        return net
    if scale is None:
        return before_first_verdict(db, record, net, _text_hashes(db, record.batch_id))
    chain = chain_so_far(db, record, scale)
    if chain is None or len(chain.essay_ids) > _WRITTEN_OUT_UP_TO:
        return net
    own = [chain.essay_ids.index(essay_id) for essay_id in net.essay_ids]
    return replace(
        net,
        scores=chain.scores[own],
        covariance=chain.covariance[own][:, own],
        information=None,
        known_ids=frozenset(_old_names(db, record, _text_hashes(db, record.batch_id))),
    )


def chain_so_far(db: Session, record: BatchRecord, scale: Scale) -> Chain | None:
    """Return the batch amid those it is to be linked to; None where it is not, or not yet."""
    if not record.settings.link_to:
        return None
    try:
        return read_chain(db, record, record.settings.link_to, scale)
    except UnscalableBatchError as error:
        log.info("not_linked_yet", batch_id=record.batch_id, reason=str(error))
        return None


def before_first_verdict(
    db: Session, record: BatchRecord, net: Net, text_hashes: Mapping[str, str]
) -> Net:
    """Return the net before a batch has a scale of its own, its known essays where they lie.

    Args:
        db: A look at the store, or at its published copy.
        record: The batch, in the store or not yet.
        net: Of its essays.
        text_hashes: Each essay's SHA-256, by which earlier batches know it.
    """
    if not record.settings.link_to or net.n_essays > _WRITTEN_OUT_UP_TO:
        return net
    from cj_pipeline.placement import with_newcomers

    try:
        old = fit_scale(db, load_batch(db, record.settings.link_to[-1]))
    except UnknownBatchError:
        old = None
    if old is None:
        return net
    old_name = _old_names(db, record, text_hashes)
    return with_newcomers(net, old, old_name) if old_name else net


def _old_names(db: Session, record: BatchRecord, text_hashes: Mapping[str, str]) -> dict[str, str]:
    """Return what the last of the earlier batches calls each essay that both have."""
    theirs = _text_hashes(db, record.settings.link_to[-1])
    named = {text_hash: essay_id for essay_id, text_hash in theirs.items()}
    return {
        essay_id: named[text_hash]
        for essay_id, text_hash in text_hashes.items()
        if text_hash in named
    }


def _text_hashes(db: Session, batch_id: str) -> dict[str, str]:
    rows = db.rows(
        "SELECT essay_id, sha256(text) AS text_hash FROM essays WHERE batch_id = ?"
        " ORDER BY position",
        [batch_id],
    )
    return {row["essay_id"]: row["text_hash"] for row in rows}
