"""Batches moved along by whichever process is alive: each is taken by lease, one at a time.

Any number of workers on any number of hosts share one store. None knows of another: a batch whose
worker died is free once its lease has run out, and who takes it goes on from the store's rows.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta

import duckdb
import structlog

from cj_pipeline.errors import CJError, FinalError, LeaseLostError
from cj_pipeline.logs import about_batch
from cj_pipeline.queries.batch_record import load_batch
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.advance import StepTaken, take_next_step
from cj_pipeline.steps.next_step import NextStep, next_steps
from cj_pipeline.steps.poll import next_poll_due
from cj_pipeline.steps.watchdog import end_stalled, has_stalled
from cj_pipeline.store.leases import BEATS_EVERY, LASTS, Leases, new_holder
from cj_pipeline.store.session import Lease

log = structlog.get_logger()

LOOK_EVERY_S = 1.0
"""How long a worker that found nothing to do waits before it looks again."""

HOLDS_FOR_S = 5.0
"""After so long another batch has its turn, once the step at hand has ended."""

LEAST_WAIT, LONGEST_WAIT = timedelta(seconds=0.5), timedelta(seconds=30)
"""For how long a batch that waits for its provider is left alone: what people do shows by then."""

AFTER_FAILURE, LONGEST_AFTER_FAILURE = timedelta(seconds=5), timedelta(minutes=5)
"""For how long a batch is left alone whose step failed: twice as long each time it fails again."""


@dataclass
class Worker:
    """One process that moves batches along.

    Attributes:
        runtime: Its connections.
        holder: What it calls itself in leases.
        stop: Set where it is to end after the step at hand.
        on_step: Told of each batch and step that was taken.
    """

    runtime: Runtime
    holder: str
    stop: threading.Event
    on_step: Callable[[str, StepTaken], None] = lambda _batch, _taken: None
    _failures: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    _held_at: dict[str, float] = field(default_factory=dict)

    def work(self, *, until_done: bool = False) -> None:
        """Move batches along until told to stop; or until all have ended, if asked to.

        Nothing that goes wrong with one batch, and no restart of the store, ends it.
        """
        while not self.stop.is_set():
            try:
                n_unfinished, moved = self.look()
            except (CJError, duckdb.Error) as error:
                log.warning("store_not_available", error=str(error))
                n_unfinished, moved = 1, False
            if until_done and not n_unfinished:
                return
            if not moved:
                self.stop.wait(LOOK_EVERY_S)

    def look(self) -> tuple[int, bool]:
        """Take the batch that has waited longest; return how many go on, and whether it moved.

        One whose row another process has just taken is passed over.
        """
        store = self.runtime.store
        with store.read() as db:
            due = [
                batch_id
                for batch_id, step in next_steps(db, self.runtime.clock()).items()
                if step is not NextStep.NOTHING
            ]
        busy = {each.batch_id for each in store.leases.busy()} if due else set()
        for batch_id in sorted(set(due) - busy, key=lambda b: (self._held_at.get(b, 0.0), b)):
            lease = store.leases.take(batch_id, self.holder)
            if lease is not None:
                moved = self._hold(lease)
                self._held_at[batch_id] = time.monotonic()
                return len(due), moved
        return len(due), False

    def _hold(self, lease: Lease) -> bool:
        """Move a batch along as far as it goes; return whether it moved."""
        lost = threading.Event()
        runtime = replace(
            self.runtime,
            store=self.runtime.store.with_lease(lease),
            is_stopped=lambda: self.stop.is_set() or lost.is_set(),
        )
        began, n_steps, pause = time.monotonic(), 0, timedelta()
        with kept(self.runtime.store.leases, lease, lost):
            try:
                with _about(runtime, lease.batch_id):
                    for taken in steps_of(runtime, lease.batch_id):
                        self.on_step(lease.batch_id, taken)
                        n_steps += not taken.waited
                        if taken.waited:
                            pause = _until_due(runtime, lease.batch_id)
                        elif time.monotonic() - began > HOLDS_FOR_S:
                            break
                self._failures.pop(lease.batch_id, None)
            except LeaseLostError as error:
                log.warning("lease_lost", error=str(error))
                return n_steps > 0
            except Exception as error:  # another batch must not suffer for this one
                pause = self._after(lease.batch_id, error)
        self.runtime.store.leases.give_back(lease, pause)
        return n_steps > 0

    def _after(self, batch_id: str, error: Exception) -> timedelta:
        """Log why a step failed; return for how long its batch is left alone."""
        if isinstance(error, CJError):
            log.warning(
                "step_failed", error=str(error), waits_for_person=isinstance(error, FinalError)
            )
        else:
            log.exception("step_failed")
        self._failures[batch_id] += 1
        doubled: int = 2 ** min(10, self._failures[batch_id] - 1)
        return min(LONGEST_AFTER_FAILURE, AFTER_FAILURE * doubled)


def steps_of(runtime: Runtime, batch_id: str) -> Iterator[StepTaken]:
    """Yield a batch's steps as they are taken, until it waits, has ended, or is to be left."""
    while not runtime.is_stopped():
        taken = take_next_step(runtime, batch_id)
        if taken.step is NextStep.NOTHING:
            return
        yield taken
        if taken.waited:
            with runtime.store.read() as db:
                is_stalled = has_stalled(db, batch_id, runtime.clock())
            if not is_stalled:
                return
            end_stalled(runtime, batch_id)


@contextmanager
def kept(leases: Leases, lease: Lease, lost: threading.Event) -> Iterator[None]:
    """Keep a lease while the block runs, by a thread that says every few seconds that we live.

    Args:
        leases: The store's.
        lease: Which.
        lost: Set once it is another's, or could not be kept for as long as it lasts.
    """
    ended = threading.Event()

    def beat() -> None:
        kept_at = time.monotonic()
        while not ended.wait(BEATS_EVERY.total_seconds()):
            try:
                if not leases.beat(lease):
                    lost.set()
                    return
                kept_at = time.monotonic()
            except (CJError, duckdb.Error) as error:
                log.warning("heartbeat_failed", error=str(error))
                if time.monotonic() - kept_at > LASTS.total_seconds():
                    lost.set()

    thread = threading.Thread(target=beat, name=f"lease {lease.batch_id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def new_worker(
    runtime: Runtime,
    stop: threading.Event,
    on_step: Callable[[str, StepTaken], None] = lambda _batch, _taken: None,
) -> Worker:
    """Return a worker of this process; `CJ_HOST` names its host, if it is set."""
    return Worker(runtime, new_holder(runtime.environment.get("CJ_HOST") or None), stop, on_step)


@contextmanager
def _about(runtime: Runtime, batch_id: str) -> Iterator[None]:
    with runtime.store.read() as db:
        record = load_batch(db, batch_id)
    with about_batch(
        batch_id=batch_id, correlation_id=record.correlation_id, runner_mode=record.runner_mode
    ):
        yield


def _until_due(runtime: Runtime, batch_id: str) -> timedelta:
    """Return how long nothing can be done for a batch, as far as its rows tell."""
    with runtime.store.read() as db:
        due = next_poll_due(db, batch_id)
    if due is None:
        return LONGEST_WAIT
    return min(LONGEST_WAIT, max(LEAST_WAIT, due - runtime.clock()))
