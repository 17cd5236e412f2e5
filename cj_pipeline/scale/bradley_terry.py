"""The scale: where each essay stands, in logits, found from who was preferred to whom.

The model and its prior are `likelihood`'s. This module finds the maximum and says what rests on
too little. How reliable the scale is belongs to `reliability`, how well single essays and judges
fit it to `fit_statistics`, ranks to `ranks`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from cj_pipeline.arrays import Floats
from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.errors import UnscalableBatchError
from cj_pipeline.scale.connectivity import dominance_labels, groups, part_labels
from cj_pipeline.scale.information import (
    Information,
    covariance,
    covariance_of,
    newton_step,
    other_covariance,
    standard_errors,
)
from cj_pipeline.scale.laplacian import solve
from cj_pipeline.scale.likelihood import (
    Gradient,
    Model,
    Point,
    describe,
    gradient_at,
    initial_point,
    stepped,
    zero_point,
)
from cj_pipeline.scale.shared_evidence import Dependence
from cj_pipeline.scale.tallies import Tally, Verdicts, as_verdicts, sums_by, tally

Engine = Literal["newton", "choix"]
Ties = Literal["half-half", "davidson"]

PRIOR_COMPARISONS = 0.5
"""The weak prior: each essay has also met an average essay half a time and won half of that."""

_MAX_STEPS = 60
_LAST_STEP = 3e-6
"""Newton's error after a step is about its square, so this leaves 1e-11."""
_SHARP = 1e-6
"""How sharply the last step has to be solved; a scale begun at its end might not have been."""
_NEAR = 0.02
_LONGEST_STEP = 6.0
"""Logits that no step from a sensible start needs; where verdicts say next to nothing it might."""
MIN_POSITION_INFORMATION = 1.0
"""As much as four verdicts on essays known to be alike: a standard error of one logit."""
_CHOIX_MAX_STEPS = 20_000


@dataclass(frozen=True)
class Estimate:
    """A number that was estimated, in logits, and its standard error."""

    value: float
    standard_error: float


@dataclass(frozen=True, eq=False)
class Scale:
    """Where each essay of a batch stands.

    Every array has one entry per essay, in the order of `essay_ids`.

    Attributes:
        essay_ids: The batch's essays, anchors included.
        scores: In logits, with mean zero.
        standard_errors: Of the scores against the batch's mean, from the full information.
        n_comparisons: Verdicts about the essay; weighted ones by their weight.
        wins: A tie counts a half.
        losses: A tie counts a half.
        shown_a: How often the essay was shown first.
        shown_b: How often it was shown second.
        one_sided: Essays that won or lost everything; how far out they lie rests on the prior.
        separated: Groups none of whose essays ever lost to (or never beat) the rest, largest
            first; empty where likelihood alone fixes every score.
        position_effects: Per judge, how much it favours the essay shown first; empty when off.
        discriminations: Per judge, log a_j; empty when off.
        tie_strength: Davidson's log nu; None when ties count half-half.
        engine: What found the maximum.
        n_steps: Newton steps taken (choix does not say).
        standard_error_method: How the standard errors were had.
        standard_error_relative_error: 0 where they are exact, else the largest error on a sample.
        model: What was maximised.
        point: Where its maximum lies.
        information: What covariances are computed from.
        notes: In plain words, what was switched off and what rests on the prior.
        dependence: What the verdicts have in common; None where each is taken to tell afresh.
    """

    essay_ids: tuple[str, ...]
    scores: Floats
    standard_errors: Floats
    n_comparisons: Floats
    wins: Floats
    losses: Floats
    shown_a: Floats
    shown_b: Floats
    one_sided: tuple[str, ...]
    separated: tuple[tuple[str, ...], ...]
    position_effects: Mapping[str, Estimate]
    discriminations: Mapping[str, Estimate]
    tie_strength: Estimate | None
    engine: Engine
    n_steps: int
    standard_error_method: str
    standard_error_relative_error: float
    model: Model
    point: Point
    information: Information
    notes: tuple[str, ...]
    dependence: Dependence | None = None

    @property
    def between_judges(self) -> float:
        """Variance that what judges see differently in an essay adds to each score.

        In squared logits; `standard_errors` and `covariance` have it already.
        """
        return 0.0 if self.dependence is None else self.dependence.left_in_scores

    @cached_property
    def covariance(self) -> Floats:
        """The scores' covariance; shape (n_essays, n_essays), so 200 MB for 5,000 essays.

        Beyond some thousand essays use `covariance_among` for the essays that matter.
        """
        n = len(self.essay_ids)
        among: Floats = covariance(self.information)
        return among + self.between_judges * (np.eye(n) - 1 / n) if self.between_judges else among

    def covariance_among(self, essay_ids: Sequence[str]) -> Floats:
        """Return the covariance of these essays' scores, in this order."""
        place = {essay_id: i for i, essay_id in enumerate(self.essay_ids)}
        chosen = np.array([place[essay_id] for essay_id in essay_ids], dtype=np.int64)
        among = covariance_of(self.information, chosen)
        if self.between_judges:
            same = chosen[:, None] == chosen[None, :]
            among = among + self.between_judges * (same - 1 / len(self.essay_ids))
        return np.asarray(among)


