"""Verdicts as columns of numbers, and added up: all that the likelihood of a scale depends on.

Finding the scale is `bradley_terry`; which essays hang together at all is `connectivity`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cj_pipeline.arrays import Floats
from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.errors import UnscalableBatchError

Indices = npt.NDArray[np.int64]

_HALF_WINS = {"A": 2, "tie": 1, "B": 0}
_MAX_TABLE = 4_000_000
"""Counting into a table this large (32 MB) is faster than sorting; beyond it, sorting is."""


@dataclass(frozen=True, eq=False)
class Verdicts:
    """Verdicts as columns, one row each, in the order they came.

    Attributes:
        essay_ids: Every essay that wants a score, judged or not.
        judge_ids: In order of first appearance.
        first: Index of the essay shown as A; shape (n_verdicts,).
        second: Index of the essay shown as B.
        half_wins: What the first essay won, in halves: 2 won, 1 tied, 0 lost.
        judge: Index into `judge_ids`.
        weights: How much each verdict counts; None where each counts once.
    """

    essay_ids: tuple[str, ...]
    judge_ids: tuple[str, ...]
    first: Indices
    second: Indices
    half_wins: Indices
    judge: Indices
    weights: Floats | None = None

    @property
    def wins(self) -> Floats:
        """What the first essay won: 1, a tie 0.5, or 0; shape (n_verdicts,)."""
        return self.half_wins / 2.0

    def pick(self, rows: npt.NDArray[np.bool_] | Indices) -> Verdicts:
        """Return the verdicts in these rows, about the same essays and judges."""
        weights = None if self.weights is None else self.weights[rows]
        return Verdicts(
            self.essay_ids,
            self.judge_ids,
            self.first[rows],
            self.second[rows],
            self.half_wins[rows],
            self.judge[rows],
            weights,
        )


@dataclass(frozen=True, eq=False)
class Tally:
    """Verdicts added up over cells of the same two essays (and order and judge, if kept apart).

    Attributes:
        n_essays: How many essays there are, judged or not.
        n_judges: How many judges are kept apart; 1 when they are not.
        first: Index of one essay of each cell; shape (n_cells,).
        second: Index of the other.
        judge: Index of the judge; zeros when judges are not kept apart.
        counts: Verdicts in the cell (or their summed weights).
        wins: Those that the first essay won, a tie counting a half.
        ties: Those that were ties.
    """

    n_essays: int
    n_judges: int
    first: Indices
    second: Indices
    judge: Indices
    counts: Floats
    wins: Floats
    ties: Floats


def as_verdicts(
    essay_ids: Sequence[str],
    judged: Iterable[JudgedPair],
    weights: Sequence[float] | Floats | None = None,
) -> Verdicts:
    """Return verdicts as columns, checked against the batch's essays.

    Raises:
        UnscalableBatchError: If an essay is listed twice, a verdict names an essay that the batch
            does not have or sets an essay against itself, a winner is none of A, B and tie, or
            weights are not one positive number per verdict.
    """
    place = {essay_id: i for i, essay_id in enumerate(essay_ids)}
    if len(place) != len(essay_ids):
        twice = sorted({e for e in essay_ids if list(essay_ids).count(e) > 1})
        msg = f"Essays listed twice: {', '.join(twice)}. List each essay of the batch once."
        raise UnscalableBatchError(msg)

    rows = list(judged)
    judges = {judge_id: j for j, judge_id in enumerate(dict.fromkeys(r.judge_id for r in rows))}
    try:
        columns = [
            (place[r.essay_a], place[r.essay_b], _HALF_WINS[r.winner], judges[r.judge_id])
            for r in rows
        ]
    except KeyError:
        raise UnscalableBatchError(_stranger(place, rows)) from None
    table = np.array(columns, dtype=np.int64).reshape(len(rows), 4)
    selves = np.flatnonzero(table[:, 0] == table[:, 1])
    if len(selves):
        msg = (
            f"{len(selves)} verdicts set an essay against itself, first '{rows[selves[0]].essay_a}'"
            f" (verdict {selves[0] + 1}). Remove them, then fit again."
        )
        raise UnscalableBatchError(msg)
    return Verdicts(
        tuple(essay_ids),
        tuple(judges),
        first=np.ascontiguousarray(table[:, 0]),
        second=np.ascontiguousarray(table[:, 1]),
        half_wins=np.ascontiguousarray(table[:, 2]),
        judge=np.ascontiguousarray(table[:, 3]),
        weights=_checked_weights(weights, len(rows)),
    )


def tally(verdicts: Verdicts, *, by_order: bool = False, by_judge: bool = False) -> Tally:
    """Return the verdicts added up; only what the caller names is kept apart.

    Without `by_order`, the first essay of a cell is the one that comes first in the batch.
    """
    n = len(verdicts.essay_ids)
    n_judges = len(verdicts.judge_ids) if by_judge else 1
    n_cells = n * n * n_judges
    width = np.int32 if 3 * n_cells < np.iinfo(np.int32).max else np.int64
    key = _key(verdicts.first, verdicts.second, verdicts.half_wins, n, width)
    if not by_order:
        # Of the two ways to write a verdict down, that with the earlier essay first is smaller.
        turned = _key(verdicts.second, verdicts.first, 2 - verdicts.half_wins, n, width)
        np.minimum(key, turned, out=key)
    if by_judge:
        pair, outcome = np.divmod(key, 3)
        key = (pair * n_judges + verdicts.judge.astype(width)) * 3 + outcome
    cell, counts, wins, ties = _count(key, n_cells, verdicts.weights)
    pair = cell // n_judges
    first = pair // n
    judge = np.zeros_like(cell) if n_judges == 1 else cell - pair * n_judges
    return Tally(n, n_judges, first, pair - first * n, judge, counts, wins, ties)


def _key(
    first: Indices, second: Indices, half_wins: Indices, n: int, width: type[np.signedinteger[Any]]
) -> npt.NDArray[Any]:
    key = first.astype(width)
    key *= n
    key += second.astype(width)
    key *= 3
    key += half_wins.astype(width)
    return key


def sums_by(index: Indices, values: Floats, size: int) -> Floats:
    """Return for each of `size` indices the sum of the values that bear it."""
    sums: Floats = np.bincount(index, values, minlength=size)  # type: ignore[assignment]
    return sums


def _count(
    key: npt.NDArray[Any], n_cells: int, weights: Floats | None
) -> tuple[Indices, Floats, Floats, Floats]:
    """Return the cells that occur, in order, and of each the verdicts, wins and ties."""
    if 3 * n_cells <= max(_MAX_TABLE, 4 * len(key)):
        table = np.bincount(key, weights, minlength=3 * n_cells).reshape(-1, 3)
        cell = np.flatnonzero(table[:, 0] + table[:, 1] + table[:, 2])
        losses, ties, wins = table[cell].T.astype(np.float64)
        return cell, losses + ties + wins, wins + 0.5 * ties, ties
    if weights is None:
        key = np.sort(key)
        starts = _starts(key)
        counts = np.diff(starts, append=len(key)).astype(np.float64)
    else:
        order = np.argsort(key)
        key = key[order]
        starts = _starts(key)
        counts = np.add.reduceat(weights[order], starts)
    key = key[starts]
    cell = key // 3
    outcome = key - 3 * cell
    starts = _starts(cell)
    ties = np.where(outcome == 1, counts, 0.0)
    wins = np.where(outcome == 2, counts, 0.5 * ties)
    sums = [np.add.reduceat(column, starts) for column in (counts, wins, ties)]
    return cell[starts].astype(np.int64), sums[0], sums[1], sums[2]


def _starts(ordered: npt.NDArray[Any]) -> Indices:
    """Return where each run of equal values begins."""
    is_start = np.empty(len(ordered), dtype=bool)
    is_start[:1] = True
    np.not_equal(ordered[1:], ordered[:-1], out=is_start[1:])
    return np.flatnonzero(is_start)


def _checked_weights(weights: Sequence[float] | Floats | None, n_verdicts: int) -> Floats | None:
    if weights is None:
        return None
    array = np.asarray(weights, dtype=np.float64)
    if array.shape != (n_verdicts,) or not np.all(np.isfinite(array) & (array > 0)):
        msg = (
            f"Weights must be {n_verdicts} positive numbers, one per verdict; leave out the "
            "verdicts that are not to count."
        )
        raise UnscalableBatchError(msg)
    return array


def _stranger(place: dict[str, int], rows: Sequence[JudgedPair]) -> str:
    """Return what is wrong with the first verdict that cannot be read."""
    for number, row in enumerate(rows, start=1):
        for essay_id in (row.essay_a, row.essay_b):
            if essay_id not in place:
                return (
                    f"Verdict {number} is about essay '{essay_id}', which the batch does not have. "
                    "Add the essay to the batch or remove the verdict."
                )
        if row.winner not in _HALF_WINS:
            return (
                f"Verdict {number} ('{row.essay_a}' against '{row.essay_b}') has the winner "
                f"{row.winner!r}; it must be A, B or tie."
            )
    raise AssertionError
