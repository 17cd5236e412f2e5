"""How far the judges of a batch agree, what each one costs, and what each one favours; pure.

Agreement is about single verdicts on the same essays in the same order. How a scale fits the
others' scales is `panel`; which verdicts contradict each other is `consistency`.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations


@dataclass(frozen=True)
class JudgeSummary:
    """One judge in figures that can be held against another's.

    Attributes:
        judge_id: The judge's fingerprint.
        name: As the batch names it.
        n_verdicts: Comparisons it decided.
        n_failed: Comparisons that failed for good.
        share_first: Share of its decided comparisons won by the essay shown first.
        share_first_error: Standard error of that share.
        share_tied: Share of its verdicts that were ties.
        mean_confidence: From 1 to 5.
        mean_latency_s: Of its single calls; None where it was used otherwise.
        tokens_per_verdict: Prompt and completion, failures included.
        usd_per_verdict: The same in US dollars.
    """

    judge_id: str
    name: str
    n_verdicts: int
    n_failed: int
    share_first: float | None
    share_first_error: float | None
    share_tied: float | None
    mean_confidence: float | None
    mean_latency_s: float | None
    tokens_per_verdict: float | None
    usd_per_verdict: float | None


@dataclass(frozen=True)
class JudgePair:
    """Two judges compared with each other.

    Attributes:
        one: A judge's fingerprint.
        other: Another's.
        n_items: Comparisons that both decided.
        agreement: Share of these with the same verdict; None without any.
        kappa: Cohen's; None without any, or where chance alone would agree on all.
        rank_correlation: Spearman's, of the scales from each one's verdicts alone; None where
            either has none.
    """

    one: str
    other: str
    n_items: int
    agreement: float | None
    kappa: float | None
    rank_correlation: float | None


@dataclass(frozen=True)
class JudgesCompared:
    """The judges of a batch, each pair of them, and all together.

    Attributes:
        judges: In the order of their names.
        pairs: Each two of them.
        n_items_of_all: Comparisons that all of them decided.
        fleiss_kappa: Over those; None without any, or where chance alone would agree on all.
    """

    judges: tuple[JudgeSummary, ...]
    pairs: tuple[JudgePair, ...]
    n_items_of_all: int
    fleiss_kappa: float | None


Verdicts = Mapping[str, Mapping[Hashable, str]]
"""By judge: its verdict on each item. An item is two essays in a stated order, judged once."""


def compare_verdicts(verdicts: Verdicts) -> tuple[tuple[JudgePair, ...], int, float | None]:
    """Return each two judges' agreement, on how many items all decided, and Fleiss' kappa there."""
    pairs = []
    for one, other in combinations(verdicts, 2):
        common = sorted(verdicts[one].keys() & verdicts[other].keys(), key=repr)
        said = [(verdicts[one][item], verdicts[other][item]) for item in common]
        agreed = sum(a == b for a, b in said) / len(said) if said else None
        pairs.append(JudgePair(one, other, len(said), agreed, cohen_kappa(said), None))
    if len(verdicts) < 2:
        return tuple(pairs), 0, None
    of_all = set.intersection(*(set(said) for said in verdicts.values()))
    table = [Counter(said[item] for said in verdicts.values()) for item in sorted(of_all, key=repr)]
    return tuple(pairs), len(table), fleiss_kappa(table)


def cohen_kappa(said: Sequence[tuple[str, str]]) -> float | None:
    """Return how far two judges agree beyond chance: 1 in all, 0 as chance would.

    Args:
        said: What each of the two said of the same items.

    Returns:
        None without items, or where both always said the same one thing.

    References:
        Cohen (1960), doi:10.1177/001316446002000104.
    """
    n = len(said)
    if not n:
        return None
    ones, others = Counter(a for a, _ in said), Counter(b for _, b in said)
    by_chance = sum(ones[word] * others[word] for word in ones) / n**2
    observed = sum(a == b for a, b in said) / n
    return None if by_chance == 1 else (observed - by_chance) / (1 - by_chance)


def fleiss_kappa(table: Sequence[Mapping[str, int]]) -> float | None:
    """Return how far several judges agree beyond chance.

    Args:
        table: For each item how many judges said what; as many judges for each.

    Returns:
        None without items, with fewer than two judges, or where all always said the same.

    References:
        Fleiss (1971), doi:10.1037/h0031619.
    """
    if not table:
        return None
    n_judges = sum(table[0].values())
    if n_judges < 2:
        return None
    totals: Counter[str] = Counter()
    agreed = 0.0
    for item in table:
        totals.update(item)
        agreed += sum(k * (k - 1) for k in item.values()) / (n_judges * (n_judges - 1))
    observed = agreed / len(table)
    by_chance = math.fsum((k / (n_judges * len(table))) ** 2 for k in totals.values())
    return None if math.isclose(by_chance, 1) else (observed - by_chance) / (1 - by_chance)


def share_with_error(n: int, of: int) -> tuple[float | None, float | None]:
    """Return a share and its standard error (Agresti and Coull's, so that none is zero)."""
    if not of:
        return None, None
    adjusted = (n + 2) / (of + 4)
    return n / of, math.sqrt(adjusted * (1 - adjusted) / (of + 4))


def by_judge(rows: Sequence[Mapping[str, object]]) -> dict[str, dict[Hashable, str]]:
    """Return verdicts by judge and item, from rows of decided comparisons in the order requested.

    The same essays in the same order may be judged again: the first time they are one item, the
    second time another, for each judge alike.
    """
    verdicts: dict[str, dict[Hashable, str]] = defaultdict(dict)
    times: Counter[tuple[str, object, object]] = Counter()
    for row in rows:
        judge, shown = str(row["judge_id"]), (row["essay_a"], row["essay_b"])
        times[judge, *shown] += 1
        verdicts[judge][*shown, times[judge, *shown]] = str(row["winner"])
    return dict(verdicts)
