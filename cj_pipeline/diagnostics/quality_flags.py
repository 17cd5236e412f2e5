"""Whether a scale is good enough to act on: a summary of its errors, and flags that a person reads.

The names of the keys are those older runs are compared by.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from cj_pipeline.arrays import Floats
from cj_pipeline.scale.bradley_terry import Scale
from cj_pipeline.scale.certainty import ScorePosterior
from cj_pipeline.scale.laplacian import sums_at_ends
from cj_pipeline.scale.tallies import Indices


def se_summary(
    scale: Scale, posterior: ScorePosterior, student_ids: Collection[str] = ()
) -> dict[str, float | int]:
    """Return the scores' errors in a few numbers (`bt_se_summary`).

    Args:
        scale: As fitted.
        posterior: Of its scores: the errors that are reported.
        student_ids: Whose errors and comparisons count; all essays' where there are none.

    Returns:
        `mean_se` and `max_se` in logits, from the posterior; the same of verdict-only scores as
        `verdict_mean_se` and `verdict_max_se`; `mean_comparisons_per_item`, and `isolated_items`:
        how many essays, anchors too, hang on a single opponent, though the batch has more to offer.
    """
    students = set(student_ids)
    counts = np.array([not students or essay_id in students for essay_id in scale.essay_ids])
    return {
        "mean_se": float(np.mean(posterior.standard_errors[counts])),
        "max_se": float(np.max(posterior.standard_errors[counts])),
        "verdict_mean_se": float(np.mean(scale.standard_errors[counts])),
        "verdict_max_se": float(np.max(scale.standard_errors[counts])),
        "mean_comparisons_per_item": float(np.mean(scale.n_comparisons[counts])),
        "isolated_items": int(np.sum(_n_opponents(scale) < min(2, len(scale.essay_ids) - 1))),
    }


def quality_flags(
    summary: Mapping[str, float | int],
    *,
    mean_se_warning: float,
    max_se_warning: float,
    min_comparisons_per_item: float = 4.0,
) -> dict[str, bool]:
    """Return what deserves a check before grades are given (`bt_quality_flags`).

    Args:
        summary: From `se_summary`.
        mean_se_warning: Mean standard error, in logits, from which errors count as inflated.
        max_se_warning: The same for the largest.
        min_comparisons_per_item: Fewer per essay, on average, count as sparse.
    """
    return {
        "bt_se_inflated": bool(
            summary["mean_se"] > mean_se_warning or summary["max_se"] > max_se_warning
        ),
        "comparison_coverage_sparse": bool(
            summary["mean_comparisons_per_item"] < min_comparisons_per_item
        ),
        "has_isolated_items": bool(summary["isolated_items"] > 0),
    }


def effective_comparisons(scale: Scale) -> Floats:
    """Return per essay how many verdicts between equals would have given as much information.

    A verdict whose outcome was clear beforehand gives little: p (1 - p) against 1/4. Shape
    (n_essays,); at most the essay's `n_comparisons`.
    """
    essays = scale.information.essays
    at_first, at_second = sums_at_ends(essays.layout, essays.weights)
    return 4 * (at_first + at_second)


def _n_opponents(scale: Scale) -> Indices:
    layout = scale.model.layout
    ends = np.concatenate([layout.first, layout.second])
    return np.bincount(ends, minlength=layout.n_essays)
