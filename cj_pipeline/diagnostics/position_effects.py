"""How much each judge favours the essay shown first, without the scores' stretch.

A scale fitted to few verdicts lies too far apart, and the position effects that are fitted along
with it are stretched alike. Here the essays' true scores are taken to be normal, with the spread
that `reliability.empirical_bayes` finds, and integrated out. No score depends on these figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from cj_pipeline.arrays import Floats
from cj_pipeline.diagnostics.reliability import empirical_bayes
from cj_pipeline.errors import UnscalableBatchError
from cj_pipeline.scale.bradley_terry import Estimate, Scale, maximise
from cj_pipeline.scale.laplacian import difference_variances, solve
from cj_pipeline.scale.likelihood import Model, Point, gradient_at, stepped

_LEAST_SPREAD = 0.05
"""Logits that essays' true scores are taken to differ by where no spread is seen."""
_MAX_STEPS = 40
_LAST_STEP = 1e-5
_SHORT = 1e-4


def marginal_position_effects(scale: Scale) -> Mapping[str, Estimate]:
    """Return each judge's position effect in logits, the essays' scores integrated out (Laplace).

    Judges whose position effect is off have none here. Standard errors are those of the joint fit:
    the information at this maximum takes the spread for known, and its intervals held .92 where
    essays had 12 comparisons.

    Args:
        scale: As fitted.

    Raises:
        UnscalableBatchError: If the search does not come to rest.

    References:
        Tierney and Kadane (1986), doi:10.1080/01621459.1986.10478240; Breslow and Clayton (1993),
        doi:10.1080/01621459.1993.10594284.
    """
    if not scale.position_effects:
        return {}
    point = marginal_maximum(scale)
    return {
        judge_id: Estimate(float(point.gamma[j]), fitted.standard_error)
        for (judge_id, fitted), j in zip(
            scale.position_effects.items(), scale.model.positions, strict=True
        )
    }


def marginal_maximum(scale: Scale) -> Point:
    """Return where all other parameters than the scores are likeliest, whatever the scores are.

    Position effects, log discriminations and log tie strength are at the maximum of their marginal
    posterior, the scores at their best given those.

    Args:
        scale: As fitted; where the search begins.

    Raises:
        UnscalableBatchError: If the search does not come to rest.
    """
    spread = max(empirical_bayes(scale).true_sd, _LEAST_SPREAD)
    model, point = replace(scale.model, prior_precision=spread**-2), scale.point
    no_change = np.zeros(len(scale.essay_ids))
    for _ in range(_MAX_STEPS):
        point, _ = maximise(model, point, holds_judges=True)
        gradient = gradient_at(model, point, for_steps=True)
        information = gradient.information
        reach = solve(information.essays, information.border)
        schur = information.corner - information.border.T @ reach
        variances = difference_variances(information.essays)
        pull = gradient.others + _pull_of_spread(model, point, variances, reach)
        step = np.linalg.solve(schur, pull).astype(np.float64)
        size = float(np.abs(step).max())
        if size < _LAST_STEP:
            return point
        point = stepped(model, point, no_change, step, min(1.0, 1.0 / size))
    msg = "What judges add did not come to rest with the essays' scores integrated out."
    raise UnscalableBatchError(msg)


def _pull_of_spread(model: Model, point: Point, variances: Floats, reach: Floats) -> Floats:
    """Return the slope of -1/2 log det of the scores' information, along each other parameter.

    The scores move along, as far as the parameter makes them.

    Args:
        model: With a normal prior on the scores.
        point: Where the scores are best, given the others.
        variances: Of the difference of each pair in the graph.
        reach: How far the scores fall per unit of each parameter; shape (n_essays, n_others).
    """

    def weights(sign: float, k: int) -> Floats:
        one = np.zeros(model.n_others)
        one[k] = 1.0
        there = stepped(model, point, -reach[:, k], one, sign * _SHORT)
        return gradient_at(model, there, for_steps=True).information.essays.weights

    risen = [weights(1.0, k) - weights(-1.0, k) for k in range(model.n_others)]
    return np.array([-0.5 * float(variances @ each) / (2 * _SHORT) for each in risen])
