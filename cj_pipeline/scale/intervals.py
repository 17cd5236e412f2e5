"""The 95 % interval of each score: of those reported, and of the verdict-only ones.

The reported scores' follow from their posterior and hold whichever strategy chose the pairs. Those
of verdict-only scores come from how fast the posterior under a weak prior falls as the score
changes. Such a score plus and minus 1.96 standard errors takes that posterior for normal. It is
not, where an essay has few comparisons and stands far out: the curvature falls off faster than the
score rises (Hauck and Donner 1977). So there an interval ends where the best posterior that any
scale with that score can have is 1.92 lower, in its logarithm, than the best of all. How sure ranks
are is `ranks`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cj_pipeline.arrays import Floats
from cj_pipeline.scale.bradley_terry import Scale
from cj_pipeline.scale.certainty import ScorePosterior
from cj_pipeline.scale.information import newton_step, whole
from cj_pipeline.scale.likelihood import gradient_at
from cj_pipeline.scale.log_posterior import LogDensity, Posterior
from cj_pipeline.scale.score_posterior import score_posterior

MAX_ESSAYS = 1_000
"""Beyond it the whole covariance, along which the search goes, is not written out."""
MAX_WORK = 10_000_000
"""Essays times distinct pairs, which keeps the search to some ten seconds. More come with many
comparisons per essay, of which the normal interval is right."""

NORMAL_95 = 1.959963984540054
_AT_ONCE = 2_000_000
"""Pairs looked at together, over all ends sought together."""
_STEPS_TOGETHER = 15
_STEPS_ALONE = 40
_LAST_STEP = 1e-5
_LONGEST_STEP = 1.0
"""Logits. The first step starts from the normal interval's end, which is seldom further off."""


@dataclass(frozen=True, eq=False)
class ScoreIntervals:
    """Between which limits each score lies with 95 % confidence.

    Attributes:
        essay_ids: In the scale's order.
        lower: In logits, on the scale's mean-centred gauge; shape (n_essays,).
        upper: In logits; shape (n_essays,).
        is_normal: Whose are the score plus and minus 1.96 standard errors; shape (n_essays,).
    """

    essay_ids: tuple[str, ...]
    lower: Floats
    upper: Floats
    is_normal: npt.NDArray[np.bool_]


def score_intervals(scores: ScorePosterior | Scale) -> ScoreIntervals:
    """Return each reported score's 95 % interval.

    Args:
        scores: The posterior, or a scale without anchors.
    """
    found = scores if isinstance(scores, ScorePosterior) else score_posterior(scores)
    return ScoreIntervals(
        found.essay_ids, found.lower, found.upper, np.ones(len(found.scores), dtype=bool)
    )


