"""People's scale and each model's validity, from what the store has of both in one batch."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from cj_pipeline.arrays import Floats
from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.diagnostics.human_agreement import (
    MAX_ESSAYS,
    JointScale,
    SideVerdicts,
    Validity,
    expected_share,
    joint_scale,
    pooled_validity,
)
from cj_pipeline.diagnostics.prediction_powered import PoweredMean, powered_mean
from cj_pipeline.diagnostics.spread import likely_spread
from cj_pipeline.errors import UnscalableBatchError
from cj_pipeline.queries.batch_record import BatchRecord, judged_pairs
from cj_pipeline.scale.bradley_terry import fit_bradley_terry
from cj_pipeline.store.session import Session


@dataclass(frozen=True)
class CheckedShare:
    """A share of a batch's pairs, by what people said of those drawn at random and by the model.

    Attributes:
        of: `the model's winner` or `the student, not the anchor`: whom people name.
        powered: From people's verdicts on pairs drawn at random and the model's scale, without the
            joint model's assumptions.
        joint: What the joint model expects.
    """

    of: Literal["the model's winner", "the student, not the anchor"]
    powered: PoweredMean
    joint: float

    @property
    def is_at_odds(self) -> bool:
        """Whether the joint model expects what people's verdicts alone make unlikely."""
        return not self.powered.lower <= self.joint <= self.powered.upper


@dataclass(frozen=True, eq=False)
class ModelAndPeople:
    """A model's judge beside the people of its batch.

    Attributes:
        judge: Its name.
        judge_id: The same in another batch means the same judge, word for word.
        joint: People's scale and the model's validity, by both.
        checks: Of that, as far as enough pairs drawn at random were judged.
    """

    judge: str
    judge_id: str
    joint: JointScale
    checks: tuple[CheckedShare, ...]


def validity_of(db: Session, record: BatchRecord) -> list[ModelAndPeople]:
    """Return each model's joint scale with people, and what checks it, where there are both.

    Batches of more than `MAX_ESSAYS` essays, and models whose own verdicts give no scale, are left
    out.
    """
    if len(record.essay_ids) > MAX_ESSAYS:
        return []
    judged = judged_pairs(db, record.batch_id)
    people = {judge.judge_id for judge in record.people}
    of_people = [verdict for verdict in judged if verdict.judge_id in people]
    drawn = _drawn(db, record.batch_id)
    place = {essay_id: i for i, essay_id in enumerate(record.essay_ids)}
    found = []
    for judge in record.judges:
        own = [verdict for verdict in judged if verdict.judge_id == judge.judge_id]
        if not of_people or not own:
            continue
        try:
            scale = fit_bradley_terry(record.essay_ids, own)
        except UnscalableBatchError:
            continue
        sides = (_side(own, place), _side(of_people, place))
        joint = joint_scale(len(place), *sides, likely_spread(scale).logits, marked=marked(record))
        sizes = dict(zip(scale.essay_ids, scale.scores.tolist(), strict=True))
        checks = _checks(record, own, drawn, sizes, joint)
        found.append(ModelAndPeople(judge.name, judge.judge_id, joint, checks))
    return found


def pooled(found: Sequence[ModelAndPeople]) -> list[tuple[str, Validity]]:
    """Return the name and the validity of each judge that several batches have, over all of them.

    Args:
        found: Of each batch and judge, as `validity_of` gives them.
    """
    of_judge: dict[str, list[ModelAndPeople]] = defaultdict(list)
    for each in found:
        of_judge[each.judge_id].append(each)
    return [
        (rows[0].judge, pooled_validity([row.joint for row in rows]))
        for rows in of_judge.values()
        if len(rows) > 1
    ]


Pair = tuple[str, str]


