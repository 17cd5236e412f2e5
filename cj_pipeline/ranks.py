"""Ranks and how sure they are: which essay is probably above which, from the joint covariance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cj_pipeline.bradley_terry import Scale
from cj_pipeline.tallies import Floats

Ranks = npt.NDArray[np.int64]

_DRAWS = 4_000
"""Monte-Carlo error of a rank probability: below .008."""


@dataclass(frozen=True, eq=False)
class RankIntervals:
    """Where each essay may rank; 1 is best.

    Attributes:
        essay_ids: In the scale's order.
        rank: By score, ties sharing the better rank; shape (n_essays,).
        lower: Best rank that is still within the interval.
        upper: Worst rank within it.
        level: Share of the posterior between them, per essay.
    """

    essay_ids: tuple[str, ...]
    rank: Ranks
    lower: Ranks
    upper: Ranks
    level: float


def ranks(scores: Floats) -> Ranks:
    """Return each score's rank, 1 for the highest; equal scores share the better rank."""
    ordered = np.sort(-scores)
    return np.searchsorted(ordered, -scores, side="left") + 1


def probability_above(scale: Scale, upper: str, lower: str) -> float:
    """Return the probability that one essay truly stands above another.

    The scores' joint posterior is taken to be normal, so that what two essays' errors have in
    common cancels.
    """
    from scipy.stats import norm

    joint = scale.covariance_among([upper, lower])
    variance = joint[0, 0] + joint[1, 1] - 2 * joint[0, 1]
    place = {essay_id: i for i, essay_id in enumerate(scale.essay_ids)}
    difference = scale.scores[place[upper]] - scale.scores[place[lower]]
    return float(norm.cdf(difference / np.sqrt(variance)))


def probabilities_above(scale: Scale) -> Floats:
    """Return P(row stands above column) for all essays; shape (n_essays, n_essays)."""
    from scipy.stats import norm

    variances = np.diag(scale.covariance)
    spread = np.sqrt(
        np.maximum(variances[:, None] + variances[None, :] - 2 * scale.covariance, 1e-300)
    )
    probabilities = norm.cdf((scale.scores[:, None] - scale.scores[None, :]) / spread)
    np.fill_diagonal(probabilities, 0.5)
    return np.asarray(probabilities, dtype=np.float64)


def rank_intervals(scale: Scale, *, level: float = 0.95, seed: int = 0) -> RankIntervals:
    """Return each essay's rank and the interval of ranks it may truly have.

    Scores are drawn from their joint normal posterior and ranked; the same seed gives the same
    intervals.
    """
    rng = np.random.default_rng(seed)
    values, vectors = np.linalg.eigh(scale.covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    n = len(scale.essay_ids)
    drawn = scale.scores + rng.standard_normal((_DRAWS, n)) @ root.T
    order = np.argsort(-drawn, axis=1)
    drawn_ranks = np.empty_like(order)
    np.put_along_axis(drawn_ranks, order, np.arange(1, n + 1)[None, :], axis=1)
    tail = 100 * (1 - level) / 2
    lower, upper = np.percentile(drawn_ranks, [tail, 100 - tail], axis=0)
    return RankIntervals(
        scale.essay_ids,
        ranks(scale.scores),
        np.floor(lower).astype(np.int64),
        np.ceil(upper).astype(np.int64),
        level,
    )