def fit_bradley_terry(
    essay_ids: Sequence[str],
    judged: Sequence[JudgedPair],
    *,
    engine: Engine = "newton",
    position_effect: bool = False,
    discrimination: bool = False,
    ties: Ties = "half-half",
    prior_comparisons: float = PRIOR_COMPARISONS,
    weights: Sequence[float] | None = None,
    start: Mapping[str, float] | None = None,
    min_position_information: float = MIN_POSITION_INFORMATION,
) -> Scale:
    """Return the scale on which the verdicts are most probable, given the weak prior.

    Args:
        essay_ids: Every essay of the batch; each gets a score.
        judged: Finished comparisons with a verdict.
        engine: "newton", or "choix" for an independent check of the plain model.
        position_effect: Estimate how much each judge favours the essay shown first.
        discrimination: Estimate how strongly each judge of a panel tells essays apart.
        ties: Count half to each, or have a strength of their own (Davidson 1970).
        prior_comparisons: Strength of the prior; 0 for maximum likelihood.
        weights: How much each verdict counts; once each when left out.
        start: Scores to begin from, by essay: an earlier wave's.
        min_position_information: A judge's position effect is off where its verdicts give less.

    Raises:
        UnscalableBatchError: If there is no common scale: nothing judged, the graph in parts
            (named), verdicts that cannot be read, no finite maximum without a prior, or no
            convergence.

    References:
        Bradley and Terry (1952), doi:10.2307/2334029; Davidson (1970),
        doi:10.1080/01621459.1970.10481082; Hunter (2004), doi:10.1214/aos/1079120141.
    """
    return fit_verdicts(
        as_verdicts(essay_ids, judged, weights),
        engine=engine,
        position_effect=position_effect,
        discrimination=discrimination,
        ties=ties,
        prior_comparisons=prior_comparisons,
        start=start,
        min_position_information=min_position_information,
    )


