"""A batch placed on the scale of an earlier one, through anchors that both have judged.

Each batch has its own zero and each judge its own unit, so what two batches share is differences
between essays. Anchors in both tie them; how, and how far anchors drift, is `joint_link`'s. Here
both batches' verdict-only scores come to one scale with one covariance, which `projection` grades
like any other, and which can be the earlier side of the next link. An anchor that moved is an item
of its own in the later batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cj_pipeline.arrays import Floats
from cj_pipeline.errors import UnscalableBatchError
from cj_pipeline.grading.joint_link import JointLink, Term, joint_link
from cj_pipeline.scale.bradley_terry import Scale
from cj_pipeline.scale.certainty import SPREADS_DIFFER, USUAL_SPREAD
from cj_pipeline.scale.gaussian import as_normal, nearest_normal
from cj_pipeline.scale.integrated_posterior import population_prior
from cj_pipeline.scale.score_posterior import EXACT_UP_TO, score_posterior

MIN_SHARED = 3
"""Two anchors can be seen to disagree, but not which of them moved."""

DRIFT_Z = 2.5
"""Standard errors beyond which an anchor is called drifted: one in fifty that did not move."""

MOST_DRIFTED = 0.25
"""Share of the anchors beyond which a change of theirs and one of the students look alike."""


class Scored(Protocol):
    """Essays with scores in logits and their joint covariance, in one order."""

    @property
    def essay_ids(self) -> tuple[str, ...]: ...
    @property
    def scores(self) -> Floats: ...
    @property
    def covariance(self) -> Floats: ...


@dataclass(frozen=True)
class Population:
    """Students of one batch: who they are, and what is held of their spread's logarithm."""

    essay_ids: tuple[str, ...]
    log_spread: float
    log_spread_error: float


@dataclass(frozen=True)
class AnchorDrift:
    """How far one anchor moved from the earlier batch to the later, against the other anchors.

    Attributes:
        earlier, later: Its scores, the later one on the earlier scale; in logits.
        drift: Positive where judges now see it as better, in logits; as if it were free to move.
        standard_error: Of the drift, from both batches' errors and the other anchors'.
        is_drifted: Whether it is called so. It then ties next to nothing, as every anchor ties by
            how far it moved, and its later sighting is an essay of its own.
    """

    essay_id: str
    earlier: float
    later: float
    drift: float
    standard_error: float
    is_drifted: bool

    @property
    def could_be_seen(self) -> float:
        """The drift from which on it would be called so, in logits."""
        return DRIFT_Z * self.standard_error


@dataclass(frozen=True, eq=False)
class Linked:
    """Both batches on the earlier one's scale.

    Attributes:
        essay_ids: The earlier batch's, then those only the later one has. The earlier sighting of a
            drifted anchor is called `earlier_name` of it; its own name is the later sighting's.
        scores: In logits; the earlier batch's essays have the mean they had before.
        covariance: Of all of them together, the link's own error included.
        shift: What was added to the later batch's scores once they were in the earlier unit.
        shift_standard_error: From how uncertain the tying anchors are in both batches.
        unit_ratio: How much further apart the later judge's logits lie: 1 where both judges tell
            essays apart equally well. Later scores are divided by it.
        unit_ratio_error: Standard error of its logarithm.
        change: Mean of the later students less that of the last earlier ones, in logits.
        change_standard_error: Of it, drift and unit included.
        drifts: One per shared anchor, the largest against its error first.
        populations: The students of each batch, in the order of the chain.
        statement: In plain words, what tied the batches and what to beware of.
    """

    essay_ids: tuple[str, ...]
    scores: Floats
    covariance: Floats
    shift: float
    shift_standard_error: float
    unit_ratio: float
    unit_ratio_error: float
    change: float
    change_standard_error: float
    drifts: tuple[AnchorDrift, ...]
    populations: tuple[Population, ...]
    statement: str


