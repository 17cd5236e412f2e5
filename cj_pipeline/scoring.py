"""How a batch's verdicts become its scale: which parts of the model are on, by its settings.

Whoever fits a batch (after a wave, at its end, for the report, to check an artefact) asks here,
so that all of them score alike. The model itself is `likelihood`, its maximum `bradley_terry`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from cj_pipeline.errors import UnscalableBatchError

if TYPE_CHECKING:
    from cj_pipeline.bradley_terry import Scale
    from cj_pipeline.comparisons import JudgedPair
    from cj_pipeline.settings import BatchSettings, Choice, Engine, Inconsistent, Ties

SURE_POSITION_INFORMATION = 4.0
"""Of a judge's position effect, for `auto`: a standard error of half a logit. An effect that is
less sure moves scores by its own error more than by what it corrects."""

SURE_DISCRIMINATION_VERDICTS = 50
"""By each judge of a panel, for `auto`: they tell its log discrimination to about a quarter, half
of what the prior allows."""

WEIGHT_OF_INCONSISTENT = 0.5

_NOT_AT_REST = (
    "How strongly each judge tells essays apart did not come to rest: all judges count alike."
)


@dataclass(frozen=True)
class ScoringRules:
    """What the model of a batch is made of.

    Attributes:
        engine: Who finds the maximum.
        position_effect: Whether being shown first is worth something to a judge.
        discrimination: Whether judges of a panel tell essays apart unequally well.
        ties: Half a win to each, or Davidson's tie strength.
        inconsistent: What becomes of verdicts that changed with the order shown.
    """

    engine: Engine = "newton"
    position_effect: Choice = "auto"
    discrimination: Choice = "auto"
    ties: Ties = "half-half"
    inconsistent: Inconsistent = "keep"


def scoring_rules(settings: BatchSettings) -> ScoringRules:
    """Return what a batch's settings say of its model."""
    is_plain = settings.scoring_engine == "choix"
    return ScoringRules(
        engine=settings.scoring_engine,
        position_effect="off" if is_plain else settings.position_effect,
        discrimination="off" if is_plain else settings.judge_discrimination,
        ties=settings.ties,
        inconsistent=settings.inconsistent_verdicts,
    )


def score_verdicts(
    essay_ids: Sequence[str],
    judged: Sequence[JudgedPair],
    rules: ScoringRules,
    *,
    start: Mapping[str, float] | None = None,
) -> Scale:
    """Return a batch's scale.

    Args:
        essay_ids: Every essay of the batch.
        judged: Its verdicts.
        rules: What the model is made of.
        start: Scores near by, by essay, such as the last wave's: the scale is the same and found
            in fewer steps. With discriminations they are passed over, for their likelihood can
            have several peaks, and which one is found must not rest on what was found before.

    Raises:
        UnscalableBatchError: If there is no common scale; see `fit_bradley_terry`.
    """
    from cj_pipeline.bradley_terry import MIN_POSITION_INFORMATION, fit_bradley_terry
    from cj_pipeline.consistency import swap_consistent, swap_weights

    weights = None
    if rules.inconsistent == "drop":
        judged = swap_consistent(judged)
    elif rules.inconsistent == "halve":
        weights = swap_weights(judged, weight_of_inconsistent=WEIGHT_OF_INCONSISTENT).tolist()
    by_judge = Counter(verdict.judge_id for verdict in judged)
    is_panel = len(by_judge) > 1
    is_told = is_panel and min(by_judge.values()) >= SURE_DISCRIMINATION_VERDICTS
    fit = partial(
        fit_bradley_terry,
        essay_ids,
        judged,
        engine=rules.engine,
        position_effect=rules.position_effect != "off",
        min_position_information=(
            SURE_POSITION_INFORMATION
            if rules.position_effect == "auto"
            else MIN_POSITION_INFORMATION
        ),
        ties=rules.ties,
        weights=weights,
    )
    if rules.discrimination == "auto" and is_told:
        try:
            return fit(discrimination=True)
        except UnscalableBatchError:
            # The likelihood of discriminations can have several peaks; nobody asked for them.
            scale = fit(start=start)
            return replace(scale, notes=(*scale.notes, _NOT_AT_REST))
    if rules.discrimination == "on":
        return fit(discrimination=True)
    return fit(start=start)
