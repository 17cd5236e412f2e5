"""The next wave: which pairs are asked, in which order each is shown, and why.

Each way of choosing lives next door, in the module named after it; the order of showing in
`positions`. Sending the wave is `steps.submit_wave`.
"""

from __future__ import annotations

import numpy as np

from cj_pipeline.balanced_pairs import ChosenIndices, new_pairs, repeated_pairs
from cj_pipeline.comparisons import ChosenPair, Role
from cj_pipeline.pairing_net import Net
from cj_pipeline.positions import in_fair_order
from cj_pipeline.settings import Strategy
from cj_pipeline.workflow import max_possible_pairs

__all__ = ["Net", "choose_wave", "max_possible_pairs", "positional_skew"]


def choose_wave(
    net: Net, *, strategy: Strategy, size: int, seed: int, resampling: bool = False
) -> tuple[ChosenPair, ...]:
    """Return the next wave, each pair in the order it is to be shown.

    The same net, strategy, size and seed give the same wave.

    Args:
        net: The essays, and what was shown so far.
        strategy: How pairs are chosen.
        size: How many pairs at the most; no pair comes twice in one wave.
        seed: Decides between equals.
        resampling: Choose only among pairs already shown, those shown least often first and in
            the order less seen. Otherwise no pair is repeated, and the wave is smaller than
            `size` when pairs run out.
    """
    rng = np.random.default_rng(seed)
    chosen = repeated_pairs(net, size, rng) if resampling else _choose(net, strategy, size, rng)
    ordered = in_fair_order(net, [(one, other) for one, other, _ in chosen], rng)
    return tuple(
        ChosenPair(net.essay_ids[first], net.essay_ids[second], role)
        for (first, second), (_, _, role) in zip(ordered, chosen, strict=True)
    )


def positional_skew(net: Net) -> dict[str, float]:
    """Return |A - B| / (A + B) for every essay: 0 is even (or never shown), 1 one side only."""
    skews = np.abs(net.lean) / np.maximum(net.n_comparisons, 1)
    return dict(zip(net.essay_ids, skews.tolist(), strict=True))


def _choose(
    net: Net, strategy: Strategy, size: int, rng: np.random.Generator
) -> list[ChosenIndices]:
    role = Role.RANDOM if strategy == "random" else Role.COVERAGE
    return new_pairs(net, size, rng, role=role)
