"""The next wave: which pairs are judged, in which order each is shown, and why.

Each way of choosing lives next door, in the module named after it, and as a value in `strategies`;
the order of showing in `positions`. Sending the wave is `steps.submit_wave`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cj_pipeline.arrays import Ints
from cj_pipeline.batch.comparisons import ChosenPair
from cj_pipeline.batch.options import Strategy
from cj_pipeline.pairing.balanced import new_pairs, repeated_pairs
from cj_pipeline.pairing.comparison_graph import ComparisonGraph, PairChoice
from cj_pipeline.pairing.position_repair import SwapRules, repair_positions
from cj_pipeline.pairing.positions import in_fair_order
from cj_pipeline.pairing.strategies import PairStrategy, strategy_named

_ALIKE = 2
"""How far apart essays' numbers of comparisons may be where scores do not matter."""


def choose_wave_in_parts(
    graph: ComparisonGraph,
    *,
    strategy: Strategy,
    size: int,
    seed: int,
    random_share: float = 0.0,
    resampling: bool = False,
    may_repeat: bool = False,
    both_orders: bool = False,
) -> tuple[ChosenPair, ...]:
    """Return the next wave with a stated share of its pairs drawn at random.

    Pairs chosen close together hardly tell how far essays lie apart; some at random do. Arguments
    are those of `choose_wave`, and without scores, or where pairs are judged again, so is the wave.

    Args:
        graph: The essays, and what was shown so far.
        strategy: Of the other pairs.
        size: How many pairs at the most.
        seed: Decides between equals.
        random_share: From 0 to 1.
        resampling: As in `choose_wave`.
        may_repeat: As in `choose_wave`.
        both_orders: As in `choose_wave`.
    """
    n_random = round(random_share * size)
    by_lot: tuple[ChosenPair, ...] = ()
    if n_random and not resampling and graph.scores is not None:
        by_lot = choose_wave(
            graph, strategy="random", size=n_random, seed=seed, both_orders=both_orders
        )
        shown = tuple((pair.essay_a, pair.essay_b) for pair in by_lot)
        graph = replace(graph, shown=(*graph.shown, *shown))
    chosen = choose_wave(
        graph,
        strategy=strategy,
        size=size - len(by_lot),
        seed=seed,
        resampling=resampling,
        may_repeat=may_repeat,
        both_orders=both_orders,
    )
    return (*by_lot, *chosen)


def choose_wave(
    graph: ComparisonGraph,
    *,
    strategy: Strategy,
    size: int,
    seed: int,
    resampling: bool = False,
    may_repeat: bool = False,
    both_orders: bool = False,
) -> tuple[ChosenPair, ...]:
    """Return the next wave, each pair in the order it is to be shown.

    The same graph, strategy, size and seed give the same wave.

    Args:
        graph: The essays, and what was shown so far.
        strategy: How pairs are chosen. Those that use scores cover until there are some, and
            "resample" covers until it has something to resample.
        size: How many pairs at the most; no pair comes twice in one wave.
        seed: Decides between equals.
        resampling: Choose only among pairs already shown, those shown least often first and in
            the order less seen. Otherwise no pair is repeated, and the wave is smaller than
            `size` when pairs run out.
        may_repeat: Let a strategy that uses scores choose a pair again before every pair was
            judged, where that gains more than a new one.
        both_orders: Show every pair twice, once in each order, which counts as two of `size`; an
            odd comparison is left over. A judge's liking for a place then cancels in every pair.
    """
    rng = np.random.default_rng(seed)
    size = size // 2 if both_orders else size
    exchange = None
    if resampling:
        chosen = repeated_pairs(graph, size, rng)
    else:
        chosen, exchange = _choose(
            graph, strategy_named(strategy), size, rng, may_repeat=may_repeat
        )
    ordered = in_fair_order(graph, [(choice.one, choice.other) for choice in chosen], rng)
    # Where every pair is judged in both orders every essay is in balance.
    if exchange is not None and not both_orders:
        chosen, ordered = repair_positions(graph, chosen, ordered, exchange)
    wave = tuple(
        ChosenPair(graph.essay_ids[a], graph.essay_ids[b], choice.role, choice.expected_gain)
        for (a, b), choice in zip(ordered, chosen, strict=True)
    )
    if not both_orders:
        return wave
    return tuple(
        pair
        for shown in wave
        for pair in (shown, replace(shown, essay_a=shown.essay_b, essay_b=shown.essay_a))
    )


def positional_skew(graph: ComparisonGraph) -> dict[str, float]:
    """Return |A - B| / (A + B) for every essay: 0 is even (or never shown), 1 one side only."""
    skews = np.abs(graph.imbalance) / np.maximum(graph.n_comparisons, 1)
    return dict(zip(graph.essay_ids, skews.tolist(), strict=True))


def _choose(
    graph: ComparisonGraph,
    strategy: PairStrategy,
    size: int,
    rng: np.random.Generator,
    *,
    may_repeat: bool,
) -> tuple[list[PairChoice], SwapRules | None]:
    """Return a wave's pairs, and what may be judged instead; coverage heeds imbalances itself."""
    if strategy.needs_scores and graph.scores is None:
        return strategy.before_scores(graph, size, rng), None
    chosen, exchange = strategy.choose(graph, size, rng, may_repeat=may_repeat)
    if strategy.needs_scores and len(chosen) < size:
        # In a large batch the strategy considers some of the pairs only; the others are left.
        ids = graph.essay_ids
        extended = replace(
            graph, shown=graph.shown + tuple((ids[c.one], ids[c.other]) for c in chosen)
        )
        chosen, exchange = chosen + new_pairs(extended, size - len(chosen), rng), None
    if exchange is None and strategy.pair_gains is not None:
        exchange = SwapRules(
            *_room(graph, chosen),
            pair_gains=strategy.pair_gains(graph, rng),
            has_gain=strategy.gain_unit is not None,
        )
    return chosen, exchange


def _room(graph: ComparisonGraph, chosen: Sequence[PairChoice]) -> tuple[Ints, Ints]:
    """Return how often each essay must come and may: as alike as now or within two comparisons."""
    ends = [end for choice in chosen for end in (choice.one, choice.other)]
    count = graph.n_comparisons + np.bincount(ends, minlength=graph.n_essays)
    low, high = int(count.min()), int(count.max())
    least = low - (high - low < _ALIKE) - graph.n_comparisons
    most = high + (high == low) - graph.n_comparisons
    return least, most
