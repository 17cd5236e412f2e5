"""Single calls to several judges at once, each within its profile, and none waiting for another.

Per judge a feeder keeps a few requests ready, a gate takes turns for them in the shared lanes, and
workers send them; there is no barrier between one call and the next. What arrives goes to the
journal at once and to the store by the checkpoint. Memory is bounded by what is ready, in flight
or not yet at a checkpoint, however long the wave is.

Nothing here knows the store or a provider: `steps.live_calls` brings them in.
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
from itertools import islice
from typing import Any, Literal, TypeVar

from cj_pipeline.errors import (
    CJError,
    FinalError,
    ProviderUnavailableError,
    TransientError,
    UncertainOutcomeError,
)
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
    asked_wait_s,
    cause_of,
    is_client_error,
    retrying,
)

T = TypeVar("T")
Kind = Literal["matched", "failed", "expired", "in_doubt"]

HEARTBEAT_S = 3.0
"""How often the store is looked at where nothing has to be kept: for a cancellation, mostly."""

CHECKPOINT_S = 2.0
"""After which whatever has arrived is kept, however little it is."""

MOST_UNKEPT = 1000
"""Replies in memory at the most; where the store is slower than the providers, they wait."""

PATIENCE_S = 10.0
"""A model that rests longer than this is put off; the judge's calls go on in a later pass."""

LONGEST_NAP_S = 1.0
"""A gate that waits is heard of this often, so that it is not taken for dead."""

GRACE_S = 5.0
"""Beyond a try's timeout, which counts each silence on the wire: then the call is given up."""


@dataclass(frozen=True)
class PendingCall:
    """One request that has no reply yet.

    Attributes:
        submission_key: The job it belongs to.
        line: Where in the job, from 1.
        custom_id: Brings its reply home.
        build: Returns the request; called when its turn comes near, never for all at once.
        tokens: As many as it can use at the most.
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
    """What became of a call: a reply, a failure after every try, or an expiry.

    Or of one try (`in_doubt`): its reply was lost, it may be paid for, and it is tried again.

    Times are Unix seconds; `sent_at` is that of the last try, None where there was none.
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
    """One judge to be asked, and how.

    Attributes:
        name: Of the judge.
        batch_id: Whose calls they are.
        level: The batch's priority, as `sharing.LEVELS` counts.
        lane: What bounds calls to the judge's model, over all processes.
        profile: What bounds them here.
        calls: In the order in which they are to be sent.
        single: Sends one request within so many seconds.
        tokens_used: Returns what a reply says it cost; None where nobody counts tokens.
        trouble: Why it was left before its calls were at their end; set while it runs.
        rests_until: Until when its model rests, in Unix seconds; set while it runs.
    """

    name: str
    batch_id: str
    level: int
    lane: Bucket
    profile: Profile
    calls: Iterator[PendingCall]
    single: Callable[[Mapping[str, Any], float], Awaitable[str]]
    tokens_used: Callable[[str], int | None] | None = None
    trouble: CJError | None = None
    rests_until: float | None = None


@dataclass(frozen=True)
class DispatchHooks:
    """What calls are made in.

    Attributes:
        lanes: Opens the shared file; closed at the end.
        note: Puts a reply on disk the moment it arrives.
        keep: Brings what has arrived to the store; returns whether to go on. Called in a thread,
            with nothing at every heartbeat.
        clock: Gives Unix seconds, as rows bear them.
        retry_rules: How often and how far apart.
        checkpoint_every: Replies that are kept together.
    """

    lanes: Callable[[], RateLimiter]
    note: Callable[[CallOutcome], None]
    keep: Callable[[Sequence[CallOutcome]], bool]
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


async def make_calls(targets: Sequence[CallTarget], around: DispatchHooks) -> None:
    """Make every call of every target, as far as it can be made now.

    Each target ends on its own: what stopped it is in its `trouble`, and what has no `CallOutcome`
    by then is still to be asked. A cancelled or failing run keeps what has arrived.
    """
    lanes = around.lanes()
    with ThreadPoolExecutor(1, thread_name_prefix="lanes") as thread:
        try:
            run = _Run(lanes, thread, around)
            writer = asyncio.create_task(run.write())
            asking = [asyncio.create_task(_ask(target, run)) for target in targets]
            try:
                await _all_or_first_failure([*asking, writer], until_done=asking)
            finally:
                for task in asking:
                    task.cancel()
                await asyncio.gather(*asking, return_exceptions=True)
                await run.finish(writer)
        finally:
            lanes.close()


class _StoppedError(Exception):
    """The whole run was told to stop."""


class _CircuitOpenError(Exception):
    """The model rests for so long that the judge is put off."""


class _DeadlineError(Exception):
    """The turn did not come in time."""


