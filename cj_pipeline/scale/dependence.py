"""How far verdicts repeat each other: on one pair, and of one judge about one essay.

A second verdict on a pair tells less than a first where both share the pair's luck: a deterministic
judge asked again, the order turned, judges of one maker. How much is estimated from the residuals,
and each verdict then counts by the inverse of its pair's correlations. What judges see differently
in an essay is a variance of its own, which only more judges make smaller. An error that all judges
share about an essay is in none of these figures: verdicts cannot show it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cj_pipeline.arrays import Floats
from cj_pipeline.scale.bradley_terry import Scale
from cj_pipeline.scale.certainty import ScorePosterior
from cj_pipeline.scale.shared_evidence import Correlation
from cj_pipeline.scale.tallies import Indices, Verdicts, sums_by

LEAST_PAIRS = 30
"""Pairs of verdicts on one pair of essays from which a correlation is estimated: of fewer it is
chance, and what is usual is taken instead."""
USUAL_REPEATED = 0.5
"""Correlation of one judge's verdicts on one pair, where too few were repeated to say."""
USUAL_BETWEEN = 0.2
"""The same of two judges' verdicts."""
AT_REST = 0.02
"""Change of a correlation at which weights no longer move."""
MAX_ROUNDS = 4
_VARIANCE_ROUNDS = 4
_MAX_CORRELATION = 0.999


@dataclass(frozen=True, eq=False)
class _Clusters:
    """Verdicts by the pair of essays they are on; only what a weight needs.

    Attributes:
        pair: Number of each verdict's pair; shape (n_verdicts,).
        same: Indices of two verdicts of one judge on one pair, each combination once;
            shape (n, 2).
        other: The same of two judges.
    """

    pair: Indices
    same: Indices
    other: Indices


def has_shared_pairs(verdicts: Verdicts) -> bool:
    """Return whether any pair of essays has several verdicts."""
    pair = _pair_numbers(verdicts)
    return len(np.unique(pair)) < len(pair)


@dataclass(frozen=True, eq=False)
class Residuals:
    """What verdicts came to against what a posterior expected of them; each (n_verdicts,).

    Attributes:
        raw: Outcome less probability, from the first essay's side.
        p: Probability that the first essay wins, at the posterior mean.
        variance: Of the expected difference, in squared logits.
        discrimination: Of the verdict's judge.
        expected: Difference at the posterior mean, in logits.
    """

    raw: Floats
    p: Floats
    variance: Floats
    discrimination: Floats
    expected: Floats


def residuals_of(scale: Scale, posterior: ScorePosterior, verdicts: Verdicts) -> Residuals:
    """Return each verdict's residual at the posterior mean of the scores."""
    model, point = scale.model, scale.point
    first, second = verdicts.first, verdicts.second
    a: Floats = np.ones(len(first))
    if model.has_discrimination:
        a = np.exp(point.log_a)[verdicts.judge]
    shown: Floats = np.zeros(len(first))
    if len(model.positions):
        shown = point.gamma[verdicts.judge]
    expected = a * (posterior.scores[first] - posterior.scores[second]) + shown
    p = 0.5 + 0.5 * np.tanh(0.5 * expected)
    variance = a**2 * posterior.difference_variances(first, second)
    return Residuals(verdicts.wins - p, p, variance, a, expected)


def correlations_of(
    verdicts: Verdicts, residuals: Residuals
) -> tuple[Correlation | None, Correlation | None]:
    """Return how one judge's verdicts on a pair, and two judges', vary together.

    Moments of standardised residuals. A fitted score takes a part of each residual with it, by its
    leverage p (1 - p) var, which is put back: without that clones would seem to differ, and
    independent judges to contradict each other.
    """
    clusters = _clusters(verdicts)
    sd = np.sqrt(residuals.p * (1 - residuals.p))
    # From the side of the pair's first essay in the batch, whichever was shown first.
    turned = np.where(verdicts.first < verdicts.second, 1.0, -1.0)
    z = turned * residuals.raw / np.maximum(sd, 1e-6)
    leverage = sd**2 * residuals.variance
    own = float(np.mean(z**2 + leverage))

    def among(combined: Indices, usual: float) -> Correlation | None:
        if not len(combined):
            return None
        if len(combined) < LEAST_PAIRS:
            return Correlation(usual, len(combined), is_estimated=False)
        one, other = combined[:, 0], combined[:, 1]
        shared = z[one] * z[other] + np.sqrt(leverage[one] * leverage[other])
        value = float(np.clip(shared.mean() / own, 0.0, 1.0))
        return Correlation(value, len(combined), is_estimated=True)

    return among(clusters.same, USUAL_REPEATED), among(clusters.other, USUAL_BETWEEN)


