"""A scale as rows of the store: what each essay's score and place are, by the verdicts alone.

One place for it, so that whoever writes such rows and whoever checks them work them out alike.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from cj_pipeline.scale.certainty import SCORE_VERSION
from cj_pipeline.scale.ranks import ranks

if TYPE_CHECKING:
    from cj_pipeline.scale.bradley_terry import Scale
    from cj_pipeline.scale.certainty import ScorePosterior


def score_rows(
    batch_id: str, wave: int, scale: Scale, posterior: ScorePosterior
) -> list[dict[str, Any]]:
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


def rank_rows(batch_id: str, posterior: ScorePosterior) -> list[dict[str, Any]]:
    """Return the rows of `essay_ranks`: how sure each essay's place is."""
    import numpy as np

    from cj_pipeline.scale.ranks import probability_above, rank_intervals

    everyone = rank_intervals(posterior)
    lower, upper = posterior.lower.tolist(), posterior.upper.tolist()
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
            "score_lower": lower[i],
            "score_upper": upper[i],
        }
        for i, essay_id in enumerate(everyone.essay_ids)
    }
    if not posterior.has_students:
        return list(rows.values())
    theirs = rank_intervals(posterior, among=np.flatnonzero(posterior.is_student))
    student_rank = {}
    for i, essay_id in enumerate(theirs.essay_ids):
        student_rank[essay_id] = int(theirs.rank[i])
        rows[essay_id] |= {
            "student_rank": int(theirs.rank[i]),
            "student_rank_lower": int(theirs.lower[i]),
            "student_rank_upper": int(theirs.upper[i]),
        }
    # In the order of every list: essays of one rank by their names.
    best_first = sorted(student_rank, key=lambda essay_id: (student_rank[essay_id], essay_id))
    for above, below in pairwise(best_first):
        rows[above]["p_above_next"] = probability_above(posterior, above, below)
    return list(rows.values())
