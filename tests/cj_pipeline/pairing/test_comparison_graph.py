"""What pairing sees of a batch."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from cj_pipeline.pairing.comparison_graph import ComparisonGraph, Parts


def test_parts_are_those_of_the_graph() -> None:
    """Against SciPy's connected components, with repeated pairs and essays that met nobody."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(2, 50))
        pairs = rng.integers(0, n, (int(rng.integers(0, 60)), 2))
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        ids = tuple(f"e{i:02d}" for i in range(n))
        shown = tuple((ids[a], ids[b]) for a, b in pairs.tolist())
        anchors = frozenset(ids[:3])

        parts = Parts(ComparisonGraph(ids, anchors, shown))

        matrix = csr_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
        n_parts, expected = connected_components(matrix, directed=False)
        assert parts.n_parts == n_parts
        for part in range(n_parts):
            members = np.flatnonzero(expected == part)
            label = parts.labels[members[0]]
            assert (parts.labels[members] == label).all()
            assert parts.sizes[label] == len(members)
            assert parts.has_anchor[label] == (members < 3).any()
