"""The comparisons of a batch's next wave: how many pairs, and which judges each falls to.

Which pairs they are is `pairing`; storing them is `steps.plan_wave`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from cj_pipeline.batch.comparisons import PlannedComparison, comparison_id, max_possible_pairs
from cj_pipeline.intake.settings import common_share
from cj_pipeline.pairing.judge_shares import judges_of_pair
from cj_pipeline.pairing.waves import choose_wave_in_parts
from cj_pipeline.queries.batch_record import BatchRecord, pairs_in_wave
from cj_pipeline.queries.comparison_graph import GraphSoFar
from cj_pipeline.stopping.continuation import completion_denominator

if TYPE_CHECKING:
    from typing import Protocol

    from cj_pipeline.batch.comparisons import ChosenPair
    from cj_pipeline.batch.options import Strategy
    from cj_pipeline.pairing.comparison_graph import ComparisonGraph

    class ChooseWave(Protocol):
        """What chooses a wave's pairs, as `choose_wave_in_parts` does."""

        def __call__(
            self,
            graph: ComparisonGraph,
            *,
            strategy: Strategy,
            size: int,
            seed: int,
            random_share: float,
            resampling: bool,
            may_repeat: bool,
            both_orders: bool,
        ) -> tuple[ChosenPair, ...]:
            """Return at most `size` pairs."""


def next_comparisons(
    record: BatchRecord, wave: int, history: GraphSoFar, choose: ChooseWave = choose_wave_in_parts
) -> Iterator[PlannedComparison]:
    """Yield the wave's comparisons: each chosen pair, asked of the judges it falls to.

    Args:
        record: The batch.
        wave: The number it is to have.
        history: What was requested before.
        choose: Chooses the pairs; another one only where nothing but their number counts.
    """
    rules, net = record.rules, history.graph
    all_pairs = max_possible_pairs(len(record.essay_ids))
    n_asked = list(history.n_requested)
    sequence = sum(n_asked)
    left = completion_denominator(len(record.essay_ids), rules) - sequence
    n_pairs, resampled = history.n_pairs, history.n_resampled
    shares, common = history.shares or record.shares, common_share(record.settings)
    n_orders = 2 if record.settings.both_orders else 1
    while left > 0:
        covered = len({frozenset(pair) for pair in net.shown}) >= all_pairs
        this_pass = resampled // all_pairs + 1 if covered else 0
        in_pass = all_pairs - resampled % all_pairs if covered else all_pairs
        chosen = choose(
            net,
            strategy=record.settings.strategy,
            random_share=record.settings.random_share,
            size=min(pairs_in_wave(record), in_pass, math.ceil(left / rules.verdicts_per_pair)),
            seed=_wave_seed(record, wave, this_pass),
            resampling=covered,
            may_repeat=record.settings.may_repeat_pairs,
            both_orders=record.settings.both_orders,
        )
        for pair in chosen:
            # Both orders of a pair are the same judges': they are held against each other.
            place, had = n_pairs // n_orders, [n // n_orders for n in n_asked]
            for judge in judges_of_pair(place, shares, had, common=common)[:left]:
                sequence, left = sequence + 1, left - 1
                n_asked[judge] += 1
                yield PlannedComparison(
                    batch_id=record.batch_id,
                    comparison_id=comparison_id(record.batch_id, sequence),
                    wave=wave,
                    sequence=sequence,
                    judge_id=record.judges[judge].judge_id,
                    essay_a=pair.essay_a,
                    essay_b=pair.essay_b,
                    role=pair.role,
                    resampling_pass=this_pass,
                    expected_gain=pair.expected_gain,
                )
            n_pairs, resampled = n_pairs + 1, resampled + covered
        if not record.settings.all_at_once or not chosen:
            return
        # All at once: the passes over pairs already covered belong to the same wave.
        net = replace(net, shown=net.shown + tuple((p.essay_a, p.essay_b) for p in chosen))


def _wave_seed(record: BatchRecord, wave: int, resampling_pass: int) -> int:
    return record.settings.seed + 1_000_003 * wave + resampling_pass
