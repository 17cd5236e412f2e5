"""The posterior of `certainty` with the students' spread integrated out, all of it written out.

For batches of some hundred essays; larger ones are `large_posterior`'s.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cj_pipeline.arrays import Floats
from cj_pipeline.scale.bradley_terry import Scale
from cj_pipeline.scale.certainty import (
    ALIKE_BELOW,
    ANCHOR_SPREAD,
    SPREADS_DIFFER,
    USUAL_SPREAD,
    Mask,
    ScorePosterior,
    StudentReliability,
)
from cj_pipeline.scale.gaussian import (
    POSITION_SD,
    NormalPosterior,
    NormalPrior,
    nearest_normal,
)
from cj_pipeline.scale.tallies import Indices

_MEAN_SD = 5.0
"""Of either population's mean: next to nothing is held of it."""
_SPREADS = (0.08, 4.5, 11)
"""Logits between which the spread is looked for, and at how many places, evenly in logarithms."""
_FINE = 9
_TAIL = 1e-3
"""Probability left out at either end where the spread is looked at more finely."""
_R2_DRAWS = 800


class WrittenOut:
    """The whole covariance of mean-centred scores."""

    def __init__(self, covariance: Floats) -> None:
        self._covariance = covariance

    def covariance_among(self, chosen: Indices) -> Floats:
        return self._covariance[np.ix_(chosen, chosen)]

    def difference_variances(self, first: Indices, second: Indices) -> Floats:
        own = np.diag(self._covariance)
        apart = own[first] + own[second] - 2 * self._covariance[first, second]
        return np.maximum(apart, 0.0)

    def draws(self, n_draws: int, rng: np.random.Generator) -> Floats:
        root = _root(self._covariance)
        return np.asarray(rng.standard_normal((n_draws, len(root))) @ root.T)


@dataclass(frozen=True, eq=False)
class _AtSpread:
    log_spread: float
    found: NormalPosterior
    log_density: float


def integrated_posterior(scale: Scale, is_student: Mask) -> ScorePosterior:
    between = scale.between_judges
    places = _looked_at(scale, is_student)
    weights = np.exp([place.log_density for place in places])
    weights /= weights.sum()
    n = len(is_student)
    centre = np.eye(n) - 1 / n
    means = np.array([place.found.mean[:n] - place.found.mean[:n].mean() for place in places])
    mean = weights @ means
    covariance: Floats = np.zeros((n, n))
    for weight, own, place in zip(weights, means, places, strict=True):
        off = own - mean
        covariance += weight * (place.found.covariance[:n, :n] + np.outer(off, off))
    covariance = centre @ covariance @ centre
    spreads = np.exp([place.log_spread for place in places])
    return ScorePosterior(
        essay_ids=scale.essay_ids,
        scores=mean,
        standard_errors=np.sqrt(np.diag(covariance) + between * (1 - 1 / n)),
        between_judges=between,
        spread=float(weights @ spreads),
        log_spread_error=math.sqrt(
            float(weights @ np.log(spreads) ** 2 - (weights @ np.log(spreads)) ** 2)
        ),
        is_student=is_student,
        reliability=_reliability(places, weights, mean, is_student, between),
        joint=WrittenOut(0.5 * (covariance + covariance.T)),
    )


def _looked_at(scale: Scale, is_student: Mask) -> list[_AtSpread]:
    """Return the posterior at evenly spaced places that hold the spread, and how probable each is.

    First all over; where the verdicts tell the spread more sharply than those places lie apart,
    once more between the ends that hold all but a thousandth of it at either side.
    """
    low, high, n_places = _SPREADS
    coarse = np.linspace(math.log(low), math.log(high), n_places)
    found = _at(scale, is_student, coarse, tolerance=1e-4)
    fine = np.linspace(coarse[0], coarse[-1], 400)
    from scipy.interpolate import CubicSpline

    density = CubicSpline(coarse, [place.log_density for place in found])(fine)
    total = np.cumsum(np.exp(density - density.max()))
    inside = fine[(total >= _TAIL * total[-1]) & (total <= (1 - _TAIL) * total[-1])]
    return _at(scale, is_student, np.linspace(inside[0], inside[-1], _FINE))


