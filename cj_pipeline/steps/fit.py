"""A wave's verdicts become scores on one scale: rows of `essay_scores`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cj_pipeline.errors import UnscalableBatchError
from cj_pipeline.queries.batch_record import (
    BatchRecord,
    current_wave,
    judged_pairs,
    load_batch,
    waves_gone_past,
)
from cj_pipeline.queries.scale import _scores_before
from cj_pipeline.runtime import Runtime
from cj_pipeline.scale.rows import score_rows
from cj_pipeline.scale.score_posterior import score_posterior
from cj_pipeline.scale.scoring import score_verdicts
from cj_pipeline.store.session import Session

if TYPE_CHECKING:
    from cj_pipeline.scale.bradley_terry import Scale


@dataclass(frozen=True)
class Fitted:
    """The scale after a wave; `scale` is None, and `problem` says why, when there is none."""

    wave: int
    n_comparisons: int
    scale: Scale | None
    problem: str | None


def fit(runtime: Runtime, batch_id: str) -> Fitted:
    """Place every essay of a batch on one scale by all verdicts so far.

    Waves that were sent together get a scale each, by the verdicts up to them.
    """
    with runtime.store.read() as db:
        gone_past = waves_gone_past(db, batch_id)
    for wave in gone_past:
        with runtime.store.write() as db:
            fit_within(db, load_batch(db, batch_id), up_to=wave)
    # One transaction: fitting takes milliseconds, opening the store as long again.
    with runtime.store.write() as db:
        return fit_within(db, load_batch(db, batch_id))


def fit_within(db: Session, record: BatchRecord, up_to: int | None = None) -> Fitted:
    """Fit and keep a batch's scale in a transaction that goes on.

    Args:
        db: A write session.
        record: The batch.
        up_to: The wave whose scale it is, by the verdicts up to it; None for the last, by all.
    """
    wave = current_wave(db, record.batch_id) if up_to is None else up_to
    judged = judged_pairs(db, record.batch_id, up_to)
    if not judged:
        return Fitted(wave, 0, None, "No comparison has a verdict yet.")
    try:
        scale = score_verdicts(
            record.essay_ids, judged, record.scoring_rules, start=_scores_before(db, record, wave)
        )
        posterior = score_posterior(scale, record.anchor_grades)
    except UnscalableBatchError as error:
        return Fitted(wave, len(judged), None, str(error))
    rows = score_rows(record.batch_id, wave, scale, posterior)
    db.insert("essay_scores", rows, on_conflict="replace")
    return Fitted(wave, len(judged), scale, None)
