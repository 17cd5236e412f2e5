"""What another wave is expected to bring: how far off ranks or grades are, and what it takes off.

The loss is the one the adaptive strategy lessens (`pairing.loss`), put into ranks or grade steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cj_pipeline.pairing.adaptive import most_informative_pairs
from cj_pipeline.pairing.comparison_graph import ComparisonGraph
from cj_pipeline.pairing.posterior import expected_loss


@dataclass(frozen=True)
class ExpectedGain:
    """How far off ranks (or, where grades are the goal, grades) are, now and a wave later.

    Attributes:
        typical_error: Root mean square, in ranks or grade steps, over the essays that count.
        after_wave: The same, expected once the best next wave has been answered.
        n_comparisons: Of that wave.
    """

    typical_error: float
    after_wave: float
    n_comparisons: int

    @property
    def gain_per_comparison(self) -> float:
        """What a comparison of that wave takes off the typical error."""
        return (self.typical_error - self.after_wave) / max(self.n_comparisons, 1)


def outlook(
    graph: ComparisonGraph, size: int, *, seed: int, may_repeat: bool = False
) -> ExpectedGain:
    """Return what the best next wave would bring.

    Args:
        graph: With scores and their information.
        size: Pairs of the wave.
        seed: Decides between equals, and draws a large batch's sketch.
        may_repeat: Whether pairs may be judged again; once all were judged, nothing else is left.
    """
    # Ranks are everybody's, grades are the students'.
    n = graph.n_essays - (len(graph.anchor_ids) if graph.boundaries else 0)
    loss = expected_loss(graph, np.random.default_rng(seed))
    pairs = most_informative_pairs(graph, size, np.random.default_rng(seed), may_repeat=may_repeat)
    gain = sum(pair.expected_gain or 0.0 for pair in pairs)
    return ExpectedGain(
        typical_error=math.sqrt(loss / n),
        after_wave=math.sqrt(max(loss - gain, 0.0) / n),
        n_comparisons=len(pairs),
    )
