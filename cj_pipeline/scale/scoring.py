"""How a batch's verdicts become its scale: which parts of the model are on, by its settings.

All who fit a batch (after a wave, at its end, for the report, to check an artefact) start here,
so that all of them score alike. The model itself is `likelihood`, its maximum `bradley_terry`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from cj_pipeline.arrays import Floats
from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.errors import UnscalableBatchError

if TYPE_CHECKING:
    from cj_pipeline.batch.options import (
        DependenceSwitch,
        InconsistentPolicy,
        ScoringEngine,
        Switch,
        Ties,
    )
    from cj_pipeline.scale.bradley_terry import Scale
    from cj_pipeline.scale.tallies import Verdicts


def swap_consistent(judged: Sequence[JudgedPair]) -> tuple[JudgedPair, ...]:
    """Return the verdicts of pairs on which their judge, shown both orders, kept to one winner.

    Pairs a judge saw in one order only are dropped too: nothing shows that they would stand.
    """
    consistent = _swap_consistent_pairs(judged)
    return tuple(v for v in judged if (v.judge_id, *v.pair) in consistent)


def swap_weights(judged: Sequence[JudgedPair], *, weight_of_inconsistent: float) -> Floats:
    """Return a weight per verdict: 1 where the judge kept to one winner, else the one given.

    The softer form of `swap_consistent`, for `fit_bradley_terry(weights=...)`.
    """
    consistent = _swap_consistent_pairs(judged)
    return np.array(
        [1.0 if (v.judge_id, *v.pair) in consistent else weight_of_inconsistent for v in judged]
    )


def _swap_consistent_pairs(judged: Sequence[JudgedPair]) -> set[tuple[str, str, str]]:
    winners: dict[tuple[str, str, str], set[str]] = {}
    orders: dict[tuple[str, str, str], set[str]] = {}
    for v in judged:
        key = (v.judge_id, *v.pair)
        winner = {"A": v.essay_a, "B": v.essay_b, "tie": "tie"}[v.winner]
        winners.setdefault(key, set()).add(winner)
        orders.setdefault(key, set()).add(v.essay_a)
    return {key for key, won in winners.items() if len(won) == 1 and len(orders[key]) == 2}


SURE_POSITION_INFORMATION = 4.0
"""Of a judge's position effect, for `auto`: a standard error of half a logit. An effect that is
less sure moves scores by its own error more than by what it corrects."""

SURE_DISCRIMINATION_VERDICTS = 50
"""By each judge of a panel, for `auto`: they give its log discrimination to about a quarter, half
of what the prior allows."""

WEIGHT_OF_INCONSISTENT = 0.5

_NOT_AT_REST = "The judges' discriminations did not converge: all judges count alike."


@dataclass(frozen=True)
class ScoringRules:
    """What the model of a batch is made of.

    Attributes:
        engine: What finds the maximum.
        position_effect: Whether a judge may favour the essay shown first.
        discrimination: Whether judges of a panel tell essays apart unequally well.
        ties: Half a win to each, or Davidson's tie strength.
        inconsistent: What becomes of verdicts that changed with the order shown.
        dependence: Whether several verdicts on one pair count for what they tell together.
    """

    engine: ScoringEngine = "newton"
    position_effect: Switch = "auto"
    discrimination: Switch = "auto"
    ties: Ties = "half-half"
    inconsistent: InconsistentPolicy = "keep"
    dependence: DependenceSwitch = "auto"


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
    weights = None
    if rules.inconsistent == "drop":
        judged = swap_consistent(judged)
    elif rules.inconsistent == "halve":
        weights = swap_weights(judged, weight_of_inconsistent=WEIGHT_OF_INCONSISTENT)
    asked = _Asked(essay_ids, judged, rules, start)
    plain = _weighted_scale(asked, weights)
    if rules.dependence == "off" or rules.engine == "choix":
        return plain
    from cj_pipeline.scale.dependence import has_shared_pairs
    from cj_pipeline.scale.tallies import as_verdicts

    verdicts = as_verdicts(essay_ids, judged)
    if not has_shared_pairs(verdicts) and len(verdicts.judge_ids) < 2:
        return plain
    return _with_dependence(asked, weights, plain, verdicts)


def _with_dependence(
    asked: _Asked, weights: Floats | None, plain: Scale, verdicts: Verdicts
) -> Scale:
    """Return the scale by verdicts weighted by what they share; refitted until that is at rest."""
    from cj_pipeline.scale.dependence import (
        AT_REST,
        MAX_ROUNDS,
        correlations_of,
        judge_variance_of,
        residuals_of,
        weights_of,
    )
    from cj_pipeline.scale.score_posterior import score_posterior
    from cj_pipeline.scale.shared_evidence import Dependence

    scale, before = plain, (0.0, 0.0)
    for _ in range(MAX_ROUNDS):
        found = correlations_of(verdicts, residuals_of(scale, score_posterior(scale), verdicts))
        repeated, between = found
        now = (repeated.value if repeated else 0.0, between.value if between else 0.0)
        if max(abs(now[0] - before[0]), abs(now[1] - before[1])) < AT_REST:
            break
        shared = weights_of(verdicts, repeated, between)
        scale = _weighted_scale(asked, shared if weights is None else weights * shared)
        before = now
    shared = weights_of(verdicts, repeated, between)
    residuals = residuals_of(scale, score_posterior(scale), verdicts)
    n = len(verdicts.essay_ids)
    variance, kept = judge_variance_of(verdicts, residuals, before[1], n)
    dependence = Dependence(
        repeated=repeated,
        between=between,
        judge_variance=variance,
        n_judges=len(verdicts.judge_ids),
        per_judge=kept,
        n_verdicts=len(verdicts.first),
        effective_verdicts=float(shared.sum()),
    )
    left = dependence.left_in_scores
    return replace(
        scale,
        # Of how many verdicts there are, whatever each counts.
        n_comparisons=plain.n_comparisons,
        wins=plain.wins,
        losses=plain.losses,
        standard_errors=np.sqrt(scale.standard_errors**2 + left * (1 - 1 / n)),
        dependence=dependence,
    )


@dataclass(frozen=True, eq=False)
class _Asked:
    """What a batch's verdicts are fitted by, but for their weights."""

    essay_ids: Sequence[str]
    judged: Sequence[JudgedPair]
    rules: ScoringRules
    start: Mapping[str, float] | None


