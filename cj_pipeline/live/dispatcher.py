"""Single calls to several judges at once, each within its profile, and none waiting for another.

Per judge a feeder keeps a few requests ready, a queue acquires permits for them from the shared
rate limiter, and workers send them; there is no barrier between one call and the next. What arrives
goes to the journal at once and to the store by the checkpoint. Memory is bounded by what is ready,
in flight or not yet at a checkpoint, however long the wave is.

Nothing here knows the store or a provider: `provider_jobs.live_calls` passes them in.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import socket
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Literal, TypeVar

from cj_pipeline.errors import (
    CJError,
    FinalError,
    ProviderUnavailableError,
    TransientError,
    UncertainOutcomeError,
)
from cj_pipeline.live.circuit_breaker import CallResult
from cj_pipeline.live.profiles import Profile
from cj_pipeline.live.rate_limiter import (
    STALE_S,
    AcquireRequest,
    Bucket,
    Permits,
    RateLimiter,
    ReleasedPermit,
)
from cj_pipeline.live.retry import (
    Cause,
    RetryRules,
    cause_of,
    is_client_error,
    retry_after_s,
    retrying,
)

T = TypeVar("T")
Kind = Literal["matched", "failed", "expired", "in_doubt"]

HEARTBEAT_S = 3.0
"""How often the store is checked where nothing has to be stored: for a cancellation, mostly."""

CHECKPOINT_S = 2.0
"""After which whatever has arrived is stored, however little it is."""

MOST_UNSAVED = 1000
"""Replies in memory at most; where the store is slower than the providers, they wait."""

PATIENCE_S = 10.0
"""A model with a longer cooldown is deferred, and so is one whose provider asks for a longer pause;
the judge's calls go on in a later pass."""

LONGEST_PAUSE_S = 1.0
"""A queue that waits writes this often, so that it is not taken for dead."""

GRACE_S = 5.0
"""Beyond an attempt's timeout, which counts each silence on the wire: then the call is
abandoned."""


@dataclass(frozen=True)
class PendingCall:
    """One request that has no reply yet.

    Attributes:
        submission_key: The job it belongs to.
        line: Where in the job, from 1.
        custom_id: Matches its reply to it.
        build: Returns the request; called shortly before it is sent, never for all at once.
        tokens: As many as it can use at most.
        recorded_at: When it was recorded, in Unix seconds.
    """

    submission_key: str
    line: int
    custom_id: str
    build: Callable[[], Mapping[str, Any]]
    tokens: int
    recorded_at: float


@dataclass(frozen=True)
class CallOutcome:
    """The outcome of a call: a reply, a failure after every attempt, or an expiry.

    Or of one attempt (`in_doubt`): its reply was lost, it may be paid for, and it is retried.

    Times are Unix seconds; `sent_at` is that of the last attempt, None where there was none.
    """

    submission_key: str
    line: int
    custom_id: str
    kind: Kind
    body: str
    n_tries: int
    queued_at: float
    sent_at: float | None
    answered_at: float


@dataclass
class CallTarget:
    """One judge to send calls to, and how.

    Attributes:
        name: Of the judge.
        batch_id: Whose calls they are.
        level: The batch's priority, as `fair_queue.LEVELS` counts.
        bucket: What bounds calls to the judge's model, over all processes.
        profile: What bounds them here.
        calls: In the order in which they are to be sent.
        single: Sends one request within so many seconds.
        tokens_used: Returns the tokens a reply says it used; None where tokens are not counted.
        error: Why it stopped before its last call; set while it runs.
        cooldown_until: Until when its model's circuit is open, in Unix seconds; set while it runs.
    """

    name: str
    batch_id: str
    level: int
    bucket: Bucket
    profile: Profile
    calls: Iterator[PendingCall]
    single: Callable[[Mapping[str, Any], float], Awaitable[str]]
    tokens_used: Callable[[str], int | None] | None = None
    error: CJError | None = None
    cooldown_until: float | None = None


