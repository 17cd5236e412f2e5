"""The public Python API for researchers: verdicts in any data frame, typed results out.

The same code that batches use, without a store, a home or a key. `cj_pipeline` hands these on:

    fit           verdicts -> scores with errors, intervals and ranks
    reliability   what a fit is worth
    grade         a fit and anchors with known grades -> grades with probabilities
    choose_pairs  which pairs to compare next
    link          two fits with shared anchors -> one scale
    changes       which essays changed between two fits, beyond noise

A frame is anything with columns: pandas, polars, an Arrow table, a mapping of lists.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cj_pipeline.batch.comparisons import ChosenPair, JudgedPair
from cj_pipeline.batch.options import (
    DependenceSwitch,
    InconsistentPolicy,
    ScoringEngine,
    Strategy,
    Switch,
    Ties,
)
from cj_pipeline.errors import SettingsError, UnscalableBatchError
from cj_pipeline.ids import nearest

if TYPE_CHECKING:
    from cj_pipeline.arrays import Floats
    from cj_pipeline.diagnostics.changes import ScoreChange
    from cj_pipeline.diagnostics.split_half import SplitHalf
    from cj_pipeline.grading.grade_scales import GradeScale
    from cj_pipeline.grading.linking import Linked
    from cj_pipeline.grading.projection import GradeProjections
    from cj_pipeline.scale.bradley_terry import Estimate, Scale
    from cj_pipeline.scale.certainty import ScorePosterior
    from cj_pipeline.scale.intervals import ScoreIntervals
    from cj_pipeline.scale.ranks import RankIntervals

_SHOWN_PROBLEMS = 10
_LEAST_FOR_HALVES = 4
"""Verdicts below which no half of them can be a scale."""


@dataclass(frozen=True, eq=False)
class Fit:
    """Scores of essays and what is known of their errors; made by `fit`.

    Attributes:
        scale: The fitted model whole, for what is not named here.
        verdicts: What it was fitted to.
        anchors: Essays that are no part of the students' population.
    """

    scale: Scale
    verdicts: tuple[JudgedPair, ...]
    anchors: frozenset[str] = frozenset()

    @property
    def essay_ids(self) -> tuple[str, ...]:
        """Every essay; all arrays are in this order."""
        return self.scale.essay_ids

    @cached_property
    def posterior(self) -> ScorePosterior:
        """The joint posterior that scores, intervals, ranks and P(above) are taken from."""
        from cj_pipeline.scale.score_posterior import score_posterior

        return score_posterior(self.scale, self.anchors)

    @property
    def scores(self) -> Floats:
        """Posterior means in logits, with mean zero; shape (n_essays,)."""
        return self.posterior.scores

    @property
    def standard_errors(self) -> Floats:
        """Of the scores against their mean, in logits; shape (n_essays,)."""
        return self.posterior.standard_errors

    @property
    def covariance(self) -> Floats:
        """Of the scores; shape (n_essays, n_essays)."""
        return self.posterior.covariance_among(self.essay_ids)

    @property
    def verdict_scores(self) -> Floats:
        """By the verdicts and a weak prior alone, in logits, with mean zero; shape (n_essays,)."""
        return self.scale.scores

    @property
    def verdict_standard_errors(self) -> Floats:
        """Of the verdict-only scores, in logits; shape (n_essays,)."""
        return self.scale.standard_errors

    @property
    def n_comparisons(self) -> Floats:
        """Verdicts about each essay; shape (n_essays,)."""
        return self.scale.n_comparisons

    @property
    def position_effects(self) -> Mapping[str, Estimate]:
        """What being shown first is worth to each judge, in logits; empty where it is off."""
        return self.scale.position_effects

    @property
    def discriminations(self) -> Mapping[str, Estimate]:
        """How strongly each judge tells essays apart, as log a_j; empty where it is off."""
        return self.scale.discriminations

    @property
    def notes(self) -> tuple[str, ...]:
        """What was switched off and what rests on the prior, in plain words."""
        return self.scale.notes

    @cached_property
    def intervals(self) -> ScoreIntervals:
        """The scores' 95 % intervals, in logits, right whatever strategy chose the pairs."""
        from cj_pipeline.scale.intervals import score_intervals

        return score_intervals(self.posterior)

    @cached_property
    def verdict_intervals(self) -> ScoreIntervals:
        """The verdict-only scores' 95 % intervals by profile likelihood, in logits.

        Right where pairs were chosen without regard to scores.
        """
        from cj_pipeline.scale.intervals import verdict_intervals

        return verdict_intervals(self.scale)

    @cached_property
    def ranks(self) -> RankIntervals:
        """Ranks (1 is best) and their 95 % intervals."""
        from cj_pipeline.scale.ranks import rank_intervals

        return rank_intervals(self.posterior)

    def probability_above(self, upper: str, lower: str) -> float:
        """Return the probability that one essay is truly better than another.

        Raises:
            SettingsError: If an essay is not in the fit.
        """
        from cj_pipeline.scale.ranks import probability_above

        _require_known([upper, lower], self.essay_ids, "essay")
        return probability_above(self.posterior, upper, lower)

    def as_columns(self) -> dict[str, list[Any]]:
        """Return one entry per essay in each column, for any data frame's constructor."""
        return {
            "essay_id": list(self.essay_ids),
            "score": self.scores.tolist(),
            "standard_error": self.standard_errors.tolist(),
            "lower": self.intervals.lower.tolist(),
            "upper": self.intervals.upper.tolist(),
            "verdict_score": self.verdict_scores.tolist(),
            "verdict_standard_error": self.verdict_standard_errors.tolist(),
            "rank": self.ranks.rank.tolist(),
            "rank_lower": self.ranks.lower.tolist(),
            "rank_upper": self.ranks.upper.tolist(),
            "n_comparisons": self.n_comparisons.tolist(),
        }


