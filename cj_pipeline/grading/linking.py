"""A batch placed on the scale of an earlier one, through anchors that both have judged.

Each batch has its own zero, so what two batches share is differences between essays. Anchors in
both tie the two together; an anchor that moved against the others between them (`drift`) is named,
and does not tie. The result is one set of scores with one covariance, which `projection` grades
like any other, and which can be the earlier side of the next link.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cj_pipeline.arrays import Floats
from cj_pipeline.errors import UnscalableBatchError

MIN_SHARED = 3
"""Two anchors can be seen to disagree, but not which of them moved."""

MAX_DRIFT_Z = 3.0
"""Of ten anchors that did not move, one is called drifted in forty links."""


class Scored(Protocol):
    """Essays with scores in logits and their joint covariance, in one order."""

    @property
    def essay_ids(self) -> tuple[str, ...]: ...
    @property
    def scores(self) -> Floats: ...
    @property
    def covariance(self) -> Floats: ...


@dataclass(frozen=True)
class AnchorDrift:
    """How far one anchor moved from the earlier batch to the later, against the other anchors.

    Attributes:
        earlier, later: Its scores, the later one on the earlier scale; in logits.
        drift: Positive where judges now see it as better, in logits.
        standard_error: Of the drift, from both batches' covariances and the other anchors'.
        is_drifted: Whether it was left out of the link.
    """

    essay_id: str
    earlier: float
    later: float
    drift: float
    standard_error: float
    is_drifted: bool


@dataclass(frozen=True, eq=False)
class Linked:
    """Both batches on the earlier one's scale.

    Attributes:
        essay_ids: The earlier batch's, then those only the later one has.
        scores: In logits; the earlier batch's essays have the mean they had before.
        covariance: Of all of them together, the link's own error included.
        shift: What was added to the later batch's scores, in logits.
        shift_standard_error: From how uncertain the tying anchors are in both batches.
        unit_ratio: How much wider the anchors lie apart in the later batch than in the earlier;
            1 where both judges discriminate equally well. None where errors leave no spread.
        unit_ratio_error: Standard error of its logarithm (jackknife over anchors).
        drifts: One per shared anchor, the largest against its error first.
        statement: In plain words, what tied the batches and what to beware of.
    """

    essay_ids: tuple[str, ...]
    scores: Floats
    covariance: Floats
    shift: float
    shift_standard_error: float
    unit_ratio: float | None
    unit_ratio_error: float | None
    drifts: tuple[AnchorDrift, ...]
    statement: str


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
        Kolen and Brennan (2014), Test Equating, chapter 6, for mean linking through common items
        and for leaving drifted ones out one at a time.
    """
    both = set(earlier.essay_ids) & set(later.essay_ids)
    shared = [anchor for anchor in dict.fromkeys(anchor_ids) if anchor in both]
    if len(shared) < MIN_SHARED:
        msg = (
            f"The batches share {len(shared)} anchors ({', '.join(shared) or 'none'}), and "
            f"{MIN_SHARED} are needed: judge anchors of the earlier batch in the later one too."
        )
        raise UnscalableBatchError(msg)
    moves, errors = _moves(earlier, later, shared)
    tying = _tying(shared, moves, errors)
    shift, shift_error = _level(moves[tying], errors[np.ix_(tying, tying)])
    drifts = _drifts(earlier, later, shared, (moves, errors), tying)
    drifted = {each.essay_id for each in drifts if each.is_drifted}
    ids, scores, covariance = _joined(earlier, later, drifted)
    ratio, ratio_error = _unit_ratio(earlier, later, [shared[i] for i in tying])
    return Linked(
        essay_ids=ids,
        scores=scores,
        covariance=covariance,
        shift=-shift,
        shift_standard_error=shift_error,
        unit_ratio=ratio,
        unit_ratio_error=ratio_error,
        drifts=drifts,
        statement=_statement(len(tying), drifts, ratio, ratio_error),
    )


def _moves(earlier: Scored, later: Scored, shared: Sequence[str]) -> tuple[Floats, Floats]:
    """Return later minus earlier scores of the shared anchors, and their covariance."""
    before = [earlier.essay_ids.index(anchor) for anchor in shared]
    after = [later.essay_ids.index(anchor) for anchor in shared]
    covariance = earlier.covariance[np.ix_(before, before)] + later.covariance[np.ix_(after, after)]
    return later.scores[after] - earlier.scores[before], covariance


def _level(moves: Floats, errors: Floats) -> tuple[float, float]:
    """Return the moves' mean, weighted by how sure they are, and its standard error."""
    # Where all essays are anchors their errors add up to nothing; a common part more, taken off
    # again below, makes the matrix whole and leaves the weights as they are.
    common = float(np.mean(np.diag(errors)))
    inverse = np.linalg.inv(errors + common + 1e-12 * np.eye(len(moves)))
    total = float(inverse.sum())
    variance = max(1 / total - common, 0.0)
    return float(inverse.sum(axis=0) @ moves / total), float(np.sqrt(variance))


def _against_others(
    i: int, moves: Floats, errors: Floats, tying: Sequence[int]
) -> tuple[float, float]:
    """Return how far anchor i moved against the other tying ones, and the standard error."""
    others = [j for j in tying if j != i]
    among = errors[np.ix_(others, others)]
    common = float(np.mean(np.diag(errors)))
    weights = np.linalg.inv(among + common + 1e-12 * np.eye(len(others))).sum(axis=0)
    contrast = np.zeros(len(moves))
    contrast[i] = 1.0
    contrast[others] = -weights / weights.sum()
    variance = float(contrast @ errors @ contrast)
    return float(contrast @ moves), float(np.sqrt(max(variance, 1e-12)))