def earlier_name(essay_id: str, taken: Sequence[str] = ()) -> str:
    """Return what the earlier sighting of a drifted anchor is called."""
    name = f"{essay_id} (earlier)"
    while name in taken:
        name += " (earlier)"
    return name


def link_batches(earlier: Scored, later: Scored, anchor_ids: Sequence[str]) -> Linked:
    """Return both batches on the scale of the earlier one.

    Args:
        earlier: The batch whose scale it shall be, or an earlier link.
        later: The batch to place on it.
        anchor_ids: The anchors of either; those in both tie them.

    Raises:
        UnscalableBatchError: If fewer than `MIN_SHARED` anchors are in both, or so many drifted
            that fewer are left, or fewer than half.

    References:
        Kolen and Brennan (2014), Test Equating, chapter 6, for linking through common items.
    """
    anchors = set(anchor_ids)
    both = set(earlier.essay_ids) & set(later.essay_ids)
    shared = [anchor for anchor in dict.fromkeys(anchor_ids) if anchor in both]
    if len(shared) < MIN_SHARED:
        msg = (
            f"The batches share {len(shared)} anchors ({', '.join(shared) or 'none'}), and "
            f"{MIN_SHARED} are needed: judge anchors of the earlier batch in the later one too."
        )
        raise UnscalableBatchError(msg)
    before, its_populations = _term(earlier, anchors)
    after, populations = _term(later, anchors)
    places = [(earlier.essay_ids.index(a), later.essay_ids.index(a)) for a in shared]
    found = joint_link(before, after, places)
    drifted = [
        anchor
        for anchor, move, error in zip(shared, found.moves, found.move_errors, strict=True)
        if abs(move) > DRIFT_Z * error
    ]
    if len(shared) - len(drifted) < max(MIN_SHARED, len(shared) / 2):
        msg = (
            f"{len(drifted)} of {len(shared)} shared anchors moved against the others between the "
            "batches, so they tie nothing: the judge or its prompt sees something else now. "
            "Grade the later batch by its own anchors."
        )
        raise UnscalableBatchError(msg)
    tied = _Tied(earlier, later, tuple(shared), frozenset(drifted), found)
    ids, scores, covariance = _joined(tied)
    # Where an anchor has two sightings the later one comes last.
    place = {essay: i for i, essay in enumerate(ids)}
    at = [place[essay] for essay in later.essay_ids]
    unit = math.exp(found.log_unit)
    shift = float(np.mean(scores[at]) - np.mean(later.scores) / unit)
    drifts = _drifts(earlier, later, shared, found, shift)
    contrast = _means(place, populations[-1]) - _means(place, its_populations[-1])
    change = float(contrast @ scores), float(np.sqrt(contrast @ covariance @ contrast))
    renamed = {anchor: earlier_name(anchor, ids) for anchor in drifted}
    return Linked(
        essay_ids=tuple(
            renamed.get(essay, essay) if place < len(earlier.essay_ids) else essay
            for place, essay in enumerate(ids)
        ),
        scores=scores,
        covariance=covariance,
        shift=shift,
        shift_standard_error=float(np.sqrt(max(covariance[np.ix_(at, at)].mean(), 0.0))),
        unit_ratio=unit,
        unit_ratio_error=found.log_unit_error,
        change=change[0],
        change_standard_error=change[1],
        drifts=drifts,
        populations=(*its_populations, *populations),
        statement=_statement(found, drifts, change),
    )


