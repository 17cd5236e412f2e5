"""A wave's verdicts become scores on one scale: rows of `essay_scores`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cj_pipeline.errors import UnscalableBatchError
from cj_pipeline.queries.batch_record import BatchRecord, current_wave, judged_pairs, load_batch
from cj_pipeline.queries.scale import _scores_before
from cj_pipeline.runtime import Runtime
from cj_pipeline.scale.certainty import SCORE_VERSION
from cj_pipeline.scale.ranks import ranks
from cj_pipeline.scale.score_posterior import score_posterior
from cj_pipeline.scale.scoring import score_verdicts
from cj_pipeline.store.session import Session

if TYPE_CHECKING:
    from cj_pipeline.scale.bradley_terry import Scale
    from cj_pipeline.scale.certainty import ScorePosterior


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
        posterior = score_posterior(scale, record.anchor_grades)
    except UnscalableBatchError as error:
        return Fitted(wave, len(judged), None, str(error))
    rows = score_rows(record.batch_id, wave, scale, posterior)
    db.insert("essay_scores", rows, on_conflict="replace")
    return Fitted(wave, len(judged), scale, None)


def score_rows(
    batch_id: str, wave: int, scale: Scale, posterior: ScorePosterior
) -> list[dict[str, object]]:
    """Return the rows of `essay_scores`: what is reported, and the verdict-only score beside it."""
    one_sided = set(scale.one_sided)
    rank = ranks(posterior.scores)
    return [
        {
            "batch_id": batch_id,
            "wave": wave,
            "essay_id": essay_id,
            "score": float(posterior.scores[i]),
            "standard_error": float(posterior.standard_errors[i]),
            "verdict_score": float(scale.scores[i]),
            "verdict_standard_error": float(scale.standard_errors[i]),
            "score_version": SCORE_VERSION,
            "rank": int(rank[i]),
            "n_comparisons": int(scale.n_comparisons[i]),
            "n_wins": float(scale.wins[i]),
            "n_losses": float(scale.losses[i]),
            "n_shown_a": int(scale.shown_a[i]),
            "n_shown_b": int(scale.shown_b[i]),
            "is_one_sided": essay_id in one_sided,
        }
        for i, essay_id in enumerate(scale.essay_ids)
    ]
