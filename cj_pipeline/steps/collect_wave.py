"""Ended provider jobs come home: raw callbacks are stored, then read, then settled."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import structlog

from cj_pipeline.batch.comparisons import RequestOutcome
from cj_pipeline.errors import CJError, FinalError
from cj_pipeline.progress.events import record_progress
from cj_pipeline.provider_jobs import ledger
from cj_pipeline.provider_jobs.download import Download, download
from cj_pipeline.provider_jobs.holds import held_judges, hold_if_needed
from cj_pipeline.provider_jobs.ledger import JobState, ProviderJob
from cj_pipeline.provider_jobs.leftovers import discard_job, note_what_to_delete
from cj_pipeline.provider_jobs.ownership import may_stop
from cj_pipeline.provider_jobs.settlement import (
    Settlement,
    in_parts,
    settle_job,
    settle_late_rows,
)
from cj_pipeline.providers.base import Parser, RawLine
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
    """Bring home every provider job of a batch that has ended, as far as its rows are there.

    Raw lines are committed before anything reads them, so a crash or a better parser never costs
    a second job; reading and settling are one further transaction per job, in the same turn at the
    store unless somebody else waits for it. What a provider counts as done and has not sent is
    asked for again later, and nothing is deleted there before it is stored.
    """
    with runtime.store.read() as db:
        record = load_batch(db, batch_id)
        jobs = ledger.jobs_with_rows_due(db, batch_id, runtime.clock())
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
    """Store, read and settle one job; what was done of it before is not done again.

    Raises:
        FinalError: If its results are refused until a person has mended something.
    """
    provider = runtime.provider(record.judge(job.judge_id))
    now = runtime.clock()
    came = Download()
    if job.is_batched and job.state is not JobState.COLLECTED:
        came = download(runtime, provider, job, is_wanted=not _is_unwanted(record))
    may_delete = job.provider_job_id is not None and may_stop(runtime, job)
    with runtime.store.turn() as transaction:
        if job.state is not JobState.COLLECTED:
            with transaction() as db:
                kinds = _store_callbacks(db, provider.parse_reply, job, came, now)
            if kinds is not None:
                _log(record, job, "callbacks_stored", n_requested=job.n_requests, **kinds)
        with transaction() as db:
            settled = _settle(db, provider.parse_reply, record, job, came=came, now=runtime.clock())
            if settled is not None and not settled.n_missing and may_delete:
                _note_what_to_delete(db, record, job, runtime.clock())
    if settled is None:
        return Settlement({}, 0.0)
    outcomes = {outcome.value: n for outcome, n in settled.outcomes.items()}
    event = "rows_missing" if settled.n_missing else "provider_job_settled"
    _log(
        record,
        job,
        event,
        billed_usd=settled.billed_usd,
        n_missing=settled.n_missing,
        **outcomes,
    )
    if came.stops_the_command is not None:
        raise came.stops_the_command
    if not settled.n_missing and may_delete:
        discard_job(runtime, provider, job)
    return settled


def _note_what_to_delete(db: Session, record: BatchRecord, job: ProviderJob, now: datetime) -> None:
    current = ledger.find_job(db, job.submission_key)
    if current is not None:
        note_what_to_delete(db, record.judge(job.judge_id), current, now)


def _is_unwanted(record: BatchRecord) -> bool:
    return record.has_ended or record.cancel_requested


def _log(record: BatchRecord, job: ProviderJob, event: str, **told: Any) -> None:
    log.info(event, batch_id=record.batch_id, submission_key=job.submission_key, **told)


def _store_callbacks(
    db: Session, parse: Parser, job: ProviderJob, came: Download, now: datetime
) -> Counter[str] | None:
    """Keep every line of an ended job and return how many came of each kind.

    A part of them is in memory at a time. Of a download that was made before, only lines that are
    new are kept. None where another process has stored them meanwhile.
    """
    key = job.submission_key
    if not ledger.is_in(db, key, frozenset({job.state})):
        return None
    kinds: Counter[str] = Counter()
    known = _known_lines(db, key) if job.incomplete_since is not None else KnownLines()
    rows = matched_callbacks(parse, job, known.new_lines(came.lines), _asked(db, key), known.seen)
    for part in in_parts(rows):
        db.insert("callbacks", [row | {"received_at": now} for row in part])
        kinds.update(row["kind"] for row in part)
    if job.state is not JobState.SETTLED:
        ledger.mark_collected(db, key, now, came.status)
    return kinds


@dataclass(frozen=True)
class KnownLines:
    """What earlier downloads of a job brought: texts by checksum, ids, and the last line of each.

    A file that grew holds its first rows again, and they are not stored twice.
    """

    checksums: frozenset[str] = frozenset()
    seen: frozenset[str] = frozenset()
    last: Mapping[str, int] = field(default_factory=dict)

    def new_lines(self, lines: Iterable[RawLine]) -> Iterator[RawLine]:
        """Yield the lines that were not there before, numbered after those that were."""
        if not self.checksums:
            yield from lines
            return
        number = Counter(self.last)
        for line in lines:
            if (
                hashlib.md5(line.text.encode(errors="replace"), usedforsecurity=False).hexdigest()
                in self.checksums
            ):
                continue
            number[line.source] += 1
            yield replace(line, line=number[line.source])


def _known_lines(db: Session, key: str) -> KnownLines:
    rows = db.rows(
        "SELECT source, line, custom_id, kind, md5(body) AS checksum FROM callbacks"
        " WHERE submission_key = ?",
        [key],
    )
    last: dict[str, int] = {}
    for row in rows:
        last[row["source"]] = max(row["line"], last.get(row["source"], 0))
    return KnownLines(
        frozenset(row["checksum"] for row in rows),
        frozenset(row["custom_id"] for row in rows if row["kind"] == "matched"),
        last,
    )


def _asked(db: Session, key: str) -> set[str]:
    """Return the custom ids of a job's requests."""
    rows = db.rows("SELECT custom_id FROM attempts WHERE submission_key = ?", [key])
    return {row["custom_id"] for row in rows}


def matched_callbacks(
    parse: Parser,
    job: ProviderJob,
    lines: Iterable[RawLine],
    asked: set[str],
    answered: Iterable[str] = (),
) -> Iterator[dict[str, Any]]:
    """Yield one row per line that came, each with whose it is; nothing that came is dropped.

    Of the requests `answered` before, whatever comes now is a duplicate.
    """
    seen = set(answered)
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
    db: Session,
    parse: Parser,
    record: BatchRecord,
    job: ProviderJob,
    *,
    came: Download,
    now: datetime,
) -> Settlement | None:
    """Read and settle a collected job; None where another process has done so meanwhile."""
    current = ledger.find_job(db, job.submission_key)
    if current is None:
        return None
    if job.state is JobState.SETTLED:
        if not current.awaits_late_rows:
            return None
        late = replace(current, **ledger.recounted(came.status))
        settled = settle_late_rows(db, record, late, parse, now, came=came)
    elif current.state is JobState.COLLECTED:
        settled = settle_job(db, record, current, parse, now, trouble=came.trouble)
    else:
        return None
    hold_if_needed(db, record, record.judge(job.judge_id), parse, now)
    record_progress(db, record.batch_id, now)
    return settled
