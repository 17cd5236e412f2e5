"""Ranks and how sure they are: which essay is probably above which, from the joint covariance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cj_pipeline.arrays import Floats
from cj_pipeline.scale.bradley_terry import Scale
from cj_pipeline.scale.laplacian import solve

Ranks = npt.NDArray[np.int64]

_DRAWS = 4_000
"""Monte-Carlo error of a rank probability: below .008."""

_DENSE_UP_TO = 1_500
_SPARSE_DRAWS = 400
"""Beyond that many essays each draw is a linear system; the error is then below .025."""
_AT_ONCE = 50
"""Draws whose noise is held in memory together."""


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
    """Return the probability that one essay is truly better than another.

    The scores' joint posterior is taken to be normal, so that what two essays' errors have in
    common cancels.
    """
    from scipy.stats import norm

    joint = scale.covariance_among([upper, lower])
    variance = joint[0, 0] + joint[1, 1] - 2 * joint[0, 1]
    place = {essay_id: i for i, essay_id in enumerate(scale.essay_ids)}
    if upper == lower:
        return 0.5
    difference = scale.scores[place[upper]] - scale.scores[place[lower]]
    return float(norm.cdf(difference / np.sqrt(variance)))


def rank_intervals(
    scale: Scale, *, among: Ranks | None = None, level: float = 0.95, seed: int = 0
) -> RankIntervals:
    """Return each essay's rank and the interval of ranks it may truly have.

    Scores are drawn from their joint normal posterior and ranked; the same seed gives the same
    intervals. In batches of more than 1,500 essays judges' own parameters are taken as known.

    Args:
        scale: As fitted.
        among: Indices of the essays to rank among themselves; all if left out.
        level: Share of the posterior between the limits, per essay.
        seed: Of the draws.
    """
    n = len(scale.essay_ids)
    if among is None:
        among = np.arange(n)
    drawn = _drawn(scale, np.random.default_rng(seed))[:, among]
    order = np.argsort(-drawn, axis=1)
    drawn_ranks = np.empty_like(order)
    np.put_along_axis(drawn_ranks, order, np.arange(1, len(among) + 1)[None, :], axis=1)
    tail = 100 * (1 - level) / 2
    lower, upper = np.percentile(drawn_ranks, [tail, 100 - tail], axis=0)
    return RankIntervals(
        tuple(scale.essay_ids[i] for i in among.tolist()),
        ranks(scale.scores[among]),
        np.floor(lower).astype(np.int64),
        np.ceil(upper).astype(np.int64),
        level,
    )


def _drawn(scale: Scale, rng: np.random.Generator) -> Floats:
    """Return draws of all scores from their joint normal posterior; shape (n_draws, n_essays)."""
    n = len(scale.essay_ids)
    if n <= _DENSE_UP_TO:
        values, vectors = np.linalg.eigh(scale.covariance)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        return np.asarray(scale.scores + rng.standard_normal((_DRAWS, n)) @ root.T)
    from scipy.sparse import csr_array

    # B' W^(1/2) z + P^(1/2) z' has the information as its covariance, so solved for, the inverse.
    essays = scale.information.essays
    first, second = essays.layout.first, essays.layout.second
    n_pairs = len(first)
    ends = (np.concatenate([first, second]), np.tile(np.arange(n_pairs), 2))
    root = np.sqrt(essays.weights)
    incidence = csr_array((np.concatenate([root, -root]), ends), (n, n_pairs))
    own = essays.diagonal - np.bincount(first, essays.weights, n)
    own -= np.bincount(second, essays.weights, n)
    parts = []
    for _ in range(_SPARSE_DRAWS // _AT_ONCE):
        noise = incidence @ rng.standard_normal((n_pairs, _AT_ONCE))
        noise += np.sqrt(np.maximum(own, 0))[:, None] * rng.standard_normal((n, _AT_ONCE))
        off = solve(essays, noise, rtol=1e-4)
        parts.append((off - off.mean(axis=0)).T)
    return np.asarray(scale.scores + np.concatenate(parts))
