"""The next wave's comparisons become rows of `comparison_pairs`; nothing leaves yet."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import structlog

from cj_pipeline.batch.comparisons import PlannedComparison, comparison_id, max_possible_pairs
from cj_pipeline.intake.settings import common_share
from cj_pipeline.pairing.judge_shares import judges_of_pair
from cj_pipeline.pairing.strategies import strategy_named
from cj_pipeline.pairing.waves import choose_wave_in_parts
from cj_pipeline.queries.batch_record import (
    BatchRecord,
    current_wave,
    load_batch,
    pairs_per_wave,
)
from cj_pipeline.queries.comparison_graph import (
    GraphSoFar,
    graph_so_far,
    with_linked_scores,
    with_scores,
)
from cj_pipeline.queries.judge_selection import judges_next
from cj_pipeline.queries.scale import fit_scale
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.batch_flags import BatchFlag, set_flag
from cj_pipeline.steps.plan_people import plan_people
from cj_pipeline.stopping.continuation import (
    ContinuationDecision,
    completion_denominator,
    is_small_net,
)
from cj_pipeline.store.session import Session

log = structlog.get_logger()

_GOES_ON = {ContinuationDecision.REQUEST_MORE_COMPARISONS, ContinuationDecision.RESAMPLE}


@dataclass(frozen=True)
class PlannedWave:
    """The wave that is planned now, whether this call planned it or an earlier one did."""

    wave: int
    comparisons: tuple[PlannedComparison, ...]
    is_new: bool


def plan_wave(runtime: Runtime, batch_id: str) -> PlannedWave:
    """Plan a batch's next wave, if its last one is decided and asks for more.

    Called again before that, it returns the wave already planned.
    """
    found = store_next_wave(runtime, batch_id)
    if found.is_new:
        n = len(found.comparisons)
        log.info("wave_planned", batch_id=batch_id, wave=found.wave, n_comparisons=n)
    return found


def store_next_wave(runtime: Runtime, batch_id: str) -> PlannedWave:
    """Do what `plan_wave` does, and tell nobody."""
    with runtime.store.read() as db:
        record = load_batch(db, batch_id)
        wave = current_wave(db, batch_id)
        if record.has_ended or not _asks_for_more(db, batch_id, wave):
            return PlannedWave(wave, _planned(db, batch_id, wave), is_new=False)
        judges = judges_next(db, record)
        history = replace(_history(db, record), shares=judges.shares)
    planned = tuple(_next_comparisons(record, wave + 1, history))
    with runtime.store.write() as db:
        if current_wave(db, batch_id) > wave:
            return PlannedWave(wave + 1, _planned(db, batch_id, wave + 1), is_new=False)
        now = runtime.clock()
        db.insert("comparison_pairs", [_row(p) | {"planned_at": now} for p in planned])
        if planned:
            db.insert("judge_choices", judges.rows(batch_id, wave + 1))
        if not planned:
            set_flag(db, batch_id, BatchFlag.NOTHING_LEFT_TO_ASK, now)
        plan_people(db, record, now)
    return PlannedWave(wave + 1, planned, is_new=True)


def chooses_by_scores(record: BatchRecord) -> bool:
    """Return whether the batch's strategy goes by scores once there are any."""
    return strategy_named(record.settings.strategy).needs_scores


def _asks_for_more(db: Session, batch_id: str, wave: int) -> bool:
    if wave == 0:
        return True
    row = db.one(
        "SELECT decision FROM wave_decisions WHERE batch_id = ? AND wave = ?", [batch_id, wave]
    )
    return row is not None and row["decision"] in _GOES_ON


def _history(db: Session, record: BatchRecord) -> GraphSoFar:
    found = graph_so_far(db, record)
    if not chooses_by_scores(record):
        return found
    scale = fit_scale(db, record) if found.graph.shown else None
    net = found.graph if scale is None else with_scores(found.graph, record, scale)
    return replace(found, graph=with_linked_scores(db, record, net, scale))


def _next_comparisons(
    record: BatchRecord, wave: int, history: GraphSoFar
) -> Iterator[PlannedComparison]:
    """Yield the wave's comparisons: each chosen pair, asked of the judges it falls to."""
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
        chosen = choose_wave_in_parts(
            net,
            strategy=record.settings.strategy,
            random_share=record.settings.random_share,
            size=min(_wave_size(record), in_pass, math.ceil(left / rules.verdicts_per_pair)),
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


def _wave_size(record: BatchRecord) -> int:
    """Return how many pairs one wave may hold."""
    n_essays = len(record.essay_ids)
    if record.settings.all_at_once:
        return max_possible_pairs(n_essays)
    if record.settings.wave_size is None and is_small_net(n_essays, record.rules):
        # A small net is asked in whole passes: waves of one or two pairs would only cost hours.
        return max_possible_pairs(n_essays)
    return pairs_per_wave(record)


def _wave_seed(record: BatchRecord, wave: int, resampling_pass: int) -> int:
    return record.settings.seed + 1_000_003 * wave + resampling_pass


def _row(planned: PlannedComparison) -> dict[str, object]:
    return {
        "comparison_id": planned.comparison_id,
        "batch_id": planned.batch_id,
        "wave": planned.wave,
        "sequence": planned.sequence,
        "judge_id": planned.judge_id,
        "essay_a": planned.essay_a,
        "essay_b": planned.essay_b,
        "role": planned.role.value,
        "resampling_pass": planned.resampling_pass,
        "expected_gain": planned.expected_gain,
    }


def _planned(db: Session, batch_id: str, wave: int) -> tuple[PlannedComparison, ...]:
    return tuple(
        db.records(
            PlannedComparison,
            "FROM comparison_pairs WHERE batch_id = ? AND wave = ? ORDER BY sequence",
            [batch_id, wave],
        )
    )
