"""What pairing sees of a batch: its essays, what was shown so far, and the scores if there are any.

Choosing from it is `waves` and the modules named after its strategies.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from cj_pipeline.arrays import Bools, Floats, Ints
from cj_pipeline.batch.comparisons import Role

if TYPE_CHECKING:
    from cj_pipeline.scale.information import Information


IndexPair = tuple[int, int]
"""Two essays by their index in `essay_ids`; whether in shown order is said where it is used."""


@dataclass(frozen=True)
class PairChoice:
    """A pair to judge, by index and in no order yet, why, and what its verdict should gain."""

    one: int
    other: int
    role: Role
    expected_gain: float | None = None


@dataclass(frozen=True, eq=False)
class ComparisonGraph:
    """The essays of a batch and the comparisons that join them.

    Attributes:
        essay_ids: Every essay, anchors included.
        anchor_ids: Those whose grade is known.
        shown: Every comparison requested and not failed for good, as (A, B), oldest first.
        scores: In logits, in the order of `essay_ids`; None before the first scale.
        covariance: Of the mean-centred scores; shape (n_essays, n_essays). For large batches
            `information` says the same in little memory.
        information: What the scores' covariance can be computed from, as a `Scale` keeps it.
        spread: How far the essays' true scores are likely to lie apart, in logits; None where
            only the scores themselves show it (see `likely_spread`).
        boundaries: Where grades meet, in logits, lowest first; empty where ranks are the goal.
        n_above: How many students are above the one cut that is the goal; None where there is none,
            or it is a boundary between grades.
        known_ids: Essays that an earlier scale has placed; where scores choose, no two of them
            meet, and none of them has to take part alike.
        expected: Initial scores, of which only the order counts; see `warm_start`.
    """

    essay_ids: tuple[str, ...]
    anchor_ids: frozenset[str]
    shown: tuple[tuple[str, str], ...]
    scores: Floats | None = None
    covariance: Floats | None = None
    information: Information | None = None
    spread: float | None = None
    boundaries: tuple[float, ...] = ()
    n_above: int | None = None
    known_ids: frozenset[str] = frozenset()
    expected: Floats | None = None

    @property
    def n_essays(self) -> int:
        """How many essays there are, anchors included."""
        return len(self.essay_ids)

    @cached_property
    def shown_indices(self) -> Ints:
        """`shown` as indices; shape (n_shown, 2), first the essay shown first."""
        place = {essay_id: i for i, essay_id in enumerate(self.essay_ids)}
        pairs = [(place[a], place[b]) for a, b in self.shown]
        return np.array(pairs, dtype=np.int64).reshape(len(pairs), 2)

    @cached_property
    def is_anchor(self) -> Bools:
        """Whether each essay is an anchor; shape (n_essays,)."""
        return np.array([essay_id in self.anchor_ids for essay_id in self.essay_ids], dtype=bool)

    @cached_property
    def is_known(self) -> Bools:
        """Whether an earlier scale has placed each essay; shape (n_essays,)."""
        return np.array([essay_id in self.known_ids for essay_id in self.essay_ids], dtype=bool)

    @cached_property
    def n_comparisons(self) -> Ints:
        """How often each essay was shown; shape (n_essays,)."""
        return np.bincount(self.shown_indices.ravel(), minlength=self.n_essays)

    @cached_property
    def imbalance(self) -> Ints:
        """How much oftener each essay was shown first than second; shape (n_essays,)."""
        first, second = self.shown_indices.T
        n = self.n_essays
        return np.bincount(first, minlength=n) - np.bincount(second, minlength=n)

    @cached_property
    def partners(self) -> tuple[frozenset[int], ...]:
        """Whom each essay has met, by index."""
        met: list[set[int]] = [set() for _ in self.essay_ids]
        for a, b in self.shown_indices.tolist():
            met[a].add(b)
            met[b].add(a)
        return tuple(frozenset(each) for each in met)


class Parts:
    """The connected parts of a graph while pairs are added to it.

    Attributes:
        labels: A number per essay, alike within a part; shape (n_essays,).
        n_parts: How many parts are left.
        sizes: Essays per label.
        has_anchor: Whether a label's part holds an anchor.
    """

    def __init__(self, graph: ComparisonGraph) -> None:
        n = graph.n_essays
        # A part goes by the number of its first essay.
        self.labels: Ints = _first_connected(n, *graph.shown_indices.T)
        self.n_parts = len(np.unique(self.labels))
        sizes = np.bincount(self.labels, minlength=n)
        self.sizes = np.maximum(sizes, 1)
        self.has_anchor = graph.is_anchor.copy()
        self.has_anchor[self.labels[graph.is_anchor]] = True

    def join(self, one: int, other: int) -> None:
        """Make one part of the two that these essays are in."""
        kept, gone = self.labels[one], self.labels[other]
        if kept == gone:
            return
        self.labels[self.labels == gone] = kept
        self.sizes[kept] += self.sizes[gone]
        self.has_anchor[kept] |= self.has_anchor[gone]
        self.n_parts -= 1


def _first_connected(n: int, first: Ints, second: Ints) -> Ints:
    """Return the lowest of the essays that each is connected with; shape (n,).

    By hooking and shortcutting (Shiloach and Vishkin 1982, doi:10.1016/0196-6774(82)90008-6).
    """
    lowest = np.arange(n)
    while (lowest[first] != lowest[second]).any():
        ends = lowest[first], lowest[second]
        np.minimum.at(lowest, np.maximum(*ends), np.minimum(*ends))
        while (lowest != lowest[lowest]).any():
            lowest = lowest[lowest]
    return lowest
