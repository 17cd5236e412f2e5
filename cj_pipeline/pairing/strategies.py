"""The strategies as values: one entry each, with all that sets it apart from the others.

A new strategy is a module of its own and one entry here, under a name in `batch.options.Strategy`.
Turning what a strategy chooses into a wave is `waves`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import numpy as np

from cj_pipeline.arrays import Floats
from cj_pipeline.batch.comparisons import Role
from cj_pipeline.batch.options import Strategy
from cj_pipeline.pairing.adaptive import most_informative_wave
from cj_pipeline.pairing.asap import asap_pairs, independent_gains
from cj_pipeline.pairing.balanced import new_pairs
from cj_pipeline.pairing.comparison_graph import ComparisonGraph, PairChoice
from cj_pipeline.pairing.fixed_design import fixed_design
from cj_pipeline.pairing.hybrid_mst import hybrid_mst_pairs, joint_gains
from cj_pipeline.pairing.position_repair import SwapRules
from cj_pipeline.pairing.swiss import swiss_pairs

Chosen = tuple[list[PairChoice], SwapRules | None]
"""Pairs, and what may be judged instead of them where the strategy has rules of its own."""

GainsBeside = Callable[[ComparisonGraph, np.random.Generator], Callable[[int], Floats]]
"""From a graph, a function from one essay to the value of a pair of it with each other one to the
strategy; shape (n_essays,). Only the order of the values counts."""


class _Choose(Protocol):
    def __call__(
        self, graph: ComparisonGraph, size: int, rng: np.random.Generator, *, may_repeat: bool
    ) -> Chosen:
        """Return at most `size` pairs."""


class _ChoosePairs(Protocol):
    def __call__(
        self, graph: ComparisonGraph, size: int, rng: np.random.Generator, *, may_repeat: bool
    ) -> list[PairChoice]:
        """Return at most `size` pairs."""


@dataclass(frozen=True)
class Efficiency:
    """The information of a comparison against one of a random pair, by what it is wanted for."""

    ranks: float = 1.0
    scores: float = 1.0


BY_SCORES = Efficiency(ranks=1.25, scores=1.1)
"""Of pairs chosen by scores; close pairs are more informative each, but show little of essays far
apart."""


AT_ONE_CUT = Efficiency(ranks=1.5, scores=1.0)
"""Of pairs chosen to part students at one cut, for parting them."""


@dataclass(frozen=True)
class PairStrategy:
    """How pairs are chosen.

    Attributes:
        name: As `batch.yaml` gives it.
        choose: Chooses a wave's pairs; called only with scores in the graph if it needs them.
        pair_gains: The value of pairs to the strategy, when some have to be exchanged so that
            no essay is shown too often in one place; None where the choice itself sees to that.
        needs_scores: Whether it goes by scores once there are any.
        efficiency: The information in a comparison, for forecasts.
        before_scores: Chooses while there are no scores; only a strategy that needs them has it.
        gain_unit: What `pair_gains` and the gains stored with pairs are counted in; None where
            `pair_gains` gives no expected gain.
    """

    name: Strategy
    choose: _Choose
    pair_gains: GainsBeside | None
    needs_scores: bool
    efficiency: Efficiency = Efficiency()
    before_scores: Callable[[ComparisonGraph, int, np.random.Generator], list[PairChoice]] = (
        new_pairs
    )
    gain_unit: str | None = None


def strategy_named(name: str) -> PairStrategy:
    """Return the strategy of this name.

    Raises:
        KeyError: If there is none.
    """
    return _STRATEGIES[name]


def _pairs_of(choose: _ChoosePairs) -> _Choose:
    """Return a choice without swap rules of its own."""

    def chosen(
        graph: ComparisonGraph, size: int, rng: np.random.Generator, *, may_repeat: bool
    ) -> Chosen:
        return choose(graph, size, rng, may_repeat=may_repeat), None

    return chosen


def _new_pairs(role: Role) -> _Choose:
    """Return the choice of pairs never shown; without scores none is judged again."""

    def chosen(
        graph: ComparisonGraph,
        size: int,
        rng: np.random.Generator,
        *,
        may_repeat: bool,  # noqa: ARG001 -- every choice is called alike
    ) -> Chosen:
        return new_pairs(graph, size, rng, role=role), None

    return chosen


def _fixed_without_initial_scores(
    graph: ComparisonGraph, size: int, rng: np.random.Generator
) -> list[PairChoice]:
    """Return the best design without scores, or pairs of essays with close initial scores."""
    choose = fixed_design if graph.expected is None else new_pairs
    return choose(graph, size, rng)


def _seen_less(graph: ComparisonGraph, rng: np.random.Generator) -> Callable[[int], Floats]:
    """For a strategy that does not use scores, gain most from essays shown least."""
    gains = -graph.n_comparisons - rng.random(graph.n_essays)
    return lambda _: gains.copy()


def _close_by(
    graph: ComparisonGraph,
    rng: np.random.Generator,  # noqa: ARG001 -- every strategy's gains have the same signature
) -> Callable[[int], Floats]:
    """Return how close in score each other essay is."""
    assert graph.scores is not None  # noqa: S101
    scores = graph.scores
    return lambda essay: -np.abs(scores - scores[essay])


_STRATEGIES: Mapping[str, PairStrategy] = MappingProxyType(
    {
        strategy.name: strategy
        for strategy in (
            PairStrategy(
                "adaptive",
                choose=most_informative_wave,
                pair_gains=_close_by,
                needs_scores=True,
                efficiency=BY_SCORES,
                before_scores=_fixed_without_initial_scores,
            ),
            PairStrategy(
                "coverage",
                choose=_new_pairs(Role.COVERAGE),
                pair_gains=None,
                needs_scores=False,
            ),
            # Covers until there is something to resample, which `waves` sees to.
            PairStrategy(
                "resample",
                choose=_new_pairs(Role.COVERAGE),
                pair_gains=None,
                needs_scores=False,
            ),
            PairStrategy(
                "random",
                choose=_new_pairs(Role.RANDOM),
                pair_gains=_seen_less,
                needs_scores=False,
            ),
            PairStrategy(
                "swiss",
                choose=_pairs_of(swiss_pairs),
                pair_gains=_close_by,
                needs_scores=True,
                efficiency=BY_SCORES,
            ),
            PairStrategy(
                "asap",
                choose=_pairs_of(asap_pairs),
                pair_gains=independent_gains,
                needs_scores=True,
                efficiency=BY_SCORES,
                gain_unit="nats",
            ),
            PairStrategy(
                "hybrid_mst",
                choose=_pairs_of(hybrid_mst_pairs),
                pair_gains=joint_gains,
                needs_scores=True,
                efficiency=BY_SCORES,
                gain_unit="nats",
            ),
        )
    }
)
