"""The rate limiter that all processes of one store share: permits, limits, health per model.

One SQLite file next to the store: a permit takes a fraction of a millisecond here, against a tenth
of a second in the store, whose tables get the changes at each checkpoint. Every transaction is
whole, whichever process dies; what a dead process held no longer counts once it has been silent
for a while. The tables call a bucket a lane.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import portalocker

from cj_pipeline.live.circuit_breaker import (
    Breaker,
    CallResult,
    admission,
    begin_probe,
    record_result,
)
from cj_pipeline.live.fair_queue import QueueEntry, allocate_permits

FILE = "live.sqlite"

SILENT_AFTER_S = 10.0
"""A process that waits or calls writes far more often; after this silence it counts as dead."""

STALE_S = 0.005
"""A permit older than this is refreshed before its call leaves, on a machine that is busy."""

RECHECK_S = 0.02
"""When a permit went to another waiter, or a call of another process may end any moment."""

MARGIN_SHARE, MARGIN_MOST_S = 0.02, 0.25
"""Windows are kept longer by this: a call leaves a moment after its permit was acquired."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS lanes (
    lane TEXT PRIMARY KEY, longest_window_s REAL NOT NULL, paused_until REAL NOT NULL,
    purged_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS sent (
    sent_id INTEGER PRIMARY KEY, lane TEXT NOT NULL, at REAL NOT NULL, tokens INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS sent_by_time ON sent (lane, at, tokens);
CREATE TABLE IF NOT EXISTS waiting (
    lane TEXT NOT NULL, owner TEXT NOT NULL, batch_id TEXT NOT NULL, level INTEGER NOT NULL,
    since REAL NOT NULL, n INTEGER NOT NULL, n_in_flight INTEGER NOT NULL, seen_at REAL NOT NULL,
    PRIMARY KEY (lane, owner)
);
CREATE TABLE IF NOT EXISTS served (
    lane TEXT NOT NULL, batch_id TEXT NOT NULL, n REAL NOT NULL, seen_at REAL NOT NULL,
    PRIMARY KEY (lane, batch_id)
);
CREATE TABLE IF NOT EXISTS breakers (
    lane TEXT PRIMARY KEY, state TEXT NOT NULL, n_failures INTEGER NOT NULL,
    n_trips INTEGER NOT NULL, open_until REAL NOT NULL, probe TEXT, probe_until REAL NOT NULL,
    last_error TEXT, changed_at REAL NOT NULL
);
"""


@dataclass(frozen=True)
class Rate:
    """At most `limit` calls, or tokens, within any window of `window_s` seconds."""

    unit: Literal["calls", "tokens"]
    limit: int
    window_s: float


@dataclass(frozen=True)
class Bucket:
    """A provider's model as one account reaches it, and what bounds calls to it.

    Attributes:
        name: Alike in every process.
        limits: All of them hold; other processes' calls count too.
        most_in_flight: Over all processes; None is no bound.
    """

    name: str
    limits: tuple[Rate, ...] = ()
    most_in_flight: int | None = None


@dataclass(frozen=True)
class AcquireRequest:
    """What one waiter wants: permits for its calls.

    Attributes:
        owner: Unique among all that may be alive.
        batch_id: Whose calls they are.
        level: The batch's priority, as `fair_queue.LEVELS` counts.
        since: When the oldest of them began to wait, by this file's clock.
        tokens: Of each call that wants a permit now, first come first.
        n_waiting: How many wait in all, those included.
        n_in_flight: Calls of this owner that are on their way.
        probe_s: How long a probe may take at most.
    """

    owner: str
    batch_id: str
    level: int
    since: float
    tokens: tuple[int, ...]
    n_waiting: int
    n_in_flight: int
    probe_s: float = 120.0


@dataclass(frozen=True)
class ReleasedPermit:
    """A call that ended: its result for the circuit breaker, and the tokens it really used."""

    outcome: CallResult
    sent_id: int
    probe: str | None = None
    tokens: int | None = None
    error: str | None = None


@dataclass(frozen=True)
class Permits:
    """Permits that were granted, and when to request more.

    Attributes:
        sent_ids: One per permit; the calls count as sent from `at` on.
        probe: The probe's name, where the one permit is to find out whether the model is back.
        wait_s: How long to wait before the next request, where not all were granted.
        open_until: When the breaker lets a probe through; None while it is closed.
        at: When they were granted, in Unix seconds.
        paused_until: Until when the provider asked to be left alone; None where it did not.
    """

    sent_ids: tuple[int, ...]
    probe: str | None
    wait_s: float
    open_until: float | None = None
    at: float = 0.0
    paused_until: float | None = None


class RateLimiter:
    """The shared file, seen from one thread.

    Args:
        path: Of the file; created if it does not exist.
        clock: Gives Unix seconds.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        # Switching a new file to WAL cannot wait for another process doing the same.
        with portalocker.Lock(f"{path}.lock", timeout=60):
            self._db = sqlite3.connect(
                path, timeout=60, isolation_level=None, check_same_thread=False
            )
            path.chmod(0o600)
            # Nothing here need survive a power cut: limits are kept by time, health is measured
            # again.
            self._db.execute("PRAGMA synchronous = OFF")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def acquire(
        self, bucket: Bucket, request: AcquireRequest, released: Sequence[ReleasedPermit] = ()
    ) -> Permits:
        """Record what ended and who waits, and grant the permits that are this waiter's now."""
        with self._transaction():
            now = self.clock()
            self._record_released(bucket.name, released, now)
            paused_until = self._open_bucket(bucket, now)
            self._join(bucket.name, request, now)
            breaker = self.breaker(bucket.name)
            admitted = admission(breaker, now)
            open_until = None if breaker.state == "closed" else breaker.open_until
            if not request.tokens:
                return Permits((), None, RECHECK_S, open_until)
            if admitted == "no" or now < paused_until:
                wait_s = max(breaker.open_until if open_until else 0.0, paused_until) - now
                paused = paused_until if now < paused_until else None
                return Permits((), None, max(RECHECK_S, wait_s), open_until, paused_until=paused)
            capacity, wait_s = self._capacity(bucket, request, now)
            if admitted == "probe":
                capacity = min(capacity, 1)
            n = self._allocate(bucket.name, request, capacity, now)
            if not n:
                return Permits((), None, wait_s, open_until)
            probe = None
            if admitted == "probe":
                probe = f"{request.owner}/{now:.6f}"
                self._save_breaker(
                    bucket.name, begin_probe(breaker, probe, now + request.probe_s), now
                )
            return Permits(
                self._record_sent(bucket.name, request, n, now), probe, wait_s, open_until, now
            )

    def release(self, bucket: Bucket, released: Sequence[ReleasedPermit]) -> None:
        """Record calls that ended, where no more permits are wanted."""
        with self._transaction():
            self._record_released(bucket.name, released, self.clock())

    def refresh(self, sent_ids: Sequence[int]) -> float:
        """Count permits granted a while ago as used now; return the time.

        They were counted all along, so that no window ever holds more than it may.
        """
        with self._transaction():
            now = self.clock()
            self._db.executemany(
                "UPDATE sent SET at = ? WHERE sent_id = ?", [(now, sent_id) for sent_id in sent_ids]
            )
        return now

    def leave(self, bucket: Bucket, owner: str) -> None:
        """Remove a waiter that wants nothing more from the queue."""
        with self._transaction():
            self._db.execute(
                "DELETE FROM waiting WHERE lane = ? AND owner = ?", [bucket.name, owner]
            )

    def pause(self, bucket: Bucket, seconds: float) -> None:
        """Let no process send for this long, as the provider requested."""
        with self._transaction():
            now = self.clock()
            self._open_bucket(bucket, now)
            self._db.execute(
                "UPDATE lanes SET paused_until = max(paused_until, ?) WHERE lane = ?",
                [now + seconds, bucket.name],
            )

    def breaker(self, bucket: str) -> Breaker:
        """Return what is known of a model's health."""
        row = self._db.execute(
            "SELECT state, n_failures, n_trips, open_until, probe, probe_until, last_error"
            " FROM breakers WHERE lane = ?",
            [bucket],
        ).fetchone()
        return Breaker(*row) if row else Breaker()

    def _open_bucket(self, bucket: Bucket, now: float) -> float:
        """Return until when it is paused; delete what no window reaches back to."""
        longest = max((rate.window_s for rate in bucket.limits), default=0.0)
        paused_until, purged_at, known_longest = self._db.execute(
            "INSERT INTO lanes VALUES (?, ?, 0, ?) ON CONFLICT (lane) DO UPDATE"
            " SET longest_window_s = max(longest_window_s, excluded.longest_window_s)"
            " RETURNING paused_until, purged_at, longest_window_s",
            [bucket.name, longest, now],
        ).fetchone()
        if now - purged_at > 1.0:
            self._db.execute(
                "DELETE FROM sent WHERE lane = ? AND at < ?",
                [bucket.name, now - max(60.0, known_longest + 2 * MARGIN_MOST_S)],
            )
            self._db.execute("DELETE FROM waiting WHERE seen_at < ?", [now - SILENT_AFTER_S])
            self._db.execute("UPDATE lanes SET purged_at = ? WHERE lane = ?", [now, bucket.name])
        return float(paused_until)

    def _join(self, bucket: str, request: AcquireRequest, now: float) -> None:
        """Record a waiter; its batch starts level with those that are being served already."""
        self._db.execute(
            "INSERT OR REPLACE INTO waiting VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                bucket,
                request.owner,
                request.batch_id,
                request.level,
                request.since,
                request.n_waiting,
                request.n_in_flight,
                now,
            ],
        )
        own = self._db.execute(
            "SELECT n, seen_at FROM served WHERE lane = ? AND batch_id = ?",
            [bucket, request.batch_id],
        ).fetchone()
        if own is None or own[1] < now - SILENT_AFTER_S:
            (level,) = self._db.execute(
                "SELECT coalesce(min(n), 0) FROM served"
                " WHERE lane = ? AND batch_id <> ? AND seen_at >= ?",
                [bucket, request.batch_id, now - SILENT_AFTER_S],
            ).fetchone()
            start = max(level, own[0] if own else 0.0)
            self._db.execute(
                "INSERT OR REPLACE INTO served VALUES (?, ?, ?, ?)",
                [bucket, request.batch_id, start, now],
            )
        else:
            self._db.execute(
                "UPDATE served SET seen_at = ? WHERE lane = ? AND batch_id = ?",
                [now, bucket, request.batch_id],
            )

    def _capacity(self, bucket: Bucket, request: AcquireRequest, now: float) -> tuple[int, float]:
        """Return how many calls may begin now, and in how many seconds another one may."""
        capacity, wait_s = 1 << 30, RECHECK_S
        for rate in bucket.limits:
            window = rate.window_s + min(MARGIN_SHARE * rate.window_s, MARGIN_MOST_S)
            fits, wait = self._capacity_under(bucket.name, rate, now - window, request)
            capacity = min(capacity, fits)
            wait_s = max(wait_s, wait)
        if bucket.most_in_flight is not None:
            (n,) = self._db.execute(
                "SELECT coalesce(sum(n_in_flight), 0) FROM waiting WHERE lane = ? AND seen_at >= ?",
                [bucket.name, now - SILENT_AFTER_S],
            ).fetchone()
            capacity = min(capacity, bucket.most_in_flight - n)
        return max(0, capacity), wait_s

    def _capacity_under(
        self, bucket: str, rate: Rate, since: float, request: AcquireRequest
    ) -> tuple[int, float]:
        """Return how many calls fit under one limit now, and how long until the next does."""
        what = "count(*)" if rate.unit == "calls" else "coalesce(sum(tokens), 0)"
        (used,) = self._db.execute(
            f"SELECT {what} FROM sent WHERE lane = ? AND at > ?",  # noqa: S608 -- two constants
            [bucket, since],
        ).fetchone()
        capacity = rate.limit - used
        if rate.unit == "calls":
            fits = int(capacity)
        else:
            fits = 0
            for tokens in request.tokens:
                if tokens > capacity:
                    break
                fits, capacity = fits + 1, capacity - tokens
            if fits == len(request.tokens):
                # What others' calls cost is not known here: like this waiter's own, at least one.
                fits += max(0, int(capacity // max(1, request.tokens[-1])))
        if fits >= len(request.tokens):
            return fits, 0.0
        oldest = self._db.execute(
            "SELECT at, tokens FROM sent WHERE lane = ? AND at > ? ORDER BY at LIMIT 1",
            [bucket, since],
        ).fetchone()
        return fits, max(RECHECK_S / 4, oldest[0] - since) if oldest else RECHECK_S

    def _allocate(self, bucket: str, request: AcquireRequest, capacity: int, now: float) -> int:
        """Return how many of the free permits are this waiter's."""
        wanted = len(request.tokens)
        rows = self._db.execute(
            "SELECT w.owner, w.batch_id, w.level, w.since, w.n, s.n FROM waiting w"
            " JOIN served s USING (lane, batch_id)"
            " WHERE lane = ? AND w.n > 0 AND w.seen_at >= ? ORDER BY w.owner",
            [bucket, now - SILENT_AFTER_S],
        ).fetchall()
        if capacity >= sum(row[4] for row in rows):
            return wanted
        shares = allocate_permits([QueueEntry(*row) for row in rows], capacity, now)
        return min(wanted, shares.get(request.owner, 0))

    def _record_sent(
        self, bucket: str, request: AcquireRequest, n: int, now: float
    ) -> tuple[int, ...]:
        ids = tuple(
            self._db.execute(
                "INSERT INTO sent (lane, at, tokens) VALUES (?, ?, ?) RETURNING sent_id",
                [bucket, now, tokens],
            ).fetchone()[0]
            for tokens in request.tokens[:n]
        )
        self._db.execute(
            "UPDATE waiting SET n = n - ?, n_in_flight = n_in_flight + ?"
            " WHERE lane = ? AND owner = ?",
            [n, n, bucket, request.owner],
        )
        self._db.execute(
            "UPDATE served SET n = n + ? WHERE lane = ? AND batch_id = ?",
            [n, bucket, request.batch_id],
        )
        return ids

    def _record_released(self, bucket: str, released: Sequence[ReleasedPermit], now: float) -> None:
        if not released:
            return
        before = breaker = self.breaker(bucket)
        for call in released:
            breaker = record_result(breaker, call.outcome, now, probe=call.probe, error=call.error)
            if call.tokens is not None:
                self._db.execute(
                    "UPDATE sent SET tokens = ? WHERE sent_id = ?", [call.tokens, call.sent_id]
                )
        if breaker != before:
            self._save_breaker(bucket, breaker, now)

    def _save_breaker(self, bucket: str, breaker: Breaker, now: float) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO breakers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                bucket,
                breaker.state,
                breaker.n_failures,
                breaker.n_trips,
                breaker.open_until,
                breaker.probe,
                breaker.probe_until,
                breaker.last_error,
                now,
            ],
        )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")