def _weighted_scale(asked: _Asked, weights: Floats | None) -> Scale:
    """Return the scale by verdicts each of which counts by its weight."""
    from cj_pipeline.scale.bradley_terry import MIN_POSITION_INFORMATION, fit_bradley_terry

    judged, rules, start = asked.judged, asked.rules, asked.start
    by_judge = Counter(verdict.judge_id for verdict in judged)
    is_panel = len(by_judge) > 1
    is_identified = is_panel and min(by_judge.values()) >= SURE_DISCRIMINATION_VERDICTS
    fit = partial(
        fit_bradley_terry,
        asked.essay_ids,
        judged,
        engine=rules.engine,
        position_effect=rules.position_effect != "off",
        min_position_information=(
            SURE_POSITION_INFORMATION
            if rules.position_effect == "auto"
            else MIN_POSITION_INFORMATION
        ),
        ties=rules.ties,
        weights=None if weights is None else weights.tolist(),
    )
    if rules.discrimination == "auto" and is_identified:
        try:
            return fit(discrimination=True)
        except UnscalableBatchError:
            # The likelihood of discriminations can have several peaks; the rules did not request
            # them.
            scale = fit(start=start)
            return replace(scale, notes=(*scale.notes, _NOT_AT_REST))
    if rules.discrimination == "on":
        return fit(discrimination=True)
    return fit(start=start)
