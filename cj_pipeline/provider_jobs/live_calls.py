"""A wave judged by single calls instead of a provider's batch endpoint.

All judges of the batch are asked at once (`live.engine`), each within the batch's profile. Replies
are in a journal the moment they arrive and in the store by the checkpoint, so a wave that is killed
asks again only the calls that were in flight: at most one per worker.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import structlog

from cj_pipeline.errors import (
    AccountRefusedError,
    CJError,
    FinalError,
    JudgeHeldError,
    ProviderRefusedError,
    ProviderUnavailableError,
)
from cj_pipeline.judging.judges import Judge
from cj_pipeline.judging.pricing import estimated_tokens
from cj_pipeline.judging.prompt_caching import plan_caching
from cj_pipeline.live.circuit_breaker import Breaker
from cj_pipeline.live.dispatcher import (
    CallOutcome,
    CallTarget,
    DispatchHooks,
    PendingCall,
    make_calls,
    run_blocking,
)
from cj_pipeline.live.fair_queue import LEVELS
from cj_pipeline.live.journal import Journal
from cj_pipeline.live.profiles import Profile, with_workers
from cj_pipeline.live.rate_limiter import FILE, Bucket, Rate, RateLimiter
from cj_pipeline.progress.events import record_progress
from cj_pipeline.provider_jobs import ledger
from cj_pipeline.provider_jobs.charges import note_calls_in_doubt
from cj_pipeline.provider_jobs.holds import AnswerCount, count_answers
from cj_pipeline.provider_jobs.ledger import LEASE, OPEN, UNSENT, ProviderJob
from cj_pipeline.provider_jobs.replies import read_reply
from cj_pipeline.provider_jobs.requests import (
    RequestSpec,
    load_texts,
    requests_of_job,
    requests_sha256,
)
from cj_pipeline.providers.base import HELD, JobOutcome, LiveProvider, Provider
from cj_pipeline.queries.batch_record import BatchRecord, load_batch
from cj_pipeline.queries.live_profile import stored_profile
from cj_pipeline.runtime import Runtime
from cj_pipeline.store.session import Session

log = structlog.get_logger()

BUNDLE = 64
"""Calls of a serial bundle: made in series over one connection, so that the prefix stays warm."""

_OUTCOMES = {"matched": "answered", "failed": "failed", "expired": "expired"}


@dataclass(frozen=True)
class LiveJob:
    """A provider job that only exists here: some calls to one judge, and which have a reply."""

    row: ProviderJob
    judge: Judge
    provider: Provider
    asks: tuple[RequestSpec, ...]
    answered: frozenset[str]
    journal: Journal

    @property
    def key(self) -> str:
        """Its submission key."""
        return self.row.submission_key

    def note(self, answered: CallOutcome) -> None:
        """Put a reply on disk; a call in doubt has none, and is counted once only."""
        if answered.kind != "in_doubt":
            self.journal.append(vars(answered))

    def open_asks(self) -> Iterator[tuple[int, RequestSpec]]:
        """Yield what has no reply, with its line."""
        for line, ask in enumerate(self.asks, start=1):
            if ask.custom_id(self.key) not in self.answered:
                yield line, ask


@dataclass
class _Keeper:
    """Brings a run's replies to the store, and knows how many calls have one by now."""

    runtime: Runtime
    record: BatchRecord
    jobs: Mapping[str, LiveJob]
    profile: Profile
    leased_at: datetime
    answered: dict[str, int] = field(init=False)
    breakers: dict[str, tuple[str, int]] = field(init=False)
    was_cancelled: bool = field(init=False)

    def __post_init__(self) -> None:
        self.was_cancelled = self.record.cancel_requested
        self.answered = {key: len(job.answered) for key, job in self.jobs.items()}
        with self.runtime.store.read() as db:
            known = db.rows("SELECT lane, state, n_trips FROM circuit_breakers")
        self.breakers = {row["lane"]: (row["state"], row["n_trips"]) for row in known}

    def keep(self, lanes: Mapping[str, LiveJob], answers: Sequence[CallOutcome]) -> bool:
        """Commit what arrived, renew the leases, show the breakers; False once cancelled."""
        now, store = self.runtime.clock(), self.runtime.store
        changed = self._changed_breakers(lanes, now)
        lease_is_due = now - self.leased_at > LEASE / 4
        if not (answers or changed or lease_is_due):
            with store.read() as db:
                return self._goes_on(db)
        keys = set(self.jobs) if lease_is_due else {answer.submission_key for answer in answers}
        with store.write() as db:
            _insert(db, [job.row for job in self.jobs.values()], answers)
            db.insert("circuit_breakers", changed, on_conflict="replace")
            for answer in answers:
                if answer.kind == "in_doubt":  # the same call may be so twice, and count twice
                    row = self.jobs[answer.submission_key].row
                    note_calls_in_doubt(db, row, [answer.custom_id], now)
            ledger.renew_calls(db, sorted(keys), now)
            record_progress(
                db, self.record.batch_id, now, checkpoint_every=self.profile.checkpoint_every
            )
            goes_on = self._goes_on(db)
        if lease_is_due:
            self.leased_at = now
        for answer in answers:
            self.answered[answer.submission_key] += answer.kind != "in_doubt"
            if answer.kind == "in_doubt":  # counted by now: a kill must not count it again
                job = self.jobs[answer.submission_key]
                job.journal.resolved(answer.custom_id, answer.n_tries)
        return goes_on

    def _goes_on(self, db: Session) -> bool:
        if load_batch(db, self.record.batch_id).cancel_requested:
            self.was_cancelled = True
        return not (self.was_cancelled or self.runtime.is_over)

    def _changed_breakers(
        self, lanes: Mapping[str, LiveJob], now: datetime
    ) -> list[dict[str, Any]]:
        """Return the rows of breakers whose state is not what the store was told last."""
        rows = []
        with closing(RateLimiter(self.runtime.home / FILE)) as shared:
            for name, job in lanes.items():
                breaker = shared.breaker(name)
                shown = (breaker.state, breaker.n_trips)
                if self.breakers.get(name, ("closed", 0)) == shown:
                    continue
                self.breakers[name] = shown
                rows.append(_breaker_row(name, job, breaker, now))
                log.warning("circuit_breaker", lane=name, state=breaker.state)
        return rows


