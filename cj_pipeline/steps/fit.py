"""A wave's verdicts become scores on one scale: rows of `essay_scores`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cj_pipeline.errors import UnscalableBatchError
from cj_pipeline.queries.batch_record import BatchRecord, current_wave, judged_pairs, load_batch
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
    """Place every essay of a batch on one scale by all verdicts so far."""
    # One transaction: fitting takes milliseconds, opening the store as long again.
    with runtime.store.write() as db:
        return fit_within(db, load_batch(db, batch_id))


def fit_within(db: Session, record: BatchRecord) -> Fitted:
    """Fit and keep a batch's scale in a transaction that goes on."""
    wave = current_wave(db, record.batch_id)
    judged = judged_pairs(db, record.batch_id)
    if not judged:
        return Fitted(wave, 0, None, "No comparison has a verdict yet.")
    try:
        scale = score_verdicts(
            record.essay_ids, judged, record.scoring_rules, start=_scores_before(db, record, wave)
        )
    except UnscalableBatchError as error:
        return Fitted(wave, len(judged), None, str(error))
    posterior = score_posterior(scale, record.anchor_grades)
    rows = score_rows(record.batch_id, wave, scale, posterior)
    db.insert("essay_scores", rows, on_conflict="replace")
    return Fitted(wave, len(judged), scale, None)