@dataclass(frozen=True)
class Reliabilities:
    """What a fit is worth, by name.

    Attributes:
        empirical_bayes: The headline: the share of the differences among students' scores that is
            real, also where pairs were chosen adaptively; None for fewer than ten students.
        lower, upper: Between which that share lies with 95 % probability.
        cannot_be_told_apart: Whether the verdicts leave open that students hardly differ.
        true_sd: The students' true standard deviation, in logits.
        with_anchors: The same figure with anchors counted as students; None without anchors.
        scale_separation: The usual figure, too high under adaptive pairs; None where all scores
            are equal.
        split_half: Of random halves of the verdicts; None where no split gave two scales. Too
            high under adaptive pairs.
    """

    empirical_bayes: float | None
    lower: float | None
    upper: float | None
    cannot_be_told_apart: bool
    true_sd: float
    with_anchors: float | None
    scale_separation: float | None
    split_half: SplitHalf | None


def fit(
    verdicts: Any,
    *,
    essays: Sequence[str] | None = None,
    anchors: Sequence[str] = (),
    engine: ScoringEngine = "newton",
    position_effect: Switch = "auto",
    discrimination: Switch = "auto",
    ties: Ties = "half-half",
    inconsistent: InconsistentPolicy = "keep",
    dependence: DependenceSwitch = "auto",
) -> Fit:
    """Fit a Bradley-Terry scale to verdicts, as a batch with these settings would.

    Args:
        verdicts: A frame with the columns `essay_a` (shown first), `essay_b`, `winner` (one of the
            two ids, or `tie`) and, where there are several, `judge`. Other columns are ignored.
        essays: Every essay, where some may be in no verdict; by default those in the verdicts, in
            the order of their first appearance.
        anchors: Those that are anchors: not part of the population students are drawn in to, nor
            of the reliability.
        engine: "newton", or "choix" as an independent check of the plain model.
        position_effect: Estimate what being shown first is worth to each judge.
        discrimination: Estimate how strongly each judge of a panel tells essays apart.
        ties: Half a win to each, or Davidson's tie strength.
        inconsistent: What becomes of verdicts that changed with the order shown.
        dependence: Whether several verdicts on one pair, and several judges, count for what they
            tell together; `fit(...).scale.dependence` has what was found.

    Raises:
        SettingsError: If rows cannot be read; all problems at once, by row.
        UnscalableBatchError: If there is no common scale, such as comparisons in unconnected parts.
    """
    from cj_pipeline.scale.scoring import ScoringRules, score_verdicts

    judged = _read_verdicts(verdicts)
    found = dict.fromkeys(essay for v in judged for essay in (v.essay_a, v.essay_b))
    essay_ids = tuple(found) if essays is None else tuple(map(str, essays))
    rules = ScoringRules(engine, position_effect, discrimination, ties, inconsistent, dependence)
    _require_known(list(map(str, anchors)), essay_ids, "anchor")
    return Fit(score_verdicts(essay_ids, judged, rules), judged, frozenset(map(str, anchors)))


