"""The next wave's comparisons become rows of `comparison_pairs`; nothing leaves yet."""

from __future__ import annotations

from dataclasses import dataclass, replace

import structlog

from cj_pipeline.batch.comparisons import PlannedComparison
from cj_pipeline.pairing.strategies import strategy_named
from cj_pipeline.planning.next_wave import next_comparisons
from cj_pipeline.queries.batch_record import BatchRecord, current_wave, load_batch
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
from cj_pipeline.stopping.continuation import ContinuationDecision
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
    planned = tuple(next_comparisons(record, wave + 1, history))
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