def weights_of(
    verdicts: Verdicts, repeated: Correlation | None, between: Correlation | None
) -> Floats:
    """Return how much each verdict counts beside the others on its pair; shape (n_verdicts,).

    The row sums of the inverse of the pair's correlation matrix, none below a trace: for m verdicts
    with one correlation, 1 / (1 + (m - 1) rho) each (Liang and Zeger 1986,
    doi:10.1093/biomet/73.1.13).
    """
    within = min(repeated.value if repeated else 0.0, _MAX_CORRELATION)
    across = min(between.value if between else 0.0, _MAX_CORRELATION)
    pair = _pair_numbers(verdicts)
    weights: Floats = np.ones(len(pair))
    order = np.lexsort((verdicts.judge, pair))
    starts = np.flatnonzero(np.diff(pair[order], prepend=-1))
    known: dict[tuple[int, ...], Floats] = {}
    for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
        if end - start == 1:
            continue
        rows = order[start:end]
        _, counts = np.unique(verdicts.judge[rows], return_counts=True)
        shape = tuple(counts.tolist())
        if shape not in known:
            judge = np.repeat(np.arange(len(counts)), counts)
            among = np.where(judge[:, None] == judge[None, :], within, across)
            np.fill_diagonal(among, 1.0)
            known[shape] = np.maximum(np.linalg.pinv(among).sum(axis=1), 1e-3)
        weights[rows] = known[shape]
    return weights


_LEAST_OF_A_JUDGE = 20
"""Verdicts of each of two judges before a variance between judges is looked for."""


def judge_variance_of(
    verdicts: Verdicts, residuals: Residuals, rho: float, n_essays: int
) -> tuple[float, float]:
    """Return an essay's variance between judges, and which share of it is left in a score.

    By moments of what each judge's residuals about an essay leave after the essay's own mean
    (after DerSimonian and Laird 1986, doi:10.1016/0197-2456(86)90046-2). Several rounds, as the
    probabilities flatten with the variance found.

    Args:
        verdicts: With their judges.
        residuals: At the posterior mean.
        rho: Correlation of two judges' verdicts on one pair.
        n_essays: How many there are.
    """
    n_judges = len(verdicts.judge_ids)
    n_of = np.bincount(verdicts.judge, minlength=n_judges)
    # From one or two verdicts of a second judge its variance could be anything.
    if int((n_of >= _LEAST_OF_A_JUDGE).sum()) < 2:
        return 0.0, 1.0
    found, kept = 0.0, 1 / n_judges
    for _ in range(_VARIANCE_ROUNDS):
        flatter = 1 / np.sqrt(1 + np.pi / 8 * (residuals.variance + 2 * found))
        p = 0.5 + 0.5 * np.tanh(0.5 * flatter * residuals.expected)
        weight = flatter * p * (1 - p)
        found, kept = _variance_round(verdicts, verdicts.wins - p, weight, rho, n_essays)
    return found, kept


def _variance_round(
    verdicts: Verdicts, raw: Floats, weight: Floats, rho: float, n_essays: int
) -> tuple[float, float]:
    n_judges = len(verdicts.judge_ids)
    size = n_essays * n_judges
    first = verdicts.first * n_judges + verdicts.judge
    second = verdicts.second * n_judges + verdicts.judge
    r = (sums_by(first, raw, size) - sums_by(second, raw, size)).reshape(n_essays, n_judges)
    h = (sums_by(first, weight, size) + sums_by(second, weight, size)).reshape(n_essays, n_judges)
    # Summed weights of a judge's verdicts on an essay with each opponent, squared.
    low = np.minimum(verdicts.first, verdicts.second)
    high = np.maximum(verdicts.first, verdicts.second)
    key = (low * n_essays + high) * n_judges + verdicts.judge
    cell, at = np.unique(key, return_inverse=True)
    squared = sums_by(at, weight, len(cell)) ** 2
    judge = cell % n_judges
    one, other = np.divmod(cell // n_judges, n_essays)
    by_pair = sums_by(one * n_judges + judge, squared, size)
    by_pair = (by_pair + sums_by(other * n_judges + judge, squared, size)).reshape(h.shape)
    total = h.sum(axis=1, keepdims=True)
    seen = (total[:, 0] > 0) & ((h > 0).sum(axis=1) > 1)
    if not seen.any():
        return 0.0, 1 / n_judges
    r, h, by_pair, total = r[seen], h[seen], by_pair[seen], total[seen]
    share = h / total
    apart = r - share * r.sum(axis=1, keepdims=True)
    expected = (1 - rho) * (h - h**2 / total)
    own = h**2 + by_pair
    others = own.sum(axis=1, keepdims=True) - own
    slope = (1 - share) ** 2 * own + share**2 * others
    found = float(np.sum(apart**2 - expected) / max(float(slope.sum()), 1e-12))
    return max(found, 0.0), float(np.mean(np.sum(share**2, axis=1)))


def _pair_numbers(verdicts: Verdicts) -> Indices:
    low = np.minimum(verdicts.first, verdicts.second)
    high = np.maximum(verdicts.first, verdicts.second)
    return low * len(verdicts.essay_ids) + high


def _clusters(verdicts: Verdicts) -> _Clusters:
    pair = _pair_numbers(verdicts)
    order = np.argsort(pair, kind="stable")
    starts = np.flatnonzero(np.diff(pair[order], prepend=-1))
    same: list[Indices] = []
    other: list[Indices] = []
    for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
        if end - start == 1:
            continue
        rows = order[start:end]
        one, two = np.triu_indices(len(rows), 1)
        combined = np.column_stack([rows[one], rows[two]])
        is_same = verdicts.judge[combined[:, 0]] == verdicts.judge[combined[:, 1]]
        same.append(combined[is_same])
        other.append(combined[~is_same])
    none = np.empty((0, 2), dtype=np.int64)
    return _Clusters(pair, np.concatenate([none, *same]), np.concatenate([none, *other]))