def fit_verdicts(
    verdicts: Verdicts,
    *,
    engine: Engine = "newton",
    position_effect: bool = False,
    discrimination: bool = False,
    ties: Ties = "half-half",
    prior_comparisons: float = PRIOR_COMPARISONS,
    start: Mapping[str, float] | None = None,
    min_position_information: float = MIN_POSITION_INFORMATION,
) -> Scale:
    """Return the scale for verdicts that are columns already; see `fit_bradley_terry`."""
    pairs = tally(verdicts)
    _require_one_net(verdicts.essay_ids, pairs)
    notes: list[str] = []
    separated = groups(verdicts.essay_ids, dominance_labels(pairs))
    separated = () if len(separated) == 1 else separated
    if separated and prior_comparisons == 0:
        msg = (
            f"The essays fall into {len(separated)} groups that only ever beat each other one "
            "way, so without a prior some scores are infinite. Judge more pairs or use the prior."
        )
        raise UnscalableBatchError(msg)

    has_ties = bool(pairs.ties.any())
    if ties == "davidson" and not has_ties:
        notes.append("No verdict is a tie, so ties have no strength to estimate.")
    if discrimination and len(verdicts.judge_ids) < 2:
        notes.append("One judge alone has no discrimination apart from the scale itself.")
        discrimination = False
    model = _model(
        verdicts,
        pairs,
        position_effect=position_effect,
        discrimination=discrimination,
        tie_strength=ties == "davidson" and has_ties,
        prior_comparisons=prior_comparisons,
        min_position_information=min_position_information,
    )
    if engine == "choix":
        if model.n_others:
            msg = "choix fits the plain model: leave positions, discrimination and Davidson off."
            raise UnscalableBatchError(msg)
        point, n_steps = _fit_with_choix(model), 0
    else:
        point, n_steps = maximise(model, beginning(model, verdicts.essay_ids, start))
    return _scale(
        verdicts,
        model,
        point,
        engine,
        n_steps,
        separated=separated,
        notes=notes,
        position_effect=position_effect,
    )


def maximise(model: Model, point: Point, *, holds_judges: bool = False) -> tuple[Point, int]:
    """Return where the posterior is greatest, and how many Newton steps that took.

    Args:
        model: What is estimated.
        point: Where to begin.
        holds_judges: Leave what judges add where it is, and move the scores alone.

    Raises:
        UnscalableBatchError: If the steps do not come to rest.
    """
    gradient = gradient_at(model, point, for_steps=True, scores_alone=holds_judges)
    tolerance = 0.05
    size = np.inf
    for n_steps in range(1, _MAX_STEPS + 1):
        if holds_judges:
            theta = solve(gradient.information.essays, gradient.theta, rtol=tolerance)
            others = np.zeros(model.n_others)
        else:
            theta, others = newton_step(
                gradient.information, gradient.theta, gradient.others, rtol=tolerance
            )
        size = float(np.abs(theta).max())
        if model.n_others:
            size = max(size, float(np.abs(others).max()))
        if size < _LAST_STEP:
            if tolerance <= _SHARP:
                return stepped(model, point, theta, others, 1.0), n_steps
            tolerance = _SHARP
            continue
        # Far out the whole information could be indefinite; close by only it converges fast.
        is_near = model.has_discrimination and size < _NEAR
        point, gradient, share = _search(
            model,
            point,
            gradient,
            (theta, others),
            for_steps=not is_near,
            scores_alone=holds_judges,
        )
        # Solving more sharply than the next step needs wastes products (Eisenstat and
        # Walker 1996); the step after a small one is about its square.
        tolerance = max(1e-7, 0.05 * min(share * size, 1.0) ** 2)
    msg = (
        f"The scale of {model.cells.n_essays} essays did not converge in {_MAX_STEPS} steps (the "
        f"last was {size:.2g} logits). Use the prior, leave discrimination off, or judge more "
        "pairs."
    )
    raise UnscalableBatchError(msg)


def _search(
    model: Model,
    point: Point,
    gradient: Gradient,
    step: tuple[Floats, Floats],
    *,
    for_steps: bool,
    scores_alone: bool,
) -> tuple[Point, Gradient, float]:
    """Return the point along a step where the ascent has mostly levelled out.

    The posterior is concave along the line (with discriminations: near enough), so its slope
    there shows an overshoot, and no logarithm has to be taken to see one.
    """
    theta, others = step
    ascent = gradient.theta @ theta + gradient.others @ others
    size = max(float(np.abs(theta).max()), float(np.abs(others).max(initial=0.0)))
    share = longest = min(1.0, _LONGEST_STEP / size)
    for _ in range(30):
        there = stepped(model, point, theta, others, share)
        gradient_there = gradient_at(model, there, for_steps=for_steps, scores_alone=scores_alone)
        left = gradient_there.theta @ theta + gradient_there.others @ others
        if left >= -0.5 * ascent:
            break
        longest = share
        share = longest * min(max(float(ascent / (ascent - left)), 0.1), 0.7)
    return there, gradient_there, share


