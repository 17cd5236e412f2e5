"""How good a finished scale is, in the figures the field expects, each under its own name.

The honest headline comes first and is the empirical-Bayes reliability; figures that readers know
from papers are next to it, named for what they are. How each is worked out is in `reliability`,
`epsilon_adjusted`, `split_half`, `consistency`, `fit_statistics`, `panel` and `quality_flags`; here
they become one value that can be kept as JSON, shown, and read by machines.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.diagnostics.consistency import (
    Share,
    agreement_between_judges,
    judge_consistency,
    transitivity,
)
from cj_pipeline.diagnostics.epsilon_adjusted import fit_epsilon_adjusted
from cj_pipeline.diagnostics.fit_statistics import fit_of_judges
from cj_pipeline.diagnostics.panel import fit_panel
from cj_pipeline.diagnostics.position_effects import marginal_position_effects
from cj_pipeline.diagnostics.quality_flags import effective_comparisons
from cj_pipeline.diagnostics.reliability import (
    empirical_bayes,
    scale_separation_reliability,
    separation_index,
    student_separation,
)
from cj_pipeline.diagnostics.split_half import split_half
from cj_pipeline.errors import UnscalableBatchError
from cj_pipeline.scale.bradley_terry import Estimate, Scale
from cj_pipeline.scale.certainty import SCORE_VERSION

if TYPE_CHECKING:
    from cj_pipeline.diagnostics.split_half import By
    from cj_pipeline.scale.certainty import ScorePosterior

MAX_ESSAYS_FOR_TRIPLES = 1_500
"""Beyond it counting circular triples takes products of matrices that large."""

_LAPSES = 1.3
"""Outfit above which surprises are more than the model's: infit of the same judge stays near 1."""
_LEAST_FOR_LAPSES = 100
"""Verdicts; of fewer the outfit is large by chance."""

_SPLIT_WORK = 2_000_000
"""Verdicts fitted over all splits, which keeps split-half to seconds however large the batch."""


def scale_statistics(
    scale: Scale, posterior: ScorePosterior, judged: Sequence[JudgedPair]
) -> dict[str, Any]:
    """Return a finished scale's statistics, ready for JSON.

    Args:
        scale: As fitted.
        posterior: Of its scores; who the students are it knows.
        judged: The verdicts it was fitted to.

    Returns:
        Figures by name; what could not be given is under `not_given`, by name with the reason.
    """
    figures: dict[str, Any] = {}
    not_given: dict[str, str] = {}
    notes: list[str] = []

    def give(name: str, figure: Callable[[], Any]) -> None:
        try:
            figures[name] = figure()
        except UnscalableBatchError as error:
            not_given[name] = str(error)

    ids = scale.essay_ids
    students = [each for each, own in zip(ids, posterior.is_student, strict=True) if own]
    figures["student_reliability"] = _student_reliability(posterior)
    if len(students) < len(ids):
        give("empirical_bayes_with_anchors", lambda: asdict(empirical_bayes(scale)))
    if posterior.reliability.is_worth_a_figure:
        give("separation_index", lambda: separation_index(posterior.reliability.value or 0.0))
    give("scale_separation_reliability", lambda: student_separation(scale, students))
    give("epsilon_adjusted_reliability", lambda: _epsilon_adjusted(scale, judged, students, notes))
    give("split_half_by_comparisons", lambda: _halves(ids, judged, "comparisons", students))
    give("split_half_by_judges", lambda: _halves(ids, judged, "judges", students))
    give("transitivity", lambda: _triples(ids, judged))
    effective = effective_comparisons(scale)
    figures["effective_comparisons"] = {
        "mean": float(effective.mean()),
        "least": float(effective.min()),
        "given_mean": float(scale.n_comparisons.mean()),
    }
    give("position_effects", lambda: _estimates(marginal_position_effects(scale)))
    figures["position_effects_taken_out"] = _estimates(scale.position_effects)
    figures["log_discriminations"] = _estimates(scale.discriminations)
    figures["log_tie_strength"] = _estimate(scale.tie_strength)
    figures["judges"] = _judges(scale, judged)
    figures["agreement_between_judges"] = [
        {"judges": list(pair), **_share(share)}
        for pair, share in agreement_between_judges(ids, judged).items()
    ]
    if len(figures["judges"]) > 1:
        give("panel", lambda: _panel(scale, judged))
    figures["standard_errors"] = {
        "method": scale.standard_error_method,
        "relative_error": scale.standard_error_relative_error,
    }
    if scale.dependence is not None:
        shared = scale.dependence
        figures["dependence"] = {**asdict(shared), "effective_judges": shared.effective_judges}
    figures["score_version"] = SCORE_VERSION
    figures["notes"] = [*scale.notes, *notes, *_unit_notes(figures)]
    figures["not_given"] = not_given
    finite: dict[str, Any] = _finite(figures)
    return finite


