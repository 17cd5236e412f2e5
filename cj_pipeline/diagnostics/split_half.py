"""Reliability seen directly: two halves of the verdicts, two scales, their correlation.

By comparisons it shows what as many verdicts again would change; by judges, what other judges of
the same kind would. Where pairs were chosen by score both halves share what the choice fed upon,
and the figure is too high. Figures derived from a single scale are in `reliability`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.errors import UnscalableBatchError
from cj_pipeline.scale.bradley_terry import fit_verdicts
from cj_pipeline.scale.tallies import Verdicts, as_verdicts

By = Literal["comparisons", "judges"]


@dataclass(frozen=True)
class SplitHalf:
    """Correlations between the scales of two halves, over random splits.

    Attributes:
        n_splits: Splits whose halves both gave a scale.
        median: Pearson correlation between the halves' scores.
        lower: 2.5th percentile over splits.
        upper: 97.5th percentile.
        stepped_up: Median reliability of all verdicts together (Spearman-Brown).
    """

    n_splits: int
    median: float
    lower: float
    upper: float
    stepped_up: float


def split_half(
    essay_ids: Sequence[str],
    judged: Sequence[JudgedPair],
    *,
    by: By,
    n_splits: int = 100,
    seed: int = 0,
    among: Collection[str] | None = None,
) -> SplitHalf:
    """Return the correlation between scales from two random halves.

    Args:
        essay_ids: Every essay of the batch.
        judged: Verdicts.
        by: What is dealt out: single comparisons, or whole judges.
        n_splits: How many splits are tried; those with a half in parts do not count.
        seed: The same seed gives the same splits.
        among: The essays whose scores are correlated, such as the students; all if left out.

    Raises:
        UnscalableBatchError: If no split leaves two halves with a scale each, or there are fewer
            than two judges to split by.

    References:
        Bisson et al. (2016), doi:10.1007/s40753-016-0024-3, for the practice in comparative
        judgement; Spearman (1910) and Brown (1910) for stepping up.
    """
    verdicts = as_verdicts(essay_ids, judged)
    if by == "judges" and len(verdicts.judge_ids) < 2:
        msg = "One judge cannot be split in halves: split by comparisons."
        raise UnscalableBatchError(msg)
    counted = set(essay_ids if among is None else among)
    chosen = np.array([essay_id in counted for essay_id in essay_ids])
    rng = np.random.default_rng(seed)
    correlations = []
    for _ in range(n_splits):
        in_first = _dealt(verdicts, by, rng)
        try:
            one = fit_verdicts(verdicts.pick(in_first)).scores[chosen]
            other = fit_verdicts(verdicts.pick(~in_first)).scores[chosen]
        except UnscalableBatchError:
            continue  # a half in parts says nothing of the whole; n_splits says how many remain
        if np.ptp(one) > 0 and np.ptp(other) > 0:
            correlations.append(float(np.corrcoef(one, other)[0, 1]))
    if not correlations:
        msg = (
            f"None of {n_splits} random splits by {by} left two halves that each hang together. "
            "Judge more pairs before looking at split-half reliability."
        )
        raise UnscalableBatchError(msg)
    lower, median, upper = np.percentile(correlations, [2.5, 50, 97.5])
    if median <= -1:
        # As of two essays, whose correlation is 1 or -1: stepping up from -1 has no end.
        msg = "Halves order the essays exactly the other way round: there is nothing to step up."
        raise UnscalableBatchError(msg)
    return SplitHalf(
        len(correlations),
        float(median),
        float(lower),
        float(upper),
        float(2 * median / (1 + median)),
    )


def _dealt(
    verdicts: Verdicts, by: str, rng: np.random.Generator
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    size = len(verdicts.judge_ids) if by == "judges" else len(verdicts.first)
    chosen = np.zeros(size, dtype=bool)
    chosen[rng.permutation(size)[: size // 2]] = True
    return chosen[verdicts.judge] if by == "judges" else chosen