def _breaker_row(name: str, job: LiveJob, breaker: Breaker, now: datetime) -> dict[str, Any]:
    is_closed = breaker.state == "closed"
    return {
        "lane": name,
        "account": job.provider.account,
        "provider": job.judge.provider,
        "model": job.judge.model,
        "state": breaker.state,
        "n_failures": breaker.n_failures,
        "n_trips": breaker.n_trips,
        "open_until": None if is_closed else datetime.fromtimestamp(breaker.open_until, UTC),
        "last_error": breaker.last_error,
        "changed_at": now,
    }


def make_live_calls(
    runtime: Runtime, record: BatchRecord, rows: Sequence[ProviderJob]
) -> dict[str, CJError | None]:
    """Make every call of these jobs that has no stored callback, all judges at once.

    Returns:
        For each job None where it has ended, or why it has not: a `TransientError` where some
        calls got no answer (those that did are kept), a `FinalError` where the provider answered
        none and will not answer any such call.
    """
    jobs = _load(runtime, record, rows)
    profile = stored_profile(record.metadata)
    keeper = _Keeper(runtime, record, {job.key: job for job in jobs}, profile, runtime.clock())
    by_judge: dict[str, list[LiveJob]] = defaultdict(list)
    for job in jobs:
        by_judge[job.judge.judge_id].append(job)
    troubles: dict[str, CJError | None] = dict.fromkeys(by_judge)
    if not keeper.was_cancelled:
        troubles = run_blocking(lambda: _ask_all(keeper, by_judge))
    return _end(keeper, troubles)