def _finite(value: Any) -> Any:
    """Return the same with None for what is no number, which JSON has no word for."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _student_reliability(posterior: ScorePosterior) -> dict[str, Any]:
    found = posterior.reliability
    return {
        **asdict(found),
        "is_worth_a_figure": found.is_worth_a_figure,
        "cannot_be_told_apart": found.cannot_be_told_apart,
        "true_sd": posterior.spread,
    }


def _epsilon_adjusted(
    scale: Scale, judged: Sequence[JudgedPair], students: Sequence[str], notes: list[str]
) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = fit_epsilon_adjusted(scale.essay_ids, judged)
    if found.warning:
        notes.append(found.warning)
    chosen = np.isin(found.essay_ids, students)
    return scale_separation_reliability(found.scores[chosen], found.standard_errors[chosen])


def _unit_notes(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is to be known of the logit where judges lapse or differ."""
    unequal = [
        judge_id
        for judge_id, found in figures["log_discriminations"].items()
        if found["lower"] > 0 or found["upper"] < 0
    ]
    if unequal:
        yield (
            "The judges tell essays apart unequally well, so a logit is that of the panel's average"
            " judge: another panel would give the same essays other distances."
        )
    lapsing = [
        judge_id
        for judge_id, found in figures["judges"].items()
        if found["n_verdicts"] >= _LEAST_FOR_LAPSES
        and found["outfit"] > max(_LAPSES, found["infit"])
    ]
    if lapsing:
        yield (
            "A judge gives more verdicts against clear differences than its model has, as one does"
            " that lapses now and then: the unit of the scores is the judge's, and essays lie"
            " further apart than it shows."
        )


def _halves(
    ids: Sequence[str], judged: Sequence[JudgedPair], by: By, among: Sequence[str]
) -> dict[str, Any]:
    n_splits = int(np.clip(_SPLIT_WORK // max(len(judged), 1), 10, 100))
    return asdict(split_half(ids, judged, by=by, n_splits=n_splits, among=among))


def _triples(ids: Sequence[str], judged: Sequence[JudgedPair]) -> dict[str, Any]:
    if len(ids) > MAX_ESSAYS_FOR_TRIPLES:
        msg = f"Circular triples are counted among {MAX_ESSAYS_FOR_TRIPLES} essays at most."
        raise UnscalableBatchError(msg)
    found = transitivity(ids, judged)
    if not found.n_triples:
        msg = "No three essays were all judged against each other."
        raise UnscalableBatchError(msg)
    return asdict(found)


def _judges(scale: Scale, judged: Sequence[JudgedPair]) -> dict[str, Any]:
    fits = fit_of_judges(scale, judged)
    return {
        judge_id: {
            "n_verdicts": found.n_verdicts,
            "first_wins": _share(found.first_wins),
            "swap_agreement": _share(found.swap_agreement),
            "repeat_agreement": _share(found.repeat_agreement),
            "infit": fits[judge_id].infit,
            "outfit": fits[judge_id].outfit,
        }
        for judge_id, found in judge_consistency(scale.essay_ids, judged).items()
    }


def _panel(scale: Scale, judged: Sequence[JudgedPair]) -> dict[str, Any]:
    """Return what leaving out each judge would change, all else scored alike."""
    panel = fit_panel(
        scale.essay_ids,
        judged,
        position_effect=bool(scale.position_effects),
        discrimination=bool(scale.discriminations),
    )
    return {
        judge_id: {
            "reliability_alone": found.reliability,
            "agreement_with_the_others": found.agreement,
            "largest_rank_change_without": found.largest_rank_change,
            "largest_score_change_without": found.largest_score_change,
        }
        for judge_id, found in panel.judges.items()
    }


def _estimates(estimates: Any) -> dict[str, Any]:
    return {name: _estimate(estimate) for name, estimate in estimates.items()}


def _estimate(estimate: Estimate | None) -> dict[str, float] | None:
    if estimate is None:
        return None
    half = 1.96 * estimate.standard_error
    return {
        "value": estimate.value,
        "standard_error": estimate.standard_error,
        "lower": estimate.value - half,
        "upper": estimate.value + half,
    }


def _share(share: Share) -> dict[str, Any]:
    return asdict(share)