def reliability(fitted: Fit, *, seed: int = 0) -> Reliabilities:
    """Return the reliabilities of a fit; see `Reliabilities` for which to quote."""
    from cj_pipeline.diagnostics.reliability import empirical_bayes, scale_separation_reliability
    from cj_pipeline.diagnostics.split_half import split_half

    honest = fitted.posterior.reliability
    try:
        separation = scale_separation_reliability(
            fitted.verdict_scores, fitted.verdict_standard_errors
        )
    except UnscalableBatchError:
        separation = None
    halves = None
    if len(fitted.verdicts) >= _LEAST_FOR_HALVES:
        try:
            halves = split_half(fitted.essay_ids, fitted.verdicts, by="comparisons", seed=seed)
        except UnscalableBatchError:
            halves = None
    return Reliabilities(
        empirical_bayes=honest.value if honest.is_worth_a_figure else None,
        lower=honest.lower,
        upper=honest.upper,
        cannot_be_told_apart=honest.cannot_be_told_apart,
        true_sd=fitted.posterior.spread,
        with_anchors=empirical_bayes(fitted.scale).reliability if fitted.anchors else None,
        scale_separation=separation,
        split_half=halves,
    )


def grade(
    fitted: Fit,
    anchors: Mapping[str, str] | Any,
    scale: str | Sequence[str] | GradeScale,
    *,
    use_priors: bool = False,
) -> GradeProjections:
    """Grade every essay of a fit by its anchors, with probabilities.

    Args:
        fitted: Anchors and students on one scale.
        anchors: Each anchor's known grade: a mapping, or a frame with `essay_id` and `grade`.
        scale: A built-in scale's name, such as "swedish_8_anchor"; or grades, lowest first.
        use_priors: Whether the scale's published shares weigh in.

    Raises:
        SettingsError: If an anchor is not in the fit, or a grade is not on the scale.
    """
    from cj_pipeline.grading.grade_scales import GradeScale, load_scale
    from cj_pipeline.grading.projection import project_grades

    grades = _read_anchors(anchors)
    _require_known(list(grades), fitted.essay_ids, "anchor")
    if isinstance(scale, str):
        scale = load_scale(scale)
    elif not isinstance(scale, GradeScale):
        scale = GradeScale(name="own", title="Own scale", grades=tuple(map(str, scale)))
    return project_grades(
        scale,
        fitted.essay_ids,
        fitted.verdict_scores,
        fitted.scale.covariance,
        grades,
        judged=fitted.verdicts,
        use_priors=use_priors,
    )


def choose_pairs(
    essays: Sequence[str],
    n_pairs: int,
    *,
    verdicts: Any | None = None,
    anchors: Sequence[str] = (),
    strategy: Strategy = "adaptive",
    seed: int = 0,
    may_repeat: bool = False,
    both_orders: bool = False,
) -> tuple[ChosenPair, ...]:
    """Choose the pairs to compare next, each in the order to show it.

    The same arguments give the same pairs. Strategies that use scores cover pairs evenly until the
    verdicts give a scale.

    Args:
        essays: Every essay, anchors included.
        n_pairs: At most this many.
        verdicts: So far; a frame as `fit` takes it.
        anchors: Those of the essays whose grade is known.
        strategy: How pairs are chosen; see the page on pairs.
        seed: Decides between equals.
        may_repeat: Let a strategy that uses scores repeat a pair before every pair was compared.
        both_orders: Show every pair twice, once in each order; that counts as two.

    Raises:
        SettingsError: If a verdict or an anchor names an essay that is not in the list.
    """
    from dataclasses import replace

    from cj_pipeline.diagnostics.spread import likely_spread
    from cj_pipeline.pairing.comparison_graph import ComparisonGraph
    from cj_pipeline.pairing.waves import choose_wave

    essay_ids = tuple(map(str, essays))
    _require_known(list(map(str, anchors)), essay_ids, "anchor")
    judged = () if verdicts is None else _read_verdicts(verdicts)
    _require_known([e for v in judged for e in (v.essay_a, v.essay_b)], essay_ids, "essay")
    shown = tuple((v.essay_a, v.essay_b) for v in judged)
    graph = ComparisonGraph(essay_ids, frozenset(map(str, anchors)), shown)
    if judged:
        try:
            scale = fit(verdicts, essays=essay_ids).scale
        except UnscalableBatchError:
            pass  # not one net yet: what is chosen next connects it
        else:
            graph = replace(
                graph,
                scores=scale.scores,
                information=scale.information,
                spread=likely_spread(scale).logits,
            )
    return choose_wave(
        graph,
        strategy=strategy,
        size=n_pairs,
        seed=seed,
        may_repeat=may_repeat,
        both_orders=both_orders,
    )