def _drawn(db: Session, batch_id: str) -> dict[Pair, tuple[float, float]]:
    """Return, for each pair drawn at random that people judged, how often they named the first.

    And with which probability it was drawn. A tie is half.
    """
    rows = db.rows(
        """
        SELECT t.essay_a, t.essay_b, max(t.probability) AS probability,
               avg(CASE v.winner_id WHEN 'tie' THEN 0.5 WHEN t.essay_a THEN 1 ELSE 0 END) AS share
        FROM judging_tasks t JOIN v_human_verdicts v
          ON v.batch_id = t.batch_id AND v.judge_id = t.judge_id
         AND least(v.essay_a, v.essay_b) = least(t.essay_a, t.essay_b)
         AND greatest(v.essay_a, v.essay_b) = greatest(t.essay_a, t.essay_b)
        WHERE t.batch_id = ? AND t.part = 'random' AND v.part IN ('random', 'second')
          AND v.comparison_id IS NOT NULL AND v.withdrawn_at IS NULL AND NOT v.is_replaced
        GROUP BY t.essay_a, t.essay_b ORDER BY t.essay_a, t.essay_b
        """,
        [batch_id],
    )
    found = {}
    for row in rows:
        one, other, share = row["essay_a"], row["essay_b"], float(row["share"])
        pair, share = ((one, other), share) if one < other else ((other, one), 1 - share)
        found[pair] = (share, float(row["probability"]))
    return found


def _checks(
    record: BatchRecord,
    own: Sequence[JudgedPair],
    drawn: Mapping[Pair, tuple[float, float]],
    sizes: Mapping[str, float],
    joint: JointScale,
) -> tuple[CheckedShare, ...]:
    """Return what checks the joint model on the pairs that a model judged."""
    place = {essay_id: i for i, essay_id in enumerate(record.essay_ids)}
    anchors = record.anchor_grades
    agreed = {pair: is_first for pair, is_first in _winners(own).items() if is_first is not None}
    mixed = {
        pair: pair[1] in anchors
        for pair in _winners(own)
        if (pair[0] in anchors) != (pair[1] in anchors)
    }

    def check(
        of: Literal["the model's winner", "the student, not the anchor"],
        firsts: Mapping[Pair, bool],
    ) -> CheckedShare | None:
        """Check the share of pairs in which people name the first essay, or else the second."""
        pairs = list(firsts)
        sign = np.where([firsts[pair] for pair in pairs], 1.0, -1.0)
        by_model = np.array([sizes[a] - sizes[b] for a, b in pairs])
        predicted = dict(zip(pairs, (1 / (1 + np.exp(-sign * by_model))).tolist(), strict=True))
        judged = [pair for pair in pairs if pair in drawn]
        said = [drawn[pair][0] if firsts[pair] else 1 - drawn[pair][0] for pair in judged]
        powered = powered_mean(
            np.array(list(predicted.values())),
            np.array([predicted[pair] for pair in judged]),
            np.array(said),
            np.array([drawn[pair][1] for pair in judged]),
        )
        if powered is None:
            return None
        ends = np.array([(place[a], place[b]) for a, b in pairs])
        return CheckedShare(of, powered, expected_share(joint, ends, sign))

    every = (check("the model's winner", agreed), check("the student, not the anchor", mixed))
    return tuple(each for each in every if each is not None)


def _winners(verdicts: Sequence[JudgedPair]) -> dict[Pair, bool | None]:
    """Return of each pair whether its first essay won most verdicts; None where neither did."""
    ahead: dict[Pair, int] = defaultdict(int)
    for each in verdicts:
        ahead[each.pair] += 0
        if each.winner != "tie":
            winner = each.essay_a if each.winner == "A" else each.essay_b
            ahead[each.pair] += 1 if winner == each.pair[0] else -1
    return {pair: n > 0 if n else None for pair, n in ahead.items()}


FEWEST_GRADED = 4
"""Students graded by hand, below which no interval of a correlation can be given."""


@dataclass(frozen=True)
class GradedByHand:
    """A sampled student's grades, in steps: a teacher's, and the one given without it."""

    essay_id: str
    teacher: int
    machine: int


def graded_by_hand(db: Session, record: BatchRecord) -> list[GradedByHand]:
    """Return what teachers gave to sampled students, and what the grading they were drawn at did.

    The later of two grades of one student counts.
    """
    last = db.one(
        "SELECT probabilities FROM grade_projections WHERE batch_id = ?"
        " ORDER BY revision DESC, essay_id LIMIT 1",
        [record.batch_id],
    )
    if last is None:
        return []
    steps = {grade: i for i, grade in enumerate(last["probabilities"])}
    rows = db.rows(
        "SELECT s.essay_id, s.grade AS teacher, g.grade AS machine FROM sampled_grades s"
        " JOIN moderation_samples m USING (batch_id, sample_id)"
        " JOIN grade_projections g USING (batch_id, revision, essay_id)"
        " WHERE s.batch_id = ? ORDER BY m.number, s.essay_id",
        [record.batch_id],
    )
    latest = {
        row["essay_id"]: GradedByHand(row["essay_id"], steps[row["teacher"]], steps[row["machine"]])
        for row in rows
    }
    return list(latest.values())


