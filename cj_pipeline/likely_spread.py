"""How far essays' true scores are likely to lie apart, by the verdicts and by what is usual.

Looking ahead (`forecast`) and choosing pairs go by it; no reported score does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from cj_pipeline.bradley_terry import Scale
from cj_pipeline.reliability import empirical_bayes

USUAL_SPREAD = 1.5
"""Standard deviation of essays' true scores, in logits, in an ordinary class."""
_SPREADS_DIFFER = 0.3
"""Standard deviation of that spread's logarithm among classes and judges."""


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


def likely_spread(scale: Scale) -> LikelySpread:
    """Return what the verdicts say of the spread, weighed against what is usual.

    The first waves say little of it and must not make forecasts and choices jump.
    """
    found = empirical_bayes(scale)
    usual_weight, weight, told = 1 / _SPREADS_DIFFER**2, 0.0, 0.0
    if found.reliability > 0:
        # A standard deviation from n essays errs by 1/sqrt(2(n-1)), the more the noisier they are.
        weight = 2 * (len(scale.essay_ids) - 1) * found.reliability**2
        told = math.log(found.true_sd)
    return LikelySpread(
        (usual_weight * math.log(USUAL_SPREAD) + weight * told) / (usual_weight + weight),
        1 / math.sqrt(usual_weight + weight),
    )
