"""How much of what separates the essays' scores is real, under the names the field uses.

The headline is `empirical_bayes_reliability`. The others are given beside it because readers know
them: `scale_separation_reliability` from the full covariance, and the one of R's `sirt::btm` in
`epsilon_adjusted`. They are never mixed: the same scripts give different figures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cj_pipeline.bradley_terry import Scale, maximise
from cj_pipeline.errors import UnscalableBatchError
from cj_pipeline.information import standard_errors
from cj_pipeline.likelihood import slope_at
from cj_pipeline.tallies import Floats

_SMALLEST_SD, _LARGEST_SD = 0.02, 30.0
"""Logits between which the essays' true spread is sought; below it there is none to speak of."""


@dataclass(frozen=True)
class EmpiricalBayes:
    """How far essays truly differ, and how much of that the scale has caught.

    Attributes:
        true_sd: Standard deviation of the true scores, in logits; 0 where none is seen.
        mean_posterior_variance: Of the scores, given that spread.
        reliability: 1 - mean posterior variance / true variance: the expected squared
            correlation between estimated and true scores.
    """

    true_sd: float
    mean_posterior_variance: float
    reliability: float


def scale_separation_reliability(scores: Floats, standard_errors: Floats) -> float:
    """Return the share of the variance in the scores that is not error.

    Args:
        scores: One per essay, in logits; shape (n_essays,).
        standard_errors: In logits and in the same order; shape (n_essays,).

    Raises:
        UnscalableBatchError: If every essay has the same score.

    References:
        Verhavert et al. (2018), doi:10.1177/0146621617748321. Too high when pairs were
        chosen adaptively: Bramley and Vitello (2019), doi:10.1080/0969594X.2017.1418734.
    """
    if np.ptp(scores) == 0:
        msg = f"All {len(scores)} essays share one score: judge more pairs, then refit."
        raise UnscalableBatchError(msg)
    return float(1 - np.mean(standard_errors**2) / np.var(scores, ddof=1))


def separation_index(reliability: float) -> float:
    """Return the true spread in units of the typical standard error, sqrt(R / (1 - R)).

    References:
        Wright and Masters (1982), Rating Scale Analysis, chapter 5. Note that `sepG` of
        `sirt::btm` has the observed spread on top, which is sqrt(1 / (1 - R)).
    """
    return float(np.sqrt(max(reliability, 0.0) / (1 - reliability)))


def empirical_bayes_reliability(scale: Scale) -> float:
    """Return the honest share of real variance; see `empirical_bayes`."""
    return empirical_bayes(scale).reliability


def empirical_bayes(scale: Scale) -> EmpiricalBayes:
    """Return the true spread that makes the verdicts most probable, and what it implies.

    The essays' true scores are taken to be normal. At the variance sought, the posterior's second
    moment agrees with the prior's (MacKay's fixed point of the Laplace evidence). Unlike the scale
    separation reliability the figure does not count the same noise as spread twice, so it stays
    low where adaptive pairing met essays that do not differ.

    References:
        MacKay (1992), doi:10.1162/neco.1992.4.3.415.
    """
    from scipy.optimize import brentq

    n = len(scale.essay_ids)

    def moments(log_sd: float) -> tuple[float, float]:
        """Return squared spread of the scores and summed posterior variance at a true spread."""
        model = replace(
            scale.model, prior_comparisons=0.0, prior_precision=float(np.exp(-2 * log_sd))
        )
        point, _ = maximise(model, scale.point)
        information = slope_at(model, point, for_steps=False).information
        centred = point.theta - point.theta.mean()
        return float(centred @ centred), float(np.sum(standard_errors(information).values ** 2))

    def surplus(log_sd: float) -> float:
        return float(np.log(sum(moments(log_sd)) / (n - 1)) - 2 * log_sd)

    low, high = np.log(_SMALLEST_SD), np.log(_LARGEST_SD)
    if surplus(low) <= 0:
        return EmpiricalBayes(0.0, 0.0, 0.0)
    log_sd = float(brentq(surplus, low, high, xtol=1e-4))
    spread, posterior = moments(log_sd)
    return EmpiricalBayes(
        true_sd=float(np.exp(log_sd)),
        mean_posterior_variance=posterior / (n - 1),
        reliability=spread / (spread + posterior),
    )
