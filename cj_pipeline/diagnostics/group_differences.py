"""Whether groups of students, or properties of their texts, go with scores: a scan, no proof.

A difference is not unfairness. Beside people's grades it shows whether judges and people see a
group alike; without them it only says where to look.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

FEWEST = 5
"""Students of a group, and outside it, below which nothing is said of it."""
SHARE = 0.05
"""Of scans without any difference, in how many one of all rows is called a difference."""


@dataclass(frozen=True)
class GroupDifference:
    """One group against all other students.

    Attributes:
        name: As handed in.
        n: Its students.
        mean: Their mean score, in logits.
        difference: That less the mean of all other students.
        lower, upper: Between which it lies; 95 % for all rows together.
        against_people: Mean of the judges' grades less people's, in steps, less the same of the
            others; None where too few were graded by people.
        against_people_error: Its standard error.
    """

    name: str
    n: int
    mean: float
    difference: float
    lower: float
    upper: float
    against_people: float | None
    against_people_error: float | None

    @property
    def is_beyond_chance(self) -> bool:
        """Whether the interval leaves zero out."""
        return not self.lower <= 0 <= self.upper


@dataclass(frozen=True)
class TextEffect:
    """How a property of texts goes with scores among students.

    Attributes:
        what: `length` or `variety`.
        n: Students.
        correlation: Of its logarithm with the score.
        lower, upper: Between which that lies with 95 % probability.
    """

    what: str
    n: int
    correlation: float
    lower: float
    upper: float


def group_differences(
    scores: Mapping[str, float],
    groups: Mapping[str, Sequence[str]],
    apart: Mapping[str, float] | None = None,
) -> list[GroupDifference]:
    """Return every group of at least `FEWEST` students against the others, largest first.

    Args:
        scores: Students' scores in logits, by essay.
        groups: The groups each is in, by essay.
        apart: The judges' grade less a person's, in steps, for those that people graded.
    """
    names = sorted({name for named in groups.values() for name in named})
    chosen = []
    for name in names:
        inside = [e for e in scores if name in groups.get(e, ())]
        outside = [e for e in scores if name not in groups.get(e, ()) and groups.get(e)]
        if min(len(inside), len(outside)) >= FEWEST:
            chosen.append((name, inside, outside))
    found = [
        _against_the_rest(name, inside, outside, scores, apart or {}, len(chosen))
        for name, inside, outside in chosen
    ]
    return sorted(found, key=lambda each: (-abs(each.difference), each.name))


def _against_the_rest(  # noqa: PLR0917 -- a group, its complement, and what is known of both
    name: str,
    inside: Sequence[str],
    outside: Sequence[str],
    scores: Mapping[str, float],
    apart: Mapping[str, float],
    n_rows: int,
) -> GroupDifference:
    from scipy.stats import t as student

    ours = np.array([scores[e] for e in inside])
    theirs = np.array([scores[e] for e in outside])
    difference, error, freedom = _welch(ours, theirs)
    half = float(student.ppf(1 - SHARE / (2 * n_rows), freedom)) * error
    seen = [apart[e] for e in inside if e in apart], [apart[e] for e in outside if e in apart]
    beside = beside_error = None
    if min(map(len, seen)) >= FEWEST:
        beside, beside_error, _ = _welch(np.array(seen[0]), np.array(seen[1]))
    return GroupDifference(
        name=name,
        n=len(inside),
        mean=float(ours.mean()),
        difference=difference,
        lower=difference - half,
        upper=difference + half,
        against_people=beside,
        against_people_error=beside_error,
    )


def _welch(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float, float]:
    """Return the difference of two means, its error, and Welch's degrees of freedom."""
    parts = [float(np.var(each, ddof=1)) / len(each) for each in (ours, theirs)]
    total = sum(parts)
    if total == 0:
        return float(ours.mean() - theirs.mean()), 0.0, 1.0
    below = sum(part**2 / (len(each) - 1) for part, each in zip(parts, (ours, theirs), strict=True))
    return float(ours.mean() - theirs.mean()), math.sqrt(total), total**2 / below


def text_effects(scores: Mapping[str, float], texts: Mapping[str, str]) -> list[TextEffect]:
    """Return how length and variety of words go with scores; nothing of fewer than ten students.

    Variety is Carroll's: different words over the root of twice all words.
    """
    ids = [essay_id for essay_id in scores if texts.get(essay_id, "").split()]
    if len(ids) < 2 * FEWEST:
        return []
    words = {essay_id: re.findall(r"\w+", texts[essay_id].casefold()) or ["-"] for essay_id in ids}
    figures = {
        "length": [math.log(len(words[e])) for e in ids],
        "variety": [math.log(len(set(words[e])) / math.sqrt(2 * len(words[e]))) for e in ids],
    }
    ours = np.array([scores[e] for e in ids])
    found = []
    for what, values in figures.items():
        if np.ptp(values) == 0 or np.ptp(ours) == 0:
            continue
        r = float(np.clip(np.corrcoef(values, ours)[0, 1], -0.999999, 0.999999))
        half = 1.96 / math.sqrt(len(ids) - 3)
        lower, upper = math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)
        found.append(TextEffect(what, len(ids), r, lower, upper))
    return found
