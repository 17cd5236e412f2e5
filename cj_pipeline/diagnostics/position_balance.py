"""Whether the order in which essays were shown was fair, and whether judges minded it.

Choosing fair positions beforehand is `pairing`; this checks what was shown.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]

MIN_SHOWN_FOR_SKEW = 5
"""An essay shown fewer times cannot be judged: one of three is already a skew of a third."""


@dataclass(frozen=True)
class FirstShownShare:
    """How often the essay shown first won, a tie counting a half, with a 95 % interval.

    Without a judge's preference for a position it should be a half; `lower` and `upper` are
    Wilson's bounds.
    """

    n_verdicts: int
    share: float
    lower: float
    upper: float

    @property
    def is_even(self) -> bool:
        """Whether a half lies within the interval."""
        return self.lower <= 0.5 <= self.upper


def positional_skews(comparisons: Iterable[Row]) -> dict[str, float]:
    """Return |A - B| / (A + B) for every essay shown: 0 is even, 1 is always the same place."""
    as_a: Counter[str] = Counter()
    as_b: Counter[str] = Counter()
    for row in comparisons:
        as_a[row["essay_a"]] += 1
        as_b[row["essay_b"]] += 1
    return {
        essay_id: abs(as_a[essay_id] - as_b[essay_id]) / (as_a[essay_id] + as_b[essay_id])
        for essay_id in sorted(as_a.keys() | as_b.keys())
    }


def first_shown_share(verdicts: Sequence[Row]) -> FirstShownShare:
    """Return how often the first shown won among comparisons that have a verdict.

    References:
        Wilson (1927), doi:10.1080/01621459.1927.10502953.
    """
    n = len(verdicts)
    if n == 0:
        return FirstShownShare(0, 0.5, 0.0, 1.0)
    won = sum({"A": 1.0, "tie": 0.5, "B": 0.0}[row["winner"]] for row in verdicts)
    share, z = won / n, 1.96
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return FirstShownShare(n, share, middle - half, middle + half)