def _load(runtime: Runtime, record: BatchRecord, rows: Sequence[ProviderJob]) -> list[LiveJob]:
    """Return jobs as they stand, with what a killed run had left in journals stored.

    Replies are stored; calls that had left, and of which nothing more is known, are in doubt.
    """
    journals = {
        row.submission_key: Journal(
            runtime.home, record.batch_id, row.submission_key, runtime.store.key
        )
        for row in rows
    }
    left = [CallOutcome(**reply) for journal in journals.values() for reply in journal.replies()]
    lost = {key: journal.lost() for key, journal in journals.items()}
    n_lost = sum(map(len, lost.values()))
    if left or n_lost:
        with runtime.store.write() as db:
            _insert(db, rows, left)
            for row in rows:
                _note_lost(db, row, lost[row.submission_key], runtime.clock())
        log.info(
            "replies_recovered", batch_id=record.batch_id, n_replies=len(left), n_in_doubt=n_lost
        )
        for journal in journals.values():
            journal.remove()
    jobs = []
    with runtime.store.read() as db:
        texts = load_texts(db, record.batch_id)
        answered: dict[str, set[str]] = defaultdict(set)
        for found in db.rows(
            "SELECT submission_key, custom_id FROM callbacks WHERE batch_id = ?", [record.batch_id]
        ):
            answered[found["submission_key"]].add(found["custom_id"])
        for row in rows:
            key, judge = row.submission_key, record.judge(row.judge_id)
            jobs.append(
                LiveJob(
                    row=row,
                    judge=judge,
                    provider=runtime.provider(judge),
                    asks=tuple(requests_of_job(db, record, judge, key, texts)),
                    answered=frozenset(answered[key]),
                    journal=journals[key],
                )
            )
    return jobs


def _note_lost(db: Session, row: ProviderJob, custom_ids: Sequence[str], now: datetime) -> None:
    """Count calls whose end nobody saw at the most each can cost, each time it was sent."""
    for custom_id in custom_ids:
        note_calls_in_doubt(db, row, [custom_id], now)


async def _ask_all(
    keeper: _Keeper, by_judge: Mapping[str, Sequence[LiveJob]]
) -> dict[str, CJError | None]:
    """Ask every judge at once; return what stopped each, None where nothing did."""
    runtime, jobs, profile = keeper.runtime, keeper.jobs, keeper.profile
    async with _pools(runtime, profile, by_judge) as pools:
        targets = {
            judge_id: _target(keeper.record, profile, some, pools[judge_id])
            for judge_id, some in by_judge.items()
        }
        counts = _answer_counts(keeper, by_judge)
        lanes = {target.bucket.name: by_judge[judge_id][0] for judge_id, target in targets.items()}
        around = DispatchHooks(
            open_limiter=lambda: RateLimiter(runtime.home / FILE),
            journal=lambda answered: _note(answered, jobs, targets, counts),
            sending=lambda call, n: jobs[call.submission_key].journal.sending(call.custom_id, n),
            withdrawn=lambda call, n: jobs[call.submission_key].journal.resolved(call.custom_id, n),
            checkpoint=lambda answers: keeper.keep(lanes, answers),
            clock=lambda: runtime.clock().timestamp(),
            retry_rules=runtime.retry_rules,
            checkpoint_every=profile.checkpoint_every,
        )
        try:
            await make_calls(list(targets.values()), around)
        finally:
            for job in jobs.values():
                job.journal.close()
    return {judge_id: target.error for judge_id, target in targets.items()}


def _answer_counts(
    keeper: _Keeper, by_judge: Mapping[str, Sequence[LiveJob]]
) -> dict[str, AnswerCount]:
    """Return what each judge has answered in the batch so far, stored replies included."""
    counts = {}
    with keeper.runtime.store.read() as db:
        for judge_id, some in by_judge.items():
            counts[judge_id] = count_answers(db, keeper.record, some[0].judge)
            for job in some:
                stored = db.rows(
                    "SELECT body FROM callbacks WHERE submission_key = ? AND kind = 'matched'"
                    " LIMIT ?",
                    [job.key, counts[judge_id].most],
                )
                for row in stored:
                    _count(counts[judge_id], job, row["body"])
    return counts


def _count(counted: AnswerCount, job: LiveJob, body: str) -> None:
    if not counted.has_verdict:
        read = read_reply(job.provider.parse_reply, job.judge, body)
        counted.add(read.outcome, read.reply.text if read.reply else None)


def _note(
    answered: CallOutcome,
    jobs: Mapping[str, LiveJob],
    targets: Mapping[str, CallTarget],
    counts: Mapping[str, AnswerCount],
) -> None:
    """Put a reply on disk; of a judge that gives no verdict no further call is made."""
    job = jobs[answered.submission_key]
    job.note(answered)
    if answered.kind != "matched":
        return
    judge_id = job.judge.judge_id
    counted, target = counts[judge_id], targets[judge_id]
    _count(counted, job, answered.body)
    if counted.is_too_many and target.error is None:
        target.error = JudgeHeldError(counted.reason(job.judge))


