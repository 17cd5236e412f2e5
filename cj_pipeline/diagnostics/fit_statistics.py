"""How well single essays and judges fit the scale: infit and outfit.

Both are mean squares of what was seen against what the scale expected, near 1 where verdicts vary
as the model says. Above 1 they vary more (a judge who guesses, an essay people see differently),
below 1 less. Whether judges agree with themselves and one another is `consistency`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cj_pipeline.arrays import Floats
from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.scale.bradley_terry import Scale
from cj_pipeline.scale.tallies import Indices, Verdicts, as_verdicts, sums_by


@dataclass(frozen=True)
class Fit:
    """How one essay or judge fits.

    Attributes:
        n: Verdicts it is about or by.
        infit: Squared residuals over their variances, so that close pairs count most.
        outfit: Mean of squared standardised residuals, so that surprises count most.
        infit_z: Infit as a standard normal deviate (Wilson-Hilferty); above 2 is misfit.
    """

    n: int
    infit: float
    outfit: float
    infit_z: float


def fit_of_essays(scale: Scale, judged: Sequence[JudgedPair]) -> dict[str, Fit]:
    """Return each essay's fit; essays without a verdict are left out.

    References:
        Wright and Masters (1982), Rating Scale Analysis, chapter 5; for comparative judgement
        Pollitt (2012), doi:10.1080/0969594X.2012.665354.
    """
    verdicts = as_verdicts(scale.essay_ids, judged)
    terms = _terms(scale, verdicts)
    doubled = np.concatenate([verdicts.first, verdicts.second])
    twice = _Terms(*(np.concatenate([part, part]) for part in terms.parts))
    return _fits(scale.essay_ids, doubled, twice)


def fit_of_judges(scale: Scale, judged: Sequence[JudgedPair]) -> dict[str, Fit]:
    """Return each judge's fit to the scale all judges made together."""
    verdicts = as_verdicts(scale.essay_ids, judged)
    return _fits(verdicts.judge_ids, verdicts.judge, _terms(scale, verdicts))


def expected_wins(scale: Scale, verdicts: Verdicts) -> Floats:
    """Return what the essay shown first was expected to win, verdict by verdict."""
    eta = scale.scores[verdicts.first] - scale.scores[verdicts.second]
    judges = verdicts.judge_ids
    if scale.discriminations:
        a = np.array([np.exp(scale.discriminations[judge].value) for judge in judges])
        eta = eta * a[verdicts.judge]
    if scale.position_effects:
        off = 0.0
        gamma = np.array(
            [e.value if (e := scale.position_effects.get(judge)) else off for judge in judges]
        )
        eta = eta + gamma[verdicts.judge]
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * eta))


@dataclass(frozen=True, eq=False)
class _Terms:
    """Per verdict: squared residual, its variance, and that of the squared residual."""

    squared: Floats
    variance: Floats
    fourth: Floats

    @property
    def parts(self) -> tuple[Floats, Floats, Floats]:
        return self.squared, self.variance, self.fourth


def _terms(scale: Scale, verdicts: Verdicts) -> _Terms:
    p = expected_wins(scale, verdicts)
    variance = np.maximum(p * (1 - p), 1e-12)
    # E[(x - p)^4] - variance^2 for a verdict that is 1 with chance p.
    fourth = variance * (1 - 3 * variance) - variance**2
    return _Terms((verdicts.wins - p) ** 2, variance, fourth)


def _fits(names: Sequence[str], index: Indices, terms: _Terms) -> dict[str, Fit]:
    size = len(names)
    n = sums_by(index, np.ones(len(index)), size)
    squared = sums_by(index, terms.squared, size)
    variance = sums_by(index, terms.variance, size)
    standardised = sums_by(index, terms.squared / terms.variance, size)
    spread = np.sqrt(np.maximum(sums_by(index, terms.fourth, size), 1e-12))
    fits = {}
    for k in np.flatnonzero(n).tolist():
        infit = squared[k] / variance[k]
        q = spread[k] / variance[k]
        fits[names[k]] = Fit(
            n=int(n[k]),
            infit=float(infit),
            outfit=float(standardised[k] / n[k]),
            infit_z=float((np.cbrt(infit) - 1) * 3 / q + q / 3),
        )
    return fits
