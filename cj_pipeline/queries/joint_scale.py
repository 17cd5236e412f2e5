"""People's scale and each model's validity, from what the store has of both in one batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.diagnostics.human_agreement import (
    MAX_ESSAYS,
    JointScale,
    SideVerdicts,
    joint_scale,
)
from cj_pipeline.diagnostics.spread import likely_spread
from cj_pipeline.errors import UnscalableBatchError
from cj_pipeline.queries.batch_record import BatchRecord, judged_pairs
from cj_pipeline.scale.bradley_terry import fit_bradley_terry
from cj_pipeline.store.session import Session


def validity_of(db: Session, record: BatchRecord) -> list[tuple[str, JointScale]]:
    """Return each model's name and the joint scale with people, where there are both.

    Batches of more than `MAX_ESSAYS` essays, and models whose own verdicts give no scale, are left
    out.
    """
    if len(record.essay_ids) > MAX_ESSAYS:
        return []
    judged = judged_pairs(db, record.batch_id)
    people = {judge.judge_id for judge in record.people}
    of_people = [verdict for verdict in judged if verdict.judge_id in people]
    place = {essay_id: i for i, essay_id in enumerate(record.essay_ids)}
    found = []
    for judge in record.judges:
        own = [verdict for verdict in judged if verdict.judge_id == judge.judge_id]
        if not of_people or not own:
            continue
        try:
            spread = likely_spread(fit_bradley_terry(record.essay_ids, own)).logits
        except UnscalableBatchError:
            continue
        sides = (_side(own, place), _side(of_people, place))
        found.append((judge.name, joint_scale(len(place), *sides, spread)))
    return found


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
    joint = joint_scale(len(place), _side(own, place), _side(of_people, place), spread)
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
