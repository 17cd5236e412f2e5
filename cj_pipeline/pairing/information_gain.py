"""How much a verdict is expected to tell about two essays' scores, in nats.

Strategies that buy information as such use it: `asap` and `hybrid_mst`. The
adaptive strategy asks instead what the verdict does to the loss at stake (`stakes`).
"""

from __future__ import annotations

import numpy as np

from cj_pipeline.pairing.net import Floats

_NODES = 15


def information_gain(differences: Floats, variances: Floats) -> Floats:
    """Return the mutual information of each verdict and its pair's difference.

    Args:
        differences: Expected, in logits; shape (n_pairs,).
        variances: Of the differences, which are taken as normal.

    References:
        Lindley (1956), doi:10.1214/aoms/1177728069.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    weights = weights / weights.sum()
    spread = np.sqrt(variances)
    mean_probability = np.zeros_like(differences)
    mean_entropy = np.zeros_like(differences)
    for node, weight in zip(nodes, weights, strict=True):
        probability = 0.5 + 0.5 * np.tanh(0.5 * (differences + node * spread))
        mean_probability += weight * probability
        mean_entropy += weight * _entropy(probability)
    gain: Floats = _entropy(mean_probability) - mean_entropy
    return np.maximum(gain, 0.0)


def _entropy(probability: Floats) -> Floats:
    inside = np.clip(probability, 1e-12, 1 - 1e-12)
    entropy: Floats = -inside * np.log(inside) - (1 - inside) * np.log1p(-inside)
    return entropy
