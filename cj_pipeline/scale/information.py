"""How sure a fit is: covariance and standard errors from the full observed information.

Everything is on the mean-centred gauge: an essay's standard error is that of its score against
the mean of the batch, so no essay is a reference with an error of zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cj_pipeline.arrays import Floats
from cj_pipeline.errors import UnscalableBatchError
from cj_pipeline.scale.laplacian import (
    NetMatrix,
    band_variances,
    dense,
    inverted,
    solve,
    surroundings_variances,
)
from cj_pipeline.scale.tallies import Indices

_DENSE_INVERSE_UP_TO = 1_500
"""Essays for which the whole covariance takes well under a second."""
_DENSE_INVERSE_AT_ALL = 12_000
_SAMPLE = 12
_WORST_ERROR = 0.01


@dataclass(frozen=True, eq=False)
class Information:
    """The observed information about scores, and about what judges add to them.

    Attributes:
        essays: The block of the scores, prior included.
        border: Between scores and the other parameters; shape (n_essays, n_others).
        corner: Of the other parameters among themselves; shape (n_others, n_others).
    """

    essays: NetMatrix
    border: Floats
    corner: Floats


@dataclass(frozen=True, eq=False)
class StandardErrors:
    """Standard errors of mean-centred scores, and how they were had.

    Attributes:
        values: In logits; shape (n_essays,).
        method: "dense inverse", "band inverse" or "surroundings".
        relative_error: 0 where exact; else the largest seen on a sample solved exactly.
    """

    values: Floats
    method: str
    relative_error: float


def newton_step(
    information: Information, gradient: Floats, others: Floats, *, rtol: float
) -> tuple[Floats, Floats]:
    """Return the step that the information and the gradients (scores, others) lead to."""
    if not len(others):
        return solve(information.essays, gradient, rtol=rtol), others
    border = information.border
    solved = solve(information.essays, np.column_stack([gradient, border]), rtol=rtol)
    schur = information.corner - border.T @ solved[:, 1:]
    try:
        other_step = np.linalg.solve(schur, others - border.T @ solved[:, 0]).astype(np.float64)
    except np.linalg.LinAlgError:
        msg = (
            "The verdicts do not determine what judges or ties add (all of them may be alike). "
            "Use the prior, or leave position effects, discrimination and Davidson's ties off."
        )
        raise UnscalableBatchError(msg) from None
    return solved[:, 0] - solved[:, 1:] @ other_step, other_step


def covariance(information: Information) -> Floats:
    """Return the covariance of the mean-centred scores; shape (n_essays, n_essays)."""
    below = np.tril(inverted(information.essays).below)
    full: Floats = below + below.T
    np.fill_diagonal(full, below.diagonal())
    if len(information.corner):
        reach = full @ information.border
        full += reach @ np.linalg.solve(_schur(information, reach), reach.T)
    full -= full.mean(axis=0)
    full -= full.mean(axis=1)[:, None]
    symmetric: Floats = 0.5 * (full + full.T)
    return symmetric


def whole(information: Information) -> Floats:
    """Return all of it written out, scores first, not centred on their mean.

    Shape (n_essays + n_others, n_essays + n_others).
    """
    border = information.border
    return np.block([[dense(information.essays), border], [border.T, information.corner]])


def covariance_of(information: Information, chosen: Indices) -> Floats:
    """Return the covariance of some mean-centred scores without writing out all of it.

    Args:
        information: Of all the essays.
        chosen: Indices of essays; one linear system is solved for each.
    """
    n = information.essays.layout.n_essays
    contrasts = np.full((n, len(chosen)), -1.0 / n)
    contrasts[chosen, np.arange(len(chosen))] += 1.0
    block = contrasts.T @ solve(information.essays, contrasts)
    if len(information.corner):
        reach = solve(information.essays, information.border)
        cross = contrasts.T @ reach
        block += cross @ np.linalg.solve(_schur(information, reach), cross.T)
    return 0.5 * (block + block.T)


def other_covariance(information: Information) -> Floats:
    """Return the covariance of the parameters other than the scores; shape (n_others, n_others)."""
    if not len(information.corner):
        return information.corner
    reach = solve(information.essays, information.border)
    return np.asarray(np.linalg.inv(_schur(information, reach)), dtype=np.float64)


def standard_errors(information: Information) -> StandardErrors:
    """Return each mean-centred score's standard error, exactly wherever that is affordable.

    Up to some 1,500 essays, and for any banded graph, they are exact. For larger graphs of random
    pairs they are close, and how close is measured against exact ones of a sample that has the
    least sure essays in it. Where that is over a hundredth, all are had exactly while the
    memory lasts.
    """
    layout = information.essays.layout
    variances, method = score_variances(information)
    values = np.sqrt(variances)
    if method != "surroundings":
        return StandardErrors(values, method, 0.0)
    rng = np.random.default_rng(0)
    random = rng.choice(layout.n_essays, _SAMPLE, replace=False)
    sample = np.unique(np.concatenate([np.argsort(values)[-_SAMPLE:], random]))
    exact = np.sqrt(np.diag(covariance_of(information, sample)))
    error = float(np.max(np.abs(values[sample] / exact - 1)))
    if error > _WORST_ERROR and layout.n_essays <= _DENSE_INVERSE_AT_ALL:
        return StandardErrors(np.sqrt(np.diag(covariance(information))), "dense inverse", 0.0)
    values[sample] = exact
    return StandardErrors(values, method, error)


def score_variances(information: Information) -> tuple[Floats, str]:
    """Return the variances of the mean-centred scores, and how they were had."""
    essays = information.essays
    if essays.layout.method == "banded":
        variances, method = band_variances(essays), "band inverse"
    elif essays.layout.n_essays <= _DENSE_INVERSE_UP_TO:
        variances, method = inverted(essays).centred_diagonal, "dense inverse"
    else:
        variances, method = surroundings_variances(essays), "surroundings"
    if len(information.corner):
        reach = solve(essays, information.border)
        centred = reach - reach.mean(axis=0)
        cross = np.linalg.solve(_schur(information, reach), centred.T)
        variances = variances + np.einsum("ij,ji->i", centred, cross)
    return variances, method


def _schur(information: Information, reach: Floats) -> Floats:
    return information.corner - information.border.T @ reach