class _Run:
    """What all targets of a run share: the lanes, the way to the store, and the stop."""

    def __init__(
        self, lanes: RateLimiter, thread: ThreadPoolExecutor, around: DispatchHooks
    ) -> None:
        self.lanes = lanes
        self.around = around
        self.stopping = asyncio.Event()
        self._thread = thread
        every = around.checkpoint_every or MOST_UNKEPT
        self._every = min(every, MOST_UNKEPT)
        self._arrived: asyncio.Queue[CallOutcome | None] = asyncio.Queue(MOST_UNKEPT)

    async def shared(self, action: Callable[..., T], *args: Any) -> T:
        """Do something in the shared file, in the one thread that may."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, functools.partial(action, *args))

    async def arrive(self, answered: CallOutcome) -> None:
        """Take in what became of a call."""
        self.around.note(answered)
        await self._arrived.put(answered)

    async def write(self) -> None:
        """Keep what arrives: by number, by time, and all of it at the end."""
        unkept: list[CallOutcome] = []
        last = time.monotonic()
        while True:
            patience = (CHECKPOINT_S if unkept else HEARTBEAT_S) - (time.monotonic() - last)
            is_over, is_due = False, False
            try:
                async with asyncio.timeout(max(0.0, patience)):
                    arrived = await self._arrived.get()
                if arrived is None:
                    is_over = True
                else:
                    unkept.append(arrived)
            except TimeoutError:
                is_due = True
            if is_over or is_due or len(unkept) >= self._every:
                kept, unkept = unkept, []
                goes_on = await asyncio.to_thread(self.around.keep, kept)
                last = time.monotonic()
                if not goes_on:
                    self.stopping.set()
            if is_over:
                return

    async def finish(self, writer: asyncio.Task[None]) -> None:
        """Have the writer keep the rest; whatever ended the run, what was paid for is kept."""
        if not writer.done():
            await self._arrived.put(None)
        await asyncio.shield(writer)

    async def pause(self, seconds: float) -> None:
        """Sleep, unless the run is told to stop."""
        try:
            async with asyncio.timeout(seconds):
                await self.stopping.wait()
        except TimeoutError:
            return
        raise _StoppedError


@dataclass(frozen=True)
class _Permit:
    """A turn: the id it counts under, the probe's name if it is one, and when it was given."""

    sent_id: int
    probe: str | None
    at: float


@dataclass
class _Waiter:
    """A call that waits for its turn."""

    tokens: int
    since: float
    turn: asyncio.Future[_Permit]