def link(earlier: Fit, later: Fit, anchors: Sequence[str]) -> Linked:
    """Place a later fit on the scale of an earlier one, by the anchors in both.

    Raises:
        UnscalableBatchError: If fewer than three anchors tie the fits.
    """
    from cj_pipeline.grading.linking import link_batches

    return link_batches(earlier.scale, later.scale, [str(anchor) for anchor in anchors])


def changes(before: Fit, after: Fit) -> tuple[ScoreChange, ...]:
    """Return how the essays in both fits changed, in the first one's order.

    Empty where they share fewer than three.
    """
    from cj_pipeline.diagnostics.changes import score_changes

    known = set(after.essay_ids)
    return score_changes(before, after, [each for each in before.essay_ids if each in known])


def _column(frame: Any, name: str) -> list[Any]:
    column = frame[name]
    return list(column.to_pylist() if hasattr(column, "to_pylist") else column)


def _columns(frame: Any) -> list[str]:
    names = getattr(frame, "column_names", None)  # Arrow
    if names is None:
        names = getattr(frame, "columns", None)
    return [str(name) for name in (frame if names is None else names)]


def _require_columns(frame: Any, needed: Sequence[str]) -> list[str]:
    there = _columns(frame)
    if missing := [name for name in needed if name not in there]:
        meant = nearest(missing[0], there, at_least=0.5) or "."
        msg = f"The frame has no column {' or '.join(missing)}{meant} It has: {', '.join(there)}."
        raise SettingsError(msg)
    return there


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value)) or str(value) == ""


def _read_verdicts(frame: Any) -> tuple[JudgedPair, ...]:
    there = _require_columns(frame, ("essay_a", "essay_b", "winner"))
    first, second, winner = (_column(frame, name) for name in ("essay_a", "essay_b", "winner"))
    judges = _column(frame, "judge") if "judge" in there else [""] * len(first)
    if not len(first) == len(second) == len(winner) == len(judges):
        msg = "The columns essay_a, essay_b, winner and judge differ in length."
        raise SettingsError(msg)
    judged, problems = [], []
    for row, (a, b, won, judge) in enumerate(
        zip(first, second, winner, judges, strict=True), start=1
    ):
        if any(map(_is_missing, (a, b, won))):
            problems.append(f"row {row}: essay_a, essay_b or winner is empty")
            continue
        one, other, best = str(a), str(b), str(won)
        place = {one: "A", other: "B", "tie": "tie"}.get(best)
        if one == other:
            problems.append(f"row {row}: essay '{one}' is compared with itself")
        elif place is None:
            problems.append(f"row {row}: winner '{best}' is neither '{one}', '{other}' nor 'tie'")
        else:
            judged.append(JudgedPair(one, other, place, "" if _is_missing(judge) else str(judge)))  # type: ignore[arg-type]
    if problems:
        shown = "; ".join(problems[:_SHOWN_PROBLEMS])
        more = len(problems) - _SHOWN_PROBLEMS
        msg = f"{len(problems)} rows cannot be read. {shown}{f'; and {more} more' * (more > 0)}."
        raise SettingsError(msg)
    return tuple(judged)


def _read_anchors(anchors: Any) -> dict[str, str]:
    if isinstance(anchors, Mapping) and not {"essay_id", "grade"} <= set(anchors):
        return {str(essay_id): str(known) for essay_id, known in anchors.items()}
    _require_columns(anchors, ("essay_id", "grade"))
    pairs = zip(_column(anchors, "essay_id"), _column(anchors, "grade"), strict=True)
    return {str(essay_id): str(known) for essay_id, known in pairs}


def _require_known(wanted: Sequence[str], known: Sequence[str], what: str) -> None:
    there = set(known)
    if strangers := sorted({each for each in wanted if each not in there}):
        listed = ", ".join(f"'{each}'" for each in strangers[:_SHOWN_PROBLEMS])
        meant = nearest(strangers[0], known, at_least=0.5) or "."
        msg = f"Unknown {what}s: {listed}{meant} Each must be one of the {len(there)} essays."
        raise SettingsError(msg)