def _at(
    scale: Scale,
    is_student: Mask,
    log_spreads: Floats,
    *,
    tolerance: float = 1e-7,
) -> list[_AtSpread]:
    places: list[_AtSpread] = []
    start = None
    for log_spread in log_spreads.tolist():
        prior = population_prior(is_student, math.exp(log_spread), len(scale.model.positions))
        start = nearest_normal(scale.model, scale.point, prior, start, tolerance=tolerance)
        unusual = (log_spread - math.log(USUAL_SPREAD)) / SPREADS_DIFFER
        places.append(_AtSpread(log_spread, start, start.log_evidence - 0.5 * unusual**2))
    best = max(place.log_density for place in places)
    return [_AtSpread(p.log_spread, p.found, p.log_density - best) for p in places]


def population_prior(is_student: Mask, spread: float, n_positions: int) -> NormalPrior:
    """Return the prior of two normal populations whose means are next to unknown."""
    n = len(is_student)
    precision: Floats = np.zeros((n + n_positions, n + n_positions))
    log_det = -2 * n_positions * math.log(POSITION_SD)
    precision[np.arange(n, n + n_positions), np.arange(n, n + n_positions)] = POSITION_SD**-2
    for members, sd in ((is_student, spread), (~is_student, ANCHOR_SPREAD)):
        chosen = np.flatnonzero(members)
        if not len(chosen):
            continue
        whole = sd**2 + len(chosen) * _MEAN_SD**2
        precision[np.ix_(chosen, chosen)] = -(_MEAN_SD**2) / (sd**2 * whole)
        precision[chosen, chosen] += sd**-2
        log_det -= 2 * (len(chosen) - 1) * math.log(sd) + math.log(whole)
    return NormalPrior(precision, log_det)


def _reliability(
    places: Sequence[_AtSpread],
    weights: Floats,
    mean: Floats,
    is_student: Mask,
    between: float,
) -> StudentReliability:
    chosen = np.flatnonzero(is_student)
    n = len(chosen)
    spreads = np.exp([place.log_spread for place in places])
    p_alike = _share_below(np.log(spreads), weights, math.log(ALIKE_BELOW))
    if n < 2:
        return StudentReliability(None, None, None, None, p_alike, n)
    centre = np.eye(n) - 1 / n
    rng = np.random.default_rng(0)
    shares, drawn = [], []
    score = mean[chosen] - mean[chosen].mean()
    for weight, spread, place in zip(weights, spreads, places, strict=True):
        own = centre @ place.found.covariance[np.ix_(chosen, chosen)] @ centre + between * centre
        shares.append(1 - np.trace(own) / ((n - 1) * spread**2))
        n_draws = round(weight * _R2_DRAWS)
        if n_draws:
            at = place.found.mean[chosen]
            noise = rng.standard_normal((n_draws, n)) @ _root(own).T
            drawn.append(_squared_correlations(score, at - at.mean() + noise))
    lower, quartile, upper = np.percentile(np.concatenate(drawn), [2.5, 25, 97.5]).tolist()
    value = float(np.clip(weights @ np.array(shares), 0.0, 1.0))
    return StudentReliability(value, lower, upper, quartile, p_alike, n)


def _share_below(log_spreads: Floats, weights: Floats, limit: float) -> float:
    """Return the probability below a limit, each place standing for the interval around it."""
    half = 0.5 * (log_spreads[1] - log_spreads[0])
    inside = np.clip((limit - (log_spreads - half)) / (2 * half), 0.0, 1.0)
    return float(weights @ inside)


def _squared_correlations(score: Floats, drawn: Floats) -> Floats:
    """Return of each draw its squared correlation with the scores; shape (n_draws,)."""
    total = np.sum(score**2) * np.sum(drawn**2, axis=1)
    along: Floats = drawn @ score
    shares: Floats = np.divide(along**2, total, out=np.zeros_like(along), where=total > 0)
    return shares


def _root(covariance: Floats) -> Floats:
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))
