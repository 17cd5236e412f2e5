"""The adaptive strategy: the wave that takes away most of the uncertainty that matters.

A wave is chosen pair by pair. Each pair's gain is how much its verdict is expected to lessen the
loss (see `stakes`), given that the pairs chosen before it will be answered too, so that a wave
does not ask the same thing several times. While the net has no scores, `fixed_design` and
`balanced_pairs` choose.
"""

from __future__ import annotations

import numpy as np

from cj_pipeline.comparisons import Role
from cj_pipeline.pairing_candidates import candidate_pairs
from cj_pipeline.pairing_net import Choice, Floats, Ints, Net
from cj_pipeline.uncertainty import belief_about

_MOST_OVER_SHARE = 2
"""How much oftener than its even share an essay may come in one wave."""


def gainful_pairs(
    net: Net, size: int, rng: np.random.Generator, *, may_repeat: bool = False
) -> list[Choice]:
    """Return at most `size` pairs, greatest expected gain first; fewer when pairs run out.

    Args:
        net: With scores, and with either their covariance or their information.
        size: Pairs wanted.
        rng: Draws candidates and sketches in large batches.
        may_repeat: Whether a pair already shown is a candidate.

    References:
        Chaloner and Verdinelli (1995), doi:10.1214/ss/1177009939, for designs that lessen an
        expected loss; Sherman and Morrison (1950), doi:10.1214/aoms/1177729893, for the update.
    """
    assert net.scores is not None  # noqa: S101
    first, second = candidate_pairs(net, rng, may_repeat=may_repeat)
    if len(first) == 0:
        return []
    belief = belief_about(net, rng)
    variances, losses = belief.variances(first, second), belief.losses(first, second)
    information = expected_information(net.scores[first] - net.scores[second], variances)
    beside = _beside(first, second, net.n_essays) if belief.is_local else None
    role = Role.BOUNDARY if net.boundaries else Role.INFORMATIVE
    share = -(-2 * size // net.n_essays)
    used = np.zeros(net.n_essays, dtype=np.int64)
    everyone = np.arange(net.n_essays)

    gains = information * losses / (1 + information * variances)
    is_open = np.ones(len(first), dtype=bool)
    cap = share + _MOST_OVER_SHARE
    chosen: list[Choice] = []
    while len(chosen) < size:
        k = int(np.argmax(gains))
        if not np.isfinite(gains[k]):
            # Only pairs of essays that have had their most are left: let each have one more.
            cap += 1
            ready = is_open & (used[first] < cap) & (used[second] < cap)
            if not is_open.any():
                break
            gains[ready] = _gain(information[ready], losses[ready], variances[ready])
            continue
        i, j = int(first[k]), int(second[k])
        chosen.append(Choice(i, j, role, float(gains[k])))
        is_open[k] = False
        used[[i, j]] += 1

        touched = slice(None) if beside is None else np.concatenate([beside[i], beside[j]])
        gain = information[k] / (1 + information[k] * variances[k])
        at_first, at_second = first[touched], second[touched]
        if beside is None:
            moved = belief.response(i, j, everyone)
            along = moved.scores[at_first] - moved.scores[at_second]
            staked = moved.stakes[at_first] - moved.stakes[at_second]
        else:
            here, there = belief.response(i, j, at_first), belief.response(i, j, at_second)
            moved = here
            along, staked = here.scores - there.scores, here.stakes - there.stakes
        variances[touched] = np.maximum(variances[touched] - gain * along**2, 1e-12)
        losses[touched] += gain**2 * moved.loss * along**2 - 2 * gain * along * staked
        belief.learn(i, j, gain)
        may_come = is_open[touched] & (used[at_first] < cap) & (used[at_second] < cap)
        gains[touched] = np.where(
            may_come, _gain(information[touched], losses[touched], variances[touched]), -np.inf
        )
    return chosen


def expected_information(differences: Floats, variances: Floats) -> Floats:
    """Return the information a verdict is expected to give about each difference.

    That is P(A) P(B), averaged over what is still unknown of the difference by the usual probit
    approximation (MacKay 1992, doi:10.1162/neco.1992.4.5.720).
    """
    shrunk = differences / np.sqrt(1 + np.pi * variances / 8)
    information: Floats = (0.25 - 0.25 * np.tanh(0.5 * shrunk) ** 2) / np.sqrt(
        1 + np.pi * variances / 8
    )
    return information


def _gain(information: Floats, losses: Floats, variances: Floats) -> Floats:
    gains: Floats = information * np.maximum(losses, 0) / (1 + information * variances)
    return gains


def _beside(first: Ints, second: Ints, n: int) -> list[Ints]:
    """Return for each essay the candidates it is in."""
    essays = np.concatenate([first, second])
    order = np.argsort(essays, kind="stable")
    starts = np.searchsorted(essays[order], np.arange(n + 1))
    return [order[starts[i] : starts[i + 1]] % len(first) for i in range(n)]