@asynccontextmanager
async def _pools(
    runtime: Runtime, profile: Profile, by_judge: Mapping[str, Sequence[LiveJob]]
) -> AsyncIterator[dict[str, LiveProvider]]:
    """Give each judge its way to its provider: one pool of connections per provider's account."""
    shared: dict[tuple[str, str], list[LiveJob]] = defaultdict(list)
    for some in by_judge.values():
        shared[_dialect(some[0].judge), some[0].provider.account].append(some[0])
    async with AsyncExitStack() as stack:
        pools: dict[str, LiveProvider] = {}
        for jobs in shared.values():
            n_connections = profile.workers * len(jobs)
            http = await stack.enter_async_context(runtime.open_pool(jobs[0].judge, n_connections))
            for job in jobs:
                pools[job.judge.judge_id] = job.provider.live(http)
        yield pools


def _dialect(judge: Judge) -> str:
    """Return what a client speaks: two endpoints of one SDK share its connections."""
    return "openai" if judge.api in {"chat_completions", "responses"} else judge.api


def _target(
    record: BatchRecord, profile: Profile, jobs: Sequence[LiveJob], pool: LiveProvider
) -> CallTarget:
    judge, provider = jobs[0].judge, jobs[0].provider
    if jobs[0].row.batching_mode == "serial_bundle":
        profile = with_workers(profile, 1)  # several at once would each find the cache cold
    lane = _lane(judge, provider, profile)
    counts_tokens = any(limit.unit == "tokens" for limit in lane.limits)

    async def single(request: Mapping[str, Any], timeout_s: float) -> str:
        return await pool.single(request, timeout_s=timeout_s)

    def tokens_used(body: str) -> int | None:
        usage = provider.parse_reply(body).usage
        return None if usage is None else usage.prompt + usage.completion

    target = CallTarget(
        name=judge.name,
        batch_id=record.batch_id,
        level=LEVELS[record.settings.priority],
        bucket=lane,
        profile=profile,
        calls=_calls(profile, jobs),
        single=single,
        tokens_used=tokens_used if counts_tokens else None,
    )
    if counts_tokens:
        _refuse_oversized(target, judge, jobs)
    return target


def _refuse_oversized(target: CallTarget, judge: Judge, jobs: Sequence[LiveJob]) -> None:
    """Leave a judge out whose largest call could never be sent within its limit on tokens."""
    largest = max(
        (_most_tokens(judge, ask) for job in jobs for _, ask in job.open_asks()), default=0
    )
    most = min(limit.limit for limit in target.bucket.limits if limit.unit == "tokens")
    if largest > most:
        target.calls = iter(())
        target.error = ProviderRefusedError(
            f"One call to '{judge.name}' may use {largest} tokens, and its account may use {most}"
            " a minute: raise tokens_per_minute, or lower the judge's max_output_tokens."
        )


def _lane(judge: Judge, provider: Provider, profile: Profile) -> Bucket:
    """Return what bounds calls to a judge's model: its account's limits and the profile's rate."""
    limits = []
    if profile.rate_limit is not None and profile.rate_window_seconds is not None:
        limits.append(Rate("calls", profile.rate_limit, profile.rate_window_seconds))
    known = provider.limits
    if known.requests_per_minute is not None:
        limits.append(Rate("calls", known.requests_per_minute, 60.0))
    if known.tokens_per_minute is not None:
        limits.append(Rate("tokens", known.tokens_per_minute, 60.0))
    name = f"{provider.account}/{judge.model}"
    return Bucket(name, tuple(limits), known.max_concurrent_calls)


def _calls(profile: Profile, jobs: Sequence[LiveJob]) -> Iterator[PendingCall]:
    """Yield the calls of a judge's jobs, in the jobs' order and each job's own."""
    n_open = sum(1 for job in jobs for _ in job.open_asks())
    for job in jobs:
        first = next(job.open_asks(), None)
        caches = (
            first is not None
            and plan_caching(
                job.judge,
                first[1].prompt,
                n_requests=n_open,
                mode=job.row.batching_mode,
                concurrency=profile.workers,
            ).marks_prefix
        )
        for line, ask in job.open_asks():
            yield PendingCall(
                submission_key=job.key,
                line=line,
                custom_id=ask.custom_id(job.key),
                build=_Builder(job, ask, caches),
                tokens=_most_tokens(job.judge, ask),
                recorded_at=job.row.intended_at.timestamp(),
            )


