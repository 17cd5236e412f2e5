"""Which judges of a panel judge which pair: all of them, or each its stated share.

Shares are of the pairs: 1 for a judge that gets every pair, 0.2 for one that gets
every fifth. Who judges a pair follows from how many pairs there were and what each judge had of
them, so the same batch is shared out alike on every machine. What the judges' verdicts say of each
other is `panel`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

_ROUNDING = 1e-9
"""Shares such as 0.7 and 0.3 do not add up to 1 exactly."""


def shares_problem(shares: Mapping[str, float], judges: Sequence[str]) -> str | None:
    """Return what is wrong with the shares of a panel's judges, for people; None where nothing."""
    unknown = sorted(shares.keys() - set(judges))
    missing = sorted(set(judges) - shares.keys())
    if unknown or missing:
        named = [f"{', '.join(unknown)} is not among `judges`"] if unknown else []
        named += [f"{', '.join(missing)} has no share"] if missing else []
        return f"judge_shares must name every judge once: {'; '.join(named)}"
    total = math.fsum(shares.values())
    if total < 1 - _ROUNDING:
        return (
            f"judge_shares add up to {total:g}, so some pairs would have no judge: let them add "
            "up to 1 (each pair has one judge) or to more (some have several)"
        )
    return None


def shares_with_common(n_judges: int, common: float) -> tuple[float, ...]:
    """Return each judge's share of the pairs, where some go to all judges and each other to one."""
    return (common + (1 - common) / n_judges,) * n_judges if n_judges else ()


def judges_of_pair(
    place: int,
    shares: Sequence[float],
    n_asked: Sequence[int],
    *,
    common: float | None = None,
) -> tuple[int, ...]:
    """Return which judges get a pair, by number, in the panel's order.

    Args:
        place: How many pairs were chosen before this one.
        shares: Of each judge; together at least 1.
        n_asked: How many of the pairs before this one each judge got.
        common: The share of the pairs that goes to all judges, each other going to one alone;
            None where only the judges' own shares are stated.
    """
    if common is not None:
        if math.floor(common * (place + 1) + _ROUNDING) > math.floor(common * place + _ROUNDING):
            return tuple(range(len(shares)))
        return (min(range(len(shares)), key=lambda judge: (n_asked[judge], judge)),)
    total = math.fsum(shares)
    due = math.floor(total * (place + 1) + _ROUNDING) - math.floor(total * place + _ROUNDING)
    # The judge furthest behind its share gets the pair; a judge with all pairs is never left out.
    behind = sorted(
        range(len(shares)),
        key=lambda judge: (
            shares[judge] < 1,
            round(n_asked[judge] - shares[judge] * (place + 1), 9),
            judge,
        ),
    )
    return tuple(sorted(behind[: min(due, len(shares))]))


def pairs_as_chosen(
    planned: Sequence[tuple[str, str, str]],
) -> list[list[int]]:
    """Return the rows of each pair as it was chosen, by position.

    Args:
        planned: Essay shown first, second, and judge of every comparison planned, in that order;
            a pair's judges follow one another.
    """
    groups: list[list[int]] = []
    for position, (first, second, judge) in enumerate(planned):
        group = groups[-1] if groups else []
        is_same = bool(group) and planned[group[0]][:2] == (first, second)
        if is_same and judge not in {planned[other][2] for other in group}:
            group.append(position)
        else:
            groups.append([position])
    return groups
