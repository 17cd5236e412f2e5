"""Why a pair was asked, in words: its role, and what its verdict was expected to gain.

Roles are `comparisons.Role`; gains are what the strategy that chose the pair counts in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cj_pipeline.comparisons import Role

ROLES: Mapping[str, str] = {
    Role.COVERAGE: "so that every essay takes part alike",
    Role.BRIDGE: "to join two parts of the net",
    Role.RESAMPLE: "the same pair once more, in the order seen less",
    Role.BOUNDARY: "to tell on which side of a grade boundary essays lie",
    Role.INFORMATIVE: "because the verdict tells much about the order",
    Role.RANDOM: "by lot",
}

_IN_NATS = frozenset({"asap", "hybrid_mst"})


@dataclass(frozen=True)
class RoleShare:
    """How many comparisons of a batch had a role.

    Attributes:
        role: As it is kept with the comparisons.
        meaning: In words.
        n: Comparisons planned.
        mean_gain: Expected, in words with its unit; empty where the role has none.
    """

    role: str
    meaning: str
    n: int
    mean_gain: str


def why_asked(role: str, expected_gain: float | None, strategy: str) -> str:
    """Return in words why a comparison was asked.

    Args:
        role: As kept with the comparison.
        expected_gain: As kept with the comparison; None where its role has none.
        strategy: Of the batch, which tells what the gain is counted in.
    """
    gain = gain_in_words(role, expected_gain, strategy)
    return ROLES[role] + (f"; expected gain {gain}" if gain else "")


def gain_in_words(role: str, expected_gain: float | None, strategy: str) -> str:
    """Return an expected gain with its unit; empty where there is none."""
    if expected_gain is None:
        return ""
    if strategy in _IN_NATS:
        unit = "nats"
    else:
        unit = "squared grade steps" if role == Role.BOUNDARY else "squared ranks"
    return f"{expected_gain:.2g} {unit}"


def roles_of(pairs: Iterable[Mapping[str, Any]], strategy: str) -> list[RoleShare]:
    """Return how often each role came, commonest first; `pairs` are rows of `comparison_pairs`."""
    gains: dict[str, list[float | None]] = defaultdict(list)
    for row in pairs:
        gains[row["role"]].append(row["expected_gain"])
    shares = []
    for role, found in gains.items():
        known = [gain for gain in found if gain is not None]
        mean = sum(known) / len(known) if known else None
        shares.append(RoleShare(role, ROLES[role], len(found), gain_in_words(role, mean, strategy)))
    return sorted(shares, key=lambda share: (-share.n, share.role))
