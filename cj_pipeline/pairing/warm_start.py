"""Initial scores before the first verdict, so that close pairs are judged first.

They only guide which pairs are judged while there are no scores. They never enter a score: the
fit sees verdicts and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from cj_pipeline.arrays import Floats
from cj_pipeline.errors import SettingsError
from cj_pipeline.pairing.comparison_graph import ComparisonGraph
from cj_pipeline.scale.bradley_terry import Scale


def initial_scores_from_order(essay_ids: Sequence[str], groups: Sequence[Sequence[str]]) -> Floats:
    """Return guesses from a teacher's rough order, in ranks; shape (n_essays,).

    Args:
        essay_ids: The batch's essays. Those in no group start in the middle.
        groups: Essays taken to be alike, the weakest group first.

    Raises:
        SettingsError: If a group names an essay the batch does not have, or names one twice.
    """
    named = [essay_id for group in groups for essay_id in group]
    strangers = sorted(set(named) - set(essay_ids))
    twice = sorted({essay_id for essay_id in named if named.count(essay_id) > 1})
    if strangers or twice:
        wrong = [f"'{e}' is not in the batch" for e in strangers]
        wrong += [f"'{e}' is named twice" for e in twice]
        msg = f"rough_order: {'; '.join(wrong)}. Fix the order or leave it out."
        raise SettingsError(msg)
    initial_scores: dict[str, float] = {}
    below = 0
    for group in groups:
        initial_scores |= dict.fromkeys(group, below + (len(group) - 1) / 2)
        below += len(group)
    middle = (below - 1) / 2
    return np.array([initial_scores.get(essay_id, middle) for essay_id in essay_ids])


def initial_scores_from_earlier(essay_ids: Sequence[str], earlier: Mapping[str, float]) -> Floats:
    """Return guesses from an earlier batch's scores; those it does not have lie at its mean."""
    mean = float(np.mean(list(earlier.values()))) if earlier else 0.0
    return np.array([earlier.get(essay_id, mean) for essay_id in essay_ids])


def initial_scores_from_texts(texts: Sequence[str]) -> Floats:
    """Return guesses from the texts alone: the logarithm of how many different words each uses.

    Crude, and biased where length is no merit, which is why it may only choose first pairs.
    """
    return np.log1p([len({word.casefold() for word in text.split()}) for text in texts])


def with_newcomers(
    graph: ComparisonGraph, old: Scale, old_name: Mapping[str, str] | None = None
) -> ComparisonGraph:
    """Return the graph with scores for all its essays: the old scale's, and its mean for new ones.

    Args:
        graph: Of old and new essays; what was shown to place the old ones may be among `shown`.
        old: The scale of the essays known so far.
        old_name: What the old scale calls each essay of the graph it knows; by default the same.

    A newcomer's variance is the old essays' spread: it may lie anywhere among them.
    """
    if old_name is None:
        old_name = {essay_id: essay_id for essay_id in set(graph.essay_ids) & set(old.essay_ids)}
    is_old = np.array([essay_id in old_name for essay_id in graph.essay_ids])
    known = [old_name[essay_id] for essay_id in graph.essay_ids if essay_id in old_name]
    place = {essay_id: i for i, essay_id in enumerate(old.essay_ids)}
    scores = np.zeros(graph.n_essays)
    scores[is_old] = old.scores[[place[essay_id] for essay_id in known]]
    covariance = np.zeros((graph.n_essays, graph.n_essays))
    covariance[np.ix_(is_old, is_old)] = old.covariance_among(known)
    new = np.flatnonzero(~is_old)
    covariance[new, new] = max(float(np.var(old.scores)), 1e-6)
    return replace(
        graph,
        scores=scores,
        covariance=covariance,
        information=None,
        known_ids=frozenset(old_name) & frozenset(graph.essay_ids),
    )
