"""What all processes of one home share about a provider's model: turns, limits, health.

One SQLite file beside the store: a turn takes a fraction of a millisecond here, against a tenth of
a second in the store, whose tables are told of changes at each checkpoint. Every transaction is
whole, whoever dies; what a dead process held counts no more once it has been silent for a while.
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
"""Who waits or calls is heard of far more often; later than this it counts as dead."""

STALE_S = 0.005
"""A turn older than this is counted anew before its call leaves, on a machine that is busy."""

LOOK_AGAIN_S = 0.02
"""When a turn was somebody else's, or a call of another process may end any moment."""

MARGIN_SHARE, MARGIN_MOST_S = 0.02, 0.25
"""Windows are kept longer by this: a call leaves a moment after its turn was taken."""

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
    """At most so many calls, or tokens, within any window of so many seconds."""

    unit: Literal["calls", "tokens"]
    most: int
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
    """What one waiter wants: turns for its calls.

    Attributes:
        owner: Unique among all that may be alive.
        batch_id: Whose calls they are.
        level: The batch's priority, as `sharing.LEVELS` counts.
        since: When the oldest of them began to wait, by this file's clock.
        tokens: Of each call that wants a turn now, first come first.
        n_waiting: How many wait in all, those included.
        n_in_flight: Calls of this owner that are on their way.
        probe_s: How long a probe may take at the most.
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
    """A call that ended: what the breaker learns, and the tokens it really used."""

    outcome: CallResult
    sent_id: int
    probe: str | None = None
    tokens: int | None = None
    error: str | None = None


@dataclass(frozen=True)
class Permits:
    """Turns that were given, and when to ask for more.

    Attributes:
        sent_ids: One a turn; the calls count as sent from `at` on.
        probe: The probe's name, where the one turn is to find out whether the model is back.
        wait_s: How long to wait before asking again, where not all were given.
        open_until: When the breaker lets a probe through; None while it is closed.
        at: When they were given, in Unix seconds.
    """

    sent_ids: tuple[int, ...]
    probe: str | None
    wait_s: float
    open_until: float | None = None
    at: float = 0.0


class RateLimiter:
    """The shared file, seen from one thread.

    Args:
        path: Of the file; made if it is not there.
        clock: Gives Unix seconds.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        # Turning a new file to WAL cannot wait for another process doing the same.
        with portalocker.Lock(f"{path}.lock", timeout=60):
            self._db = sqlite3.connect(
                path, timeout=60, isolation_level=None, check_same_thread=False
            )
            path.chmod(0o600)
            # Nothing here need survive a power cut: limits are kept by time, health is found anew.
            self._db.execute("PRAGMA synchronous = OFF")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def acquire(
        self, lane: Bucket, wish: AcquireRequest, ended: Sequence[ReleasedPermit] = ()
    ) -> Permits:
        """Note what ended and who waits, and give the turns that are this waiter's now."""
        with self._transaction():
            now = self.clock()
            self._end(lane.name, ended, now)
            paused_until = self._open_lane(lane, now)
            self._join(lane.name, wish, now)
            breaker = self.breaker(lane.name)
            passing = admission(breaker, now)
            open_until = None if breaker.state == "closed" else breaker.open_until
            if not wish.tokens:
                return Permits((), None, LOOK_AGAIN_S, open_until)
            if passing == "no" or now < paused_until:
                wait_s = max(breaker.open_until if open_until else 0.0, paused_until) - now
                return Permits((), None, max(LOOK_AGAIN_S, wait_s), open_until)
            room, wait_s = self._room(lane, wish, now)
            if passing == "probe":
                room = min(room, 1)
            n = self._share(lane.name, wish, room, now)
            if not n:
                return Permits((), None, wait_s, open_until)
            probe = None
            if passing == "probe":
                probe = f"{wish.owner}/{now:.6f}"
                self._keep_breaker(lane.name, begin_probe(breaker, probe, now + wish.probe_s), now)
            return Permits(self._send(lane.name, wish, n, now), probe, wait_s, open_until, now)

    def release(self, lane: Bucket, ended: Sequence[ReleasedPermit]) -> None:
        """Note calls that ended, where no more turns are wanted."""
        with self._transaction():
            self._end(lane.name, ended, self.clock())

    def refresh(self, sent_ids: Sequence[int]) -> float:
        """Count turns as used now that were given a while ago; return the time.

        They were counted all along, so that no window ever holds more than it may.
        """
        with self._transaction():
            now = self.clock()
            self._db.executemany(
                "UPDATE sent SET at = ? WHERE sent_id = ?", [(now, sent_id) for sent_id in sent_ids]
            )
        return now

    def leave(self, lane: Bucket, owner: str) -> None:
        """Take a waiter that wants nothing more out of the queue."""
        with self._transaction():
            self._db.execute("DELETE FROM waiting WHERE lane = ? AND owner = ?", [lane.name, owner])

    def pause(self, lane: Bucket, seconds: float) -> None:
        """Let nobody send for so long, as the provider asked."""
        with self._transaction():
            now = self.clock()
            self._open_lane(lane, now)
            self._db.execute(
                "UPDATE lanes SET paused_until = max(paused_until, ?) WHERE lane = ?",
                [now + seconds, lane.name],
            )

    def breaker(self, lane: str) -> Breaker:
        """Return what is known of a model's health."""
        row = self._db.execute(
            "SELECT state, n_failures, n_trips, open_until, probe, probe_until, last_error"
            " FROM breakers WHERE lane = ?",
            [lane],
        ).fetchone()
        return Breaker(*row) if row else Breaker()

    def _open_lane(self, lane: Bucket, now: float) -> float:
        """Return until when it is paused; forget what no window reaches back to."""
        longest = max((limit.window_s for limit in lane.limits), default=0.0)
        paused_until, purged_at, known_longest = self._db.execute(
            "INSERT INTO lanes VALUES (?, ?, 0, ?) ON CONFLICT (lane) DO UPDATE"
            " SET longest_window_s = max(longest_window_s, excluded.longest_window_s)"
            " RETURNING paused_until, purged_at, longest_window_s",
            [lane.name, longest, now],
        ).fetchone()
        if now - purged_at > 1.0:
            self._db.execute(
                "DELETE FROM sent WHERE lane = ? AND at < ?",
                [lane.name, now - max(60.0, known_longest + 2 * MARGIN_MOST_S)],
            )
            self._db.execute("DELETE FROM waiting WHERE seen_at < ?", [now - SILENT_AFTER_S])
            self._db.execute("UPDATE lanes SET purged_at = ? WHERE lane = ?", [now, lane.name])
        return float(paused_until)

    def _join(self, lane: str, wish: AcquireRequest, now: float) -> None:
        """Note a waiter; its batch starts level with those that are being served already."""
        self._db.execute(
            "INSERT OR REPLACE INTO waiting VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                lane,
                wish.owner,
                wish.batch_id,
                wish.level,
                wish.since,
                wish.n_waiting,
                wish.n_in_flight,
                now,
            ],
        )
        own = self._db.execute(
            "SELECT n, seen_at FROM served WHERE lane = ? AND batch_id = ?", [lane, wish.batch_id]
        ).fetchone()
        if own is None or own[1] < now - SILENT_AFTER_S:
            (level,) = self._db.execute(
                "SELECT coalesce(min(n), 0) FROM served"
                " WHERE lane = ? AND batch_id <> ? AND seen_at >= ?",
                [lane, wish.batch_id, now - SILENT_AFTER_S],
            ).fetchone()
            start = max(level, own[0] if own else 0.0)
            self._db.execute(
                "INSERT OR REPLACE INTO served VALUES (?, ?, ?, ?)",
                [lane, wish.batch_id, start, now],
            )
        else:
            self._db.execute(
                "UPDATE served SET seen_at = ? WHERE lane = ? AND batch_id = ?",
                [now, lane, wish.batch_id],
            )

    def _room(self, lane: Bucket, wish: AcquireRequest, now: float) -> tuple[int, float]:
        """Return how many calls may begin now, and when there is room for another."""
        room, wait_s = 1 << 30, LOOK_AGAIN_S
        for limit in lane.limits:
            window = limit.window_s + min(MARGIN_SHARE * limit.window_s, MARGIN_MOST_S)
            fits, wait = self._room_under(lane.name, limit, now - window, wish)
            room = min(room, fits)
            wait_s = max(wait_s, wait)
        if lane.most_in_flight is not None:
            (n,) = self._db.execute(
                "SELECT coalesce(sum(n_in_flight), 0) FROM waiting WHERE lane = ? AND seen_at >= ?",
                [lane.name, now - SILENT_AFTER_S],
            ).fetchone()
            room = min(room, lane.most_in_flight - n)
        return max(0, room), wait_s

    def _room_under(
        self, lane: str, limit: Rate, since: float, wish: AcquireRequest
    ) -> tuple[int, float]:
        """Return how many calls fit under one limit now, and how long until the next does."""
        what = "count(*)" if limit.unit == "calls" else "coalesce(sum(tokens), 0)"
        (used,) = self._db.execute(
            f"SELECT {what} FROM sent WHERE lane = ? AND at > ?",  # noqa: S608 -- two constants
            [lane, since],
        ).fetchone()
        room = limit.most - used
        if limit.unit == "calls":
            fits = int(room)
        else:
            fits = 0
            for tokens in wish.tokens:
                if tokens > room:
                    break
                fits, room = fits + 1, room - tokens
            if fits == len(wish.tokens):
                # What others' calls cost is not known here: like this waiter's own, at least one.
                fits += max(0, int(room // max(1, wish.tokens[-1])))
        if fits >= len(wish.tokens):
            return fits, 0.0
        oldest = self._db.execute(
            "SELECT at, tokens FROM sent WHERE lane = ? AND at > ? ORDER BY at LIMIT 1",
            [lane, since],
        ).fetchone()
        return fits, max(LOOK_AGAIN_S / 4, oldest[0] - since) if oldest else LOOK_AGAIN_S

    def _share(self, lane: str, wish: AcquireRequest, room: int, now: float) -> int:
        """Return how many of the turns there is room for are this waiter's."""
        wanted = len(wish.tokens)
        rows = self._db.execute(
            "SELECT w.owner, w.batch_id, w.level, w.since, w.n, s.n FROM waiting w"
            " JOIN served s USING (lane, batch_id)"
            " WHERE lane = ? AND w.n > 0 AND w.seen_at >= ? ORDER BY w.owner",
            [lane, now - SILENT_AFTER_S],
        ).fetchall()
        if room >= sum(row[4] for row in rows):
            return wanted
        shares = allocate_permits([QueueEntry(*row) for row in rows], room, now)
        return min(wanted, shares.get(wish.owner, 0))

    def _send(self, lane: str, wish: AcquireRequest, n: int, now: float) -> tuple[int, ...]:
        ids = tuple(
            self._db.execute(
                "INSERT INTO sent (lane, at, tokens) VALUES (?, ?, ?) RETURNING sent_id",
                [lane, now, tokens],
            ).fetchone()[0]
            for tokens in wish.tokens[:n]
        )
        self._db.execute(
            "UPDATE waiting SET n = n - ?, n_in_flight = n_in_flight + ?"
            " WHERE lane = ? AND owner = ?",
            [n, n, lane, wish.owner],
        )
        self._db.execute(
            "UPDATE served SET n = n + ? WHERE lane = ? AND batch_id = ?", [n, lane, wish.batch_id]
        )
        return ids

    def _end(self, lane: str, ended: Sequence[ReleasedPermit], now: float) -> None:
        if not ended:
            return
        before = breaker = self.breaker(lane)
        for call in ended:
            breaker = record_result(breaker, call.outcome, now, probe=call.probe, error=call.error)
            if call.tokens is not None:
                self._db.execute(
                    "UPDATE sent SET tokens = ? WHERE sent_id = ?", [call.tokens, call.sent_id]
                )
        if breaker != before:
            self._keep_breaker(lane, breaker, now)

    def _keep_breaker(self, lane: str, breaker: Breaker, now: float) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO breakers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                lane,
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
