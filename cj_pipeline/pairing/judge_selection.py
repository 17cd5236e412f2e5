"""Which judge to use next: the information in a verdict of each, per USD.

A judge that discriminates half as well gives a quarter of the information (it goes with the
square), so a cheap judge has to be very cheap. What a judge costs is `money`'s; how well it
discriminates and how it minds positions, the scale's (`bradley_terry`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cj_pipeline.arrays import Floats


@dataclass(frozen=True)
class JudgeFigures:
    """What is known of a judge.

    Attributes:
        judge_id: Its fingerprint.
        usd_per_comparison: What a comparison costs, failed attempts included.
        discrimination: How strongly it tells essays apart against the panel's mean, 1.
        position_effect: How much it favours the essay shown first, in logits.
        success_rate: The share of its comparisons that end in a verdict.
    """

    judge_id: str
    usd_per_comparison: float
    discrimination: float = 1.0
    position_effect: float = 0.0
    success_rate: float = 1.0


@dataclass(frozen=True)
class JudgeInformation:
    """What asking a judge brings: expected information per comparison, and per dollar."""

    judge_id: str
    information: float
    information_per_usd: float


@dataclass(frozen=True)
class JudgeShare:
    """A judge's share of the next pairs, and what it is based on.

    Attributes:
        figures: What is known of the judge.
        information: What its verdicts give, by those figures.
        share: Of the pairs; all judges' shares add up to 1.
    """

    figures: JudgeFigures
    information: JudgeInformation
    share: float


def judges_by_worth(
    judges: Sequence[JudgeFigures], differences: Floats
) -> tuple[JudgeInformation, ...]:
    """Return the judges, the most informative per USD first.

    Args:
        judges: The panel.
        differences: Of the pairs to be judged, in logits: close pairs forgive a judge more.

    References:
        Birnbaum (1968), in Lord and Novick, Statistical theories of mental test scores, chapter
        20: an answer's information is a^2 P (1 - P).
    """
    information = [
        JudgeInformation(
            judge.judge_id, information, information / max(judge.usd_per_comparison, 1e-12)
        )
        for judge in judges
        for information in [_information(judge, differences)]
    ]
    return tuple(sorted(information, key=lambda each: -each.information_per_usd))


LEAST_SHARE = 0.1
"""Of the pairs, that every judge gets: without verdicts nothing is learnt about a judge."""


def shares_by_worth(judges: Sequence[JudgeFigures], differences: Floats) -> tuple[JudgeShare, ...]:
    """Return the share of the pairs each judge gets, the largest first.

    All but the least goes to the judge whose verdicts give most information per USD.
    """
    least = min(LEAST_SHARE, 1 / len(judges))
    figures = {judge.judge_id: judge for judge in judges}
    best, *others = judges_by_worth(judges, differences)
    return (
        JudgeShare(figures[best.judge_id], best, 1 - least * len(others)),
        *(JudgeShare(figures[other.judge_id], other, least) for other in others),
    )


def _information(judge: JudgeFigures, differences: Floats) -> float:
    """Return the mean over the pairs, each shown as often in one order as in the other."""
    information = 0.0
    for place in (-1, 1):
        eta = judge.discrimination * differences + place * judge.position_effect
        information += 0.5 * float(np.mean(0.25 - 0.25 * np.tanh(0.5 * eta) ** 2))
    return judge.success_rate * judge.discrimination**2 * information