@dataclass(frozen=True)
class DispatchHooks:
    """What the dispatcher calls to share limits and to store replies.

    Attributes:
        open_limiter: Opens the shared file; closed at the end.
        journal: Writes a reply to disk the moment it arrives.
        sending: Writes to disk that a call is about to leave, for the how-manieth time: if nothing
            more is known of it after a kill, it may have been answered and paid for.
        withdrawn: Writes to disk that it surely was not carried out.
        checkpoint: Writes what has arrived to the store; returns whether to go on. Called in a
            thread, with nothing at every heartbeat.
        clock: Gives Unix seconds, as rows bear them.
        retry_rules: How often and how far apart.
        checkpoint_every: Replies that are stored together.
    """

    open_limiter: Callable[[], RateLimiter]
    journal: Callable[[CallOutcome], None]
    checkpoint: Callable[[Sequence[CallOutcome]], bool]
    sending: Callable[[PendingCall, int], None] = lambda call, n_tries: None  # noqa: ARG005
    withdrawn: Callable[[PendingCall, int], None] = lambda call, n_tries: None  # noqa: ARG005
    clock: Callable[[], float] = time.time
    retry_rules: RetryRules = field(default_factory=RetryRules)
    checkpoint_every: int | None = 25


def run_blocking(make: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine to its end, also where this thread has an event loop already."""

    async def main() -> T:
        return await make()

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(main())
    with ThreadPoolExecutor(1) as thread:  # a notebook's thread is busy with a loop of its own
        return thread.submit(asyncio.run, main()).result()


async def make_calls(targets: Sequence[CallTarget], hooks: DispatchHooks) -> None:
    """Make every call of every target, as far as it can be made now.

    Each target ends on its own: what stopped it is in its `error`, and what has no `CallOutcome`
    by then is still to be requested. A cancelled or failing run stores what has arrived.
    """
    limiter = hooks.open_limiter()
    with ThreadPoolExecutor(1, thread_name_prefix="rate-limiter") as thread:
        try:
            run = _Run(limiter, thread, hooks)
            writer = asyncio.create_task(run.write())
            running = [asyncio.create_task(_run_target(target, run)) for target in targets]
            try:
                await _all_or_first_failure([*running, writer], until_done=running)
            finally:
                for task in running:
                    task.cancel()
                await asyncio.gather(*running, return_exceptions=True)
                await run.finish(writer)
        finally:
            limiter.close()


class _StoppedError(Exception):
    """The whole run is to stop."""


class _CircuitOpenError(Exception):
    """The model's cooldown is so long that the judge is deferred."""


class _DeadlineError(Exception):
    """The permit did not come in time."""


class _Run:
    """What all targets of a run share: the rate limiter, the way to the store, and the stop."""

    def __init__(
        self, limiter: RateLimiter, thread: ThreadPoolExecutor, hooks: DispatchHooks
    ) -> None:
        self.limiter = limiter
        self.hooks = hooks
        self.stopping = asyncio.Event()
        self._thread = thread
        every = hooks.checkpoint_every or MOST_UNSAVED
        self._every = min(every, MOST_UNSAVED)
        self._arrived: asyncio.Queue[CallOutcome | None] = asyncio.Queue(MOST_UNSAVED)

    async def shared(self, action: Callable[..., T], *args: Any) -> T:
        """Do something in the shared file, in the one thread that may."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, functools.partial(action, *args))

    async def arrive(self, outcome: CallOutcome) -> None:
        """Record a call's outcome."""
        self.hooks.journal(outcome)
        await self._arrived.put(outcome)

    async def write(self) -> None:
        """Store what arrives: by number, by time, and all of it at the end."""
        unsaved: list[CallOutcome] = []
        last = time.monotonic()
        while True:
            patience = (CHECKPOINT_S if unsaved else HEARTBEAT_S) - (time.monotonic() - last)
            is_over, is_due = False, False
            try:
                async with asyncio.timeout(max(0.0, patience)):
                    arrived = await self._arrived.get()
                if arrived is None:
                    is_over = True
                else:
                    unsaved.append(arrived)
            except TimeoutError:
                is_due = True
            if is_over or is_due or len(unsaved) >= self._every:
                saved, unsaved = unsaved, []
                goes_on = await asyncio.to_thread(self.hooks.checkpoint, saved)
                last = time.monotonic()
                if not goes_on:
                    self.stopping.set()
            if is_over:
                return

    async def finish(self, writer: asyncio.Task[None]) -> None:
        """Have the writer store the rest; whatever ended the run, what was paid for is stored."""
        if not writer.done():
            await self._arrived.put(None)
        await asyncio.shield(writer)

    async def pause(self, seconds: float) -> None:
        """Sleep, unless the run is to stop."""
        try:
            async with asyncio.timeout(seconds):
                await self.stopping.wait()
        except TimeoutError:
            return
        raise _StoppedError


@dataclass(frozen=True)
class _Permit:
    """A permit: the id it counts under, the probe's name if it is one, and when it was granted."""

    sent_id: int
    probe: str | None
    at: float


@dataclass
class _Waiter:
    """A call that waits for its permit."""

    tokens: int
    since: float
    permit: asyncio.Future[_Permit]


class _PermitQueue:
    """Acquires permits for one target's calls and reports their results to the rate limiter."""

    def __init__(self, target: CallTarget, run: _Run) -> None:
        self._target, self._run = target, run
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self.n_ready: Callable[[], int] = lambda: 0
        self.is_open = False
        self._waiters: deque[_Waiter] = deque()
        self._released: list[ReleasedPermit] = []
        self._n_in_flight = 0
        self._wake = asyncio.Event()

    async def acquire(self, tokens: int, since: float, within_s: float | None) -> _Permit:
        """Return a permit, fresh enough to be counted when it is used.

        Raises:
            _DeadlineError: If it does not come in time.
            _CircuitOpenError: If the model's cooldown is longer than the run waits.
            _StoppedError: If the run is to stop.
        """
        waiter = _Waiter(tokens, since, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        self._wake.set()
        was_granted = False
        try:
            async with asyncio.timeout(within_s):
                permit = await waiter.permit
            was_granted = True
        except TimeoutError:
            raise _DeadlineError from None
        finally:
            if not was_granted:
                self._withdraw(waiter)
        return await self._refreshed(permit)

    async def _refreshed(self, permit: _Permit) -> _Permit:
        """Refresh a permit that this process could not use at once."""
        for _ in range(3 if self._target.bucket.limits else 0):
            if time.time() - permit.at <= STALE_S:
                break
            try:
                at = await self._run.shared(self._run.limiter.refresh, [permit.sent_id])
            except asyncio.CancelledError:
                self.release(ReleasedPermit("cancelled", permit.sent_id, permit.probe))
                raise
            permit = replace(permit, at=at)
        return permit

    def release(self, released: ReleasedPermit) -> None:
        """Record a call that ended; the rate limiter is told with the next request for permits."""
        self._n_in_flight -= 1
        self._released.append(released)
        self._wake.set()

    def reject_waiters(self, error: Exception) -> None:
        """End every wait with this error."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.permit.done():
                waiter.permit.set_exception(error)

    async def run(self) -> None:
        """Acquire permits for the waiters, until cancelled."""
        stopped = asyncio.create_task(self._run.stopping.wait())
        stopped.add_done_callback(lambda _: self._wake.set())
        pause_s = HEARTBEAT_S
        try:
            while True:
                try:
                    async with asyncio.timeout(pause_s):
                        await self._wake.wait()
                except TimeoutError:
                    pass
                self._wake.clear()
                await asyncio.sleep(0)  # calls that became ready with this one join the chunk
                if self._run.stopping.is_set():
                    self.reject_waiters(_StoppedError())
                pause_s = await self._acquire()
        finally:
            stopped.cancel()

    async def close(self) -> None:
        """Report the last results to the rate limiter, and leave it."""
        self.reject_waiters(_StoppedError())
        await self._run.shared(self._run.limiter.release, self._target.bucket, self._released)
        await self._run.shared(self._run.limiter.leave, self._target.bucket, self.owner)

    async def _acquire(self) -> float:
        """Acquire the permits there are; return how long to wait before the next request."""
        if not self._waiters and not self._released and not self._n_in_flight:
            return HEARTBEAT_S
        waiting = list(islice(self._waiters, self._target.profile.turns_at_once))
        released, self._released = self._released, []
        granted: Permits = await self._run.shared(
            self._run.limiter.acquire, self._target.bucket, self._request(waiting), released
        )
        self.is_open = granted.open_until is not None
        for sent_id in granted.sent_ids:
            self._n_in_flight += 1
            self._grant(_Permit(sent_id, granted.probe, granted.at))
        if granted.open_until is not None and granted.open_until - time.time() > PATIENCE_S:
            self._target.cooldown_until = granted.open_until
            self.reject_waiters(_CircuitOpenError())
        elif granted.paused_until is not None and self._is_too_long(granted.paused_until):
            self._target.cooldown_until = granted.paused_until
            self._target.error = self._target.error or _left_alone(self._target)
            self.reject_waiters(_CircuitOpenError())
        if self._waiters and len(granted.sent_ids) == len(waiting):
            self._wake.set()
        return min(LONGEST_PAUSE_S, granted.wait_s) if self._waiters else HEARTBEAT_S

    def _is_too_long(self, paused_until: float) -> bool:
        """Whether a pause outlasts the run's patience, and no call gives up sooner by itself."""
        pause_s = paused_until - time.time()
        own = self._target.profile.wait_timeout_seconds
        return pause_s > PATIENCE_S and (own is None or own > PATIENCE_S)

    def _request(self, waiting: Sequence[_Waiter]) -> AcquireRequest:
        return AcquireRequest(
            owner=self.owner,
            batch_id=self._target.batch_id,
            level=self._target.level,
            since=waiting[0].since if waiting else time.time(),
            tokens=tuple(waiter.tokens for waiter in waiting),
            n_waiting=len(self._waiters) + (self.n_ready() if waiting else 0),
            n_in_flight=self._n_in_flight,
            probe_s=self._target.profile.call_timeout_s + GRACE_S,
        )

    def _grant(self, permit: _Permit) -> None:
        """Give a permit to the call that waits longest; release it if none waits."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.permit.done():
                waiter.permit.set_result(permit)
                return
        self.release(ReleasedPermit("cancelled", permit.sent_id, permit.probe))

    def _withdraw(self, waiter: _Waiter) -> None:
        """Remove a call that no longer waits; a permit that came in that moment is released."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        elif (
            waiter.permit.done() and not waiter.permit.cancelled() and not waiter.permit.exception()
        ):
            permit = waiter.permit.result()
            self.release(ReleasedPermit("cancelled", permit.sent_id, permit.probe))


async def _run_target(target: CallTarget, run: _Run) -> None:
    """Make one target's calls; what stops it stops no other target."""
    profile = target.profile
    ready: asyncio.Queue[_Ready | None] = asyncio.Queue(profile.queue or 2 * profile.workers)
    permits = _PermitQueue(target, run)
    permits.n_ready = ready.qsize
    pump = asyncio.create_task(permits.run())
    feeder = asyncio.create_task(_feed(target, ready, profile.workers, run.hooks.clock))
    workers = [
        asyncio.create_task(_Worker(target, run, permits).work(ready))
        for _ in range(profile.workers)
    ]
    try:
        await _all_or_first_failure([*workers, feeder, pump], until_done=workers)
    finally:
        for task in (*workers, feeder, pump):
            task.cancel()
        await asyncio.gather(*workers, feeder, pump, return_exceptions=True)
        await permits.close()


@dataclass(frozen=True)
class _Ready:
    """A call whose request is ready; since when, by the rate limiter's clock and by the rows'."""

    call: PendingCall
    request: Mapping[str, Any]
    since: float
    queued_at: float


async def _feed(
    target: CallTarget,
    ready: asyncio.Queue[_Ready | None],
    n_workers: int,
    clock: Callable[[], float],
) -> None:
    for call in target.calls:
        await ready.put(_Ready(call, call.build(), time.time(), clock()))
    for _ in range(n_workers):
        await ready.put(None)


class _Worker:
    """Makes one call at a time."""

    def __init__(self, target: CallTarget, run: _Run, permits: _PermitQueue) -> None:
        self._target, self._run, self._permits = target, run, permits

    async def work(self, ready: asyncio.Queue[_Ready | None]) -> None:
        """Make calls until there are none, or the target or the run stops."""
        while not self._run.stopping.is_set() and not self._is_over:
            waiting = await ready.get()
            if waiting is None or self._is_over:
                return
            try:
                outcome = await self._make(waiting)
            except _StoppedError:
                return
            except _CircuitOpenError:
                self._target.error = self._target.error or _cooling_down(self._target)
                return
            except FinalError as error:
                self._target.error = error
                return
            if outcome is not None:
                await self._run.arrive(outcome)

    @property
    def _is_over(self) -> bool:
        error = self._target.error
        return self._target.cooldown_until is not None or isinstance(error, FinalError)

    async def _make(self, waiting: _Ready) -> CallOutcome | None:
        """Return a call's outcome; None where it has to be sent in a later pass."""
        target, rules = self._target, self._run.hooks.retry_rules
        begun = time.monotonic()
        expires_in = self._expires_in(waiting.call)
        attempts: dict[Cause, int] = {}
        attempt = _Attempt(waiting)

        def left_s() -> float | None:
            bounds = [expires_in, target.profile.wait_timeout_seconds]
            spent = time.monotonic() - begun
            return min((bound - spent for bound in bounds if bound is not None), default=None)

        try:
            retry = retrying(rules, left_s, self._run.pause, attempts, patience_s=PATIENCE_S)
            body: str = await retry(self._attempt, attempt, left_s)
        except _DeadlineError:
            return self._out_of_time(attempt, expires_in, begun)
        except TransientError as error:
            cause = cause_of(error)
            if attempts[cause] < rules.max_attempts[cause]:
                return self._out_of_time(attempt, expires_in, begun, error)
            if self._permits.is_open:
                # Not this call's fault: it is retried once its model is back.
                target.error = error
                return None
            body = _failure_body(waiting.call, str(error), cause.value)
            return self._outcome_of(attempt, "failed", body)
        return self._outcome_of(attempt, "matched", body)

    async def _attempt(self, attempt: _Attempt, left_s: Callable[[], float | None]) -> str:
        """Acquire a permit and send the request once."""
        within = left_s()
        if within is not None and within <= 0:
            raise _DeadlineError
        waiting = attempt.waiting
        permit = await self._permits.acquire(waiting.call.tokens, waiting.since, within)
        attempt.n_tries += 1
        attempt.sent_at = self._run.hooks.clock()
        result: CallResult = "cancelled"
        message: str | None = None
        tokens: int | None = None
        self._run.hooks.sending(waiting.call, attempt.n_tries)
        try:
            body = await self._send(waiting.request)
            result = "success"
            if self._target.tokens_used is not None:
                tokens = self._target.tokens_used(body)
        except CJError as error:
            is_ours = isinstance(error, FinalError) or is_client_error(error)
            result, message = ("ignored" if is_ours else "failure"), str(error)
            if isinstance(error, UncertainOutcomeError):
                await self._run.arrive(self._outcome_of(attempt, "in_doubt", ""))
            else:
                self._run.hooks.withdrawn(waiting.call, attempt.n_tries)
            if wait_s := retry_after_s(error):
                await self._run.shared(self._run.limiter.pause, self._target.bucket, wait_s)
            raise
        finally:
            self._permits.release(
                ReleasedPermit(result, permit.sent_id, permit.probe, tokens, message)
            )
        return body

    async def _send(self, request: Mapping[str, Any]) -> str:
        timeout_s = self._target.profile.call_timeout_s
        try:
            async with asyncio.timeout(timeout_s + GRACE_S):
                return await self._target.single(request, timeout_s)
        except TimeoutError:
            msg = f"{self._target.name} sent no whole answer within {timeout_s + GRACE_S:g} s."
            raise UncertainOutcomeError(msg) from None

    def _expires_in(self, call: PendingCall) -> float | None:
        ttl = self._target.profile.result_ttl_seconds
        return None if ttl is None else call.recorded_at + ttl - self._run.hooks.clock()

    def _out_of_time(
        self,
        attempt: _Attempt,
        expires_in: float | None,
        begun: float,
        error: CJError | None = None,
    ) -> CallOutcome | None:
        """End a call as expired, or leave it for a later pass if it only waited too long."""
        if expires_in is not None and time.monotonic() - begun >= expires_in - 0.001:
            ttl = self._target.profile.result_ttl_seconds
            message = f"Not sent within {ttl:g} s (result_ttl_seconds): its time was over."
            body = _failure_body(attempt.waiting.call, message, "expired")
            return self._outcome_of(attempt, "expired", body)
        wait = self._target.profile.wait_timeout_seconds
        msg = f"{self._target.name}: no answer within the wait of {wait:g} s." if wait else ""
        self._target.error = error or ProviderUnavailableError(msg)
        return None

    def _outcome_of(self, attempt: _Attempt, kind: Kind, body: str) -> CallOutcome:
        call = attempt.waiting.call
        return CallOutcome(
            submission_key=call.submission_key,
            line=call.line,
            custom_id=call.custom_id,
            kind=kind,
            body=body,
            n_tries=attempt.n_tries,
            queued_at=attempt.waiting.queued_at,
            sent_at=attempt.sent_at,
            answered_at=self._run.hooks.clock(),
        )


@dataclass
class _Attempt:
    """A call while attempts are made."""

    waiting: _Ready
    n_tries: int = 0
    sent_at: float | None = None


def _failure_body(call: PendingCall, message: str, code: str) -> str:
    return json.dumps({"custom_id": call.custom_id, "error": {"code": code, "message": message}})


def _cooling_down(target: CallTarget) -> ProviderUnavailableError:
    wait_s = max(0.0, (target.cooldown_until or 0.0) - time.time())
    msg = (
        f"{target.name} failed so often in a row that it is left alone for {wait_s:.0f} s; what "
        "it has not answered is requested then."
    )
    return ProviderUnavailableError(msg, retry_after_s=wait_s)


def _left_alone(target: CallTarget) -> ProviderUnavailableError:
    until = target.cooldown_until or 0.0
    wait_s = max(0.0, until - time.time())
    moment = datetime.fromtimestamp(until, UTC)
    msg = (
        f"The provider of {target.name} asked to be left alone for {wait_s:.0f} s, until"
        f" {moment:%Y-%m-%d %H:%M} UTC: what it has not answered is requested then."
    )
    return ProviderUnavailableError(msg, retry_after_s=wait_s)


async def _all_or_first_failure(
    tasks: Sequence[asyncio.Task[Any]], *, until_done: Sequence[asyncio.Task[Any]]
) -> None:
    """Wait until some tasks have ended; raise the first failure of any."""
    waiting = set(tasks)
    while any(not task.done() for task in until_done):
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    for task in until_done:
        task.result()