def _term(batch: Scored, anchors: set[str]) -> tuple[Term, tuple[Population, ...]]:
    """Return a batch as what its verdicts amount to, and its students."""
    known: tuple[Population, ...] = getattr(batch, "populations", ())
    scale = getattr(batch, "scale", batch)
    students = tuple(essay for essay in batch.essay_ids if essay not in anchors)
    if isinstance(scale, Scale) and len(students) > 1:
        own = [essay in anchors for essay in batch.essay_ids]
        posterior = score_posterior(
            scale, [e for e, is_anchor in zip(scale.essay_ids, own, strict=True) if is_anchor]
        )
        known = (Population(students, math.log(posterior.spread), posterior.log_spread_error),)
    elif not known:
        known = (_population(batch, students),)
    place = {essay: i for i, essay in enumerate(batch.essay_ids)}
    groups = tuple(np.array([place[e] for e in p.essay_ids], dtype=np.int64) for p in known)
    spreads = tuple((p.log_spread, p.log_spread_error) for p in known)
    if isinstance(scale, Scale) and len(students) > 1 and len(place) <= EXACT_UP_TO:
        information, pull = _by_verdicts(scale, posterior.is_student, posterior.spread)
    else:
        information = _information(batch.covariance)
        pull = information @ batch.scores
    return Term(information, pull, groups, spreads), known


def _by_verdicts(
    scale: Scale, is_student: np.ndarray[tuple[int], np.dtype[np.bool_]], spread: float
) -> tuple[Floats, Floats]:
    """Return what the verdicts tell where the posterior lies, which far out is less than at the
    verdict-only scores."""
    prior = population_prior(is_student, spread, len(scale.model.positions))
    found = nearest_normal(scale.model, scale.point, prior)
    information, pull = as_normal(scale.model, scale.point, found)
    if scale.between_judges:
        # What judges see differently blurs each essay once more.
        blurred = np.linalg.inv(np.eye(len(information)) + scale.between_judges * information)
        information, pull = information @ blurred, blurred.T @ pull
    return information, pull


def _population(batch: Scored, students: tuple[str, ...]) -> Population:
    """Return the students' spread by moments of their scores; what is usual for one or none."""
    if len(students) < 3:
        return Population(students, math.log(USUAL_SPREAD), SPREADS_DIFFER)
    at = [batch.essay_ids.index(essay) for essay in students]
    among = batch.covariance[np.ix_(at, at)]
    errors = (np.trace(among) - among.sum() / len(at)) / (len(at) - 1)
    variance = float(np.var(batch.scores[at], ddof=1))
    true = max(variance - float(errors), 0.1 * variance, 1e-3)
    error = variance / true / math.sqrt(2 * (len(at) - 1))
    return Population(students, 0.5 * math.log(true), min(error, SPREADS_DIFFER))


def _drifts(
    earlier: Scored, later: Scored, shared: Sequence[str], found: JointLink, shift: float
) -> tuple[AnchorDrift, ...]:
    drifts = [
        AnchorDrift(
            essay_id=anchor,
            earlier=float(earlier.scores[earlier.essay_ids.index(anchor)]),
            later=float(later.scores[later.essay_ids.index(anchor)] / math.exp(found.log_unit))
            + shift,
            drift=float(move),
            standard_error=float(error),
            is_drifted=bool(abs(move) > DRIFT_Z * error),
        )
        for anchor, move, error in zip(shared, found.moves, found.move_errors, strict=True)
    ]
    return tuple(sorted(drifts, key=lambda each: -abs(each.drift) / each.standard_error))


@dataclass(frozen=True, eq=False)
class _Tied:
    """Two batches, the anchors that tie them, and how."""

    earlier: Scored
    later: Scored
    shared: tuple[str, ...]
    drifted: frozenset[str]
    found: JointLink


def _joined(tied: _Tied) -> tuple[tuple[str, ...], Floats, Floats]:
    """Return ids, scores and covariance of both batches' essays, the unit's error included."""
    ids, scores, covariance = _at_unit(tied, 0.0)
    _, wider, _ = _at_unit(tied, tied.found.log_unit_error)
    _, closer, _ = _at_unit(tied, -tied.found.log_unit_error)
    apart = 0.5 * (wider - closer)
    return ids, scores, covariance + np.outer(apart, apart)


