"""People's scale and each model's validity, from what the store has of both in one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