def _tying(shared: Sequence[str], moves: Floats, errors: Floats) -> list[int]:
    """Return which anchors tie the batches: the worst is left out until none has drifted."""
    tying = list(range(len(shared)))
    while True:
        scores = {}
        for i in tying:
            drift, error = _against_others(i, moves, errors, tying)
            scores[i] = abs(drift) / error
        worst = max(scores, key=scores.__getitem__)
        if scores[worst] <= MAX_DRIFT_Z:
            return tying
        tying.remove(worst)
        if len(tying) < max(MIN_SHARED, len(shared) / 2):
            left = len(shared) - len(tying)
            msg = (
                f"{left} of {len(shared)} shared anchors moved against the others between the "
                "batches, so they tie nothing: the judge or its prompt sees something else now. "
                "Grade the later batch by its own anchors."
            )
            raise UnscalableBatchError(msg)


def _drifts(
    earlier: Scored,
    later: Scored,
    shared: Sequence[str],
    evidence: tuple[Floats, Floats],
    tying: Sequence[int],
) -> tuple[AnchorDrift, ...]:
    moves, errors = evidence
    shift, _ = _level(moves[list(tying)], errors[np.ix_(tying, tying)])
    found = []
    for i, anchor in enumerate(shared):
        drift, error = _against_others(i, moves, errors, tying)
        found.append(
            AnchorDrift(
                essay_id=anchor,
                earlier=float(earlier.scores[earlier.essay_ids.index(anchor)]),
                later=float(later.scores[later.essay_ids.index(anchor)] - shift),
                drift=drift,
                standard_error=error,
                is_drifted=i not in tying,
            )
        )
    return tuple(sorted(found, key=lambda each: -abs(each.drift) / each.standard_error))


def _joined(
    earlier: Scored, later: Scored, drifted: set[str]
) -> tuple[tuple[str, ...], Floats, Floats]:
    """Return ids, scores and covariance of both batches' essays, by all they say of differences.

    A drifted anchor stays as the earlier batch saw it; what the later one saw is another essay.
    """
    new = [essay for essay in later.essay_ids if essay not in set(earlier.essay_ids)]
    ids = (*earlier.essay_ids, *new)
    place = {essay: i for i, essay in enumerate(ids)}
    information, pull = np.zeros((len(ids), len(ids))), np.zeros(len(ids))
    for batch, left_out in ((earlier, set[str]()), (later, drifted)):
        rows = [i for i, essay in enumerate(batch.essay_ids) if essay not in left_out]
        at = [place[batch.essay_ids[i]] for i in rows]
        known = _information(batch.covariance[np.ix_(rows, rows)])
        information[np.ix_(at, at)] += known
        pull[at] += known @ batch.scores[rows]
    n_earlier = len(earlier.essay_ids)
    level = float(np.mean(np.diag(information)))
    inverse = np.linalg.inv(information + level / len(ids))
    # On the earlier batch's gauge: the mean of its essays is where it was.
    gauge = np.eye(len(ids))
    gauge[:, :n_earlier] -= 1 / n_earlier
    covariance = gauge @ inverse @ gauge.T
    scores = gauge @ (inverse @ pull) + float(np.mean(earlier.scores))
    return ids, scores, (covariance + covariance.T) / 2


def _information(covariance: Floats) -> Floats:
    """Return what scores say of differences between essays, and nothing of their level."""
    n = len(covariance)
    centred = covariance - covariance.mean(axis=0)
    centred = centred - centred.mean(axis=1)[:, None]
    level = float(np.mean(np.diag(centred)))
    return np.asarray(np.linalg.inv(centred + level / n) - 1 / (level * n))


def _unit_ratio(
    earlier: Scored, later: Scored, tying: Sequence[str]
) -> tuple[float | None, float | None]:
    """Return how much wider the tying anchors lie apart later, with the error of its logarithm."""

    def log_ratio(anchors: Sequence[str]) -> float | None:
        spreads = []
        for batch in (earlier, later):
            at = [batch.essay_ids.index(anchor) for anchor in anchors]
            among = batch.covariance[np.ix_(at, at)]
            errors = np.trace(among) - among.sum() / len(at)
            spreads.append(float(np.var(batch.scores[at]) * len(at) - errors))
        return float(np.log(spreads[1] / spreads[0]) / 2) if min(spreads) > 0 else None

    whole = log_ratio(tying)
    parts = [log_ratio([a for a in tying if a != anchor]) for anchor in tying]
    known_parts = [part for part in parts if part is not None]
    if whole is None or len(known_parts) < len(parts):
        return None, None
    error = np.sqrt((len(known_parts) - 1) * np.var(known_parts))
    return float(np.exp(whole)), float(error)


def _statement(
    n_tying: int, drifts: Sequence[AnchorDrift], ratio: float | None, ratio_error: float | None
) -> str:
    parts = [f"Linked through {n_tying} anchors."]
    drifted = [
        f"'{each.essay_id}' ({each.drift:+.1f} ± {each.standard_error:.1f} logits)"
        for each in drifts
        if each.is_drifted
    ]
    if drifted:
        parts.append(f"Moved against the others, and left out: {', '.join(drifted)}.")
    if ratio is not None and ratio_error is not None and _is_other_unit(ratio, ratio_error):
        parts.append(
            f"Anchors lie {ratio:.2f} times as far apart as before: the judges separate essays "
            "unequally well, and scores far from the mean are not comparable."
        )
    return " ".join(parts)


def _is_other_unit(ratio: float, error: float) -> bool:
    """Whether judges' units differ: beyond chance, and by enough (a fifth) to move a grade."""
    return bool(abs(np.log(ratio)) > max(2 * error, 0.2))