def _at_unit(tied: _Tied, off: float) -> tuple[tuple[str, ...], Floats, Floats]:
    """Return what both batches' scores come to where the unit's logarithm is off by so much.

    Every sighting is an item; an anchor's two are tied as closely as it is found to hold still.
    """
    earlier, later, found = tied.earlier, tied.later, tied.found
    unit = math.exp(found.log_unit + off)
    n, n_later = len(earlier.essay_ids), len(later.essay_ids)
    information = np.zeros((n + n_later, n + n_later))
    own = _information(earlier.covariance)
    others = _information(later.covariance)
    information[:n, :n] = own
    information[n:, n:] = unit**2 * others
    pull = np.concatenate([own @ earlier.scores, unit * (others @ later.scores)])
    for anchor, variance in zip(tied.shared, found.drift_variances, strict=True):
        before, after = earlier.essay_ids.index(anchor), n + later.essay_ids.index(anchor)
        tie = 1 / float(variance)
        information[before, before] += tie
        information[after, after] += tie
        information[before, after] -= tie
        information[after, before] -= tie
    level = float(np.mean(np.diag(information)))
    inverse = np.linalg.inv(information + level / len(pull))
    solved = inverse @ pull
    # Of an anchor that held still one item is enough: the earlier one, which the later one informs.
    single = set(tied.shared) - tied.drifted
    kept = [*range(n), *(n + i for i, e in enumerate(later.essay_ids) if e not in single)]
    gauge = np.eye(len(kept))
    gauge[:, :n] -= 1 / n
    covariance = gauge @ inverse[np.ix_(kept, kept)] @ gauge.T
    scores = gauge @ solved[kept] + float(np.mean(earlier.scores))
    new = [essay for essay in later.essay_ids if essay not in single]
    return (*earlier.essay_ids, *new), scores, (covariance + covariance.T) / 2


def _information(covariance: Floats) -> Floats:
    """Return what scores say of differences between essays, and nothing of their level."""
    n = len(covariance)
    centred = covariance - covariance.mean(axis=0)
    centred = centred - centred.mean(axis=1)[:, None]
    level = float(np.mean(np.diag(centred)))
    return np.asarray(np.linalg.inv(centred + level / n) - 1 / (level * n))


def _means(place: Mapping[str, int], population: Population) -> Floats:
    """Return the contrast that takes the mean of these students' scores; zeros for none."""
    contrast = np.zeros(max(place.values()) + 1)
    for essay in population.essay_ids:
        contrast[place[essay]] = 1 / len(population.essay_ids)
    return contrast


def _statement(found: JointLink, drifts: Sequence[AnchorDrift], change: tuple[float, float]) -> str:
    drifted = [each for each in drifts if each.is_drifted]
    parts = [f"Linked through {len(drifts) - len(drifted)} anchors."]
    if drifted:
        names = ", ".join(
            f"'{each.essay_id}' ({each.drift:+.1f} ± {each.standard_error:.1f} logits)"
            for each in drifted
        )
        parts.append(f"Moved against the others, and essays of their own here: {names}.")
    if len(drifted) > MOST_DRIFTED * len(drifts):
        parts.append(
            "More than a quarter of the anchors moved: anchors that move together cannot be told "
            "from students who changed, so do not rely on the level."
        )
    seen = float(np.median([each.could_be_seen for each in drifts]))
    parts.append(f"A drift of an anchor under {seen:.1f} logits would not have been seen.")
    if _is_other_unit(found):
        parts.append(
            f"The judges separate essays unequally well: a logit of the later one is "
            f"{math.exp(found.log_unit):.2f} of the earlier one's, and its scores were divided by "
            "that."
        )
    parts.append(
        f"The students' mean changed by {change[0]:+.2f} ± {change[1]:.2f} logits, unless all "
        "anchors moved alike, which no verdict shows."
    )
    return " ".join(parts)


def _is_other_unit(found: JointLink) -> bool:
    """Whether judges' units differ: beyond chance, and by enough (a fifth) to move a grade."""
    return abs(found.log_unit) > max(2 * found.log_unit_error, 0.2)
