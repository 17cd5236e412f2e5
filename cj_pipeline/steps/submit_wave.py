"""What a wave still has to ask is recorded as provider jobs, then sent.

The intent (submission key, count, account, worst-case cost) is committed before anything leaves;
`send_job` takes it from there. Planning which comparisons there are is `plan_wave`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from cj_pipeline.batch.options import BatchingMode
from cj_pipeline.errors import CeilingReachedError
from cj_pipeline.judging.estimates import expected_usd, worst_case_usd
from cj_pipeline.judging.judges import Judge
from cj_pipeline.judging.pricing import prompt_bytes
from cj_pipeline.planning.spending_limits import (
    installation,
    passes_spend_cap,
    require_within,
    unallowed_judges,
)
from cj_pipeline.progress.events import record_progress
from cj_pipeline.provider_jobs import charges, ledger
from cj_pipeline.provider_jobs.canary import Released, release
from cj_pipeline.provider_jobs.changes import hand_over
from cj_pipeline.provider_jobs.holds import held_judges
from cj_pipeline.provider_jobs.ledger import JobState, ProviderJob
from cj_pipeline.provider_jobs.live_calls import BUNDLE
from cj_pipeline.provider_jobs.requests import (
    BatchTexts,
    RequestSpec,
    load_texts,
    prompt_for,
    request_line,
    submission_key,
    tell_qualities,
)
from cj_pipeline.provider_jobs.sending import submit_pending
from cj_pipeline.provider_jobs.settlement import fail_exhausted
from cj_pipeline.providers.base import JOB_TOO_LARGE, Provider, ProviderLimits, split_shards
from cj_pipeline.queries.batch_record import BatchRecord, load_batch
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.batch_flags import BatchFlag, set_flag
from cj_pipeline.store.identity import Identity, settle_identity
from cj_pipeline.store.session import Session

log = structlog.get_logger()


@dataclass(frozen=True)
class Submitted:
    """What one call recorded and sent."""

    n_sent: int
    n_adopted: int
    n_requests: int
    reserved_usd: float
    refused_for_spend_cap: bool


@dataclass(frozen=True)
class Intent:
    """A provider job that is meant to be created: one judge, within the provider's limits."""

    submission_key: str
    judge: Judge
    account: str
    batching_mode: BatchingMode
    is_canary: bool
    asks: tuple[RequestSpec, ...]
    n_bytes: int
    estimated_usd: float
    worst_usd: tuple[float, ...]

    @property
    def reserved_usd(self) -> float:
        """The most that all its requests can cost."""
        return math.fsum(self.worst_usd)


def submit_wave(runtime: Runtime, batch_id: str) -> Submitted:
    """Send out every comparison of a batch that is planned and not being asked.

    Called twice, or after a kill, it sends nothing twice: a shard's key is derived from its
    content, recorded before anything leaves, and looked for at the provider before it is created
    again.

    Raises:
        JudgeHeldError: If nothing was sent because a judge gave no verdict so far.
        OutOfCreditError: Likewise, because its account has run out of credit.
    """
    with runtime.store.read() as db:
        record = load_batch(db, batch_id)
    if record.earlier_judges and not record.has_ended:
        with runtime.store.write() as db:
            hand_over(db, batch_id)
    with runtime.store.read() as db:
        texts = load_texts(db, batch_id)
        asks = [] if record.has_ended else _unrequested(db, record, texts)
        held = held_judges(db, batch_id, runtime.clock())
        asks = [ask for ask in asks if ask.judge_id not in held]
        released, failed = release(db, record, asks)
    if asks:
        tell_qualities(runtime, record, texts)
    if failed:
        _stop_for_canaries(runtime, record, failed)
        released = []
    identity = settle_identity(runtime.store, runtime.clock())
    intents = [i for each in released for i in _intents(runtime, record, each, identity)]
    refused = bool(intents) and not _record(runtime, record, intents)
    sent = submit_pending(runtime, record, held=frozenset(held))
    if held and not sent.n_sent:
        raise next(iter(held.values()))
    return Submitted(
        n_sent=sent.n_sent,
        n_adopted=sent.n_adopted,
        n_requests=sent.n_requests,
        reserved_usd=sum(intent.reserved_usd for intent in intents) if not refused else 0.0,
        refused_for_spend_cap=refused,
    )


