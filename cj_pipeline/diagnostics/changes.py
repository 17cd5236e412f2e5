"""Which essays changed between two scales, beyond what their errors explain.

Linking batches onto one scale is `grading.linking`; two batches side by side, `outputs`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cj_pipeline.arrays import Floats

SIGNIFICANT = 0.05
"""The chance of calling even one unchanged essay changed, over all essays two batches share."""

_SEEN_FROM = 3.3
"""Standard errors: what Holm's correction asks of the largest of fifty changes."""

MIN_SHARED = 3
"""With two shared essays every difference left after linking is the same one, twice."""


class ScoredEssays(Protocol):
    """Essays with scores in logits and their standard errors, in one order."""

    @property
    def essay_ids(self) -> tuple[str, ...]: ...
    @property
    def scores(self) -> Floats: ...
    @property
    def standard_errors(self) -> Floats: ...


@dataclass(frozen=True)
class ScoreChange:
    """One essay on two scales.

    Attributes:
        before: Its score on the first scale, in logits.
        after: On the second, shifted so that the shared essays agree on average.
        standard_error: Of the change; both scales' errors together.
        p: The chance of a change as large without a cause, by Holm's correction for looking at
            all shared essays.
    """

    essay_id: str
    before: float
    after: float
    standard_error: float
    p: float

    @property
    def change(self) -> float:
        """In logits; positive where it rose."""
        return self.after - self.before

    @property
    def could_be_seen(self) -> float:
        """About the change from which on one essay would be called changed, in logits.

        Scores are drawn in, so a true change shows as a smaller one: about half of it after a dozen
        comparisons of an essay.
        """
        return _SEEN_FROM * self.standard_error

    @property
    def is_beyond_noise(self) -> bool:
        """Whether errors of the scores hardly explain the change."""
        return self.p < SIGNIFICANT


def score_changes(
    before: ScoredEssays, after: ScoredEssays, essay_ids: Sequence[str]
) -> tuple[ScoreChange, ...]:
    """Return how these essays changed, in the order given; nothing for fewer than `MIN_SHARED`.

    Give scores as they are reported. Verdict-only ones of pairs chosen by score differ by far more
    than their errors, and call unchanged essays changed.

    Scores have no common zero, so the second scale is shifted until the essays agree on average.
    The scales are taken as independent: a bias that both judges have shows nowhere.

    References:
        Mean-mean linking as in Kolen and Brennan (2014), Test Equating, ch. 6; Holm (1979).
    """
    if len(essay_ids) < MIN_SHARED:
        return ()
    one, one_errors = _picked(before, essay_ids)
    other, other_errors = _picked(after, essay_ids)
    linked = other - (other.mean() - one.mean())
    errors = np.hypot(one_errors, other_errors)
    p_values = _holm(_two_sided_p((linked - one) / errors))
    return tuple(
        ScoreChange(essay_id, float(one[i]), float(linked[i]), float(errors[i]), p_values[i])
        for i, essay_id in enumerate(essay_ids)
    )


def _picked(scored: ScoredEssays, essay_ids: Sequence[str]) -> tuple[Floats, Floats]:
    place = {essay_id: i for i, essay_id in enumerate(scored.essay_ids)}
    chosen = [place[essay_id] for essay_id in essay_ids]
    return scored.scores[chosen], scored.standard_errors[chosen]


def _two_sided_p(z: Floats) -> Floats:
    from scipy.special import erfc

    return np.asarray(erfc(np.abs(z) / math.sqrt(2)))


def _holm(p_values: Floats) -> list[float]:
    """Return p values corrected for having looked at all of them."""
    n = len(p_values)
    corrected = np.empty(n)
    running = 0.0
    for place, i in enumerate(np.argsort(p_values)):
        running = max(running, min(1.0, (n - place) * float(p_values[i])))
        corrected[i] = running
    return corrected.tolist()