class _PermitQueue:
    """Takes turns for one target's calls and tells the lane what became of them."""

    def __init__(self, target: CallTarget, run: _Run) -> None:
        self._target, self._run = target, run
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self.n_ready: Callable[[], int] = lambda: 0
        self.is_resting = False
        self._tickets: deque[_Waiter] = deque()
        self._ended: list[ReleasedPermit] = []
        self._n_in_flight = 0
        self._wake = asyncio.Event()

    async def turn(self, tokens: int, since: float, within_s: float | None) -> _Permit:
        """Return a turn, fresh enough to be counted where it is used.

        Raises:
            _TooLateError: If it does not come in time.
            _RestsError: If the model rests for longer than the run waits.
            _StoppedError: If the run was told to stop.
        """
        ticket = _Waiter(tokens, since, asyncio.get_running_loop().create_future())
        self._tickets.append(ticket)
        self._wake.set()
        was_had = False
        try:
            async with asyncio.timeout(within_s):
                turn = await ticket.turn
            was_had = True
        except TimeoutError:
            raise _DeadlineError from None
        finally:
            if not was_had:
                self._withdraw(ticket)
        return await self._fresh(turn)

    async def _fresh(self, turn: _Permit) -> _Permit:
        """Count a turn anew where this process was kept from using it at once."""
        for _ in range(3 if self._target.lane.limits else 0):
            if time.time() - turn.at <= STALE_S:
                break
            try:
                at = await self._run.shared(self._run.lanes.refresh, [turn.sent_id])
            except asyncio.CancelledError:
                self.end(ReleasedPermit("cancelled", turn.sent_id, turn.probe))
                raise
            turn = replace(turn, at=at)
        return turn

    def end(self, ended: ReleasedPermit) -> None:
        """Note a call that ended; the lane hears of it with the next turns."""
        self._n_in_flight -= 1
        self._ended.append(ended)
        self._wake.set()

    def reject_waiters(self, error: Exception) -> None:
        """Let nobody wait any longer."""
        while self._tickets:
            ticket = self._tickets.popleft()
            if not ticket.turn.done():
                ticket.turn.set_exception(error)

    async def run(self) -> None:
        """Take turns for whoever waits, until cancelled."""
        stopped = asyncio.create_task(self._run.stopping.wait())
        stopped.add_done_callback(lambda _: self._wake.set())
        nap_s = HEARTBEAT_S
        try:
            while True:
                try:
                    async with asyncio.timeout(nap_s):
                        await self._wake.wait()
                except TimeoutError:
                    pass
                self._wake.clear()
                await asyncio.sleep(0)  # whoever became ready with this one joins the chunk
                if self._run.stopping.is_set():
                    self.reject_waiters(_StoppedError())
                nap_s = await self._take()
        finally:
            stopped.cancel()

    async def close(self) -> None:
        """Tell the lane what is left to tell, and leave it."""
        self.reject_waiters(_StoppedError())
        await self._run.shared(self._run.lanes.release, self._target.lane, self._ended)
        await self._run.shared(self._run.lanes.leave, self._target.lane, self.owner)

    async def _take(self) -> float:
        """Take what turns there are; return how long to nap before the next look."""
        if not self._tickets and not self._ended and not self._n_in_flight:
            return HEARTBEAT_S
        asked = list(islice(self._tickets, self._target.profile.turns_at_once))
        ended, self._ended = self._ended, []
        turns: Permits = await self._run.shared(
            self._run.lanes.acquire, self._target.lane, self._wish(asked), ended
        )
        self.is_resting = turns.open_until is not None
        for sent_id in turns.sent_ids:
            self._n_in_flight += 1
            self._give(_Permit(sent_id, turns.probe, turns.at))
        if turns.open_until is not None and turns.open_until - time.time() > PATIENCE_S:
            self._target.rests_until = turns.open_until
            self.reject_waiters(_CircuitOpenError())
        if self._tickets and len(turns.sent_ids) == len(asked):
            self._wake.set()
        return min(LONGEST_NAP_S, turns.wait_s) if self._tickets else HEARTBEAT_S

    def _wish(self, asked: Sequence[_Waiter]) -> AcquireRequest:
        return AcquireRequest(
            owner=self.owner,
            batch_id=self._target.batch_id,
            level=self._target.level,
            since=asked[0].since if asked else time.time(),
            tokens=tuple(ticket.tokens for ticket in asked),
            n_waiting=len(self._tickets) + (self.n_ready() if asked else 0),
            n_in_flight=self._n_in_flight,
            probe_s=self._target.profile.call_timeout_s + GRACE_S,
        )

    def _give(self, turn: _Permit) -> None:
        """Give a turn to whoever waits longest; nobody may be left who does."""
        while self._tickets:
            ticket = self._tickets.popleft()
            if not ticket.turn.done():
                ticket.turn.set_result(turn)
                return
        self.end(ReleasedPermit("cancelled", turn.sent_id, turn.probe))

    def _withdraw(self, ticket: _Waiter) -> None:
        """Take a call out that waits no more; a turn that came in that moment is given back."""
        if ticket in self._tickets:
            self._tickets.remove(ticket)
        elif ticket.turn.done() and not ticket.turn.cancelled() and not ticket.turn.exception():
            turn = ticket.turn.result()
            self.end(ReleasedPermit("cancelled", turn.sent_id, turn.probe))


async def _ask(target: CallTarget, run: _Run) -> None:
    """Make one target's calls; what stops it stops nobody else."""
    profile = target.profile
    ready: asyncio.Queue[_Ready | None] = asyncio.Queue(profile.queue or 2 * profile.workers)
    gate = _PermitQueue(target, run)
    gate.n_ready = ready.qsize
    pump = asyncio.create_task(gate.run())
    feeder = asyncio.create_task(_feed(target, ready, profile.workers, run.around.clock))
    workers = [
        asyncio.create_task(_Worker(target, run, gate).work(ready)) for _ in range(profile.workers)
    ]
    try:
        await _all_or_first_failure([*workers, feeder, pump], until_done=workers)
    finally:
        for task in (*workers, feeder, pump):
            task.cancel()
        await asyncio.gather(*workers, feeder, pump, return_exceptions=True)
        await gate.close()