@dataclass(frozen=True)
class _Builder:
    """Builds one request when its turn comes near."""

    job: LiveJob
    ask: RequestSpec
    cache_prefix: bool

    def __call__(self) -> Mapping[str, Any]:
        return self.job.provider.build_request(
            self.ask.prompt,
            self.job.judge,
            self.ask.custom_id(self.job.key),
            cache_prefix=self.cache_prefix,
        )


def _most_tokens(judge: Judge, ask: RequestSpec) -> int:
    prompt = ask.prompt
    n_bytes = sum(
        len(text.encode()) for text in (prompt.system, prompt.prefix, prompt.text_a, prompt.text_b)
    )
    return estimated_tokens(n_bytes) + judge.settings.max_output_tokens


def _insert(db: Session, rows: Sequence[ProviderJob], answers: Sequence[CallOutcome]) -> None:
    """Store replies, and how long each took; the same reply twice is kept once."""
    by_key = {row.submission_key: row for row in rows}
    callbacks, calls = [], []
    replies = [answer for answer in answers if answer.kind != "in_doubt"]
    for answer in sorted(replies, key=lambda a: (a.submission_key, a.line)):
        row = by_key[answer.submission_key]
        own = {"batch_id": row.batch_id, "submission_key": row.submission_key}
        place = {"line": answer.line, "custom_id": answer.custom_id}
        answered_at = datetime.fromtimestamp(answer.answered_at, UTC)
        callbacks.append(
            own
            | place
            | {
                "wave": row.wave,
                "source": "single",
                "kind": answer.kind,
                "body": answer.body,
                "received_at": answered_at,
            }
        )
        sent = answer.sent_at
        calls.append(
            own
            | place
            | {
                "judge_id": row.judge_id,
                "outcome": _OUTCOMES[answer.kind],
                "n_tries": answer.n_tries,
                "queued_at": datetime.fromtimestamp(answer.queued_at, UTC),
                "sent_at": None if sent is None else datetime.fromtimestamp(sent, UTC),
                "answered_at": answered_at,
                "wait_s": None if sent is None else sent - answer.queued_at,
                "latency_s": None if sent is None else answer.answered_at - sent,
            }
        )
    db.insert("callbacks", callbacks, on_conflict="ignore")
    db.insert("live_calls", calls, on_conflict="ignore")


def _end(keeper: _Keeper, troubles: Mapping[str, CJError | None]) -> dict[str, CJError | None]:
    """Mark the jobs ended whose calls all have an outcome; return why not of the others."""
    ends: dict[str, CJError | None] = {}
    ended: list[LiveJob] = []
    now = keeper.runtime.clock()
    with keeper.runtime.store.write() as db:
        for job in keeper.jobs.values():
            trouble = troubles[job.judge.judge_id]
            n_answered = keeper.answered[job.key]
            outcome, error_code = JobOutcome.COMPLETED, None
            if n_answered >= len(job.asks):
                trouble = None
            elif keeper.was_cancelled:
                outcome, trouble = JobOutcome.CANCELLED, None
            elif isinstance(trouble, JudgeHeldError):
                # What it answered is settled; the rest is asked again once a person has looked.
                outcome, error_code = JobOutcome.CANCELLED, HELD
            elif (
                isinstance(trouble, FinalError)
                and not isinstance(trouble, AccountRefusedError)
                and n_answered
            ):
                outcome = JobOutcome.FAILED
            else:
                ends[job.key] = trouble or ProviderUnavailableError(
                    f"'{job.judge.name}' has not answered every call yet."
                )
                continue
            if ledger.is_in(db, job.key, UNSENT | OPEN):  # or another process has ended it
                _note_lost(db, job.row, job.journal.lost(), now)
                digest = requests_sha256(job.asks, job.judge, job.provider, job.key)
                ledger.mark_calls_ended(
                    db,
                    job.key,
                    outcome,
                    None if error_code == HELD else trouble,
                    content_sha256=digest,
                    now=now,
                    error_code=error_code,
                )
            ends[job.key] = None
            ended.append(job)
    for job in ended:
        job.journal.remove()
    return ends
