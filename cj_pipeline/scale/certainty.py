"""What is reported of essays' scores, as values: their joint posterior, and what follows from it.

How it is worked out is `score_posterior`; the prior of the students' spread is here, since every
way of working it out shares it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from cj_pipeline.arrays import Floats
from cj_pipeline.errors import UnknownEssayError
from cj_pipeline.ids import nearest
from cj_pipeline.scale.tallies import Indices

Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]

SCORE_VERSION = 2
"""What a reported score means: 1, the likeliest by the verdicts and a weak prior; 2, the mean of
this posterior."""

USUAL_SPREAD = 1.2
"""Median standard deviation of students' true scores before any verdict, in logits."""
SPREADS_DIFFER = 0.7
"""Standard deviation of that spread's logarithm. Wide, for this prior must hold at any spread."""
ANCHOR_SPREAD = 3.0
"""Of anchors' true scores, in logits: chosen to lie apart, they tell nothing of the students'."""
NORMAL_95 = 1.959963984540054
SAME = 1e-7
"""Logits within which two scores rest on the same evidence and differ by rounding alone."""
FEWEST_FOR_A_FIGURE = 10
"""Students; of five the interval runs from nothing to nearly all."""
ALIKE_BELOW = 0.35
"""Logits of spread at which the better of two students wins 57 of 100 comparisons on average."""
_LEAST_LOWER = 0.1


class JointScores(Protocol):
    """How scores vary together, in whichever form is affordable."""

    def covariance_among(self, chosen: Indices) -> Floats:
        """Return the covariance of some mean-centred scores."""
        ...

    def difference_variances(self, first: Indices, second: Indices) -> Floats:
        """Return the variance of the difference of each two essays that were judged together."""
        ...

    def draws(self, n_draws: int, rng: np.random.Generator) -> Floats:
        """Return departures from the mean; shape (n_draws or fewer, n_essays)."""
        ...


@dataclass(frozen=True)
class StudentReliability:
    """The share of the differences among the students' scores that is real.

    Attributes:
        value: Expected squared correlation of scores with true scores, among students; None for
            fewer than two.
        lower, upper: Between which that squared correlation lies with 95 % probability.
        lower_quartile: Above which it lies with a probability of three quarters.
        p_alike: The probability that students' true scores have a spread under `ALIKE_BELOW`.
        n_students: How many they are.
    """

    value: float | None
    lower: float | None
    upper: float | None
    lower_quartile: float | None
    p_alike: float
    n_students: int

    @property
    def is_worth_a_figure(self) -> bool:
        """Whether there are students enough for one figure; of fewer only the interval tells."""
        return self.value is not None and self.n_students >= FEWEST_FOR_A_FIGURE

    @property
    def cannot_be_told_apart(self) -> bool:
        """Whether the verdicts leave open that the students hardly differ at all."""
        return self.n_students > 1 and (
            self.p_alike > 1 / 3 or (self.lower is not None and self.lower < _LEAST_LOWER)
        )


@dataclass(frozen=True, eq=False)
class ScorePosterior:
    """The joint posterior of essays' true scores.

    Attributes:
        essay_ids: In the scale's order.
        scores: Posterior means in logits, with mean zero over the batch; shape (n_essays,).
        standard_errors: Posterior standard deviations of scores against the batch's mean.
        spread: Posterior mean of the students' true standard deviation, in logits.
        log_spread_error: Posterior standard deviation of its logarithm.
        is_student: Whose scores are the students'; all, where there are none but anchors.
        has_students: Whether there are any but anchors.
        reliability: Among students.
        joint: How scores vary together.
        between_judges: Variance of each score by what judges see differently, in squared logits.
    """

    essay_ids: tuple[str, ...]
    scores: Floats
    standard_errors: Floats
    spread: float
    log_spread_error: float
    is_student: Mask
    reliability: StudentReliability
    joint: JointScores
    between_judges: float = 0.0
    has_students: bool = True

    @property
    def lower(self) -> Floats:
        """Lower ends of the scores' 95 % intervals, in logits; shape (n_essays,)."""
        return self.scores - NORMAL_95 * self.standard_errors

    @property
    def upper(self) -> Floats:
        """Upper ends of the scores' 95 % intervals, in logits; shape (n_essays,)."""
        return self.scores + NORMAL_95 * self.standard_errors

    @cached_property
    def place(self) -> dict[str, int]:
        """Each essay's place in the arrays."""
        return {essay_id: i for i, essay_id in enumerate(self.essay_ids)}

    def covariance_among(self, essay_ids: Sequence[str]) -> Floats:
        """Return the covariance of these essays' scores, in this order.

        Raises:
            UnknownEssayError: If one has no score here.
        """
        if unknown := [each for each in essay_ids if each not in self.place]:
            meant = nearest(unknown[0], self.place, at_least=0.5) or "."
            msg = f"There is no essay '{unknown[0]}' among the {len(self.place)} scores{meant}"
            raise UnknownEssayError(msg)
        chosen = np.array([self.place[each] for each in essay_ids], dtype=np.int64)
        return np.asarray(self.joint.covariance_among(chosen) + self._apart(chosen))

    def difference_variances(self, first: Indices, second: Indices) -> Floats:
        """Return the variance of each difference, what judges see differently left out.

        Args:
            first: Places of essays; shape (n,).
            second: Of the essays each was judged against.
        """
        return self.joint.difference_variances(first, second)

    def _apart(self, chosen: Indices) -> Floats:
        n = len(self.essay_ids)
        same = (chosen[:, None] == chosen[None, :]).astype(np.float64)
        apart: Floats = self.between_judges * (same - 1 / n)
        return apart

    def drawn(self, n_draws: int, seed: int) -> Floats:
        """Return draws of all scores; shape (n_draws, n_essays), fewer draws in large batches."""
        rng = np.random.default_rng(seed)
        off = self.joint.draws(n_draws, rng)
        if self.between_judges:
            own = rng.standard_normal(off.shape) * math.sqrt(self.between_judges)
            off = off + own - own.mean(axis=1, keepdims=True)
        return np.asarray(self.scores + off)
