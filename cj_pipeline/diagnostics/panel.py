"""Several judges on one batch: a scale of each, one of all, and what each one changes.

Whether the judges agree verdict by verdict is `consistency`; position effects and discriminations
are estimated in `bradley_terry`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.diagnostics.reliability import empirical_bayes_reliability
from cj_pipeline.errors import UnscalableBatchError
from cj_pipeline.scale.bradley_terry import Scale, fit_bradley_terry
from cj_pipeline.scale.ranks import ranks

_ALIKE = 1e-9
"""Logits within which scores are the same but for rounding."""


@dataclass(frozen=True, eq=False)
class JudgeOnPanel:
    """One judge compared with the panel.

    Attributes:
        n_verdicts: How many verdicts the judge gave.
        scale: From them alone; None where they do not give one.
        why_not: Why there is none; empty where there is.
        reliability: Empirical-Bayes, of the judge's own scale; None without one.
        agreement: Spearman correlation of the judge's scale with that of all the others; None
            where either is missing or has all essays alike.
        without: The panel's scale without this judge; None where it falls apart.
        largest_rank_change: Ranks an essay moves at most when this judge is left out.
        largest_score_change: Logits a score moves at most.
    """

    n_verdicts: int
    scale: Scale | None
    why_not: str
    reliability: float | None
    agreement: float | None
    without: Scale | None
    largest_rank_change: int | None
    largest_score_change: float | None


@dataclass(frozen=True, eq=False)
class Panel:
    """The joint scale and each judge compared with it."""

    joint: Scale
    judges: dict[str, JudgeOnPanel]


def fit_panel(
    essay_ids: Sequence[str],
    judged: Sequence[JudgedPair],
    *,
    position_effect: bool = True,
    discrimination: bool = True,
) -> Panel:
    """Return the joint scale of all judges, with what each one adds.

    Args:
        essay_ids: Every essay of the batch.
        judged: Verdicts, each with its judge.
        position_effect: One per judge in the joint scale, where the design identifies it.
        discrimination: One per judge in the joint scale.

    Raises:
        UnscalableBatchError: If all verdicts together give no scale.
    """
    joint = fit_bradley_terry(
        essay_ids, judged, position_effect=position_effect, discrimination=discrimination
    )
    judges = {}
    for judge_id in dict.fromkeys(v.judge_id for v in judged):
        own = [v for v in judged if v.judge_id == judge_id]
        others = [v for v in judged if v.judge_id != judge_id]
        scale, why_not = _try(essay_ids, own, position_effect, discrimination=False)
        without, _ = _try(essay_ids, others, position_effect, discrimination=discrimination)
        judges[judge_id] = JudgeOnPanel(
            n_verdicts=len(own),
            scale=scale,
            why_not=why_not,
            reliability=empirical_bayes_reliability(scale) if scale else None,
            agreement=rank_correlation(scale, without) if scale and without else None,
            without=without,
            largest_rank_change=(
                int(np.max(np.abs(ranks(joint.scores) - ranks(without.scores))))
                if without
                else None
            ),
            largest_score_change=(
                float(np.max(np.abs(joint.scores - without.scores))) if without else None
            ),
        )
    return Panel(joint, judges)


def rank_correlation(one: Scale, other: Scale) -> float | None:
    """Return Spearman's correlation between two scales; None where one has all essays alike."""
    from scipy.stats import spearmanr

    if np.ptp(one.scores) < _ALIKE or np.ptp(other.scores) < _ALIKE:
        return None
    return float(spearmanr(one.scores, other.scores).statistic)


def _try(
    essay_ids: Sequence[str],
    judged: Sequence[JudgedPair],
    position_effect: bool,
    *,
    discrimination: bool,
) -> tuple[Scale | None, str]:
    """Return the scale, or why there is none."""
    try:
        scale = fit_bradley_terry(
            essay_ids, judged, position_effect=position_effect, discrimination=discrimination
        )
    except UnscalableBatchError as error:
        return None, str(error)
    return scale, ""
