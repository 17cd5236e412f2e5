"""The waves that are sent together, because nothing could stop the batch between them.

Coverage, and going over covered pairs again, request the same whatever was answered. Where verdicts
cannot end the batch early either, waiting for one wave before the next only costs time: a
provider's batch endpoint takes all of them as one job. Each wave keeps its number, and is decided
by the verdicts up to it. Which pairs a wave has is `next_wave`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from cj_pipeline.batch.comparisons import PlannedComparison, max_possible_pairs
from cj_pipeline.judging.estimates import worst_case_usd
from cj_pipeline.pairing.judge_shares import pairs_as_chosen
from cj_pipeline.pairing.strategies import strategy_named
from cj_pipeline.planning.next_wave import next_comparisons
from cj_pipeline.provider_jobs.requests import BatchTexts, prompt_for
from cj_pipeline.queries.batch_record import BatchRecord
from cj_pipeline.queries.comparison_graph import GraphSoFar
from cj_pipeline.stopping.continuation import may_end_early

Wave = tuple[PlannedComparison, ...]


def waves_together(record: BatchRecord, wave: int, history: GraphSoFar) -> Iterator[Wave]:
    """Yield the next wave, and those after it that ask the same whatever it is answered.

    Args:
        record: The batch.
        wave: The number of the first.
        history: What was requested before.
    """
    while planned := tuple(next_comparisons(record, wave, history)):
        yield planned
        wave, history = wave + 1, _history_after(record, history, planned)
        if not (_may_send_together(record) and _chooses_without_verdicts(record, history)):
            return


def _may_send_together(record: BatchRecord) -> bool:
    settings = record.settings
    return (
        settings.batching_mode == "provider_batch_api"
        and not settings.all_at_once
        and not settings.people.wait
        and settings.judge_choice != "by_worth"
        and not may_end_early(
            len(record.essay_ids), record.rules, wants_precision=settings.precise is not None
        )
    )


def _chooses_without_verdicts(record: BatchRecord, history: GraphSoFar) -> bool:
    """Whether the next wave's pairs are the same whatever was answered: scores choose none."""
    n_shown = len({frozenset(pair) for pair in history.graph.shown})
    is_covered = n_shown >= max_possible_pairs(len(record.essay_ids))
    return is_covered or not strategy_named(record.settings.strategy).needs_scores


def _history_after(record: BatchRecord, history: GraphSoFar, planned: Wave) -> GraphSoFar:
    """Return the history with a wave of which no comparison fails."""
    asked = [(each.essay_a, each.essay_b, each.judge_id) for each in planned]
    pairs = [planned[group[0]] for group in pairs_as_chosen(asked)]
    shown = tuple((pair.essay_a, pair.essay_b) for pair in pairs)
    return replace(
        history,
        graph=replace(history.graph, shown=history.graph.shown + shown),
        n_requested=tuple(
            n + sum(each.judge_id == judge.judge_id for each in planned)
            for n, judge in zip(history.n_requested, record.judges, strict=True)
        ),
        n_pairs=history.n_pairs + len(pairs),
        n_resampled=history.n_resampled + sum(pair.resampling_pass > 0 for pair in pairs),
    )


def most_usd(
    record: BatchRecord, texts: BatchTexts, comparisons: Sequence[PlannedComparison]
) -> float:
    """Return the most that comparisons can cost at the batch endpoint, in USD."""
    return math.fsum(
        worst_case_usd(
            record.judge(each.judge_id).price,
            prompt_for(
                record,
                record.judge(each.judge_id),
                texts,
                {
                    "comparison_id": each.comparison_id,
                    "essay_a": each.essay_a,
                    "essay_b": each.essay_b,
                },
            ),
            record.judge(each.judge_id),
            batched=True,
        )
        for each in comparisons
    )