def _unrequested(db: Session, record: BatchRecord, texts: BatchTexts) -> list[RequestSpec]:
    """Return an attempt for every planned comparison that has neither an end nor one open."""
    rows = db.rows(
        """
        SELECT p.comparison_id, p.wave, p.judge_id, p.essay_a, p.essay_b,
               coalesce(max(a.attempt), 0) + 1 AS attempt
        FROM comparison_pairs p
        ANTI JOIN comparisons c USING (comparison_id)
        LEFT JOIN attempts a ON a.comparison_id = p.comparison_id
        WHERE p.batch_id = ?
        GROUP BY ALL
        HAVING count(a.comparison_id) = count(a.outcome)
        ORDER BY p.comparison_id
        """,
        [record.batch_id],
    )
    return [
        RequestSpec(
            batch_id=record.batch_id,
            wave=row["wave"],
            comparison_id=row["comparison_id"],
            attempt=row["attempt"],
            judge_id=row["judge_id"],
            prompt=prompt_for(record, record.judge(row["judge_id"]), texts, row),
        )
        for row in rows
    ]


def _intents(
    runtime: Runtime, record: BatchRecord, released: Released, identity: Identity
) -> list[Intent]:
    judge = released.judge
    mode: BatchingMode = "per_request" if released.is_canary else record.settings.batching_mode
    batched = mode == "provider_batch_api"
    provider = runtime.provider(judge)
    price = judge.price
    # A stand-in key of the same length gives each line its true size before its key is known.
    sizes = [len(request_line(provider, judge, ask, "0" * 64)) - 1 for ask in released.asks]
    intents = []
    limits = _within_refused(runtime, _shard_limits(mode, provider), provider.account, sizes)
    for shard in split_shards(sizes, limits):
        chosen = tuple(released.asks[i] for i in shard)
        intents.append(
            Intent(
                submission_key=submission_key(record.batch_id, judge.judge_id, chosen, identity),
                judge=judge,
                account=provider.account,
                batching_mode=mode,
                is_canary=released.is_canary,
                asks=chosen,
                n_bytes=sum(sizes[i] for i in shard),
                estimated_usd=math.fsum(
                    expected_usd(price, ask.prompt, batched=batched) for ask in chosen
                ),
                worst_usd=tuple(
                    worst_case_usd(price, ask.prompt, judge, batched=batched) for ask in chosen
                ),
            )
        )
    return intents


def _stop_for_canaries(runtime: Runtime, record: BatchRecord, judges: Sequence[Judge]) -> None:
    """Mark the batch: nothing more is asked, because a judge of it cannot judge."""
    with runtime.store.write() as db:
        set_flag(db, record.batch_id, BatchFlag.CANARY_FAILED, runtime.clock())
        fail_exhausted(db, record, runtime.clock(), give_up=True)
    log.error(
        "canary_failed", batch_id=record.batch_id, judges=[judge.judge_id for judge in judges]
    )


def _shard_limits(mode: BatchingMode, provider: Provider) -> ProviderLimits:
    """Return what one job may hold: a serial bundle is a job of its own."""
    limits = provider.limits
    if mode == "serial_bundle":
        return replace(limits, max_requests=min(BUNDLE, limits.max_requests))
    return limits


