"""How much of what separates the essays' scores is real, under the names the field uses.

The headline is that of `scale.score_posterior`, among students. `empirical_bayes_reliability` is of
all essays as if they were one population, and so of no student where there are anchors. The others
are given because readers know them: `scale_separation_reliability` from the full covariance, and
the one of R's `sirt::btm` in `epsilon_adjusted`. They are never mixed: the same scripts give
different figures.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from cj_pipeline.arrays import Floats
from cj_pipeline.errors import UnscalableBatchError
from cj_pipeline.scale.bradley_terry import Scale, maximise
from cj_pipeline.scale.information import score_variances
from cj_pipeline.scale.laplacian import difference_variances, log_determinant, net_matrix
from cj_pipeline.scale.likelihood import Model, gradient_at, log_likelihood
from cj_pipeline.scale.score_posterior import score_posterior

_WRITTEN_OUT_UP_TO = 1_500
"""Essays whose covariance is written out."""
_TRUE_SDS = (0.05, 10.0, 18)
"""Logits between which the essays' true spread is looked for, and at how many places."""


@dataclass(frozen=True)
class EmpiricalBayes:
    """How far essays truly differ, and how much of that the scale has caught.

    Attributes:
        true_sd: Standard deviation of the true scores, in logits; 0 where none is seen.
        mean_posterior_variance: Of the scores, given that spread.
        reliability: 1 - mean posterior variance / true variance.
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


def reliability_details(scale: Scale, anchor_ids: Collection[str]) -> dict[str, Any]:
    """Return what is kept with each wave of how reliable its scale is, ready for JSON.

    Args:
        scale: As fitted.
        anchor_ids: Essays that are no students'.

    Returns:
        `student_reliability` with its limits, `students_cannot_be_told_apart`,
        `empirical_bayes_reliability` (the headline; missing for few students),
        `reliability_with_anchors` where there are any, and `scale_separation_reliability`.
    """
    posterior = score_posterior(scale, anchor_ids)
    found = posterior.reliability
    details: dict[str, Any] = {
        "student_reliability": asdict(found),
        "students_cannot_be_told_apart": found.cannot_be_told_apart,
    }
    if found.is_worth_a_figure:
        details["empirical_bayes_reliability"] = found.value
    if anchor_ids:
        details["reliability_with_anchors"] = empirical_bayes_reliability(scale)
    if posterior.is_student.sum() > 1:
        students = [e for e, own in zip(scale.essay_ids, posterior.is_student, strict=True) if own]
        # None where all students have one score: there is no spread to be a share of.
        with suppress(UnscalableBatchError):
            details["scale_separation_reliability"] = student_separation(scale, students)
    return details


def student_separation(scale: Scale, student_ids: Sequence[str]) -> float:
    """Return the scale separation reliability among students, errors and spread theirs alone.

    Raises:
        UnscalableBatchError: If every student has the same score.
    """
    students = set(student_ids)
    chosen = np.flatnonzero([essay_id in students for essay_id in scale.essay_ids])
    if len(chosen) == len(scale.essay_ids) or len(scale.essay_ids) > _WRITTEN_OUT_UP_TO:
        return scale_separation_reliability(scale.scores[chosen], scale.standard_errors[chosen])
    among = scale.covariance[np.ix_(chosen, chosen)]
    # Against the students' mean, not the batch's: what they have in common sets none apart.
    variances = np.diag(among) - 2 * among.mean(axis=0) + among.mean()
    return scale_separation_reliability(scale.scores[chosen], np.sqrt(np.maximum(variances, 0.0)))


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


@lru_cache(maxsize=1)  # of the current scale: a decision and a forecast both use it
def empirical_bayes(scale: Scale) -> EmpiricalBayes:
    """Return the true spread that makes the verdicts most probable, and what it implies.

    The essays' true scores are taken to be normal, and integrated out (Laplace). The weak prior
    plays no part. Unlike the scale separation reliability this does not take noise that the pairs'
    choice has fed upon for spread, so it stays low where adaptive pairing met essays that do not
    differ. The likelihood of the spread can have two peaks then, so it is looked at all over.

    References:
        Tierney and Kadane (1986), doi:10.1080/01621459.1986.10478240.
    """
    from scipy.optimize import minimize_scalar

    evidence = SpreadEvidence(scale)
    low, high, n_places = _TRUE_SDS
    places = np.log(np.geomspace(low, high, n_places))
    values = [evidence.at(place) for place in places]
    best = int(np.argmax(values))
    if best == 0:
        return EmpiricalBayes(0.0, 0.0, 0.0)
    around = (places[best - 1], places[min(best + 1, n_places - 1)])
    log_sd = minimize_scalar(
        lambda place: -evidence.at(place), bounds=around, method="bounded", options={"xatol": 3e-3}
    ).x
    n = len(scale.essay_ids)
    posterior = evidence.posterior_variance(log_sd) / (n - 1)
    return EmpiricalBayes(
        true_sd=float(np.exp(log_sd)),
        mean_posterior_variance=posterior,
        reliability=float(1 - posterior * np.exp(-2 * log_sd)),
    )


class SpreadEvidence:
    """The log marginal likelihood of the true spread; keeps where it last was, to start there."""

    def __init__(self, scale: Scale) -> None:
        self._model = scale.model
        self._point = replace(scale.point, theta=np.zeros(len(scale.essay_ids)))

    def at(self, log_sd: float) -> float:
        """Return log p(verdicts | true spread), up to a constant."""
        model = self._settle(log_sd)
        theta = self._point.theta
        # Its determinant needs the scores' own information alone; the judges stay where they are.
        matrix = gradient_at(model, self._point, for_steps=False, scores_alone=True).information
        quadratic = 0.5 * model.prior_precision * float(theta @ theta)
        n = len(theta)
        return (
            log_likelihood(model, self._point)
            - quadratic
            - n * log_sd
            - 0.5 * log_determinant(matrix.essays)
        )

    def posterior_variance(self, log_sd: float) -> float:
        """Return the summed posterior variance of the mean-centred scores.

        The information at the mode is that of the likeliest scores; verdicts give less where
        scores truly lie further apart, so it is averaged over where they may lie.
        """
        model = self._settle(log_sd)
        information = gradient_at(model, self._point, for_steps=False).information
        essays = information.essays
        theta = self._point.theta
        gap = theta[essays.layout.first] - theta[essays.layout.second]
        # A logistic curve averaged over normal errors is nearly a flatter one (MacKay 1992,
        # doi:10.1162/neco.1992.4.5.720).
        flatter = 1 / np.sqrt(1 + np.pi / 8 * difference_variances(essays))
        ratio = flatter * _steepness(flatter * gap) / _steepness(gap)
        prior = np.full(len(theta), model.prior_precision)
        averaged = net_matrix(essays.layout, essays.weights * ratio, prior)
        return float(np.sum(score_variances(replace(information, essays=averaged))[0]))

    def _settle(self, log_sd: float) -> Model:
        model = replace(self._model, prior_precision=float(np.exp(-2 * log_sd)))
        # Where essays are taken to differ far less or more than they do, judges' discriminations
        # would run off to make up for it, so they and the position effects stay as fitted.
        self._point, _ = maximise(model, self._point, holds_judges=True)
        return model


def _steepness(eta: Floats) -> Floats:
    """Return the logistic curve's slope, p (1 - p)."""
    return np.asarray(0.25 / np.cosh(0.5 * eta) ** 2)
