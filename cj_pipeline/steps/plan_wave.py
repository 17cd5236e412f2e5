"""The next wave's comparisons become rows of `comparison_pairs`; nothing leaves yet.

Waves between which nothing could stop the batch are planned, and then sent, together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import structlog

from cj_pipeline.batch.comparisons import PlannedComparison
from cj_pipeline.ceilings import Ceilings
from cj_pipeline.pairing.strategies import strategy_named
from cj_pipeline.planning.spending_limits import (
    breached_ceilings,
    installation,
    passes_spend_cap,
)
from cj_pipeline.planning.waves_together import Wave, most_usd, waves_together
from cj_pipeline.provider_jobs.requests import load_texts
from cj_pipeline.queries.batch_record import (
    BatchRecord,
    current_wave,
    load_batch,
    waves_gone_past,
)
from cj_pipeline.queries.comparison_graph import (
    GraphSoFar,
    graph_so_far,
    with_linked_scores,
    with_scores,
)
from cj_pipeline.queries.judges.selection import judges_next
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
    """What is planned now, whether this call planned it or an earlier one did.

    Attributes:
        wave: Its number; the first of them, where waves are sent together.
        comparisons: Of all waves that are sent together, in the order of their numbers.
        is_new: Whether this call planned it.
    """

    wave: int
    comparisons: tuple[PlannedComparison, ...]
    is_new: bool


def plan_wave(runtime: Runtime, batch_id: str) -> PlannedWave:
    """Plan a batch's next wave, if its last one is decided and asks for more.

    Called again before that, it returns the wave already planned.
    """
    found = store_next_wave(runtime, batch_id)
    if found.is_new:
        n_by_wave = Counter(each.wave for each in found.comparisons) or {found.wave: 0}
        for wave, n in n_by_wave.items():
            log.info("wave_planned", batch_id=batch_id, wave=wave, n_comparisons=n)
    return found


def store_next_wave(runtime: Runtime, batch_id: str) -> PlannedWave:
    """Do what `plan_wave` does, and tell nobody."""
    with runtime.store.read() as db:
        record = load_batch(db, batch_id)
        wave = current_wave(db, batch_id)
        if record.has_ended or not _asks_for_more(db, batch_id, wave):
            return _planned(db, batch_id)
        judges = judges_next(db, record)
        history = replace(_history(db, record), shares=judges.shares)
    waves = list(waves_together(record, wave + 1, history))
    if len(waves) > 1 and not _is_covered_by_limits(runtime, record, waves):
        waves = waves[:1]
    planned = tuple(each for one in waves for each in one)
    with runtime.store.write() as db:
        if current_wave(db, batch_id) > wave:
            return _planned(db, batch_id)
        now = runtime.clock()
        db.insert("comparison_pairs", [_row(p) | {"planned_at": now} for p in planned])
        if planned:
            db.insert("judge_choices", judges.rows(batch_id, wave + 1))
        if not planned:
            set_flag(db, batch_id, BatchFlag.NOTHING_LEFT_TO_ASK, now)
        plan_people(db, record, now)
    return PlannedWave(wave + 1, planned, is_new=True)


def _is_covered_by_limits(runtime: Runtime, record: BatchRecord, waves: Sequence[Wave]) -> bool:
    """Whether all of these waves may be reserved at once, whatever limits there are."""
    said = installation(runtime)
    if record.settings.spend_cap_usd is None and said.ceilings == Ceilings():
        return True
    with runtime.store.read() as db:
        texts = load_texts(db, record.batch_id)
        usd = most_usd(record, texts, [each for wave in waves for each in wave])
        return not (
            passes_spend_cap(db, record, usd)
            or breached_ceilings(db, said, record.batch_id, usd, runtime.clock())
        )


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


def _planned(db: Session, batch_id: str) -> PlannedWave:
    """Return the last wave planned, with those before it that it was sent together with."""
    last = current_wave(db, batch_id)
    first = min(waves_gone_past(db, batch_id), default=last)
    planned = db.records(
        PlannedComparison,
        "FROM comparison_pairs WHERE batch_id = ? AND wave BETWEEN ? AND ? ORDER BY sequence",
        [batch_id, first, last],
    )
    return PlannedWave(first, tuple(planned), is_new=False)
