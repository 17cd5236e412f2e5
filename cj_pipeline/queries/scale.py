"""A batch's scale as its verdicts so far give it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cj_pipeline.errors import UnscalableBatchError
from cj_pipeline.queries.batch_record import BatchRecord, current_wave, judged_pairs
from cj_pipeline.scale.scoring import score_verdicts
from cj_pipeline.store.session import Session

if TYPE_CHECKING:
    from cj_pipeline.scale.bradley_terry import Scale


def fit_scale(db: Session, record: BatchRecord, up_to: int | None = None) -> Scale | None:
    """Return the scale by all verdicts so far; None while the essays are not one net.

    Args:
        db: A read session.
        record: The batch.
        up_to: The last wave whose verdicts count; None for all.
    """
    wave = current_wave(db, record.batch_id) if up_to is None else up_to
    judged = judged_pairs(db, record.batch_id, up_to)
    if not judged:
        return None
    try:
        return score_verdicts(
            record.essay_ids, judged, record.scoring_rules, start=_scores_before(db, record, wave)
        )
    except UnscalableBatchError:
        return None


def _scores_before(db: Session, record: BatchRecord, wave: int) -> dict[str, float] | None:
    """Return the scores of the last wave fitted before this one; None where there is none.

    Never the wave's own, so that fitting it again gives the same scores to the last bit.
    """
    rows = db.rows(
        "SELECT essay_id, verdict_score FROM essay_scores WHERE batch_id = $batch AND wave ="
        " (SELECT max(wave) FROM essay_scores WHERE batch_id = $batch AND wave < $wave)",
        {"batch": record.batch_id, "wave": wave},
    )
    return {row["essay_id"]: row["verdict_score"] for row in rows} or None
