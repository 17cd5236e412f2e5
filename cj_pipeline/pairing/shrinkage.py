"""Scores as they are believed to lie while pairs are chosen, and only for that.

What a posterior makes of them is `posterior`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cj_pipeline.arrays import Floats
from cj_pipeline.pairing.comparison_graph import ComparisonGraph
from cj_pipeline.pairing.posterior import SOLVED_TO, own_information

_SPREADS = (0.5, 4.0)
"""Logits between which essays' true spread is taken to lie when only the scores show it."""
DRAWN_IN_TO = 0.85
"""Of the likely spread: choosing by a little less saves more comparisons, `benchmarks/pairing.py`
says (at 100 essays 26 and 31 %, against 23 and 28 % by the likely spread itself)."""
_STEPS_IN = 2
"""Newton steps to where the scores are believed to lie; the next would move them by 0.01."""


def shrunk(graph: ComparisonGraph) -> ComparisonGraph:
    """Return the graph with its scores drawn in to what essays of the likely spread can have.

    The scale's own prior is weak on purpose, so that reported scores rest on verdicts; early scores
    lie too far apart for it. Choosing by them would leave out pairs that are closer than they
    seem. So for choosing, and only for that, the weak prior gives way to a normal one. A graph
    without `information` stays as it is. What judges add (a liking for a place) is left as fitted.
    """
    if graph.scores is None or graph.information is None:
        return graph
    from cj_pipeline.scale.laplacian import NetMatrix, solve

    matrix = graph.information.essays
    layout, n = matrix.layout, graph.n_essays
    first, second = layout.first, layout.second
    own = own_information(graph.information)
    spread = _estimated_spread(graph.scores, matrix.diagonal)
    if graph.spread is not None:
        spread = DRAWN_IN_TO * graph.spread
    narrow = 1 / spread**2

    def at_ends(values: Floats, sign: int) -> Floats:
        """Add up values per pair at its first essay, and with this sign at its second."""
        return np.asarray(
            np.bincount(first, values, n) + sign * np.bincount(second, values, n), dtype=np.float64
        )

    reported = graph.scores[first] - graph.scores[second]
    counts = matrix.weights / _steepness(reported)
    # At the reported scores the verdicts pull out as hard as the weak prior pulls in; from its
    # information k p (1 - p) its pull k (p - 1/2) follows.
    pull, scores = own * np.sinh(np.clip(graph.scores, -20, 20)), graph.scores.copy()
    for _ in range(_STEPS_IN + 1):
        apart = scores[first] - scores[second]
        weights = counts * _steepness(apart)
        drawn_in = NetMatrix(layout, weights, at_ends(weights, 1) + narrow, np.zeros(n))
        less = 0.5 * counts * (np.tanh(0.5 * reported) - np.tanh(0.5 * apart))
        gradient = pull + at_ends(less, -1) - narrow * scores
        scores = scores + solve(drawn_in, gradient, rtol=SOLVED_TO)
    scores = scores - scores.mean()
    # Boundaries lie among the reported scores and are drawn in with them.
    share = float(scores @ graph.scores) / max(float(graph.scores @ graph.scores), 1e-12)
    return replace(
        graph,
        scores=scores,
        information=replace(graph.information, essays=drawn_in),
        boundaries=tuple(share * boundary for boundary in graph.boundaries),
    )


def _estimated_spread(scores: Floats, information: Floats) -> float:
    """Return the spread that scores have beyond their errors, within what is likely at all."""
    errors = 1 / np.maximum(information, 1e-12)
    spread = float(np.sqrt(max(np.var(scores) - errors.mean(), 0.0)))
    return min(max(spread, _SPREADS[0]), _SPREADS[1])


def _steepness(apart: Floats) -> Floats:
    """Return the logistic curve's slope, p (1 - p)."""
    return np.asarray(0.25 / np.cosh(0.5 * np.clip(apart, -30, 30)) ** 2)