def _model(
    verdicts: Verdicts,
    pairs: Tally,
    *,
    position_effect: bool,
    discrimination: bool,
    tie_strength: bool,
    prior_comparisons: float,
    min_position_information: float,
) -> Model:
    none = np.empty(0, dtype=np.int64)
    cells = pairs
    if position_effect or discrimination:
        cells = tally(verdicts, by_order=True, by_judge=True)
    model = describe(
        cells,
        prior_comparisons=prior_comparisons,
        positions=none,
        has_discrimination=discrimination,
        has_tie_strength=tie_strength,
    )
    if not position_effect:
        return model
    return replace(model, positions=_identified(model, min_position_information))


def _identified(model: Model, least: float) -> npt.NDArray[np.int64]:
    """Return the judges whose position effect the design can separate from the essays' scores."""
    every = np.arange(model.cells.n_judges)
    # The verdicts must identify it, not the prior, of which there is only a trace.
    trial = replace(
        model,
        prior_comparisons=1e-6,
        positions=every,
        has_discrimination=False,
        has_tie_strength=False,
    )
    information = gradient_at(trial, zero_point(trial), for_steps=True).information
    reach = solve(information.essays, information.border)
    told_apart = np.diag(information.corner) - np.einsum("ij,ij->j", information.border, reach)
    return np.flatnonzero(told_apart >= least)


def beginning(
    model: Model, essay_ids: Sequence[str], start: Mapping[str, float] | None = None
) -> Point:
    """Return where to begin: earlier scores where there are any, else what the graph suggests."""
    point = zero_point(model)
    if start is None:
        # Along a band the wins compare an essay with its neighbours only, and mislead.
        return initial_point(model) if model.layout.method != "banded" else point
    return replace(point, theta=np.array([start.get(essay_id, 0.0) for essay_id in essay_ids]))


def _fit_with_choix(model: Model) -> Point:
    """Return the maximum as choix's dense iterative Luce spectral ranking finds it.

    The prior enters as what it means: one more essay that each has met and half beaten. So
    both engines climb the same hill; choix's own `alpha` is no likelihood's.
    """
    import choix

    cells, n = model.cells, model.cells.n_essays
    met = 0.5 * model.prior_comparisons
    n_items = n + (met > 0)
    won = np.zeros((n_items, n_items))
    won[cells.first, cells.second] = cells.wins
    won[cells.second, cells.first] = cells.counts - cells.wins
    if met:
        won[:n, n] = won[n, :n] = met
    try:
        found = choix.ilsr_pairwise_dense(won, max_iter=_CHOIX_MAX_STEPS, tol=1e-11)
    except RuntimeError as error:
        msg = f"choix did not converge ({error}); fit with the engine 'newton'."
        raise UnscalableBatchError(msg) from error
    theta = found[:n] - (found[n] if met else found.mean())
    return replace(zero_point(model), theta=theta)


