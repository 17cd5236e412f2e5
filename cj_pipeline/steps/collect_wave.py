"""Ended provider jobs come home: raw callbacks are stored, then read, then settled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, islice
from typing import Any

import structlog

from cj_pipeline.batch.comparisons import RequestOutcome
from cj_pipeline.errors import CJError, FinalError
from cj_pipeline.progress.events import record_progress
from cj_pipeline.provider_jobs import ledger
from cj_pipeline.provider_jobs.holds import held_judges, hold_if_needed
from cj_pipeline.provider_jobs.ledger import (
    COLLECTABLE,
    JobState,
    ProviderJob,
)
from cj_pipeline.provider_jobs.ownership import may_stop, require_ours
from cj_pipeline.provider_jobs.settlement import Settlement, in_parts, settle_job
from cj_pipeline.providers.base import Parser, Provider, RawLine
from cj_pipeline.queries.batch_record import BatchRecord, load_batch
from cj_pipeline.runtime import Runtime
from cj_pipeline.store.session import Session

log = structlog.get_logger()


@dataclass(frozen=True)
class Collected:
    """What came home in one call, over all jobs it settled."""

    n_jobs: int
    outcomes: Mapping[RequestOutcome, int]
    billed_usd: float

    @property
    def n_requested(self) -> int:
        """Every request of the jobs settled; the outcomes add up to it."""
        return sum(self.outcomes.values())


def collect_wave(runtime: Runtime, batch_id: str) -> Collected:
    """Bring home every provider job of a batch that has ended.

    Raw lines are committed before anything reads them, so a crash or a better parser never costs
    a second job; reading and settling are one further transaction per job, in the same turn at the
    store unless somebody else waits for it.
    """
    with runtime.store.read() as db:
        record = load_batch(db, batch_id)
        jobs = ledger.jobs_of_batch(db, batch_id, COLLECTABLE)
    outcomes: Counter[RequestOutcome] = Counter()
    billed = 0.0
    trouble: CJError | None = None
    for job in jobs:
        try:
            settled = _collect_job(runtime, record, job)
        except CJError as error:
            # One provider's trouble does not keep another's results from coming home.
            log.warning("collect_failed", submission_key=job.submission_key, error=str(error))
            trouble = error if isinstance(error, FinalError) else trouble or error
            continue
        outcomes.update(settled.outcomes)
        billed += settled.billed_usd
    if trouble is not None:
        raise trouble
    return Collected(len(jobs), dict(outcomes), billed)


def raise_if_held(runtime: Runtime, batch_id: str) -> None:
    """Fail where a judge's calls are held: a person has to act, and is told by the failure.

    Raises:
        JudgeHeldError: If a judge gave no verdict in the answers that were paid for.
        OutOfCreditError: If its account has run out of credit.
    """
    with runtime.store.read() as db:
        held = held_judges(db, batch_id, runtime.clock())
    for error in held.values():
        raise error


def _collect_job(runtime: Runtime, record: BatchRecord, job: ProviderJob) -> Settlement:
    """Store, read and settle one job; what was done of it before is not done again."""
    provider = runtime.provider(record.judge(job.judge_id))
    now = runtime.clock()
    is_ended = job.state is JobState.ENDED
    lines: Iterator[RawLine] = iter(())
    if is_ended and job.is_batched:
        lines = _downloaded(runtime, provider, record, job)
    with runtime.store.turn() as transaction:
        if is_ended:
            with transaction() as db:
                kinds = _store_callbacks(db, provider.parse_reply, job, lines, now)
            if kinds is not None:
                _log(record, job, "callbacks_stored", n_requested=job.n_requests, **kinds)
        with transaction() as db:
            settled = _settle(db, provider.parse_reply, record, job, runtime.clock())
    if settled is None:
        return Settlement({}, 0.0)
    outcomes = {outcome.value: n for outcome, n in settled.outcomes.items()}
    _log(record, job, "provider_job_settled", billed_usd=settled.billed_usd, **outcomes)
    if job.provider_job_id is not None:
        _discard(runtime, provider, job)
    return settled


def _log(record: BatchRecord, job: ProviderJob, event: str, **told: Any) -> None:
    log.info(event, batch_id=record.batch_id, submission_key=job.submission_key, **told)


def _store_callbacks(
    db: Session, parse: Parser, job: ProviderJob, lines: Iterator[RawLine], now: datetime
) -> Counter[str] | None:
    """Keep every line of an ended job and return how many came of each kind.

    A part of them is in memory at a time. None where another process has stored them meanwhile.
    """
    key = job.submission_key
    if not ledger.is_in(db, key, frozenset({JobState.ENDED})):
        return None
    kinds: Counter[str] = Counter()
    rows = matched_callbacks(parse, job, lines, _asked(db, key))
    for part in in_parts(rows):
        db.insert("callbacks", [row | {"received_at": now} for row in part])
        kinds.update(row["kind"] for row in part)
    ledger.mark_collected(db, key, now)
    return kinds


def _downloaded(
    runtime: Runtime, provider: Provider, record: BatchRecord, job: ProviderJob
) -> Iterator[RawLine]:
    """Return an ended job's lines; none where nobody can have them any more.

    Raises:
        FinalError: If they are refused, and may still be had once a person has mended something.
    """
    try:
        require_ours(runtime, job, provider)
        # Nothing is yielded before all is downloaded: the store is not held while it is.
        lines = provider.collect(job.known_job_id)
        return chain(list(islice(lines, 1)), lines)
    except FinalError as error:
        expiry = job.results_expire_at
        is_unwanted = record.has_ended or record.cancel_requested
        if not is_unwanted and (expiry is None or runtime.clock() < expiry):
            raise
        log.error("results_are_gone", submission_key=job.submission_key, error=str(error))
        return iter(())


def _asked(db: Session, key: str) -> set[str]:
    """Return the custom ids of a job's requests."""
    rows = db.rows("SELECT custom_id FROM attempts WHERE submission_key = ?", [key])
    return {row["custom_id"] for row in rows}


