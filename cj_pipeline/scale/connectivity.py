"""Which essays are connected: parts of the graph, and groups that only ever won one way.

A graph of one part has a common scale. Whether its scores rest on verdicts alone or in places on
the prior is shown by the groups (Ford 1957, doi:10.2307/2308513).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.scale.tallies import Indices, Tally, as_verdicts, tally


def net_parts(
    essay_ids: Sequence[str], judged: Sequence[JudgedPair]
) -> tuple[tuple[str, ...], ...]:
    """Return the parts the graph of judged pairs falls into, largest first.

    Essays keep the batch's order within a part; one that was never judged is a part by itself.
    """
    return _named(essay_ids, part_labels(tally(as_verdicts(essay_ids, judged))))


def bridging_pairs(parts: Sequence[Sequence[str]]) -> tuple[tuple[str, str], ...]:
    """Return the fewest pairs that make one graph of these parts: each to the largest.

    Partners in the largest part are spread over its essays, so that no essay bears all bridges.
    """
    if not parts:
        return ()
    main = parts[0]
    return tuple(
        (main[k * len(main) // (len(parts) - 1)], part[0]) for k, part in enumerate(parts[1:])
    )


def part_labels(cells: Tally) -> Indices:
    """Return a number for each essay, alike within a part of the graph; shape (n_essays,)."""
    from scipy.sparse.csgraph import connected_components

    graph = _graph(cells.n_essays, cells.first, cells.second)
    labels: Indices = connected_components(graph, directed=False)[1]
    return labels


def dominance_labels(cells: Tally) -> Indices:
    """Return a number for each essay, alike where each beat the other, directly or by a chain.

    With more than one number the essays are separated: some group never lost to another, and
    the likelihood alone has no finite maximum.
    """
    from scipy.sparse.csgraph import connected_components

    beat, lost = cells.wins > 0, cells.wins < cells.counts
    winners = np.concatenate([cells.first[beat], cells.second[lost]])
    losers = np.concatenate([cells.second[beat], cells.first[lost]])
    graph = _graph(cells.n_essays, winners, losers)
    labels: Indices = connected_components(graph, directed=True, connection="strong")[1]
    return labels


def groups(essay_ids: Sequence[str], labels: Indices) -> tuple[tuple[str, ...], ...]:
    """Return the essays with the same label together, largest group first."""
    return _named(essay_ids, labels)


def _graph(n: int, tails: Indices, heads: Indices) -> object:
    from scipy.sparse import csr_array

    ones: npt.NDArray[np.int32] = np.ones(len(tails), dtype=np.int32)
    return csr_array((ones, (tails, heads)), shape=(n, n))


def _named(essay_ids: Sequence[str], labels: Indices) -> tuple[tuple[str, ...], ...]:
    by_label: dict[int, list[str]] = {}
    for essay_id, label in zip(essay_ids, labels.tolist(), strict=True):
        by_label.setdefault(label, []).append(essay_id)
    return tuple(tuple(group) for group in sorted(by_label.values(), key=len, reverse=True))
