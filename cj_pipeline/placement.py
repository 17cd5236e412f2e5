"""New essays into an old scale: a net in which the known essays are known and the new ones guessed.

The adaptive strategy then sets the new essays against those it learns most from, instead of
judging everything anew. The scores afterwards join both batches (`linking`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from cj_pipeline.bradley_terry import Scale
from cj_pipeline.pairing.net import Net


def with_newcomers(net: Net, old: Scale, old_name: Mapping[str, str] | None = None) -> Net:
    """Return the net with scores for all its essays: the old scale's, and its mean for new ones.

    Args:
        net: Of old and new essays; what was shown to place the old ones may be among `shown`.
        old: The scale of the essays known so far.
        old_name: What the old scale calls each essay of the net it knows; by default the same.

    A newcomer's variance is the old essays' spread: it may lie anywhere among them.
    """
    if old_name is None:
        old_name = {essay_id: essay_id for essay_id in set(net.essay_ids) & set(old.essay_ids)}
    is_old = np.array([essay_id in old_name for essay_id in net.essay_ids])
    known = [old_name[essay_id] for essay_id in net.essay_ids if essay_id in old_name]
    place = {essay_id: i for i, essay_id in enumerate(old.essay_ids)}
    scores = np.zeros(net.n_essays)
    scores[is_old] = old.scores[[place[essay_id] for essay_id in known]]
    covariance = np.zeros((net.n_essays, net.n_essays))
    covariance[np.ix_(is_old, is_old)] = old.covariance_among(known)
    new = np.flatnonzero(~is_old)
    covariance[new, new] = max(float(np.var(old.scores)), 1e-6)
    return replace(
        net,
        scores=scores,
        covariance=covariance,
        information=None,
        known_ids=frozenset(old_name) & frozenset(net.essay_ids),
    )
