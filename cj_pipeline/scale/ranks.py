"""Ranks and how sure they are: which essay is probably above which, from the joint posterior."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cj_pipeline.arrays import Floats
from cj_pipeline.scale.bradley_terry import Scale
from cj_pipeline.scale.certainty import SAME, ScorePosterior
from cj_pipeline.scale.score_posterior import score_posterior

Ranks = npt.NDArray[np.int64]

_DRAWS = 4_000
"""Monte-Carlo error of a rank probability: below .008. Large batches give fewer draws."""


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
    """Return each score's rank, 1 for the highest; equal scores share the better rank.

    Scores that differ by rounding alone are equal: essays with equal evidence have equal ranks.
    """
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    is_lower = np.concatenate([[True], ordered[:-1] - ordered[1:] > SAME])
    first_of_group = np.maximum.accumulate(np.where(is_lower, np.arange(len(scores)), 0))
    found = np.empty(len(scores), dtype=np.int64)
    found[order] = first_of_group + 1
    return found


def probability_above(scores: ScorePosterior | Scale, upper: str, lower: str) -> float:
    """Return the probability that one essay is truly better than another.

    What two essays' errors have in common cancels.

    Args:
        scores: The posterior, or a scale without anchors.
        upper: The essay that may be better.
        lower: The other one.
    """
    from scipy.stats import norm

    if upper == lower:
        return 0.5
    posterior = _posterior(scores)
    joint = posterior.covariance_among([upper, lower])
    variance = joint[0, 0] + joint[1, 1] - 2 * joint[0, 1]
    place = posterior.place
    difference = posterior.scores[place[upper]] - posterior.scores[place[lower]]
    if abs(difference) <= SAME:
        return 0.5
    return float(norm.cdf(difference / np.sqrt(variance)))


def rank_intervals(
    scores: ScorePosterior | Scale,
    *,
    among: Ranks | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> RankIntervals:
    """Return each essay's rank and the interval of ranks it may truly have.

    Scores are drawn from their joint posterior and ranked; the same seed gives the same intervals,
    and essays whose score and error are the same have the same one.

    Args:
        scores: The posterior, or a scale without anchors.
        among: Indices of the essays to rank among themselves; all if left out.
        level: Share of the posterior between the limits, per essay.
        seed: Of the draws.
    """
    posterior = _posterior(scores)
    if among is None:
        among = np.arange(len(posterior.essay_ids))
    drawn = posterior.drawn(_DRAWS, seed)[:, among]
    order = np.argsort(-drawn, axis=1)
    drawn_ranks = np.empty_like(order)
    np.put_along_axis(drawn_ranks, order, np.arange(1, len(among) + 1)[None, :], axis=1)
    tail = 100 * (1 - level) / 2
    lower, upper = np.percentile(drawn_ranks, [tail, 100 - tail], axis=0)
    rank = ranks(posterior.scores[among])
    alike = _alike(rank, posterior.standard_errors[among])
    lowest, highest = np.full(len(among), len(among)), np.ones(len(among), dtype=np.int64)
    np.minimum.at(lowest, alike, np.floor(lower).astype(np.int64))
    np.maximum.at(highest, alike, np.ceil(upper).astype(np.int64))
    return RankIntervals(
        tuple(posterior.essay_ids[i] for i in among.tolist()),
        rank,
        # Draws of few essays may miss the rank itself, which no interval should.
        np.minimum(lowest[alike], rank),
        np.maximum(highest[alike], rank),
        level,
    )


def _posterior(scores: ScorePosterior | Scale) -> ScorePosterior:
    return scores if isinstance(scores, ScorePosterior) else score_posterior(scores)


def _alike(rank: Ranks, errors: Floats) -> Ranks:
    """Return a number per essay that those share whose rank and error are the same."""
    by_error = ranks(errors)
    _, group = np.unique(rank * (len(rank) + 1) + by_error, return_inverse=True)
    return np.asarray(group, dtype=np.int64)
