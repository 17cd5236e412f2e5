"""The estimator behind most published reliabilities: that of R's `sirt::btm`.

Each essay's number of wins is drawn in by epsilon at both ends, so that one that won everything
stays finite, and standard errors come from the diagonal of the information, as if all other scores
were known. Both make the figure comparable with the literature and neither is how this project
scores: that is `bradley_terry`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cj_pipeline.arrays import Floats
from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.diagnostics.reliability import scale_separation_reliability
from cj_pipeline.errors import UnscalableBatchError
from cj_pipeline.scale.connectivity import part_labels
from cj_pipeline.scale.tallies import Tally, as_verdicts, sums_by, tally

_TOLERANCE = 1e-4
_MAX_ROUNDS = 400
"""Both as in published analyses; a sharper end moves the reliability by less than .0001."""
_AT_REST = 1e-3
"""A change that may be left after the last round: two or three essays swing a little for ever."""


@dataclass(frozen=True, eq=False)
class EpsilonAdjusted:
    """A scale as `sirt::btm` gives it, ties left out and no home advantage.

    Attributes:
        essay_ids: In the order given.
        scores: `theta`, in logits, with mean zero.
        standard_errors: `se.theta`, from the information's diagonal alone.
        reliability: `mle.rel`: 1 - mean(se^2) / var(theta).
        separation: `sepG`: sqrt(var(theta) / mean(se^2)).
        n_rounds: How many rounds it took.
        warning: What keeps the scores from being on one scale; empty where they are.
    """

    essay_ids: tuple[str, ...]
    scores: Floats
    standard_errors: Floats
    reliability: float
    separation: float
    n_rounds: int
    warning: str = ""


def fit_epsilon_adjusted(
    essay_ids: Sequence[str], judged: Sequence[JudgedPair], *, epsilon: float = 0.3
) -> EpsilonAdjusted:
    """Return the epsilon-adjusted scale and its reliability.

    Args:
        essay_ids: Every essay of the batch.
        judged: Verdicts; ties are left out, as published analyses do (`ignore.ties`).
        epsilon: Wins that even an essay without any is given, and those with all are denied.

    Warns:
        UserWarning: If verdicts without ties leave the net in parts, whose scores then have no
            common zero.

    Raises:
        UnscalableBatchError: If an essay has no verdict that is not a tie, or the rounds do not
            come to rest.

    References:
        Bertoli-Barsotti, Lando and Punzo (2014), in Analysis and Modeling of Complex Data in
        Behavioral and Social Sciences; `btm` of the R package sirt (Robitzsch), whose rounds these
        are.
    """
    decided = [verdict for verdict in judged if verdict.winner != "tie"]
    cells = tally(as_verdicts(essay_ids, decided))
    n = cells.n_essays
    met = sums_by(cells.first, cells.counts, n) + sums_by(cells.second, cells.counts, n)
    if np.any(met == 0):
        idle = [essay_ids[i] for i in np.flatnonzero(met == 0).tolist()][:8]
        msg = f"Essays without a verdict that is not a tie: {', '.join(idle)}. Judge them first."
        raise UnscalableBatchError(msg)
    won = sums_by(cells.first, cells.wins, n)
    won += sums_by(cells.second, cells.counts - cells.wins, n)
    adjusted = epsilon + (met - 2 * epsilon) * won / met

    scores = 0.8 * np.log(adjusted / (met - adjusted))
    scores -= scores.mean()
    n_rounds, longest, change = 0, 1.0, np.inf
    while change > _TOLERANCE and n_rounds < _MAX_ROUNDS:
        n_rounds += 1
        expected, information = _moments(cells, scores)
        # Steps grow shorter from round to round, so that two essays cannot swing for ever.
        longest *= 0.98
        stepped = scores + np.clip((adjusted - expected) / information, -longest, longest)
        stepped -= stepped.mean()
        change = float(np.max(np.abs(stepped - scores)))
        scores = stepped
    if change > _AT_REST:
        msg = (
            f"The epsilon-adjusted scale still moved by {change:.2g} logits after {n_rounds} "
            "rounds: the net hangs together too loosely for it. Judge more pairs."
        )
        raise UnscalableBatchError(msg)
    errors = 1 / np.sqrt(information)
    reliability = scale_separation_reliability(scores, errors)
    separation = float(1 / np.sqrt(1 - reliability))
    warning = _in_parts(cells)
    if warning:
        warnings.warn(warning, UserWarning, stacklevel=2)
    return EpsilonAdjusted(
        tuple(essay_ids), scores, errors, reliability, separation, n_rounds, warning
    )


def _in_parts(cells: Tally) -> str:
    n_parts = int(part_labels(cells).max()) + 1
    if n_parts == 1:
        return ""
    return (
        f"Without ties the verdicts fall into {n_parts} parts that no verdict joins: the epsilon-"
        "adjusted scores of different parts have no common zero, and their reliability says little."
    )


def _moments(cells: Tally, scores: Floats) -> tuple[Floats, Floats]:
    """Return per essay its expected wins and the information's diagonal."""
    n = cells.n_essays
    chance = 0.5 + 0.5 * np.tanh(0.5 * (scores[cells.first] - scores[cells.second]))
    expected = sums_by(cells.first, cells.counts * chance, n)
    expected += sums_by(cells.second, cells.counts * (1 - chance), n)
    variance = cells.counts * chance * (1 - chance)
    return expected, sums_by(cells.first, variance, n) + sums_by(cells.second, variance, n)