def validity_statistics(
    record: BatchRecord,
    judged: Sequence[JudgedPair],
    by_hand: Sequence[GradedByHand],
    scores: Mapping[str, float],
) -> dict[str, Any] | None:
    """Return how far the models' scale agrees with people; None where no person graded or judged.

    Args:
        record: The batch.
        judged: All verdicts, people's too.
        by_hand: Students graded by hand, if any; they also tell the level.
        scores: Each essay's score, in logits.

    Returns:
        `r2` with `lower` and `upper`, `n`, and `by`: grades or verdicts; with grades also `level`,
        people's grades less the judges' in steps, with `level_lower` and `level_upper`.
    """
    if len(by_hand) >= FEWEST_GRADED and (found := _by_grades(by_hand, scores)):
        return found
    people = {judge.judge_id for judge in record.people}
    of_people = [verdict for verdict in judged if verdict.judge_id in people]
    own = [verdict for verdict in judged if verdict.judge_id not in people]
    if not of_people or not own or len(record.essay_ids) > MAX_ESSAYS:
        return None
    try:
        spread = likely_spread(fit_bradley_terry(record.essay_ids, own)).logits
    except UnscalableBatchError:
        return None
    place = {essay_id: i for i, essay_id in enumerate(record.essay_ids)}
    sides = (_side(own, place), _side(of_people, place))
    joint = joint_scale(len(place), *sides, spread, marked=marked(record))
    return {
        "by": "verdicts",
        "n": joint.n_people,
        "r2": joint.validity,
        "lower": joint.validity_lower,
        "upper": joint.validity_upper,
        "level": None,
        "level_lower": None,
        "level_upper": None,
    }


def _by_grades(
    by_hand: Sequence[GradedByHand], scores: Mapping[str, float]
) -> dict[str, Any] | None:
    """Return the squared correlation with Fisher's interval, and the level with Student's t."""
    from scipy.stats import t as student

    teachers = np.array([each.teacher for each in by_hand], dtype=float)
    ours = np.array([scores[each.essay_id] for each in by_hand])
    if np.ptp(teachers) == 0 or np.ptp(ours) == 0:
        return None
    n = len(by_hand)
    r = float(np.clip(np.corrcoef(teachers, ours)[0, 1], -0.999999, 0.999999))
    half = 1.96 / math.sqrt(n - 3)
    low, high = math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)
    apart = teachers - np.array([each.machine for each in by_hand], dtype=float)
    level = float(apart.mean())
    error = float(student.ppf(0.975, n - 1)) * float(apart.std(ddof=1)) / math.sqrt(n)
    return {
        "by": "grades",
        "n": n,
        "r2": max(r, 0.0) ** 2,
        "lower": max(low, 0.0) ** 2,
        "upper": max(high, 0.0) ** 2,
        "level": level,
        "level_lower": level - error,
        "level_upper": level + error,
    }


def marked(record: BatchRecord) -> Floats | None:
    """Return 1 for each student's essay and 0 for each anchor; None where there is one kind alone.

    A judge may know anchors, or rate what exemplars look like: it is then off on them all alike.
    """
    is_student = np.array([e not in record.anchor_grades for e in record.essay_ids], dtype=float)
    return is_student if np.ptp(is_student) else None


def _side(verdicts: Sequence[JudgedPair], place: Mapping[str, int]) -> SideVerdicts:
    winner, loser, weight = [], [], []
    for each in verdicts:
        ways = [(each.essay_a, each.essay_b)] if each.winner != "B" else []
        ways += [(each.essay_b, each.essay_a)] if each.winner != "A" else []
        for won, lost in ways:
            winner.append(place[won])
            loser.append(place[lost])
            weight.append(1 / len(ways))
    return SideVerdicts(
        np.array(winner, dtype=np.int64), np.array(loser, dtype=np.int64), np.array(weight)
    )
