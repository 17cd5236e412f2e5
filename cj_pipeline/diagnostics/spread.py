"""How far essays' true scores are likely to lie apart, by the verdicts and by what is usual.

Looking ahead (`forecast`) and choosing pairs go by it; no reported score does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from cj_pipeline.diagnostics.reliability import SpreadEvidence
from cj_pipeline.scale.bradley_terry import Scale
from cj_pipeline.scale.certainty import SPREADS_DIFFER, ScorePosterior
from cj_pipeline.scale.certainty import USUAL_SPREAD as USUAL_SPREAD_OF_SCORES

USUAL_SPREAD = 1.5
"""Standard deviation of essays' true scores, in logits, in an ordinary class."""
_SPREADS_DIFFER = 0.3
"""Standard deviation of that spread's logarithm among classes and judges."""
_FAR = 4.0
"""Standard deviations of it beyond which no spread is looked for."""
_STEP = 0.1
"""In the spread's logarithm, for how sharply its posterior falls off."""


@dataclass(frozen=True)
class LikelySpread:
    """What is held of the essays' true spread: the mean and the error of its logarithm."""

    log_mean: float
    log_error: float

    @property
    def logits(self) -> float:
        """The spread itself, as a standard deviation in logits."""
        return math.exp(self.log_mean)


USUAL = LikelySpread(math.log(USUAL_SPREAD), _SPREADS_DIFFER)
"""Before the first verdict."""


def likely_student_spread(posterior: ScorePosterior) -> LikelySpread:
    """Return the same of the students alone, of whom anchors are no part.

    What the posterior held before the verdicts is taken out of it, and what is usual put in.
    """
    told = posterior.log_spread_error**-2
    verdicts = max(told - SPREADS_DIFFER**-2, 0.0)
    pull = math.log(posterior.spread) * told - math.log(USUAL_SPREAD_OF_SCORES) / SPREADS_DIFFER**2
    precision = verdicts + _SPREADS_DIFFER**-2
    mean = (pull * (verdicts > 0) + USUAL.log_mean / _SPREADS_DIFFER**2) / precision
    return LikelySpread(mean, 1 / math.sqrt(precision))


def likely_spread(scale: Scale) -> LikelySpread:
    """Return what the verdicts say of the spread, weighed against what is usual.

    That is where the spread's posterior is highest, and how sharply it falls off there. The first
    waves say little of it, pairs chosen close say less, and forecasts and choices must not jump.
    """
    from scipy.optimize import minimize_scalar

    evidence = SpreadEvidence(scale)

    def negative_log(log_spread: float) -> float:
        unusual = (log_spread - USUAL.log_mean) / _SPREADS_DIFFER
        return 0.5 * unusual**2 - evidence.at(log_spread)

    within = [USUAL.log_mean + sign * _FAR * _SPREADS_DIFFER for sign in (-1, 1)]
    found = minimize_scalar(negative_log, bounds=within, method="bounded", options={"xatol": 1e-2})
    adjacent = [negative_log(found.x + step) for step in (-_STEP, _STEP)]
    curvature = (adjacent[0] + adjacent[1] - 2 * found.fun) / _STEP**2
    # Nothing the verdicts say makes less sure of it than what is usual.
    return LikelySpread(
        float(found.x), float(1 / math.sqrt(max(curvature, 1 / _SPREADS_DIFFER**2)))
    )