def verdict_intervals(scale: Scale) -> ScoreIntervals:
    """Return each verdict-only score's 95 % interval by profile likelihood, weak prior included.

    Right where pairs were chosen without regard to scores.

    All other scores, and what judges add, are made the best they can be at each end. An essay which
    won (or lost) everything has a finite outer end, as it has a score, by the prior alone; on each
    side it gets the further of this end and the normal one. Batches of more than
    `MAX_ESSAYS` essays or `MAX_WORK` get normal intervals, and so does an essay whose ends are not
    found (which discriminations of several peaks could do); `is_normal` says so.

    Args:
        scale: As fitted.

    References:
        Venzon and Moolgavkar (1988), doi:10.2307/2347496; Hauck and Donner (1977),
        doi:10.1080/01621459.1977.10479969.
    """
    half = NORMAL_95 * scale.standard_errors
    n = len(scale.essay_ids)
    lower, upper = scale.scores - half, scale.scores + half
    is_normal = np.ones(n, dtype=bool)
    n_cells = len(scale.model.cells.first)
    if n <= MAX_ESSAYS and n * n_cells <= MAX_WORK:
        search = _Search(scale)
        at_once = max(1, _AT_ONCE // n_cells)
        for start in range(0, n, at_once):
            some = np.arange(start, min(start + at_once, n))
            low, high = search.ends(some, -1.0), search.ends(some, 1.0)
            found = np.isfinite(low) & np.isfinite(high)
            lower[some[found]], upper[some[found]] = low[found], high[found]
            is_normal[some[found]] = False
        # Such an essay is often nearer to the others than its verdicts say, for luck has its part
        # in winning everything: the profile's ends alone held only four in five of them.
        one_sided = np.isin(scale.essay_ids, scale.one_sided)
        lower[one_sided] = np.minimum(lower, scale.scores - half)[one_sided]
        upper[one_sided] = np.maximum(upper, scale.scores + half)[one_sided]
    return ScoreIntervals(scale.essay_ids, lower, upper, is_normal)


class _Search:
    """Newton's method for the ends of many intervals, a column each (Venzon and Moolgavkar 1988).

    First all together: the covariance at the maximum is used for the one at each end, but for the
    direction in which an essay's score changes, whose curvature is taken where the search is. So
    no end needs a matrix of its own. The few that do not come to rest that way (essays that won
    everything, moved toward the others) then have one.
    """

    def __init__(self, scale: Scale) -> None:
        self._model = scale.model
        self._posterior = Posterior(scale.model)
        self._best = self._posterior.column(scale.point)
        self._covariance = np.linalg.inv(whole(scale.information))
        self._n = len(scale.essay_ids)
        self._lowest = float(self._posterior.at(self._best).values[0]) - 0.5 * NORMAL_95**2

    def ends(self, essays: npt.NDArray[np.int64], side: float) -> Floats:
        """Return one end of each of these essays' intervals; no number where it is not found."""
        contrasts = np.zeros((len(self._covariance), len(essays)))
        contrasts[: self._n] = -1.0 / self._n
        contrasts[essays, np.arange(len(essays))] += 1.0
        ways = self._covariance @ contrasts
        starts = self._best + side * NORMAL_95 / np.sqrt(_dots(contrasts, ways)) * ways
        points = starts.copy()
        is_open = np.ones(len(essays), dtype=bool)
        for _ in range(_STEPS_TOGETHER):
            steps = self._shared_steps(points[:, is_open], contrasts[:, is_open], side)
            is_open[is_open] = _walk(points, is_open, steps)
            if not is_open.any():
                break
        found = _dots(contrasts, points)
        for column in np.flatnonzero(is_open):
            found[column] = self._end_alone(starts[:, [column]], contrasts[:, [column]], side)
        return found

    def _shared_steps(self, points: Floats, contrasts: Floats, side: float) -> Floats:
        ways = self._covariance @ contrasts
        here = self._posterior.at(points, ways)
        # Along its way the curvature at the maximum gives way to the one here.
        flatter = _dots(contrasts, ways) / here.curvatures
        climbs = self._covariance @ here.gradients
        climbs += ways * (
            _dots(ways, here.gradients) * (1 / here.curvatures - 1 / _dots(contrasts, ways))
        )
        return self._steps(here, climbs, ways * flatter, contrasts, side)

    def _end_alone(self, point: Floats, contrast: Floats, side: float) -> float:
        n = self._n
        for _ in range(_STEPS_ALONE):
            here = self._posterior.at(point)
            gradient = gradient_at(self._model, self._posterior.point(point), for_steps=False)
            climb, way = (
                np.concatenate(newton_step(gradient.information, *each, rtol=1e-9))[:, None]
                for each in ((gradient.theta, gradient.others), (contrast[:n, 0], contrast[n:, 0]))
            )
            step = self._steps(here, climb, way, contrast, side)
            if not _walk(point, np.ones(1, dtype=bool), step).any():
                return float(_dots(contrast, point)[0])
        return float("nan")

    def _steps(
        self, here: LogDensity, climbs: Floats, ways: Floats, contrasts: Floats, side: float
    ) -> Floats:
        """Return the steps to where, on a parabola through here, the value sought is."""
        left = 2 * (here.values - self._lowest) + _dots(here.gradients, climbs)
        shares = np.sqrt(np.maximum(left, 0.0) / _dots(contrasts, ways))
        return np.asarray(climbs + side * shares * ways)


def _walk(points: Floats, chosen: npt.NDArray[np.bool_], steps: Floats) -> npt.NDArray[np.bool_]:
    """Take the steps, shortened where too long; return which of the chosen have not arrived."""
    sizes = np.abs(steps).max(axis=0)
    points[:, chosen] += steps * np.minimum(1.0, _LONGEST_STEP / sizes)
    return np.asarray(sizes >= _LAST_STEP)


def _dots(left: Floats, right: Floats) -> Floats:
    return np.asarray(np.einsum("ij,ij->j", left, right))
