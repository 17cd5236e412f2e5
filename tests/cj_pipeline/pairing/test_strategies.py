"""Strategies as values: one entry for each name, and nothing else distinguishes them."""

from __future__ import annotations

from itertools import pairwise
from types import MappingProxyType
from typing import get_args

import numpy as np
import pytest

from cj_pipeline.batch.comparisons import Role
from cj_pipeline.batch.options import Strategy
from cj_pipeline.pairing import strategies
from cj_pipeline.pairing.comparison_graph import ComparisonGraph, PairChoice
from cj_pipeline.pairing.strategies import Chosen, Efficiency, PairStrategy, strategy_named
from cj_pipeline.pairing.waves import choose_wave

NAMES: tuple[Strategy, ...] = get_args(Strategy)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_that_a_batch_may_give_has_its_entry(name: Strategy) -> None:
    """A name without an entry would fail at a batch's first wave."""
    assert strategy_named(name).name == name


@pytest.mark.parametrize(
    ("name", "needs_scores", "gain_unit"),
    [
        ("adaptive", True, None),
        ("coverage", False, None),
        ("resample", False, None),
        ("random", False, None),
        ("swiss", True, None),
        ("asap", True, "nats"),
        ("hybrid_mst", True, "nats"),
    ],
)
def test_an_entry_says_what_tells_a_strategy_apart(
    name: Strategy, needs_scores: bool, gain_unit: str | None
) -> None:
    """Forecasts count on more of those that go by scores, and reports name the unit of gains."""
    entry = strategy_named(name)

    assert entry.needs_scores is needs_scores
    assert entry.gain_unit == gain_unit
    assert (entry.efficiency.ranks > 1) is needs_scores
    assert (entry.efficiency.scores > 1) is needs_scores


def test_a_new_strategy_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the entry chooses is the wave; no other module has to know the name."""

    def first_with_all(
        graph: ComparisonGraph, size: int, rng: np.random.Generator, *, may_repeat: bool
    ) -> Chosen:
        return [PairChoice(0, k, Role.INFORMATIVE, 0.5) for k in range(1, size + 1)], None

    entry = PairStrategy(
        "swiss",
        choose=first_with_all,
        pair_gains=None,
        needs_scores=True,
        efficiency=Efficiency(ranks=2.0),
    )
    monkeypatch.setattr(strategies, "_STRATEGIES", MappingProxyType({"swiss": entry}))
    ids = tuple("abcde")
    shown = tuple(pairwise(ids))
    graph = ComparisonGraph(ids, frozenset(), shown, np.arange(5.0), np.eye(5))

    wave = choose_wave(graph, strategy="swiss", size=3, seed=0)

    assert {frozenset((pair.essay_a, pair.essay_b)) for pair in wave} == {
        frozenset("ab"),
        frozenset("ac"),
        frozenset("ad"),
    }
    assert {pair.expected_gain for pair in wave} == {0.5}


def test_before_there_are_scores_a_strategy_that_needs_them_covers() -> None:
    """Its own choice is never called with a graph that has none."""
    graph = ComparisonGraph(tuple("abcdef"), frozenset(), ())

    roles = {pair.role for pair in choose_wave(graph, strategy="asap", size=6, seed=0)}

    assert roles <= {Role.COVERAGE, Role.BRIDGE}