def _scale(
    verdicts: Verdicts,
    model: Model,
    point: Point,
    engine: Engine,
    n_steps: int,
    *,
    separated: tuple[tuple[str, ...], ...],
    notes: list[str],
    position_effect: bool,
) -> Scale:
    n = len(verdicts.essay_ids)
    information = gradient_at(model, point, for_steps=False).information
    errors = standard_errors(information)
    weights = np.ones(len(verdicts.first)) if verdicts.weights is None else verdicts.weights
    wins = _per_essay(verdicts, weights * verdicts.wins, weights * (1 - verdicts.wins), n)
    n_comparisons = _per_essay(verdicts, weights, weights, n)
    one_sided = _one_sided(verdicts, wins, n_comparisons)
    if one_sided:
        notes.append(
            f"{len(one_sided)} essays won or lost everything ({_some(one_sided)}): how far out "
            "they lie rests on the prior."
        )
    elif separated:
        notes.append(
            f"The essays fall into {len(separated)} groups that only ever beat each other one way: "
            "the distances between the groups rest on the prior."
        )

    errors_of_others = np.sqrt(np.diag(other_covariance(information)))
    n_positions = len(model.positions)
    positions = {
        verdicts.judge_ids[j]: Estimate(float(point.gamma[j]), float(se))
        for j, se in zip(model.positions, errors_of_others[:n_positions], strict=True)
    }
    off = [judge for judge in verdicts.judge_ids if judge not in positions]
    if position_effect and off:
        notes.append(
            f"The verdicts of {len(off)} judges ({_some(off)}) cannot separate their position "
            "effect from the essays' scores: it is off for them. Show pairs in both orders, "
            "or judge more."
        )
    discriminations = {}
    if model.has_discrimination:
        their_errors = errors_of_others[n_positions : n_positions + len(point.log_a)]
        discriminations = {
            judge: Estimate(float(value), float(se))
            for judge, value, se in zip(verdicts.judge_ids, point.log_a, their_errors, strict=True)
        }
    return Scale(
        essay_ids=verdicts.essay_ids,
        scores=point.theta - point.theta.mean(),
        standard_errors=errors.values,
        n_comparisons=n_comparisons,
        wins=wins,
        losses=n_comparisons - wins,
        shown_a=np.bincount(verdicts.first, minlength=n).astype(np.float64),
        shown_b=np.bincount(verdicts.second, minlength=n).astype(np.float64),
        one_sided=one_sided,
        separated=separated,
        position_effects=positions,
        discriminations=discriminations,
        tie_strength=(
            Estimate(point.log_tie, float(errors_of_others[-1])) if model.has_tie_strength else None
        ),
        engine=engine,
        n_steps=n_steps,
        standard_error_method=errors.method,
        standard_error_relative_error=errors.relative_error,
        model=model,
        point=point,
        information=information,
        notes=tuple(notes),
    )


def _per_essay(verdicts: Verdicts, of_first: Floats, of_second: Floats, n: int) -> Floats:
    return sums_by(verdicts.first, of_first, n) + sums_by(verdicts.second, of_second, n)


def _one_sided(verdicts: Verdicts, wins: Floats, n_comparisons: Floats) -> tuple[str, ...]:
    all_one_way = np.isclose(wins, 0) | np.isclose(wins, n_comparisons)
    return tuple(verdicts.essay_ids[i] for i in np.flatnonzero(all_one_way))


def _require_one_net(essay_ids: Sequence[str], pairs: Tally) -> None:
    if len(essay_ids) < 2 or not len(pairs.first):
        msg = (
            f"{len(essay_ids)} essays with {int(pairs.counts.sum())} verdicts give no scale: at "
            "least two essays and one verdict are needed."
        )
        raise UnscalableBatchError(msg)
    labels = part_labels(pairs)
    if labels.max() > 0:
        parts = groups(essay_ids, labels)
        sizes = [str(len(part)) for part in parts]
        shown = ", ".join(sizes[:-1][:8]) + (", ..." if len(sizes) > 9 else "")
        msg = (
            f"The batch falls into {len(parts)} parts ({shown} and {sizes[-1]} essays), so it has "
            "no common scale. Judge pairs across the parts: `bridging_pairs` lists them. Outside "
            f"the largest: {_some([essay for part in parts[1:] for essay in part])}."
        )
        raise UnscalableBatchError(msg)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