@dataclass(frozen=True)
class _Ready:
    """A call whose request stands ready; since when, by the lanes' clock and by the rows'."""

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

    def __init__(self, target: CallTarget, run: _Run, gate: _PermitQueue) -> None:
        self._target, self._run, self._gate = target, run, gate

    async def work(self, ready: asyncio.Queue[_Ready | None]) -> None:
        """Make calls until there are none, or the target or the run stops."""
        while not self._run.stopping.is_set() and not self._is_over:
            waiting = await ready.get()
            if waiting is None or self._is_over:
                return
            try:
                answered = await self._make(waiting)
            except _StoppedError:
                return
            except _CircuitOpenError:
                self._target.trouble = self._target.trouble or _resting(self._target)
                return
            except FinalError as error:
                self._target.trouble = error
                return
            if answered is not None:
                await self._run.arrive(answered)

    @property
    def _is_over(self) -> bool:
        trouble = self._target.trouble
        return self._target.rests_until is not None or isinstance(trouble, FinalError)

    async def _make(self, waiting: _Ready) -> CallOutcome | None:
        """Return what became of a call; None where it has to be asked in a later pass."""
        target, rules = self._target, self._run.around.retry_rules
        begun = time.monotonic()
        expires_in = self._expires_in(waiting.call)
        tries: dict[Cause, int] = {}
        trying = _Trying(waiting)

        def left_s() -> float | None:
            bounds = [expires_in, target.profile.wait_timeout_seconds]
            spent = time.monotonic() - begun
            return min((bound - spent for bound in bounds if bound is not None), default=None)

        try:
            retry = retrying(rules, left_s, self._run.pause, tries)
            body: str = await retry(self._try, trying, left_s)
        except _DeadlineError:
            return self._late(trying, expires_in, begun)
        except TransientError as error:
            cause = cause_of(error)
            if tries[cause] < rules.most_tries[cause]:
                return self._late(trying, expires_in, begun, error)
            if self._gate.is_resting:
                # Not this call's fault: it is asked again once its model is back.
                target.trouble = error
                return None
            body = _failure_body(waiting.call, str(error), cause.value)
            return self._answered(trying, "failed", body)
        return self._answered(trying, "matched", body)

    async def _try(self, trying: _Trying, left_s: Callable[[], float | None]) -> str:
        """Take a turn and send the request once."""
        within = left_s()
        if within is not None and within <= 0:
            raise _DeadlineError
        waiting = trying.waiting
        turn = await self._gate.turn(waiting.call.tokens, waiting.since, within)
        trying.n_tries += 1
        trying.sent_at = self._run.around.clock()
        outcome: Literal["answered", "failed", "ignored", "cancelled"] = "cancelled"
        said: str | None = None
        tokens: int | None = None
        try:
            body = await self._send(waiting.request)
            outcome = "answered"
            if self._target.tokens_used is not None:
                tokens = self._target.tokens_used(body)
        except CJError as error:
            is_ours = isinstance(error, FinalError) or is_client_error(error)
            outcome, said = ("ignored" if is_ours else "failed"), str(error)
            if isinstance(error, UncertainOutcomeError):
                await self._run.arrive(self._answered(trying, "in_doubt", ""))
            if wait_s := asked_wait_s(error):
                await self._run.shared(self._run.lanes.pause, self._target.lane, wait_s)
            raise
        finally:
            self._gate.end(ReleasedPermit(outcome, turn.sent_id, turn.probe, tokens, said))
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
        return None if ttl is None else call.recorded_at + ttl - self._run.around.clock()

    def _late(
        self,
        trying: _Trying,
        expires_in: float | None,
        begun: float,
        error: CJError | None = None,
    ) -> CallOutcome | None:
        """End a call as expired, or leave it for a later pass if it only waited too long."""
        if expires_in is not None and time.monotonic() - begun >= expires_in - 0.001:
            ttl = self._target.profile.result_ttl_seconds
            said = f"Not sent within {ttl:g} s (result_ttl_seconds): its time was over."
            body = _failure_body(trying.waiting.call, said, "expired")
            return self._answered(trying, "expired", body)
        wait = self._target.profile.wait_timeout_seconds
        msg = f"{self._target.name}: no answer within the wait of {wait:g} s." if wait else ""
        self._target.trouble = error or ProviderUnavailableError(msg)
        return None

    def _answered(self, trying: _Trying, kind: Kind, body: str) -> CallOutcome:
        call = trying.waiting.call
        return CallOutcome(
            submission_key=call.submission_key,
            line=call.line,
            custom_id=call.custom_id,
            kind=kind,
            body=body,
            n_tries=trying.n_tries,
            queued_at=trying.waiting.queued_at,
            sent_at=trying.sent_at,
            answered_at=self._run.around.clock(),
        )


@dataclass
class _Trying:
    """A call while it is tried."""

    waiting: _Ready
    n_tries: int = 0
    sent_at: float | None = None


def _failure_body(call: PendingCall, message: str, code: str) -> str:
    return json.dumps({"custom_id": call.custom_id, "error": {"code": code, "message": message}})


def _resting(target: CallTarget) -> ProviderUnavailableError:
    wait_s = max(0.0, (target.rests_until or 0.0) - time.time())
    msg = (
        f"{target.name} failed so often in a row that it is left alone for {wait_s:.0f} s; what "
        "it has not answered is requested then."
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