def matched_callbacks(
    parse: Parser, job: ProviderJob, lines: Iterable[RawLine], asked: set[str]
) -> Iterator[dict[str, Any]]:
    """Yield one row per line that came, each with whose it is; nothing that came is dropped."""
    seen: set[str] = set()
    for line in lines:
        custom_id = parse(line.text).custom_id
        if custom_id is None:
            kind = "garbled"
        elif custom_id not in asked:
            kind = "foreign"
        else:
            kind = "duplicate" if custom_id in seen else "matched"
            seen.add(custom_id)
        yield {
            "batch_id": job.batch_id,
            "wave": job.wave,
            "submission_key": job.submission_key,
            "source": line.source,
            "line": line.line,
            "custom_id": custom_id,
            "kind": kind,
            "body": line.text,
        }


def _settle(
    db: Session, parse: Parser, record: BatchRecord, job: ProviderJob, now: datetime
) -> Settlement | None:
    """Read and settle a collected job; None where another process has done so meanwhile."""
    if not ledger.is_in(db, job.submission_key, frozenset({JobState.COLLECTED})):
        return None
    settled = settle_job(db, record, job, parse, now)
    hold_if_needed(db, record, record.judge(job.judge_id), parse, now)
    record_progress(db, record.batch_id, now)
    return settled


def _discard(runtime: Runtime, provider: Provider, job: ProviderJob) -> None:
    """Delete what the provider keeps of a settled job; its callbacks are ours by now.

    Where that fails, files go by their own expiry: nothing of the batch depends on it.
    """
    try:
        if not may_stop(runtime, job):
            return
        require_ours(runtime, job, provider)
        provider.discard(job.provider_job_id, job.file_ids)
    except CJError as error:
        log.warning("provider_files_left", submission_key=job.submission_key, problem=str(error))
