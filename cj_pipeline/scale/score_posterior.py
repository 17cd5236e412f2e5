"""What is reported of essays' scores: the posterior in which pairs are chosen anyway.

The students' true scores are taken as normal with a spread that the verdicts and what is usual
tell, and that spread is integrated out; anchors are a population of their own. So a score is drawn
in toward the others by as much as its verdicts leave open, its 95 % interval holds whatever
strategy chose the pairs, and ranks, P(above), changes and reliability all come from this one value.
The score by the verdicts alone is `bradley_terry`'s, and what grades are placed by.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import lru_cache

import numpy as np

from cj_pipeline.scale.bradley_terry import Scale
from cj_pipeline.scale.certainty import ScorePosterior
from cj_pipeline.scale.integrated_posterior import integrated_posterior
from cj_pipeline.scale.large_posterior import large_posterior

EXACT_UP_TO = 300
"""Essays whose covariance is written out and whose spread is integrated."""


def score_posterior(scale: Scale, anchor_ids: Collection[str] = ()) -> ScorePosterior:
    """Return the posterior of a fitted scale's true scores.

    Args:
        scale: As fitted; its weights, position effects and discriminations are the posterior's.
        anchor_ids: Essays that are anchors, and so no part of the students' population.

    References:
        Opper and Archambeau (2009), doi:10.1162/neco.2008.08-07-592. That adaptive choice of pairs
        needs no correction in a posterior: Berger and Wolpert (1988), The Likelihood Principle.
    """
    return _score_posterior(scale, frozenset(map(str, anchor_ids)))


@lru_cache(maxsize=2)  # of the current scale: scores, a decision and a forecast all use it
def _score_posterior(scale: Scale, anchor_ids: frozenset[str]) -> ScorePosterior:
    is_student = np.array([essay_id not in anchor_ids for essay_id in scale.essay_ids])
    has_students = bool(is_student.any())
    if not has_students:
        is_student = np.ones(len(is_student), dtype=bool)
    if len(is_student) > EXACT_UP_TO:
        return replace(large_posterior(scale, is_student), has_students=has_students)
    return replace(integrated_posterior(scale, is_student), has_students=has_students)