def _within_refused(
    runtime: Runtime, limits: ProviderLimits, account: str, sizes: Sequence[int]
) -> ProviderLimits:
    """Return limits within half of the smallest job that this account's provider found too large.

    One request that is larger than that goes out alone, so that it is refused by itself.
    """
    with runtime.store.read() as db:
        row = db.one(
            "SELECT min(n_bytes) AS n_bytes FROM provider_jobs j WHERE account = ? AND EXISTS"
            " (FROM attempts a WHERE a.submission_key = j.submission_key AND error_code = ?)",
            [account, JOB_TOO_LARGE],
        )
    if row is None or row["n_bytes"] is None:
        return limits
    most = max(int(row["n_bytes"]) // 2, max(sizes, default=0) + 1)
    return replace(limits, max_bytes=min(limits.max_bytes, most))


def _record(runtime: Runtime, record: BatchRecord, intents: Sequence[Intent]) -> bool:
    """Commit intents, attempts and reservations in one transaction; False at the spend cap.

    Raises:
        CeilingReachedError: If the operator does not allow the judge or the cost.
    """
    now, said = runtime.clock(), installation(runtime)
    if refused := unallowed_judges([intent.judge for intent in intents], said):
        raise CeilingReachedError("; ".join(refused) + ". Nothing was sent.")
    with runtime.store.write() as db:
        taken = {
            (row["comparison_id"], row["attempt"])
            for row in db.rows(
                "SELECT comparison_id, attempt FROM attempts WHERE batch_id = ?",
                [record.batch_id],
            )
        }
        # Another process may have recorded these attempts since they were read; then they are its.
        new = [
            intent
            for intent in intents
            if not any((ask.comparison_id, ask.attempt) in taken for ask in intent.asks)
        ]
        if new and passes_spend_cap(db, record, sum(intent.reserved_usd for intent in new)):
            _refuse(db, runtime, record)
            return False
        if new:
            more_usd = sum(intent.reserved_usd for intent in new)
            require_within(db, said, record.batch_id, more_usd, now)
        jobs = [_job(record, intent, now) for intent in new]
        ledger.record_intents(db, jobs)
        db.insert("attempts", [row | {"requested_at": now} for i in new for row in _attempts(i)])
        charges.reserve(db, jobs, now)
        record_progress(db, record.batch_id, now)
    for intent in new:
        log.info(
            "submission_intended",
            batch_id=record.batch_id,
            submission_key=intent.submission_key,
            n_requests=len(intent.asks),
            reserved_usd=intent.reserved_usd,
        )
    return True


def _job(record: BatchRecord, intent: Intent, now: datetime) -> ProviderJob:
    return ProviderJob(
        submission_key=intent.submission_key,
        batch_id=record.batch_id,
        wave=max(ask.wave for ask in intent.asks),
        judge_id=intent.judge.judge_id,
        batching_mode=intent.batching_mode,
        is_canary=intent.is_canary,
        provider=intent.judge.provider,
        model=intent.judge.model,
        account=intent.account,
        state=JobState.INTENT,
        n_requests=len(intent.asks),
        n_bytes=intent.n_bytes,
        estimated_usd=intent.estimated_usd,
        reserved_usd=intent.reserved_usd,
        intended_at=now,
    )


def _attempts(intent: Intent) -> list[dict[str, object]]:
    return [
        {
            "custom_id": ask.custom_id(intent.submission_key),
            "batch_id": ask.batch_id,
            "wave": ask.wave,
            "comparison_id": ask.comparison_id,
            "attempt": ask.attempt,
            "submission_key": intent.submission_key,
            "judge_id": intent.judge.judge_id,
            "prompt_sha256": ask.prompt.sha256,
            "reserved_usd": most,
            "n_prompt_bytes": prompt_bytes(ask.prompt),
        }
        for ask, most in zip(intent.asks, intent.worst_usd, strict=True)
    ]


def _refuse(db: Session, runtime: Runtime, record: BatchRecord) -> None:
    """Mark the batch; what was asked before and may not be asked again ends as it stands."""
    set_flag(db, record.batch_id, BatchFlag.SPEND_CAP_REACHED, runtime.clock())
    fail_exhausted(db, record, runtime.clock(), give_up=True)
    record_progress(db, record.batch_id, runtime.clock())
    log.warning("spend_cap_reached", batch_id=record.batch_id, cap=record.settings.spend_cap_usd)
