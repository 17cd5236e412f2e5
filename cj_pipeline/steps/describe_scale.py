"""A finished scale is described: rows of `scale_statistics` and `essay_ranks`.

Both are worked out with the store closed, for splitting verdicts in halves takes hundreds of fits,
and after grades are kept, for nobody waits for a description. Grading takes the last one away
(`project`), so whatever is described is what was graded.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.queries.batch_record import judged_pairs, load_batch
from cj_pipeline.queries.scale import fit_scale
from cj_pipeline.runtime import Runtime
from cj_pipeline.store.session import Session

if TYPE_CHECKING:
    from cj_pipeline.scale.bradley_terry import Scale
    from cj_pipeline.scale.intervals import ScoreIntervals


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
    rows = description_rows(batch_id, scale, judged, record.student_ids, runtime.clock())
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
    judged: Sequence[JudgedPair],
    student_ids: Sequence[str],
    computed_at: datetime,
) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of both tables for a batch's last scale."""
    from cj_pipeline.diagnostics.summary import scale_statistics
    from cj_pipeline.scale.intervals import score_intervals

    intervals = score_intervals(scale)
    return {
        "scale_statistics": [
            {
                "batch_id": batch_id,
                "statistics": scale_statistics(scale, judged, intervals),
                "computed_at": computed_at,
            }
        ],
        "essay_ranks": _rank_rows(batch_id, scale, student_ids, intervals),
    }


def _rank_rows(
    batch_id: str, scale: Scale, student_ids: Sequence[str], intervals: ScoreIntervals
) -> list[dict[str, Any]]:
    import numpy as np

    from cj_pipeline.scale.ranks import probability_above, rank_intervals

    students = set(student_ids)
    among = np.array([i for i, e in enumerate(scale.essay_ids) if e in students], dtype=np.int64)
    everyone = rank_intervals(scale)
    rows: dict[str, dict[str, Any]] = {
        essay_id: {
            "batch_id": batch_id,
            "essay_id": essay_id,
            "rank": int(everyone.rank[i]),
            "rank_lower": int(everyone.lower[i]),
            "rank_upper": int(everyone.upper[i]),
            "student_rank": None,
            "student_rank_lower": None,
            "student_rank_upper": None,
            "p_above_next": None,
            "score_lower": float(intervals.lower[i]),
            "score_upper": float(intervals.upper[i]),
        }
        for i, essay_id in enumerate(everyone.essay_ids)
    }
    if not len(among):
        return list(rows.values())
    theirs = rank_intervals(scale, among=among)
    for i, essay_id in enumerate(theirs.essay_ids):
        rows[essay_id] |= {
            "student_rank": int(theirs.rank[i]),
            "student_rank_lower": int(theirs.lower[i]),
            "student_rank_upper": int(theirs.upper[i]),
        }
    best_first = among[np.argsort(-scale.scores[among], kind="stable")].tolist()
    for upper, lower in pairwise(scale.essay_ids[i] for i in best_first):
        rows[upper]["p_above_next"] = probability_above(scale, upper, lower)
    return list(rows.values())
