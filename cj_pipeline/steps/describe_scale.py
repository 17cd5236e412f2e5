"""A finished scale is described: rows of `scale_statistics` and `essay_ranks`.

Both are worked out with the store closed, for splitting verdicts in halves takes hundreds of fits,
and after grades are kept, for nobody waits for a description. Grading takes the last one away
(`project`), so whatever is described is what was graded.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.queries.batch_record import judged_pairs, load_batch
from cj_pipeline.queries.scale import fit_scale
from cj_pipeline.runtime import Runtime
from cj_pipeline.scale.rows import rank_rows
from cj_pipeline.scale.score_posterior import score_posterior
from cj_pipeline.store.session import Session

if TYPE_CHECKING:
    from cj_pipeline.scale.bradley_terry import Scale
    from cj_pipeline.scale.certainty import ScorePosterior


def describe_scale(runtime: Runtime, batch_id: str) -> None:
    """Describe the scale that a batch's last grading went by, unless it has been described."""
    with runtime.store.read() as db:
        revision = _undescribed_revision(db, batch_id)
        if revision is None:
            return
        record = load_batch(db, batch_id)
        judged = judged_pairs(db, batch_id)
        scale = fit_scale(db, record) if judged else None
    if scale is None:
        return
    posterior = score_posterior(scale, record.anchor_grades)
    rows = description_rows(batch_id, scale, posterior, judged, runtime.clock())
    with runtime.store.write() as db:
        # Graded again meanwhile, perhaps by other verdicts: whoever did that describes it.
        if _undescribed_revision(db, batch_id) == revision:
            for table, described in rows.items():
                db.insert(table, described, on_conflict="replace")


def forget_description(db: Session, batch_id: str) -> None:
    """Take away what was said of a batch's scale, in the transaction that grades it anew."""
    for table in ("scale_statistics", "essay_ranks"):
        db.execute(f"DELETE FROM {table} WHERE batch_id = ?", [batch_id])  # noqa: S608


def _undescribed_revision(db: Session, batch_id: str) -> int | None:
    """Return the revision of a batch's last grading; None if there is none, or it is described."""
    row = db.one(
        "SELECT max(revision) AS revision FROM grading_reports WHERE batch_id = $batch"
        " AND NOT EXISTS (FROM scale_statistics WHERE batch_id = $batch)",
        {"batch": batch_id},
    )
    return None if row is None else row["revision"]


def description_rows(
    batch_id: str,
    scale: Scale,
    posterior: ScorePosterior,
    judged: Sequence[JudgedPair],
    computed_at: datetime,
) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of both tables for a batch's last scale."""
    from cj_pipeline.diagnostics.summary import scale_statistics

    return {
        "scale_statistics": [
            {
                "batch_id": batch_id,
                "statistics": scale_statistics(scale, posterior, judged),
                "computed_at": computed_at,
            }
        ],
        "essay_ranks": rank_rows(batch_id, posterior),
    }
